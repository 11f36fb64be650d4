"""No NaN goes in or comes out without a word, and no sound in another range than [-1, 1]."""

import dataclasses

import encoders
import jax
import numpy as np
import pytest
import soundfile

from ssl_audio import startup
from ssl_audio.inference import embed
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.load import load

RATE = 16_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    encoders.save(encoders.encoder(frames=24), workdir, 1)
    return workdir


def noise(samples=3000):
    return (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("scale", "rate", "message"),
    [
        (
            32768.0,
            RATE,
            r"waveform: samples reach .*, wanted .* \[-1, 1\]: in the range of int16\? .* 32768",
        ),
        (2.0**31, RATE, "range of int32"),
        (1e30, RATE, "damaged"),
        (1.0, 16, "sample_rate: got a sampling rate of 16 Hz.*did you mean 16000"),
        (1.0, 44.1, "did you mean 44100"),
        (1.0, 2, "sampling rate of 2 Hz, wanted 1000 to 1500000 Hz.$"),
    ],
)
def test_arrays_in_another_range_or_unit_are_refused_with_the_likely_cause(
    run, scale, rate, message
):
    encoder = load(run)
    for call in (encoder.embed, encoder.frames):
        with pytest.raises(ValueError, match=message):
            call(scale * noise(), rate)


def test_int16_of_either_byte_order(run):
    encoder = load(run)
    audio = (32768 * noise()).astype(np.int16)
    expected = encoder.embed(audio, RATE)
    np.testing.assert_array_equal(encoder.embed(audio.astype(">i2"), RATE), expected)
    swapped = (audio / np.float32(32768)).astype(">f4")
    np.testing.assert_array_equal(encoder.embed(swapped, RATE), expected)


def test_a_parameter_that_is_nan_is_named_when_it_is_loaded(tmp_path):
    model = encoders.encoder(frames=24)
    params = jax.tree.map(np.array, model.params)
    path, leaf = jax.tree_util.tree_leaves_with_path(params)[3]
    leaf.flat[-1] = np.nan
    name = "/".join(part.key for part in path)
    encoders.save(dataclasses.replace(model, params=params), tmp_path, 1)
    with pytest.raises(ValueError, match=f"parameter {name}: NaN or infinite values"):
        load(tmp_path)


def test_features_that_are_not_finite_are_refused(run):
    encoder = load(run)
    huge = jax.tree.map(lambda x: np.full_like(x, 3e38), encoder.params)
    broken = dataclasses.replace(encoder, params=huge)
    for call in (broken.embed, broken.frames):
        with pytest.raises(ValueError, match="clip 0: the model's features are NaN or infinite"):
            call(noise(), RATE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "use_compilation_cache", lambda: None)
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", noise(3000 + 100 * ord(name)), RATE)
    return tmp_path


def call(run, folder, *more):
    output = folder / "out.npz"
    embed.main(["--checkpoint", str(run), "--output", str(output), *more, str(folder)])
    return np.load(output)


def test_a_row_that_is_not_finite_is_reported_and_not_written(run, folder, monkeypatch, capsys):
    original = Encoder.stream

    def stream(self, clips, *args, **more):
        for number, found in original(self, clips, *args, **more):
            yield number, found * np.nan if number == 1 else found

    monkeypatch.setattr(Encoder, "stream", stream)
    found = call(run, folder)
    assert [name[-5:] for name in found["ids"]] == ["a.wav", "c.wav"]
    assert np.isfinite(found["embedding"]).all()
    assert "b.wav: its embedding is not finite" in capsys.readouterr().out
    with pytest.raises(ValueError, match="its embedding is not finite"):
        call(run, folder, "--max-bad-share", "0")


def test_embed_says_what_was_left_out_and_what_averaging_lost(run, folder, capsys):
    (folder / "x.nothing").touch()
    stereo = np.stack([noise(), -noise()], 1)
    soundfile.write(folder / "d.wav", stereo, RATE, subtype="FLOAT")
    average = call(run, folder)["embedding"][3]
    out = capsys.readouterr().out
    assert "left out: 1 .nothing" in out
    assert "averaging channels loses more than 15 dB in 1 of these files: --channels loudest" in out
    first = call(run, folder, "--channels", "first")["embedding"][3]
    np.testing.assert_allclose(first, load(run).embed(noise(), RATE), atol=1e-5)
    assert np.abs(first - average).max() > 1e-3
