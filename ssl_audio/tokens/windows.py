"""A long grid as a batch of short ones, for an encoder that was pretrained on short clips."""

import dataclasses

import jax.numpy as jnp

from ssl_audio.structs import Encoded, Tokens


def cut(tokens: Tokens, columns: int) -> Tokens:
    """Return windows of so many columns, one after the other, as clips of their own: [B * W, …].

    Args:
      tokens: the whole grid in order.
      columns: of a window.

    Raises:
      ValueError: the grid is not made of whole windows.
    """
    rows, total = tokens.grid
    if tokens.x.shape[1] != rows * total or total % columns:
        raise ValueError(
            f"windows of {columns} columns: got {tokens.x.shape[1]} tokens of a grid of {rows} x {total}; "
            f"wanted the whole grid, and a multiple of {columns} columns: change the frames of the clip."
        )

    def windows(x):
        x = x.reshape(len(x), rows, -1, columns, *x.shape[2:])
        return jnp.moveaxis(x, 2, 1).reshape(-1, rows * columns, *x.shape[4:])

    return Tokens(
        x=windows(tokens.x),
        index=jnp.broadcast_to(
            jnp.arange(rows * columns, dtype=jnp.int32), windows(tokens.index).shape
        ),
        grid=(rows, columns),
        valid=None if tokens.valid is None else windows(tokens.valid),
    )


def join(encoded: Encoded, like: Tokens) -> Encoded:
    """Return what `cut` took apart as clips again; special tokens are averaged over the windows.

    Args:
      encoded: of the windows.
      like: the tokens that were cut.
    """
    rows, columns = encoded.tokens.grid
    clips, total = len(like.x), like.grid[1]

    def whole(x):  # [..., B * W, N, D]
        x = x.reshape(*x.shape[:-3], clips, total // columns, rows, columns, x.shape[-1])
        return jnp.moveaxis(x, -4, -3).reshape(*x.shape[:-5], clips, rows * total, x.shape[-1])

    special = encoded.special
    if special is not None:
        special = special.reshape(clips, -1, *special.shape[1:]).mean(1)
    layers = None if encoded.layers is None else whole(encoded.layers)
    tokens = dataclasses.replace(like, x=whole(encoded.tokens.x))
    return Encoded(tokens=tokens, special=special, layers=layers)
