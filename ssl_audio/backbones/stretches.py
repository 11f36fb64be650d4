"""A long grid as a batch of short ones, for an encoder that was pretrained on short clips."""

import dataclasses

import jax.numpy as jnp

from ssl_audio.structs import Encoded, Tokens


def cut(tokens: Tokens, columns: int) -> Tokens:
    """Return windows of so many columns, one after the other, as clips of their own: [B * W, …].

    The last is padded with tokens that are not valid; a grid no longer than a window stays as it is.

    Args:
      tokens: the whole grid in order.
      columns: of a window.
    """
    rows, total = tokens.grid
    columns = min(columns, total)
    missing = -total % columns
    valid = tokens.valid
    if missing and valid is None:
        valid = jnp.ones(tokens.x.shape[:2], bool)

    def windows(x):
        x = x.reshape(x.shape[0], rows, total, *x.shape[2:])
        x = jnp.pad(x, ((0, 0), (0, 0), (0, missing), *[(0, 0)] * (x.ndim - 3)))
        x = x.reshape(x.shape[0], rows, -1, columns, *x.shape[3:])
        return jnp.moveaxis(x, 2, 1).reshape(-1, rows * columns, *x.shape[4:])

    x = windows(tokens.x)
    index = jnp.broadcast_to(jnp.arange(rows * columns, dtype=jnp.int32), x.shape[:2])
    return Tokens(x, index, (rows, columns), None if valid is None else windows(valid))


def join(encoded: Encoded, like: Tokens) -> Encoded:
    """Return what `cut` took apart as clips again; special tokens are averaged over the windows.

    Args:
      encoded: of the windows.
      like: the tokens that were cut.
    """
    rows, columns = encoded.tokens.grid
    clips, total = like.x.shape[0], like.grid[1]

    def whole(x):  # [..., B * W, N, D]
        x = x.reshape(*x.shape[:-3], clips, -1, rows, columns, x.shape[-1])
        x = jnp.moveaxis(x, -4, -3).reshape(*x.shape[:-4], rows, -1, x.shape[-1])
        return x[..., :total, :].reshape(*x.shape[:-3], rows * total, x.shape[-1])

    special, specials = encoded.special, encoded.specials
    if special is not None:
        special = special.reshape(clips, -1, *special.shape[1:]).mean(1)
    if specials is not None:
        specials = specials.reshape(len(specials), clips, -1, *specials.shape[2:]).mean(2)
    layers = None if encoded.layers is None else whole(encoded.layers)
    tokens = dataclasses.replace(like, x=whole(encoded.tokens.x))
    return Encoded(tokens=tokens, special=special, layers=layers, specials=specials)
