"""Split long sequences into segments that run side by side, for machines that a batch does not fill."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssl_audio.layers.scan.tiles import pad_to

Operands = tuple[Any, ...]  # u, delta, A, B, C, state


def scan_in_segments(
    scan: Callable, segments: int, directions: Sequence[Operands], reverse: Sequence[bool]
) -> list[tuple[jax.Array, jax.Array]]:
    """Run recurrences with every sequence cut into `segments`: twice the work, that much wider.

    A first pass finds the state that each segment leaves behind when it starts from none. What a
    start adds to that decays by exp(A sum of steps), because A does not change along the sequence,
    so the true starts follow segment by segment; the second pass begins with them.

    Args:
      scan: (directions, reverse) → [(y, last state)], as the operands say.
      segments: how many.
      directions: operands of each recurrence, as `selective_scan`'s back-ends take them.
      reverse: of each.
    """
    length = directions[0][0].shape[1]
    batch = directions[0][0].shape[0]

    def cut(x):
        x = pad_to(x, {1: segments})
        return x.reshape(batch * segments, -1, x.shape[-1])

    def join(x):
        return x.reshape(batch, -1, *x.shape[2:])[:, :length]

    pieces = [(cut(u), cut(d), A, cut(B), cut(C)) for u, d, A, B, C, _ in directions]
    empty = [jnp.repeat(jnp.zeros_like(state), segments, axis=0) for *_, state in directions]
    left = scan([(*p, e) for p, e in zip(pieces, empty, strict=True)], reverse)
    starts = []
    for (_, delta, A, *_), (_, ends), (*_, state), back in zip(
        pieces, left, directions, reverse, strict=True
    ):
        total = delta.astype(state.dtype).sum(1)
        decay = jnp.exp(total[:, :, None] * A[None].astype(state.dtype))
        by_segment = [
            jnp.moveaxis(x.reshape(batch, segments, *x.shape[1:]), 1, 0) for x in (decay, ends)
        ]
        _, before = lax.scan(_advance, state, by_segment, reverse=back)
        starts.append(jnp.moveaxis(before, 0, 1).reshape(ends.shape))
    found = scan([(*p, s) for p, s in zip(pieces, starts, strict=True)], reverse)
    return [
        (join(y), last.reshape(batch, segments, *last.shape[1:])[:, 0 if back else -1])
        for (y, last), back in zip(found, reverse, strict=True)
    ]


def _advance(state, segment):
    decay, end = segment
    return decay * state + end, state
