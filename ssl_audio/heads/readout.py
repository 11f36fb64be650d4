"""Encoded tokens → vectors, without parameters: means over tokens, columns, rows."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.structs import Encoded


def mean_tokens(encoded: Encoded) -> Float[Array, "B D"]:
    """Average the patch tokens (those that are valid)."""
    tokens = encoded.tokens
    if tokens.valid is None:
        return jnp.mean(tokens.x, axis=1)
    weight = tokens.valid[..., None].astype(tokens.x.dtype)
    return jnp.sum(tokens.x * weight, 1) / jnp.maximum(jnp.sum(weight, 1), 1)


def over_frequency(encoded: Encoded) -> Float[Array, "B M D"]:
    """Average the tokens of each time column."""
    tokens = encoded.tokens
    return jnp.mean(tokens.x.reshape(tokens.x.shape[0], *tokens.grid, -1), axis=1)


def special_tokens(encoded: Encoded) -> Float[Array, "B D"]:
    """Average the special tokens (cls, and distillation when there is one)."""
    if encoded.special is None:
        raise ValueError("pooling 'special': this encoder has no special tokens; use 'mean'.")
    return jnp.mean(encoded.special, axis=1)


def row_statistics(encoded: Encoded) -> Float[Array, "B D"]:
    """Mean and deviation of each frequency row's (valid) tokens over time: D' = 2 * rows * D."""
    tokens = encoded.tokens
    x = tokens.x.reshape(tokens.x.shape[0], *tokens.grid, -1)
    weight = jnp.ones(x.shape[:3]) if tokens.valid is None else tokens.valid.reshape(x.shape[:3])
    weight = (weight / jnp.maximum(weight.sum(2, keepdims=True), 1))[..., None].astype(x.dtype)
    mean = jnp.sum(weight * x, axis=2, keepdims=True)
    # A constant has deviation 1e-3 and a gradient.
    deviation = jnp.sqrt(jnp.sum(weight * (x - mean) ** 2, axis=2) + 1e-6)
    return jnp.concatenate([mean[:, :, 0], deviation], axis=-1).reshape(x.shape[0], -1)


def mean_of_layer(encoded: Encoded, number: int) -> Float[Array, "B D"]:
    """Average the tokens of one layer; padding counts."""
    return jnp.mean(encoded.layers[number], axis=1)


def grouped_tokens(encoded: Encoded, groups: int) -> Float[Array, "B M D"]:
    """Average runs of consecutive tokens, specials included, the remainder dropped.

    This is the published SSAMBA's "one second" pooling. Tokens are frequency-major, so a group is not a
    slice of time; `frame_tokens` is.
    """
    x = jnp.concatenate([encoded.special, encoded.tokens.x], axis=1)
    size = x.shape[1] // groups
    return jnp.mean(x[:, : size * groups].reshape(x.shape[0], groups, size, -1), axis=2)


def frame_tokens(encoded: Encoded) -> Float[Array, "B M D"]:
    """Regroup the full grid's tokens by time column, [B, columns, rows * D] (SUPERB's convention)."""
    rows, columns = encoded.tokens.grid
    x = encoded.tokens.x.reshape(-1, rows, columns, encoded.tokens.x.shape[-1])
    return jnp.moveaxis(x, 1, 2).reshape(x.shape[0], columns, -1)


def averaged(x: Float[Array, "B N D"], count: int) -> Float[Array, "B K D"]:
    """Return the means of runs of `count` frames; the last run may be shorter."""
    spare = -x.shape[1] % count
    runs = jnp.pad(x, ((0, 0), (0, spare), (0, 0))).reshape(x.shape[0], -1, count, x.shape[2])
    sizes = jnp.full(runs.shape[1], float(count)).at[-1].add(-spare)
    return jnp.sum(runs, axis=2) / sizes[None, :, None]


def all_tokens(encoded: Encoded) -> Float[Array, "B rows columns L D"]:
    """Return every layer's tokens on their grid, with one more row: its mean special token; NaN if none."""
    layers: Any = encoded.layers
    x = jnp.moveaxis(layers, 0, 2)
    x = x.reshape(x.shape[0], *encoded.tokens.grid, *x.shape[2:])
    row = jnp.full((x.shape[0], 1, *x.shape[2:]), jnp.nan, x.dtype)
    if encoded.specials is not None:
        mean = jnp.moveaxis(jnp.mean(encoded.specials, axis=2), 0, 1)
        row = jnp.broadcast_to(mean[:, None, None], row.shape)
    return jnp.concatenate([x, row], axis=1)


def columns_of(encoded: Encoded, layer: int) -> Float[Array, "B M D"]:
    """Return what there is in each time column.

    Args:
      encoded: with its layers.
      layer: whose tokens, see `frame_tokens`; FINAL: those after the last norm; MEAN_OF_SPECIALS: the mean of
        the special tokens after it, in every column; ALL: `all_tokens`, flat, row by row.
    """
    if layer == MEAN_OF_SPECIALS:
        return jnp.repeat(special_tokens(encoded)[:, None], encoded.tokens.grid[1], axis=1)
    if layer == ALL:
        x = jnp.moveaxis(all_tokens(encoded), 2, 1)
        return x.reshape(*x.shape[:2], -1)
    if layer == FINAL:
        return frame_tokens(encoded)
    tokens = dataclasses.replace(encoded.tokens, x=encoded.layers[layer])
    return frame_tokens(dataclasses.replace(encoded, tokens=tokens))


FINAL, MEAN_OF_SPECIALS, ALL = -1, -2, -3  # what `columns_of` takes beside the numbers of layers
POOLS = {"mean": mean_tokens, "special": special_tokens, "stats": row_statistics}
