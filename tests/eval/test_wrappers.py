"""Encoders for X-ARES and XARES-LLM, and models for mteb: their interfaces, without their packages."""

import sys
import types
from typing import Any

import encoders
import numpy as np
import pytest

from ssl_audio.eval import maeb, xares
from ssl_audio.inference.load import load

RATE = 16_000


@pytest.fixture(scope="module")
def encoder():
    return encoders.encoder(frames=24)


def noise(*shape):
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def test_columns_of_a_batch_are_those_of_each_clip_and_padding_is_masked(encoder):
    audio = noise(3, 9000)
    found, mask = xares.columns(encoder, audio, RATE, -1, np.array([9000, 4000, 0]))
    assert found.shape == (3, mask.shape[1], encoder.rows * encoder.width)
    for i, end in enumerate((9000, 4000, 1)):
        alone = encoder.frames(audio[i, :end], RATE)[0]
        count = mask[i].sum()
        np.testing.assert_array_equal(mask[i], np.arange(mask.shape[1]) < count)
        np.testing.assert_array_equal(found[i, :count], alone)
        assert not found[i, count:].any()
    whole, every = xares.columns(encoder, audio, RATE, 0)
    assert every.all()
    np.testing.assert_array_equal(whole[2], encoder.frames(audio[2], RATE, layer=0)[0])


def test_sound_at_another_rate_is_resampled(encoder):
    found, _ = xares.columns(encoder, noise(1, 4000), 8000, -1)
    assert found.shape[1] == encoder.frames(noise(8000), RATE)[0].shape[0]


@pytest.mark.parametrize(
    ("run", "name"),
    [("runs/ssamba-2", "Ssamba2Encoder"), ("runs/3_a/", "Run3AEncoder"), ("x", "XEncoder")],
)
def test_the_class_is_named_after_the_folder(run, name):
    assert xares.named(run) == name and name.isidentifier()


def test_a_name_of_another_form_and_a_missing_package_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    with pytest.raises(ValueError, match="ends in 'Encoder'"):
        xares.encoder("runs/a", name="Model")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RuntimeError, match="X-ARES needs torch"):
        xares.encoder("runs/a")


class Inputs(list):
    """Batches as a `DataLoader` of mteb gives them."""

    collate_fn: Any = list

    def __init__(self, rows, size=2):
        self.dataset = types.SimpleNamespace(features=dict.fromkeys(rows[0]))
        self.rows, self.size = rows, size

    def __iter__(self):
        starts = range(0, len(self.rows), self.size)
        return (self.collate_fn(self.rows[k : k + self.size]) for k in starts)


@pytest.fixture
def mteb(monkeypatch):
    """Stand in for the package: `ModelMeta.create_empty` keeps what it is given."""
    made: Any = types.ModuleType("mteb.models")
    made.ModelMeta = types.SimpleNamespace(
        create_empty=lambda values: types.SimpleNamespace(**values)
    )
    monkeypatch.setitem(sys.modules, "mteb", types.ModuleType("mteb"))
    monkeypatch.setitem(sys.modules, "mteb.models", made)


def test_mteb_gets_the_vectors_of_embed_whatever_the_rate_and_channels(encoder, mteb):
    model = maeb.Maeb(encoder, "a", -1, "mean", False)
    sounds = [(noise(3000), 16_000), (noise(2, 5000), 8000), (noise(700), 16_000)]
    rows = [dict(audio=dict(array=x, sampling_rate=rate), label=0) for x, rate in sounds]
    found = model.encode(Inputs(rows), task_metadata=None, hf_split="test", hf_subset="default")
    expected = [encoder.embed(np.atleast_2d(x).mean(axis=0), rate) for x, rate in sounds]
    np.testing.assert_array_equal(found, expected)
    assert model.mteb_model_meta.name == "ssl_audio/a"
    assert model.mteb_model_meta.modalities == ["audio"]
    with pytest.raises(ValueError, match="it takes audio"):
        model.encode(Inputs([dict(text="a")]))


def test_words_and_sound_share_a_space_for_mteb(mteb, tmp_path):
    folder = encoders.audio_text(tmp_path / "b")
    model = maeb.model(str(tmp_path / "b"))
    joint = load(folder)
    sound = dict(audio=dict(array=noise(3000), sampling_rate=joint.rate))
    np.testing.assert_array_equal(
        model.encode(Inputs([sound])), joint.embed_audio(noise(3000), joint.rate)[None]
    )
    words = Inputs([dict(text="a bell"), dict(text="rain")])
    np.testing.assert_array_equal(model.encode(words), joint.embed_text(["a bell", "rain"]))
    assert model.mteb_model_meta.modalities == ["audio", "text"]
    assert model.mteb_model_meta.name == "ssl_audio/b"
