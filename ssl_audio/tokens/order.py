"""The order of tokens in a sequence: patches come row by row, some models read them column by column."""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.structs import Tokens


def in_time(tokens: Tokens) -> tuple[Tokens, Int[Array, "B N"]]:
    """Return the tokens with time as the slow axis, and where each of the given ones went."""
    rows, columns = tokens.grid
    when = tokens.index % columns * rows + tokens.index // columns
    order = jnp.argsort(when, axis=1)
    return reorder(tokens, order), jnp.argsort(order, axis=1)


def reorder(tokens: Tokens, where: Int[Array, "B K"]) -> Tokens:
    """Return the tokens at places `where` of the sequence; they keep their positions in the grid."""
    return dataclasses.replace(
        tokens,
        x=jnp.take_along_axis(tokens.x, where[..., None], axis=1),
        index=jnp.take_along_axis(tokens.index, where, axis=1),
        valid=None if tokens.valid is None else jnp.take_along_axis(tokens.valid, where, axis=1),
    )


def valid_tokens(valid: Bool[Array, "B T"], tokens: Tokens, frames: int) -> Bool[Array, "B N"]:
    """Return which tokens begin before the end of their clip; all of them, if none does.

    Args:
      valid: of the frames that they were cut from.
      tokens: their grid tells the time column.
      frames: from one column to the next.
    """
    start = tokens.index % tokens.grid[1] * frames
    found = jnp.take_along_axis(valid, start, axis=1)
    return found | ~jnp.any(found, axis=1, keepdims=True)


def put(into: Array, index: Int[Array, "B K"], values: Array) -> Array:
    """Return `into` [B, N, …] with `values` [B, K, …] at the places of each row.

    Row by row: with the number of the row as another index, devices that hold some rows each would gather
    the indices and values of all.
    """
    return jax.vmap(lambda row, places, new: row.at[places].set(new))(into, index, values)


def scatter(
    x: Float[Array, "B K D"],
    index: Int[Array, "B K"],
    grid: tuple[int, int],
    fill: Float[Array, "#B #N D"],
) -> Tokens:
    """Put tokens at their positions in the whole grid and `fill` at the others."""
    batch, total = x.shape[0], grid[0] * grid[1]
    full = jnp.broadcast_to(fill.astype(x.dtype), (batch, total, x.shape[-1]))
    full = put(full, index, x)
    order = jnp.broadcast_to(jnp.arange(total, dtype=jnp.int32)[None], (batch, total))
    return Tokens(x=full, index=order, grid=grid)
