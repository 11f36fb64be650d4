"""Positions by axes, brought to other lengths by a spline; blocks of video; stretches of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.structs import Tokens
from ssl_audio.tokens.positions import Axes, spline
from ssl_audio.tokens.voxels import VoxelPatches
from ssl_audio.tokens.waveform import WavePatches


@pytest.mark.parametrize(("old", "new"), [(8, 8), (8, 13), (13, 5), (2, 7), (3, 4)])
def test_the_spline_is_the_natural_cubic_one(old, new):
    from scipy.interpolate import CubicSpline

    table = np.random.default_rng(0).normal(size=(old, 3))
    kind = "natural" if old > 2 else "not-a-knot"
    curve = CubicSpline(np.arange(old), table, bc_type=kind)
    where = np.arange(new) * old / new
    beyond = np.maximum(where - (old - 1), 0)[:, None]
    expected = curve(np.minimum(where, old - 1)) + beyond * curve(old - 1, 1)
    assert np.allclose(spline(old, new) @ table, expected, atol=1e-5)
    assert np.allclose(spline(old, new).sum(1), 1, atol=1e-5)  # a constant stays one


def tokens(grid, width=6):
    count = grid[0] * grid[1]
    index = jnp.arange(count, dtype=jnp.int32)[None]
    return Tokens(x=jnp.zeros((1, count, width)), index=index, grid=grid)


def test_each_axis_adds_its_row():
    axes = Axes(sizes=(2, 3, 4))
    given = tokens((6, 4))
    variables = axes.init(jax.random.key(0), given)
    found, special = axes.apply(variables, given, 1)
    assert special == 0.0
    p = variables["params"]
    for y, x, t in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        row = p["axis_0"][y] + p["axis_1"][x] + p["axis_2"][t]
        expected = (row - row.mean()) / np.sqrt(row.var() + 1e-6)
        assert np.allclose(found[0, (y * 3 + x) * 4 + t], expected, atol=1e-5)
    larger, _ = axes.apply(variables, tokens((24, 8)))
    assert larger.shape == (1, 192, 6)
    with pytest.raises(ValueError, match="a picture of the same shape"):
        axes.apply(variables, tokens((7, 4)))


def test_blocks_of_video_are_those_of_a_convolution():
    video = jax.random.normal(jax.random.key(0), (2, 5, 7, 6, 3))
    made = VoxelPatches(width=4, patch=(2, 3, 2))
    variables = made.init(jax.random.key(1), video)
    found = made.apply(variables, video, jnp.array([[True] * 5, [True] * 2 + [False] * 3]))
    assert found.grid == (6, 2)
    kernel = variables["params"]["kernel"].reshape(2, 3, 2, 3, 4)
    expected = jax.lax.conv_general_dilated(
        video, kernel, (2, 3, 2), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    expected = jnp.moveaxis(expected, 1, 3).reshape(2, 12, 4)  # places first, then time
    assert np.allclose(found.x, expected, atol=1e-4)
    assert found.valid[0].all() and np.array_equal(found.valid[1], [True, False] * 6)
    with pytest.raises(ValueError, match="do not fill a block"):
        made.apply(variables, video[:, :1])


def test_stretches_of_samples():
    made = WavePatches(width=4, size=16)
    spec = jax.random.normal(jax.random.key(0), (3, 70, 1))
    variables = made.init(jax.random.key(1), spec)
    found = made.apply(variables, spec, jnp.array([70, 40, 3]))
    kernel, bias = variables["params"]["dense"]["kernel"], variables["params"]["dense"]["bias"]
    assert found.x.shape == (3, 4, 4)
    assert np.allclose(found.x[1, 2], spec[1, 32:48, 0] @ kernel + bias, atol=1e-5)
    assert np.asarray(found.valid).tolist() == [
        [True] * 4,
        [True, True, False, False],
        [True] + [False] * 3,
    ]
