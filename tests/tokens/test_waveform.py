"""Samples as tokens, their order in time, and masks of spans."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend.mfcc import Mfcc
from ssl_audio.frontend.raw import Raw
from ssl_audio.structs import Tokens
from ssl_audio.tokens import masking
from ssl_audio.tokens.order import in_time, valid_tokens
from ssl_audio.tokens.waveform import Waveform


def test_the_grid_is_what_comes_out():
    module = Waveform(widths=(4, 4), kernels=(10, 3), strides=(5, 2), norm="layer")
    assert (module.patch, module.stride) == ((1, 20), (1, 10))
    for samples in (20, 29, 30, 101):
        spec = jnp.ones((1, samples, 1))
        tokens = jax.eval_shape(module.init_with_output, jax.random.key(0), spec)[0]
        assert tokens.x.shape[1] == tokens.grid[1] == module.grid(samples)[1]
    with pytest.raises(ValueError, match="19 samples are less than the 20"):
        module.grid(19)
    valid = module.valid(jnp.asarray([19, 20, 40]), 4)
    assert valid.sum(1).tolist() == [0, 1, 3]
    published = Waveform()
    assert (published.patch, published.stride) == ((1, 400), (1, 320))


def test_raw_standardises_what_is_heard_and_nothing_else():
    audio = jnp.asarray([[1.0, 3, 5, 100], [2, 2, 2, 2]])
    x = Raw()(audio, jnp.asarray([3, 4]))[..., 0]
    assert np.allclose(x[0], [-1.2247, 0, 1.2247, 0], atol=1e-3)
    assert np.allclose(x[1], 0)
    assert Raw(frames=6, standardise=False)(audio).shape == (2, 6, 1)


def test_mfcc_of_a_steady_sound_do_not_move():
    period = np.random.default_rng(0).normal(0, 0.1, 160)  # one hop: all frames are the same
    x = Mfcc()(jnp.asarray(np.tile(period, 25)[None], jnp.float32))
    assert x.shape == (1, 23, 39)
    assert np.abs(x[:, :, 13:]).max() < 0.01 < np.abs(x[:, :, :13]).max()
    matrix = Mfcc(bands=13, lifter=0.0)._matrix
    assert np.allclose(matrix.T @ matrix, np.eye(13), atol=1e-5)


def test_tokens_in_time_and_back():
    index = jnp.asarray([[0, 1, 2, 3, 4, 5], [5, 0, 3, 1, 4, 2]])
    tokens = Tokens(index[..., None].astype(jnp.float32), index, (2, 3), index > 0)
    ordered, back = in_time(tokens)
    assert ordered.index.tolist() == [[0, 3, 1, 4, 2, 5]] * 2
    again = jnp.take_along_axis(ordered.x, back[..., None], axis=1)
    assert np.array_equal(again, tokens.x)
    frames = jnp.asarray([[True] * 3 + [False] * 3, [False] * 6])
    assert valid_tokens(frames, tokens, 2)[0].tolist() == [True, True, False] * 2
    assert valid_tokens(frames, tokens, 2)[1].all()


def test_spans_hide_as_much_as_asked_in_runs():
    draw = masking.Spans(count=0.5, length=5)
    index = np.asarray(draw(jax.random.key(0), 20, (2, 40)))
    assert index.shape == (20, 40) and (np.diff(index) > 0).all()
    first = index[:, :20]
    assert np.array_equal(index[:, 20:], first + 40)  # all rows of a column
    runs = (np.diff(first, axis=1) > 1).sum(1) + 1
    assert runs.max() <= 8 and len(np.unique(first[:, 0])) > 1
    rest = masking.others(jnp.asarray(index), 80)
    whole = np.sort(np.concatenate([index, rest], axis=1))
    assert np.array_equal(whole, np.broadcast_to(np.arange(80), (20, 80)))
    x = masking.hide(jnp.ones((1, 3, 2)), jnp.asarray([[1]]), jnp.asarray([5.0, 6.0]))
    assert x[0].tolist() == [[1, 1], [5, 6], [1, 1]]
    with pytest.raises(ValueError, match="length is 0"):
        masking.Spans(0.5, 0)
