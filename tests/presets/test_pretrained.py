"""Pretraining that begins from another run's encoder: its architecture, and teachers that follow."""

import json

import encoders
import jax
import numpy as np
import pytest

from ssl_audio import config, config_files
from ssl_audio.inference.load import interface
from ssl_audio.storage.exported import write
from ssl_audio.structs import TrainState
from ssl_audio.train.run import Inference, Run, warm_started

METHODS = ("ssast", "audiomae", "asit", "m2d", "sslam")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return an exported encoder on 64 frames of 32 bins, in patches of 16 x 8."""
    made = encoders.encoder()
    return write(tmp_path_factory.mktemp("encoder"), made.params, made.config)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_architecture_of_what_it_begins_from(name, folder):
    made = config_files.load(f"{name}:laptop,pretrained={folder}")
    run = config.make(Run, made)
    assert run.objective.encoder.width == 32 and run.objective.frontend.bins == 32
    assert run.data.spec()["audio"][0][1] == 10_480 * (2 if name == "asit" else 1) - (
        81 if name == "asit" else 0
    )
    batch = {
        key: jax.ShapeDtypeStruct((2, *shape[1:]), dtype)
        for key, (shape, dtype) in run.data.spec().items()
    }
    params, extra = jax.eval_shape(run.objective.init, jax.random.key(0), batch)
    state = TrainState(
        np.int32(0), *jax.tree.map(lambda s: np.ones(s.shape, s.dtype), (params, {}, extra)), 0
    )
    state = jax.tree.map(jax.device_put, state)
    after = warm_started(run, state)
    want = encoders.encoder().params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, after.params["encoder"], want)
    if name == "asit":  # whose teacher has all of the encoder
        teacher = after.extra["teacher"]["encoder"]
        jax.tree.map(np.testing.assert_array_equal, teacher, want)
        # A step donates the whole state, so that no buffer may be in it twice.
        jax.jit(lambda *both: both, donate_argnums=(0, 1))(after.params["encoder"], teacher)
    if name == "m2d":
        own = after.extra["teacher"]["encoder"]
        assert all(
            np.array_equal(a, b)
            for key in own
            for a, b in zip(jax.tree.leaves(own[key]), jax.tree.leaves(want[key]), strict=True)
        )


def test_what_contradicts_it_is_refused(folder, tmp_path):
    for more in ("size=tiny", "encoder=vit", "patch=16x8"):
        with pytest.raises(ValueError, match="would change nothing: the architecture is that of"):
            config_files.load(f"ssast:{more},pretrained={folder}")
    with pytest.raises(ValueError, match="reads tokens of 'patchify', this config makes those of"):
        config_files.load(f"wav2vec2:laptop,pretrained={folder}")
    cnn = encoders.audio_text(tmp_path / "cnn")
    with pytest.raises(ValueError, match="its encoder is a 'cnn', this method trains a 'stack'"):
        config_files.load(f"ssast:laptop,pretrained={cnn}")


def test_a_warm_start_as_an_override_is_the_same(folder, tmp_path):
    override = f"--config.warm_start.mine.path={folder}"
    made = config_files.load("ssast:laptop", [override])
    same = config_files.load(f"ssast:laptop,pretrained={folder}")
    assert dict(made.warm_start) == {"mine": same.warm_start.encoder}
    assert config.plain(made.objective) == config.plain(same.objective)
    with pytest.raises(ValueError, match="would change nothing"):
        config_files.load("ssast:size=small", [override])
    # Another part of the parameters is the user's own affair.
    other = config_files.load("ssast:laptop", [override, "--config.warm_start.mine.into=audio/"])
    assert other.objective.encoder.width == 192
    assert json.loads(json.dumps(config.plain(other)))["warm_start"]["mine"]["into"] == "audio/"


@pytest.mark.parametrize(
    "config_of",
    [
        "finetune:task=esc10,root=DATA",
        "semi_supervised:task=esc10,root=DATA",
        "semi_supervised:task=esc10,root=DATA,method=deep_co_training",
        "events:clips=synthetic",
        "ssast:laptop",
    ],
)
def test_a_model_ends_clips_as_the_one_that_it_begins_from(config_of, tmp_path):
    """As Whisper's, which hears silence after a clip and leaves its features out."""
    made = encoders.encoder()
    folder = write(tmp_path, made.params, made.config | dict(inference=dict(pad="silence")))
    found = config_files.load(f"{config_of},pretrained={folder}")
    assert config.plain(found.inference) == dict(pad="silence")
    run = config.make(Run, found)
    assert run.warm_start["encoder"].path == str(folder)
    options = json.loads(json.dumps(config.plain(found)))
    model = interface(run.objective)(run.objective, {}, options)
    assert model.pad == "silence"
    assert getattr(model, "fill", "training") == "training"  # as its evaluators fill clips
    assert run.inference == Inference(pad="silence")


@pytest.mark.parametrize("name", ["clap", "slap", "finelap", "uss"])
def test_a_fold_that_esc_does_not_have_is_refused(name):
    place = "task=esc10,root=." if name == "uss" else "root=."
    with pytest.raises(ValueError, match="fold=9"):
        config_files.load(f"{name}:laptop,{place},fold=9")
