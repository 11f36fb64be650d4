"""A codec's codes and sound do not depend on what sound is padded to, and few programs do for all lengths."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from encoders import drawn

from ssl_audio import config
from ssl_audio.inference.codec import CodecModel
from ssl_audio.inference.model import silence
from ssl_audio.presets.codec import dac

RATE = 8000
SHAPE = dict(channels=2, units=1, kernel=7, last_kernel=5, recurrent=1)
LENGTHS = (1, 15, 36, 53)  # samples; 6 are a token
STRIDES = (2, 3)


def made(**options):
    shape = SHAPE | options
    options = dict(
        kind="codec",
        frontend=dict(kind="raw", rate=RATE, standardise=False),
        tokenizer=dict(kind="seanet", width=6, strides=STRIDES, **shape),
        encoder=dict(kind="identity"),
        quantizer=dict(kind="residual", books=3, codes=32, width=6),
        decoder=dict(kind="seanet", strides=STRIDES[::-1], **shape),
    )
    return built(options)


def of_dac(**options):
    made = dac(
        rate=RATE, strides=STRIDES, channels=2, decoder_channels=2, books=3, codes=32, inner=4,
        spectra=(), periods=(), windows=(), widths=(), filters=2,
    )  # fmt: skip
    for name in ("tokenizer", "decoder"):
        made[name] |= options
    return built(made | dict(zeroed=""))  # biases turn padding into something that is heard


def built(options):
    objective = config.build(options, "objectives")
    params = drawn(objective, silence(480))
    entries = dict(audio=dict(kind="entries:Audio", samples=480))
    return CodecModel(objective, params, dict(data=dict(rate=RATE, entries=entries)))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (made, dict()),
        (of_dac, dict()),
        pytest.param(made, dict(causal=False), marks=pytest.mark.slow),
        pytest.param(made, dict(causal=False, pad="constant"), marks=pytest.mark.slow),
        (made, dict(causal=False, norm="group")),
        pytest.param(of_dac, dict(norm="group"), marks=pytest.mark.slow),
    ],
)
def test_padding_changes_nothing(kind, options):
    codec = kind(**options)
    exact = dataclasses.replace(codec)
    rng = np.random.default_rng(0)
    tokenizer, weights = codec.objective.tokenizer, {"params": codec.params["tokenizer"]}
    for samples in LENGTHS[1::2]:  # finer than codes are
        sound = rng.standard_normal((1, samples, 1)).astype(np.float32)
        whole = tokenizer.apply(weights, jnp.asarray(sound)).x
        padded = jnp.pad(sound, ((0, 0), (0, 72 - samples), (0, 0)))
        told = tokenizer.apply(weights, padded, jnp.full(1, samples, jnp.int32)).x
        np.testing.assert_allclose(told[:, : whole.shape[1]], whole, atol=2e-6)
    for samples in LENGTHS:
        sound = (0.5 * rng.standard_normal(samples)).astype(np.float32)
        found = codec.encode(sound, RATE)
        codes, _ = exact._codes(exact._on_device, sound[None, :, None])
        np.testing.assert_array_equal(found.chunks[0], codes[0])
        whole = exact._decoded(exact._on_device, codes, np.ones(1, np.float32))[0, :samples, 0]
        np.testing.assert_allclose(codec.decode(found), whole, atol=2e-6)
    assert codec._codes_of._cache_size() == len({1, 3, 6, 12})
    assert codec._sound_of._cache_size() == codec._codes_of._cache_size()


def test_normalised_chunks_need_no_more_programs_than_a_chunk_has_tokens():
    codec = made(causal=False, norm="group")
    codec = dataclasses.replace(
        codec, objective=dataclasses.replace(codec.objective, normalise=True, chunk=30, step=27)
    )
    rng = np.random.default_rng(1)
    for samples in (5, 20, 31, 70, 100):
        sound = (0.1 * rng.standard_normal(samples)).astype(np.float32)
        found = codec.encode(sound, RATE)
        for i, (codes, scale) in enumerate(zip(found.chunks, found.scales, strict=True)):
            part = sound[None, 27 * i : 27 * i + 30, None]
            wanted, loud = codec._codes(codec._on_device, part)
            np.testing.assert_array_equal(codes, wanted[0])
            np.testing.assert_allclose(scale, loud[0], rtol=1e-6)
            whole = codec._decoded(codec._on_device, wanted, loud)[0]
            np.testing.assert_allclose(codec._sounded(codes, scale)[0], whole, atol=2e-6)
    assert codec._codes_of._cache_size() <= len({1, 2, 3, 4, 5})
