"""Convolutions that XLA does badly: depthwise over tokens, called by the SSM mixer; grouped, over devices."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssl_audio.arrays import Array, Float
from ssl_audio.distributed.sharding import by_rows, over_batch
from ssl_audio.layers.scan import choose
from ssl_audio.layers.scan.fused_cpp import TAPS


def causal_conv(
    x: Float[Array, "B N E"],
    kernel: Float[Array, "W E"],
    bias: Float[Array, " E"] | None = None,
    *,
    reverse: bool = False,
) -> Float[Array, "B N E"]:
    """Convolve each channel with its own taps, looking back only (ahead only if `reverse`).

    The last tap meets the current token; tokens outside the sequence count as zero. `reverse`
    equals flipping the sequence, convolving and flipping back. Sums are taken in float32 at least;
    the result has the dtype of `x`.
    """
    length, width = x.shape[1], kernel.shape[0]
    exact = jnp.promote_types(jnp.result_type(x, kernel), jnp.float32)
    wide, taps = x.astype(exact), kernel.astype(exact)
    zero = jnp.zeros((), exact)
    # Shift and add: XLA's grouped convolution is more than ten times slower on a CPU, and its
    # gradient too. Padding each shifted slice, not the whole input once, keeps it one fusion.
    total = None
    for tap in range(width):
        shift = min(width - 1 - tap, length)
        if reverse:
            moved = lax.pad(wide[:, shift:], zero, ((0, 0, 0), (0, shift, 0), (0, 0, 0)))
        else:
            moved = lax.pad(wide[:, : length - shift], zero, ((0, 0, 0), (shift, 0, 0), (0, 0, 0)))
        term = moved * taps[tap][None, None]
        total = term if total is None else total + term
    assert total is not None, "a kernel has at least one tap"
    if bias is not None:
        total = total + bias.astype(exact)[None, None]
    return total.astype(x.dtype)


def grouped_conv(x: Array, kernel: Array, *args: Any, **options: Any) -> Array:
    """Return `lax.conv_general_dilated` of x [B, …] by rows, for `feature_group_count` above 1.

    XLA splits a grouped convolution along its groups and gathers the whole batch on every device for that,
    in both passes. To be given to `nn.Conv` as its `conv_general_dilated`.
    """
    return by_rows(lambda x, w: lax.conv_general_dilated(x, w, *args, **options), x, kernel)


def convolved(
    x: Float[Array, "B N E"],
    kernels: Sequence[tuple[Float[Array, "W E"], Float[Array, " E"]]],
    *,
    reverse: bool = False,
    implementation: str = "auto",
) -> list[Float[Array, "B N E"]]:
    """Return silu of the causal convolution of x with each kernel and bias.

    Args:
      x: what both read.
      kernels: one, or one and another for the opposite direction.
      reverse: the first one's looks ahead, not back.
      implementation: that of the scan which follows; see `selective_scan`. Where it has no convolution
        of its own, the compiler's is used.
    """
    exact = jnp.promote_types(jnp.result_type(x, *kernels[0]), jnp.float32)
    run = None
    if kernels[0][0].shape[0] <= TAPS and exact == jnp.float32:
        run = choose.offers(choose.find(implementation, exact), "conv_silu")
    if run is None:
        both = [
            causal_conv(x, w.astype(x.dtype), b.astype(x.dtype), reverse=reverse != bool(k))
            for k, (w, b) in enumerate(kernels)
        ]
        return [jax.nn.silu(y) for y in both]
    found = over_batch(
        lambda x, kernels: run(x, kernels, reverse=reverse),
        (x, list(kernels)),
        split=(True, [(False, False)] * len(kernels)),
        results=[True] * len(kernels),
    )
    return [y.astype(x.dtype) for y in found]
