"""`selective_scan`: step sizes, mask, skip and gate around the recurrence, in one or both directions.

Called by the SSM mixer.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.distributed.sharding import over_batch
from ssl_audio.layers.scan import choose


class Inputs(NamedTuple):
    """What one direction of a scan reads; see `selective_scan`."""

    u: Array
    delta: Array
    A: Array
    B: Array
    C: Array
    D: Array | None = None
    delta_bias: Array | None = None


def selective_scan(
    u: Float[Array, "B N E"],
    delta: Float[Array, "B N E"],
    A: Float[Array, "E R"],
    B: Float[Array, "B N R"],
    C: Float[Array, "B N R"],
    D: Float[Array, " E"] | None = None,
    z: Float[Array, "B N E"] | None = None,
    delta_bias: Float[Array, " E"] | None = None,
    *,
    delta_softplus: bool = True,
    reverse: bool = False,
    mask: Bool[Array, "B N"] | None = None,
    initial_state: Float[Array, "B E R"] | None = None,
    return_last_state: bool = False,
    implementation: str = "auto",
) -> Float[Array, "B N E"] | tuple[Float[Array, "B N E"], Float[Array, "B E R"]]:
    """Run the selective state-space recurrence of Mamba (Gu and Dao 2023, section 3.2).

    Per channel, with step s_t = softplus(delta_t + delta_bias):
    h_t = exp(s_t A) h_(t-1) + s_t u_t B_t and y_t = (<h_t, C_t> + D u_t) silu(z_t).
    State and sums are float32 (float64 for float64 inputs) whatever the dtypes of the inputs.
    Every array is differentiable in reverse mode; there is no forward mode (`jax.jvp`) except
    through "reference".

    Args:
      u: what drives the state; N is the length of the sequence, of any size.
      delta: raw step sizes.
      A: negative decay rates, R states for each of the E channels.
      B: how the input enters the state, per token.
      C: how the state is read out, per token.
      D: skip weight; None: no skip.
      z: gate, before silu; None: no gate.
      delta_bias: added to `delta`.
      delta_softplus: False takes `delta + delta_bias` as the step itself.
      reverse: run from the last token to the first; nothing is flipped in memory.
      mask: False on padding. The step is zero there, so the state passes unchanged and, in either
        direction, outputs of valid tokens do not depend on the padding. Outputs there mean nothing.
      initial_state: state before the first token processed (the last one if `reverse`); None: zero.
      return_last_state: also return the state after the last token processed.
      implementation: one of `IMPLEMENTATIONS`, or "auto": what the environment variable
        SSL_AUDIO_SCAN names (read while tracing), else the kernel of the platform (on a CPU "cpp",
        compiled at first use) if a small trial works on this machine, else "xla", which a line of the log
        then says. A name is never replaced by another: where its kernel cannot run, the error is
        raised.

    Returns:
      y in the dtype of `u`, and with `return_last_state` the last state in the dtype of the sums.

    Raises:
      ValueError: unknown implementation; float64 inputs with any but "reference" and "xla".
    """
    inputs = Inputs(u, delta, A, B, C, D, delta_bias)
    states, options = [initial_state], (z, delta_softplus, mask, implementation)
    y, (last,) = scan_directions([inputs], [reverse], states, *options)
    return (y, last) if return_last_state else y


def bidirectional_scan(
    forward: Inputs,
    backward: Inputs,
    z: Float[Array, "B N E"] | None = None,
    *,
    delta_softplus: bool = True,
    mask: Bool[Array, "B N"] | None = None,
    implementation: str = "auto",
) -> Float[Array, "B N E"]:
    """Return the sum of a scan ahead and a scan back over one sequence, gated once.

    Equals `selective_scan(*forward, z) + selective_scan(*backward, z, reverse=True)`: one launch on a
    GPU, and nothing is flipped in memory anywhere. Arguments and errors as there.
    """
    options = (z, delta_softplus, mask, implementation)
    return scan_directions([forward, backward], [False, True], [None, None], *options)[0]


def scan_directions(
    directions: Sequence[Inputs],
    reverse: Sequence[bool],
    states: Sequence[Array | None],
    z: Array | None,
    softplus: bool,
    mask: Array | None,
    implementation: str,
) -> tuple[Array, list[Array]]:
    """Return the gated sum over the directions, and the last state of each in the dtype of the sums."""
    arrays = [x for inputs in directions for x in inputs[:5]]
    exact = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    name = choose.find(implementation, exact)
    if fused := choose.offers(name, "scan_fused"):
        y, lasts = _fused(fused, directions, reverse[0], states, z, softplus, mask)
        return y.astype(directions[0].u.dtype), lasts
    operands = []
    for inputs, state in zip(directions, states, strict=True):
        u, delta, A, B, C, _, bias = inputs
        step = delta.astype(exact)
        if bias is not None:
            step = step + bias.astype(exact)[None, None]
        if softplus:
            step = jax.nn.softplus(step)
        if mask is not None:  # after softplus: the softplus of zero is not zero
            step = jnp.where(mask[:, :, None], step, jnp.zeros((), exact))
        if state is None:
            state = jnp.zeros((u.shape[0], *A.shape), exact)
        operands.append((u, step, A.astype(exact), B, C, state.astype(exact)))
    total, lasts = None, []
    for (y, last), inputs in zip(_bare(name, operands, reverse), directions, strict=True):
        if inputs.D is not None:
            y = y + inputs.u.astype(exact) * inputs.D.astype(exact)[None, None]
        total = y if total is None else total + y
        lasts.append(last)
    assert total is not None
    if z is not None:
        total = total * jax.nn.silu(z.astype(total.dtype))
    return total.astype(directions[0].u.dtype), lasts


def _bare(name: str, operands: Sequence[tuple], reverse: Sequence[bool]) -> Any:
    """Run the recurrences; the compiler divides the work of the plain implementations by itself."""
    if name in choose.SPLIT:
        return choose.run(name, operands, reverse)
    return over_batch(
        lambda *operands: choose.run(name, operands, reverse),
        operands,
        split=[(True, True, False, True, True, True)] * len(operands),
        results=[(True, True)] * len(operands),
    )


def _fused(run: Callable, directions, reverse, states, z, softplus, mask) -> Any:
    """Run the recurrences with all that surrounds them."""
    operands = [(*inputs, state) for inputs, state in zip(directions, states, strict=True)]
    each = (True, True, False, True, True, False, False, True)
    return over_batch(
        lambda *operands: run(*operands, reverse=reverse, softplus=softplus),
        (operands, z, mask),
        split=([each] * len(operands), True, True),
        results=(True, [True] * len(operands)),
    )
