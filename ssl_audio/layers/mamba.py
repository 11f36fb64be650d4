"""Bidirectional selective SSM (Mamba v1 block in Vision Mamba's "v2" form): the other mixer.

In projection, gate and out projection are shared by both directions; convolution, time step,
state matrix and skip are each direction's own (Zhu et al. 2024, arXiv:2401.09417, algorithm 1).
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.conv import convolved
from ssl_audio.layers.dense import uniform
from ssl_audio.layers.scan import Inputs, bidirectional_scan, prepare, selective_scan


def log_states(key, shape, dtype=jnp.float32):
    """Return log(1..R) for every channel (S4D-real)."""
    del key
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype)), shape)


def time_step_bias(low: float, high: float):
    """Return an initialiser: softplus of the bias is log-uniform in [low, high]."""

    def init(key, shape, dtype=jnp.float32):
        u = jax.random.uniform(key, shape, dtype)
        dt = jnp.maximum(jnp.exp(u * math.log(high / low) + math.log(low)), 1e-4)
        return dt + jnp.log(-jnp.expm1(-dt))

    return init


class Memory(NamedTuple):
    """What a causal mixer needs of the past to go on where a window ended."""

    inputs: Float[Array, "B W E"]  # of the convolution: one token less than it has taps
    state: Float[Array, "B E R"]  # of the scan


class Parameters(NamedTuple):
    """What one direction of the mixer has of its own."""

    kernel: Float[Array, "W E"]  # of the convolution
    bias: Float[Array, " E"]
    x_proj: Float[Array, "E P"]  # to the rank of the steps and twice the states
    dt_proj: Float[Array, "Q E"]
    dt_bias: Float[Array, " E"]
    a_log: Float[Array, "E R"]
    skip: Float[Array, " E"]

    def inputs(self, u: Float[Array, "B N E"]) -> Inputs:
        """Return what the scan reads, of the convolution's result."""
        rank, states = len(self.dt_proj), self.a_log.shape[1]
        dt, state_in, state_out = jnp.split(
            u @ self.x_proj.astype(u.dtype), (rank, rank + states), axis=-1
        )
        step = dt @ self.dt_proj.astype(u.dtype)
        return Inputs(u, step, -jnp.exp(self.a_log), state_in, state_out, self.skip, self.dt_bias)


class Direction(nn.Module):
    """Parameters of one direction of the mixer: convolution, time step, state matrix and skip."""

    state: int
    conv: int
    time_step: tuple[float, float] | None  # None: bias 0

    @nn.compact
    def __call__(self, inner: int, rank: int) -> Parameters:
        """Return them for so many channels and that rank of the time step."""
        kernel = self.param("conv_kernel", uniform(self.conv**-0.5), (self.conv, inner))
        bias = self.param("conv_bias", uniform(self.conv**-0.5), (inner,))
        x_proj = self.param("x_proj", uniform(inner**-0.5), (inner, rank + 2 * self.state))
        dt_proj = self.param("dt_proj", uniform(rank**-0.5), (rank, inner))
        bias_init = time_step_bias(*self.time_step) if self.time_step else nn.initializers.zeros
        dt_bias = self.param("dt_bias", bias_init, (inner,))
        a_log = self.param("a_log", log_states, (inner, self.state))
        skip = self.param("skip", nn.initializers.ones, (inner,))
        return Parameters(kernel, bias, x_proj, dt_proj, dt_bias, a_log, skip)


class Mamba(nn.Module):
    """Average of a forward and a backward selective scan over the tokens; or the forward one alone.

    Attributes:
      expand: inner width over width.
      state: values of state per inner channel.
      conv: taps of the depthwise convolution before the scan.
      layers: out projection starts smaller by sqrt(layers), as in GPT-2.
      time_step: initial range of the forward time step.
      backward_time_step: that of the backward direction. None, as published, starts it at
        softplus(0) = 0.69, a memory of a token or two.
      causal: forward only: no token sees a later one, and a sequence can be encoded window by window
        without any difference (`backbones/stream.py`).
      scan: implementation of the scan; see `backbones.scan`.
    """

    expand: int = 2
    state: int = 16
    conv: int = 4
    layers: int = 1
    time_step: tuple[float, float] = (1e-3, 1e-1)
    backward_time_step: tuple[float, float] | None = None
    causal: bool = False
    scan: str = "auto"

    def prepare(self) -> dict[str, str]:
        """Choose the scan's implementation before anything is traced; see `Objective.prepare`."""
        return {"selective_scan": prepare(self.scan)}

    def start(self, batch: int, width: int, dtype) -> Memory:
        """Return the memory of nothing, for inputs [B, N, width] of that dtype."""
        inner = self.expand * width
        return Memory(
            jnp.zeros((batch, self.conv - 1, inner), dtype),
            jnp.zeros((batch, inner, self.state), jnp.float32),
        )

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        index: Int[Array, "B N"] | None = None,
        valid: Bool[Array, "B N"] | None = None,
        *,
        train: bool = False,
        memory: Memory | None = None,
    ) -> Any:
        """Mix tokens in sequence order. `index` is not used.

        Args:
          x: [B, N, D].
          index: ignored.
          valid: False on padding.
          train: ignored.
          memory: of the tokens before x, for a causal mixer; the result is then (y, memory of x too).

        Returns:
          y [B, N, D].

        Raises:
          ValueError: memory for a mixer that is not causal, or together with padding.
        """
        del index, train
        width, inner = x.shape[-1], self.expand * x.shape[-1]
        rank = math.ceil(width / 16)
        w_in = self.param("in_proj", uniform(width**-0.5), (width, 2 * inner))
        w_out = self.param("out_proj", uniform((inner * self.layers) ** -0.5), (inner, width))

        u, z = jnp.split(x @ w_in.astype(x.dtype), 2, axis=-1)
        u = nn.with_logical_constraint(u, ("batch", "tokens", "inner"))
        if valid is not None:  # padding must look like the zeros before the first token
            u = u * valid[..., None].astype(u.dtype)
        shape: dict[str, Any] = dict(state=self.state, conv=self.conv)
        ahead = Direction(time_step=self.time_step, name="forward", **shape)(inner, rank)
        if self.causal:
            y, memory = self._ahead(ahead, u, z, valid, memory)
            y = y @ w_out.astype(x.dtype)
            return y if memory is None else (y, memory)
        if memory is not None:
            raise ValueError("mamba: got memory, which only goes with causal=True.")
        back = Direction(time_step=self.backward_time_step, name="backward", **shape)(inner, rank)
        kernels = [(one.kernel, one.bias) for one in (ahead, back)]
        first, second = convolved(u, kernels, implementation=self.scan)
        y = bidirectional_scan(
            ahead.inputs(first), back.inputs(second), z, mask=valid, implementation=self.scan
        )
        return (y / 2) @ w_out.astype(x.dtype)

    def _ahead(self, ahead: Parameters, u, z, valid, memory) -> tuple[Array, Memory | None]:
        options: dict[str, Any] = dict(implementation=self.scan)
        before = u if memory is None else jnp.concatenate([memory.inputs, u], axis=1)
        (first,) = convolved(before, [(ahead.kernel, ahead.bias)], **options)
        if memory is None:
            y = selective_scan(**ahead.inputs(first)._asdict(), z=z, mask=valid, **options)
            assert isinstance(y, jax.Array)
            return y, None
        if valid is not None:
            raise ValueError("mamba: got memory and padding; encode windows without padding.")
        inputs = ahead.inputs(first[:, memory.inputs.shape[1] :])
        options |= dict(initial_state=memory.state, return_last_state=True)
        y, state = selective_scan(**inputs._asdict(), z=z, **options)
        return y, Memory(before[:, u.shape[1] :], state)
