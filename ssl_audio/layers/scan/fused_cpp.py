"""Calls of the C++ kernels: a selective scan with all that surrounds it, and the convolution before it.

Both take one direction or, in one launch, both. Operands are whole tiles in float32; see cpp.cc.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array
from ssl_audio.layers.scan.tiles import pad_to

TILE = 16  # channels in a vector, and states at a time
CHUNK = 64  # tokens between stored states
TASKS = (
    16  # that a backward pass makes at least, for as many cores: parts of the channels per example
)
TAPS = 16  # of a convolution, at most
TARGETS = (
    "SelectiveScanForward",
    "SelectiveScanBackward",
    "CausalConvForward",
    "CausalConvBackward",
)
KEPT = TARGETS[:1]  # whose results cost more to compute again than to keep

Operands = tuple[
    Any, ...
]  # of a direction: u, delta, A, B, C, D, bias, state; the last three may be None


def scan(
    directions: Sequence[Operands],
    z: Array | None = None,
    mask: Array | None = None,
    *,
    reverse: bool,
    softplus: bool,
) -> tuple[Array, list[Array]]:
    """Return the gated sum over the directions, and the last state of each, in float32.

    Args:
      directions: one, or one and its opposite, each as `selective_scan` takes it.
      z: gate of the sum.
      mask: False on padding.
      reverse: of the first direction.
      softplus: of the steps.
    """
    (channels, states), made = directions[0][2].shape, []
    for u, delta, A, B, C, D, bias, state in directions:
        u, delta = (pad_to(_exact(x), {2: TILE}) for x in (u, delta))
        B, C = (pad_to(_exact(x), {2: TILE}) for x in (B, C))
        D, bias = (_none() if x is None else pad_to(_exact(x), {0: TILE}) for x in (D, bias))
        A = pad_to(_exact(A).T, {0: TILE, 1: TILE})
        if state is None:
            state = _none()
        else:
            state = pad_to(jnp.swapaxes(_exact(state), 1, 2), {1: TILE, 2: TILE})
        made.append((u, delta, A, B, C, D, bias, state))
    gate = _none() if z is None else pad_to(_exact(z), {2: TILE})
    valid = _none() if mask is None else _exact(mask)
    y, lasts = _scan(reverse, softplus, gate, valid, tuple(made))
    lasts = [jnp.swapaxes(last, 1, 2)[:, :channels, :states] for last in lasts]
    return y[..., :channels], lasts


def conv_silu(
    x: Array, kernels: Sequence[tuple[Array, Array | None]], *, reverse: bool
) -> list[Array]:
    """Return silu of the causal convolution of x with each kernel [W, E] and bias, in float32.

    Args:
      x: [B, N, E].
      kernels: one, or one and another for the opposite direction; of at most `TAPS` taps.
      reverse: the first one's looks ahead, not back.
    """
    channels = x.shape[2]
    made = tuple(
        (pad_to(_exact(w), {1: TILE}), _none() if b is None else pad_to(_exact(b), {0: TILE}))
        for w, b in kernels
    )
    found = _conv(reverse, pad_to(_exact(x), {2: TILE}), made)
    return [y[..., :channels] for y in found]


def _exact(x):
    return x.astype(jnp.float32)


def _none():
    return jnp.zeros(0, jnp.float32)


def _call(name: str, shapes: Sequence[tuple[int, ...]], *operands, **attributes) -> list[Array]:
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    call = jax.ffi.ffi_call(name, results, vmap_method="sequential")
    return list(call(*operands, **attributes))


def _forward(reverse, softplus, z, mask, directions, *, keep=True):
    u, _, A, *_ = directions[0]
    (batch, length, channels), states = u.shape, A.shape[0]
    tiles = (batch, channels // TILE, states // TILE, -(-length // CHUNK), TILE, TILE)
    of_each = ((batch, states, channels), tiles if keep else (0,))
    shapes = [u.shape, *of_each * len(directions)]
    operands = [x for direction in directions for x in direction]
    y, *others = _call(
        "SelectiveScanForward", shapes, z, mask, *operands, reverse=reverse, softplus=softplus
    )
    return (y, tuple(others[::2])), (z, mask, directions, tuple(others[1::2]))


def _backward(reverse, softplus, residuals, cotangents):
    z, mask, directions, starts = residuals
    dy, dlasts = cotangents
    u, _, A, *_ = directions[0]
    (batch, length, channels), states, count = u.shape, A.shape[0], len(directions)
    groups = min(channels // TILE, -(-TASKS // max(1, batch)))
    mix, shared, state = (batch, length, states), (states + 2, channels), dlasts[0].shape
    work = count * batch * (shared[0] * channels + 2 * groups * length * states)
    shapes = [z.shape, (work,), *(u.shape, u.shape, mix, mix, state, shared) * count]
    operands = [z, mask, dy]
    for (*inputs, _), start, dlast in zip(directions, starts, dlasts, strict=True):
        operands += [*inputs, start, dlast]
    options = dict(reverse=reverse, softplus=softplus, groups=groups)
    dz, _, *found = _call("SelectiveScanBackward", shapes, *operands, **options)
    gradients = []
    for k, (*_, D, bias, start) in enumerate(directions):
        du, ddelta, dB, dC, dstate, dshared = found[6 * k : 6 * k + 6]
        dD, dbias = dshared[states][: D.size], dshared[states + 1][: bias.size]
        dstate = dstate if start.size else start
        gradients.append((du, ddelta, dshared[:states], dB, dC, dD, dbias, dstate))
    return dz, jnp.zeros_like(mask), tuple(gradients)


def _primal(reverse, softplus, z, mask, directions):
    return _forward(reverse, softplus, z, mask, directions, keep=False)[0]


_scan = jax.custom_vjp(_primal, nondiff_argnums=(0, 1))
_scan.defvjp(_forward, _backward)


def _convolve(reverse, x, kernels):
    operands = [a for kernel in kernels for a in kernel]
    found = _call("CausalConvForward", [x.shape] * len(kernels), x, *operands, reverse=reverse)
    return tuple(found)


def _convolve_forward(reverse, x, kernels):
    return _convolve(reverse, x, kernels), (x, kernels)


def _convolve_backward(reverse, residuals, cotangents):
    x, kernels = residuals
    taps, channels = kernels[0][0].shape
    shared = (taps + 1, channels)
    work = (len(kernels) * x.shape[0] * shared[0] * channels,)
    operands = [x]
    for kernel, dy in zip(kernels, cotangents, strict=True):
        operands += [*kernel, dy]
    shapes = [x.shape, work, *[shared] * len(kernels)]
    dx, _, *found = _call("CausalConvBackward", shapes, *operands, reverse=reverse)
    gradients = [(d[:taps], d[taps][: b.size]) for d, (_, b) in zip(found, kernels, strict=True)]
    return dx, tuple(gradients)


_conv = jax.custom_vjp(_convolve, nondiff_argnums=(0,))
_conv.defvjp(_convolve_forward, _convolve_backward)
