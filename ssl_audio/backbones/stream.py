"""Sequences of any length through a causal stack, window by window, in constant memory and exactly.

What each layer remembers goes from window to window, so the result is that of the whole sequence.
A stack that also looks back from the end has no such form: `inference/encoder.py` averages
overlapping windows for those, which is an approximation near their edges.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssl_audio.arrays import Array, Float
from ssl_audio.backbones.stack import Stack
from ssl_audio.layers.blocks import PreNorm, perceptron
from ssl_audio.layers.mamba import Mamba, Memory
from ssl_audio.layers.norms import LayerNorm, RMSNorm, Twice

LOCAL = (LayerNorm, RMSNorm, Twice)  # norms of each token by itself


def encode_windows(
    stack: Stack, params: Any, windows: Iterable[Float[Array, "B _N D"]]
) -> Iterator[Float[Array, "B _N D"]]:
    """Yield what the stack makes of each window of one long sequence of tokens, after the final norm.

    One program is compiled per length of window; memory does not grow with their number.

    Args:
      stack: of `PreNorm` blocks with `Mamba(causal=True)`.
      params: the stack's.
      windows: consecutive tokens [B, N, D], of any lengths N.

    Raises:
      ValueError: a stack in which a token depends on later ones, or on its place in the sequence.
    """
    check(stack)
    step = jax.jit(partial(advance, stack))
    memory = None
    for window in windows:
        if memory is None:
            memory = start(stack, window.shape[0])
        y, memory = step(params, window, memory)
        yield y


def check(stack: Stack) -> None:
    """Raise ValueError unless windows of the sequence give what the whole of it gives."""
    block, wanted = stack.block, "PreNorm blocks with Mamba(causal=True)"
    if not isinstance(block, PreNorm):
        raise ValueError(f"stream: got {type(block).__name__} blocks, wanted {wanted}.")
    if not (isinstance(block.mixer, Mamba) and block.mixer.causal):
        raise ValueError(
            f"stream: got {type(block.mixer).__name__}, whose tokens see later ones; wanted {wanted}."
        )
    for name in ("positions", "special", "first_norm", "pair_bias", "time_major"):
        if getattr(stack, name):
            raise ValueError(f"stream: got a stack with {name}; wanted one without.")
    for norm in (block.norm, stack.final_norm):
        if norm is not None and not isinstance(norm, LOCAL):
            raise ValueError(f"stream: {type(norm).__name__} mixes tokens; try LayerNorm.")


def start(stack: Stack, batch: int) -> Memory:
    """Return the memory of no token at all, [L, …]."""
    assert isinstance(stack.block, PreNorm) and isinstance(stack.block.mixer, Mamba)
    memory = stack.block.mixer.start(batch, stack.width, jnp.dtype(stack.dtype))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (stack.depth, *x.shape)), memory)


def advance(
    stack: Stack, params: Any, x: Float[Array, "B N D"], memory: Memory
) -> tuple[Float[Array, "B N D"], Memory]:
    """Encode one window after what is remembered; return it and the memory that includes it."""
    block, dtype = stack.block, jnp.dtype(stack.dtype)
    assert isinstance(block, PreNorm)

    def layer(x, now):
        p, memory = now

        def normed(name):
            return block.norm.apply({"params": p[name]}, x).astype(dtype)  # pyright: ignore

        mixed: Any = block.mixer.apply({"params": p["mixer"]}, normed("norm_mixer"), memory=memory)
        x = x + mixed[0].astype(x.dtype)
        if block.mlp:
            mlp = perceptron(block.mlp)
            x = x + mlp.apply({"params": p["mlp"]}, normed("norm_mlp")).astype(x.dtype)  # pyright: ignore
        return x, mixed[1]

    x, memory = lax.scan(layer, x.astype(jnp.float32), (params["layers"], memory))
    if stack.final_norm is not None:
        x = stack.final_norm.apply({"params": params["final_norm"]}, x)  # pyright: ignore
    return x, memory
