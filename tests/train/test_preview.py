"""The preview of a mesh: its numbers, and which collectives each layout compiles to."""

import argparse
import math

import pytest
from published import load
from reference import ROOT

from ssl_audio import config
from ssl_audio.train import preview

FRAMES, BINS, CLIPS, SAMPLES = 64, 128, 8, 10_480


def options(name="ssast", **sharding):
    made = config.plain(load(ROOT / f"configs/{name}.py", "runlocal"))
    made["sharding"] |= {"max_replicated": 0.5} | sharding
    return made


def test_numbers_without_compiling():
    alone = preview.preview(options(data=1), compiled=False)
    spread = preview.preview(options(data=1, fsdp=8), compiled=False)
    assert alone.devices == 1 and spread.devices == 8
    count = sum(alone.parameters.values())
    assert alone.parameters == spread.parameters and set(alone.parameters) >= {
        "encoder",
        "tokenizer",
    }
    assert 12 * count < alone.state_bytes < 12 * count + 100, "float32 weights and two moments"
    assert spread.state_bytes < alone.state_bytes / 4
    assert alone.batch_bytes == CLIPS * (4 * SAMPLES + 4) == 8 * spread.batch_bytes
    assert alone.flops == spread.flops > 6 * count * CLIPS
    assert alone.peak_bytes is None


@pytest.mark.multi
@pytest.mark.parametrize("name", ["ssast", "ssamba"])
def test_data_parallelism_exchanges_gradients_only(name):
    found = preview.preview(options(name, data=8))
    assert set(found.traffic.kinds) == {"all-reduce"} and not found.traffic.uncounted
    # Each parameter's gradient once, those of the loop over the layers as often as it turns.
    assert found.traffic.kinds["all-reduce"][1] == pytest.approx(
        4 * sum(found.parameters.values()), rel=0.05
    )
    assert found.peak_bytes > found.state_bytes


@pytest.mark.multi
@pytest.mark.parametrize(
    "name",
    "audiojepa audiomae bat dasheng data2vec eat hubert m2d openbeats passt slap wav2vec2 wavjepa".split(),
)
def test_clips_stay_where_they_are(name):
    """Masks, gathers, grouped convolutions: nothing of a clip is needed on another device."""
    kinds = preview.preview(options(name, data=8)).traffic.kinds
    assert set(kinds) == {"all-reduce"}, kinds


@pytest.mark.multi
def test_one_device_exchanges_nothing():
    assert preview.preview(options(data=1)).traffic.kinds == {}


@pytest.mark.multi
def test_a_contrastive_loss_gathers_embeddings_only():
    made = options("clap", data=8)
    found = preview.preview(made)
    width, clips = 64, made["data"]["batch_size"]
    # Both sides in both passes, and random keys; neither clips nor frames.
    assert found.traffic.kinds["all-gather"][1] < 4 * (4 * clips * width) + 1000


@pytest.mark.multi
@pytest.mark.parametrize("mesh", [dict(data=1, fsdp=8), dict(data=2, fsdp=4)], ids=str)
def test_fsdp_gathers_parameters_and_never_the_batch(mesh):
    found = preview.preview(options(**mesh))
    assert found.traffic.kinds["all-gather"][0] > 0
    widest = found.traffic.widest
    largest = math.prod(int(n) for n in widest.split("[")[1][:-1].split(","))
    assert largest < CLIPS * SAMPLES / 4 and largest < CLIPS * FRAMES * BINS, widest


def test_the_mesh_is_parsed():
    assert preview.axes("data=8,fsdp=4") == {"data": 8, "fsdp": 4}
    for wrong in ("data", "data=0", "pipeline=2", "data=x"):
        with pytest.raises(argparse.ArgumentTypeError, match="wanted AXIS=NUMBER"):
            preview.axes(wrong)
