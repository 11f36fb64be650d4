"""A clip's features have the same bits in every batch; and one clip costs about the work of one."""

import dataclasses

import encoders
import jax
import numpy as np
import pytest

from ssl_audio import load
from ssl_audio.inference import encoder as encoder_file
from ssl_audio.inference import windows
from ssl_audio.inference.encoder import Encoder

RATE = 16_000
# Shorter than an analysis window; of one, of several columns; as long as the training clips; longer.
SECONDS = (
    0.02,
    0.05,
    0.11,
    0.3,
    0.5,
    0.64,
    0.9,
    1.12,
    1.12,
    1.12,
    1.3,
    2.5,
    0.11,
    0.5,
    1.12,
    1.12,
    1.12,
)


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return np.asarray(0.1 * rng.standard_normal(round(seconds * RATE)), np.float32)


CLIPS = [noise(seconds, seed) for seed, seconds in enumerate(SECONDS)]


def same_bits(embed):
    """Embed clips alone and in several batches; return the vectors of all."""
    alone = np.stack([embed([clip])[0] for clip in CLIPS])
    rng = np.random.default_rng(0)
    for count in (2, 3, 16, 17):
        for _ in range(2):
            batch = rng.permutation(len(CLIPS))[:count]
            found = embed([CLIPS[i] for i in batch])
            assert np.array_equal(found, alone[batch]), f"{count} clips"
    assert np.array_equal(embed([CLIPS[8]] * 17), np.stack([alone[8]] * 17))
    assert len({row.tobytes() for row in alone}) == len(CLIPS)
    return alone


@pytest.fixture(scope="module", params=["cnn", "htsat", "vit"])
def audio_text(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return load(encoders.audio_text(folder / "model", request.param))


@pytest.mark.parametrize("frames", [24, 112, 224])
@pytest.mark.parametrize("mixer", ["attention", "mamba"])
def test_encoders(mixer, frames):
    encoder = encoders.encoder(mixer=mixer, frames=frames)
    same_bits(lambda clips: encoder.embed(clips, RATE))


def test_encoders_whose_clips_are_padded_as_in_training():
    encoder = encoders.encoder(frames=112)
    same_bits(lambda clips: encoder.embed(clips, RATE, pad="training"))


def test_batches_of_an_accelerator(monkeypatch):
    """There a program takes several windows; the last ones of a call are repeated to fill it."""
    encoder = encoders.encoder(frames=24)
    one_by_one = encoder.embed(CLIPS, RATE)
    for count in (5, 16):
        monkeypatch.setattr(windows, "windows_per_call", lambda most, seconds, n=count: n)
        found = same_bits(lambda clips: encoder.embed(clips, RATE))
        np.testing.assert_allclose(found, one_by_one, atol=1e-5)


def test_audio_and_text(audio_text):
    same_bits(lambda clips: audio_text.embed_audio(clips, RATE))
    same_bits(lambda clips: audio_text.embed(clips, RATE))
    texts = ["rain", "a dog", "rain on a roof", *(f"sound {i}" for i in range(14))]
    alone = np.stack([audio_text.embed_text(text) for text in texts])
    for count in (2, 3, 16, 17):
        assert np.array_equal(audio_text.embed_text(texts[-count:]), alone[-count:])


@pytest.mark.parametrize(
    ("backend", "seconds", "count"),
    [
        ("cpu", 10.24, 1),
        ("cpu", 2.1, 1),
        ("cpu", 1.0, 4),
        ("cpu", 0.3, 13),
        ("cpu", 0.01, 16),
        ("gpu", 0.3, 16),
        ("gpu", 10.24, 16),
        ("gpu", 41.0, 3),
        ("tpu", 1000.0, 1),
    ],
)
def test_how_many_windows_a_program_takes(monkeypatch, backend, seconds, count):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert windows.windows_per_call(16, seconds) == count
    assert windows.windows_per_call(1, seconds) == 1


def test_one_clip_is_not_encoded_sixteen_times(monkeypatch):
    seen = []
    once = encoder_file._program

    def watched(objective, layers):
        program = once(objective, layers)
        return lambda params, audio, length: (
            seen.append(len(audio)) or program(params, audio, length)
        )

    monkeypatch.setattr(encoder_file, "_program", watched)
    encoder = encoders.encoder(frames=224)
    assert isinstance(encoder, Encoder) and dataclasses.replace(encoder).batch_size == 16
    encoder.embed(noise(2.1), RATE)
    assert seen == [1]
