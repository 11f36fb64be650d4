"""Pictures as tokens, and image weights brought to spectrograms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.tokens.patchify import patches
from ssl_audio.tokens.pixels import ImagePatches, Pixels, sound_kernel, sound_positions
from ssl_audio.tokens.positions import stretched
from ssl_audio.tokens.vectors import Vectors

pixels: Any = Pixels()
vectors: Any = Vectors()
RNG = np.random.default_rng(0)


def test_patches_are_a_strided_convolution():
    image = jnp.asarray(RNG.normal(size=(2, 9, 13, 3)), jnp.float32)
    module: Any = ImagePatches(width=5, patch=4, bias=True)
    params: Any = module.init(jax.random.key(0), image)
    tokens = module.apply(params, image)
    kernel = params["params"]["kernel"]
    wanted = jax.lax.conv_general_dilated(
        image, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert tokens.grid == (2, 3)
    assert np.allclose(tokens.x, wanted.reshape(2, 6, 5), atol=1e-5)
    with pytest.raises(ValueError, match="smaller than a patch"):
        module.apply(params, image[:, :3])


def test_pixels_are_tokens_row_by_row():
    image = jnp.asarray(RNG.normal(size=(1, 2, 3, 3)), jnp.float32)
    tokens = pixels.apply({}, image)
    assert tokens.grid == (2, 3) and np.array_equal(tokens.x[0, 4], image[0, 1, 1])


def test_vectors_are_tokens_and_keep_their_padding():
    one = vectors.apply({}, jnp.ones((2, 3)))
    assert one.x.shape == (2, 1, 3) and one.valid is None
    valid = jnp.array([[True, True, False, False]] * 2)
    assert vectors.apply({}, jnp.ones((2, 4, 3)), valid).valid is valid


def test_a_table_on_its_own_grid_is_the_same_and_a_constant_stays():
    table = RNG.normal(size=(20, 3)).astype(np.float32)
    assert np.array_equal(stretched(table, (4, 5), (4, 5)), table)
    flat = np.full((49, 2), 0.7, np.float32)
    assert np.allclose(sound_positions(flat, (7, 7), (5, 61)), 0.7, atol=1e-6)
    # Of a plane only half-pixel centres count: rows 0.5 and 2.5, columns 1/3, 2 and 11/3.
    ramp = np.arange(20, dtype=np.float32)[:, None]
    wanted = [[2.8333333, 4.5, 6.1666665], [12.833333, 14.5, 16.166666]]
    assert np.allclose(stretched(ramp, (4, 5), (2, 3)).reshape(2, 3), wanted, atol=1e-5)


def test_rows_of_pictures_become_time():
    table = np.arange(6, dtype=np.float32)[:, None]  # 3 rows x 2 columns
    found = np.asarray(sound_positions(table, (3, 2), (2, 3))).reshape(2, 3)
    assert np.array_equal(found, [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize(("channels", "shown"), [("sum", 1.0), ("mean", 1 / 3)])
def test_sound_as_a_picture_gives_what_the_picture_gives(channels, shown):
    """A spectrogram, its time as rows, through the picture's kernel and through ours."""
    spec = jnp.asarray(RNG.normal(size=(1, 8, 4)), jnp.float32)  # 8 frames, 4 bins
    image = jnp.repeat(spec[..., None], 3, axis=-1) * shown
    module: Any = ImagePatches(width=6, patch=4)
    params: Any = module.init(jax.random.key(1), image)
    wanted = module.apply(params, image).x
    kernel = sound_kernel(params["params"]["kernel"], (4, 4), channels)
    got = patches(spec, (4, 4), (4, 4)) @ kernel
    assert np.allclose(got, wanted, atol=1e-5)


def test_another_patch_keeps_the_answer_to_a_constant():
    kernel = RNG.normal(size=(8, 8, 3, 5)).astype(np.float32)
    same = sound_kernel(kernel, (8, 8))
    assert np.allclose(same.reshape(8, 8, 5), kernel.mean(axis=2).swapaxes(0, 1), atol=1e-6)
    constant = np.broadcast_to(kernel[:1, :1], kernel.shape)
    larger = sound_kernel(constant, (16, 4))
    assert np.allclose(np.sum(larger, 0), np.sum(sound_kernel(constant, (8, 8)), 0), atol=1e-3)
    with pytest.raises(ValueError, match="mean, sum"):
        sound_kernel(kernel, (8, 8), "red")
