"""`selective_scan`: step sizes, mask, skip and gate around the recurrence; choice of its back-end.

Called by the SSM mixer.
"""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssl_audio.backbones.scan import reference, xla
from ssl_audio.letters import Array, Bool, Float

# Name -> scan(u, delta, A, B, C, state, *, reverse) -> (y, last state): the bare recurrence.
IMPLEMENTATIONS: dict[str, Callable] = {"reference": reference.scan, "xla": xla.scan}
# Platform -> what "auto" means there.
PREFERRED = {"cpu": "xla", "gpu": "xla", "tpu": "xla"}


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
      implementation: a key of `IMPLEMENTATIONS`, or "auto": what the environment variable
        SSL_AUDIO_SCAN names (read while tracing), else the best for the platform.

    Returns:
      y in the dtype of `u`, and with `return_last_state` the last state in the dtype of the sums.

    Raises:
      ValueError: unknown implementation.
    """
    scan = IMPLEMENTATIONS[_choose(implementation)]
    exact = jnp.promote_types(jnp.result_type(u, delta, A, B, C), jnp.float32)
    step = delta.astype(exact)
    if delta_bias is not None:
        step = step + delta_bias.astype(exact)[None, None]
    if delta_softplus:
        step = jax.nn.softplus(step)
    if mask is not None:  # after softplus: the softplus of zero is not zero
        step = jnp.where(mask[:, :, None], step, jnp.zeros((), exact))
    if initial_state is None:
        state = jnp.zeros((u.shape[0], *A.shape), exact)
    else:
        state = initial_state.astype(exact)
    y, last = scan(u, step, A.astype(exact), B, C, state, reverse=reverse)
    if D is not None:
        y = y + u.astype(exact) * D.astype(exact)[None, None]
    if z is not None:
        y = y * jax.nn.silu(z.astype(exact))
    y = y.astype(u.dtype)
    return (y, last) if return_last_state else y


def _choose(name: str) -> str:
    asked = "implementation"
    if name == "auto":
        asked, name = "SSL_AUDIO_SCAN", os.environ.get("SSL_AUDIO_SCAN") or "auto"
    if name == "auto":
        return PREFERRED.get(jax.default_backend(), "xla")
    if name not in IMPLEMENTATIONS:
        known = ", ".join(["auto", *IMPLEMENTATIONS])
        raise ValueError(f"selective_scan: got {asked}={name!r}; wanted one of: {known}.")
    return name
