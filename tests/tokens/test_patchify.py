import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.tokens.patchify import Patchify, grid, patches, unpatch

SIZES = [((16, 16), (16, 16)), ((16, 16), (10, 10)), ((32, 2), (32, 1)), ((32, 2), (32, 2))]


def spectrogram(frames=41, bins=37):
    return jnp.asarray(np.random.default_rng(0).standard_normal((2, frames, bins)), jnp.float32)


@pytest.mark.parametrize(
    "frames, patch, stride, wanted",
    [
        (1024, (16, 16), (16, 16), (8, 64)),
        (1024, (16, 16), (10, 10), (12, 101)),
        (1024, (128, 2), (128, 2), (1, 512)),
        (1024, (128, 2), (128, 1), (1, 1023)),
        (100, (16, 16), (10, 10), (12, 9)),
    ],
)
def test_grid_of_the_published_models(frames, patch, stride, wanted):
    assert grid(frames, 128, patch, stride) == wanted
    assert Patchify(8, patch, stride).grid(frames, 128) == wanted


@pytest.mark.parametrize("patch, stride", SIZES)
def test_patches_follow_the_written_order(patch, stride):
    spec = spectrogram()
    rows, columns = grid(41, 37, patch, stride)
    got = np.asarray(patches(spec, patch, stride))
    assert got.shape == (2, rows * columns, patch[0] * patch[1])
    for row in range(rows):
        for column in range(columns):
            low, start = row * stride[0], column * stride[1]
            cell = spec[:, start : start + patch[1], low : low + patch[0]]
            wanted = np.asarray(cell).transpose(0, 2, 1).reshape(2, -1)
            np.testing.assert_array_equal(got[:, row * columns + column], wanted)


@pytest.mark.parametrize("patch, stride", SIZES)
def test_embeds_like_a_convolution(patch, stride):
    spec, module = spectrogram(), Patchify(6, patch, stride)
    variables = module.init(jax.random.key(0), spec)
    assert jax.tree.map(jnp.shape, variables) == {
        "params": {"kernel": (patch[0] * patch[1], 6), "bias": (6,)}
    }
    tokens = jax.jit(module.apply)(variables, spec)
    wanted = jax.lax.conv_general_dilated(
        spec.transpose(0, 2, 1)[..., None],
        variables["params"]["kernel"].reshape(*patch, 1, 6),
        stride,
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    wanted = wanted.reshape(2, -1, 6) + variables["params"]["bias"][None, None]
    np.testing.assert_allclose(tokens.x, wanted, atol=1e-5)
    assert tokens.grid == grid(41, 37, patch, stride) and tokens.valid is None
    np.testing.assert_array_equal(tokens.index, np.tile(np.arange(wanted.shape[1]), (2, 1)))


def test_initial_parameters_are_uniform_by_fan_in():
    params = Patchify(200).init(jax.random.key(0), spectrogram())["params"]
    for value in params.values():
        assert np.abs(value).max() <= 1 / 16
        assert value.std() == pytest.approx(1 / 16 / 3**0.5, rel=0.1)
        assert abs(value.mean()) < 0.01


def test_compute_dtype():
    module = Patchify(6, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), spectrogram())
    assert variables["params"]["kernel"].dtype == jnp.float32
    assert module.apply(variables, spectrogram()).x.dtype == jnp.bfloat16


@pytest.mark.parametrize("patch", [(16, 16), (37, 2), (4, 8)])
def test_unpatch_inverts_patches(patch):
    spec = spectrogram()
    rows, columns = grid(41, 37, patch, patch)
    back = unpatch(patches(spec, patch, patch), (rows, columns), patch)
    np.testing.assert_array_equal(back, spec[:, : columns * patch[1], : rows * patch[0]])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="smaller than one patch"):
        Patchify(6, patch=(16, 64)).init(jax.random.key(0), spectrogram())
    with pytest.raises(ValueError, match="wanted 2 x 3 patches of 4 x 4"):
        unpatch(jnp.zeros((1, 5, 16)), (2, 3), (4, 4))
