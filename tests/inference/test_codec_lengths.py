"""A codec's codes and sound do not depend on what sound is padded to, and few programs do for all lengths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.inference.codec import CodecModel

RATE = 8000
SHAPE = dict(channels=2, units=1, kernel=7, last_kernel=5, recurrent=1)
LENGTHS = (1, 15, 36, 53)  # samples; 6 are a token


def made(**options):
    strides = (2, 3)
    shape = SHAPE | options
    options = dict(
        kind="codec",
        frontend=dict(kind="raw", rate=RATE, standardise=False),
        tokenizer=dict(kind="seanet", width=6, strides=strides, **shape),
        encoder=dict(kind="identity"),
        quantizer=dict(kind="residual", books=3, codes=32, width=6),
        decoder=dict(kind="seanet", strides=strides[::-1], **shape),
    )
    objective = config.build(options, "objectives")
    batch = dict(audio=np.zeros((1, 480), np.float32), length=np.full(1, 480, np.int32))
    batch = jax.tree.map(jax.numpy.asarray, batch)
    params, _ = jax.jit(objective.init)(jax.random.key(0), batch)
    entries = dict(audio=dict(kind="entries:Audio", samples=480))
    return CodecModel(objective, params, dict(data=dict(rate=RATE, entries=entries)))


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        pytest.param(dict(causal=False), marks=pytest.mark.slow),
        pytest.param(dict(causal=False, pad="constant"), marks=pytest.mark.slow),
    ],
)
def test_padding_changes_nothing(options):
    codec = made(**options)
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


def test_group_norms_hear_padding_and_get_none():
    codec = made(norm="group")
    sound = (0.5 * np.random.default_rng(0).standard_normal(100)).astype(np.float32)
    codes, _ = codec._codes(codec._on_device, sound[None, :, None])
    np.testing.assert_array_equal(codec.encode(sound, RATE).chunks[0], codes[0])
    assert len(codec.decode(codec.encode(sound, RATE))) == 100
