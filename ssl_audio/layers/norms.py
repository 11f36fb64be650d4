"""Normalisation layers. They compute, and return, float32 whatever comes in."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.slots import Norm

STATISTICS = "statistics"  # the collection in which a training pass collects running statistics


@struct.dataclass
class Stored:
    """A running statistic in the place of its array, that training passes read and do not collect."""

    value: Any


class LayerNorm(nn.Module):
    """Layer normalisation with scale and bias."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last axis."""
        return scaled(self, standard(x, self.eps))


def standard(
    x: Float[Array, "*B D"], eps: float, axis: int = -1, where: Bool[Array, "*B E"] | None = None
) -> Float[Array, "*B D"]:
    """Subtract the mean along an axis and divide by the deviation, both of the values `where` says."""
    # Not E[x²] - E[x]²: it cancels badly on a residual stream that doubles at every pair.
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis, keepdims=True, where=where)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis, keepdims=True, where=where) + eps)


def scaled(module: nn.Module, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Apply a learned scale and bias per channel, parameters of a module, to normalised values."""
    scale = module.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
    bias = module.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
    return x * _last(scale, x) + _last(bias, x)


class TimeNorm(nn.Module):
    """Normalise each channel over time, by itself (group normalisation with a group per channel)."""

    eps: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], valid: Bool[Array, "B N"] | None = None
    ) -> Float[Array, "B N D"]:
        """Normalise the sequences by what is valid in them; None: padding counts."""
        where = None if valid is None else valid[..., None]
        return scaled(self, standard(x, self.eps, axis=1, where=where))


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with scale, without bias."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last axis."""
        x = x.astype(jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + self.eps) * _last(scale, x)


class Twice(nn.Module):
    """Apply one norm, with the same parameters, two times: the final norm of SSAMBA as published."""

    norm: Norm

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise, and normalise the result."""
        return self.norm(self.norm(x))


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with stored statistics: those of a checkpoint, or 0 and 1.

    They are parameters without a gradient. A batch never changes them, so an example's result does
    not depend on its batch mates, in training either.
    """

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise every feature of the last axis."""
        x, shape = x.astype(jnp.float32), x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean, var, _ = _statistics(self, shape)
        return (x - _last(mean, x)) * _last(scale * jax.lax.rsqrt(var + self.eps), x) + _last(
            bias, x
        )


class BatchNorm(nn.Module):
    """Batch normalisation with running statistics (Ioffe and Szegedy 2015, arXiv:1502.03167).

    `mean` and `var` are parameters without a gradient, those of `FrozenBatchNorm`, so a trained model is
    saved, loaded and converted as any other. Statistics are the batch's where a training pass collects
    them (`objectives/statistics.py`, which also says what becomes of them), else the stored ones, as where
    they are frozen. In a training pass an example's result depends on its batch mates.

    Attributes:
      eps: added to the variance.
      momentum: share of the batch's statistics in the new running ones; the batch's variance is then the
        unbiased one, as in PyTorch.
    """

    eps: float = 1e-5
    momentum: float = 0.1

    collects: ClassVar[bool] = True  # an objective must renew its statistics

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise every feature of the last axis."""
        x, shape = x.astype(jnp.float32), x.shape[-1:]
        mean, var, moves = _statistics(self, shape)
        if moves and self.is_mutable_collection(STATISTICS) and not self.is_initializing():
            axes = tuple(range(x.ndim - 1))
            count = x.size // x.shape[-1]
            own = jnp.mean(x, axes), jnp.var(x, axes)
            unbiased = own[1] * (count / max(count - 1, 1))
            for name, old, new in (("mean", mean, own[0]), ("var", var, unbiased)):
                new = jax.lax.stop_gradient((1 - self.momentum) * old + self.momentum * new)
                self.sow(STATISTICS, name, new, init_fn=lambda: None, reduce_fn=_latest)
            mean, var = own
        return scaled(self, (x - _last(mean, x)) * _last(jax.lax.rsqrt(var + self.eps), x))


class BatchOnlyNorm(nn.Module):
    """Batch normalisation by the statistics of the batch at hand, always: none are stored.

    For what is thrown away after training; a result depends on its batch mates, in evaluation too.

    Attributes:
      eps: added to the variance.
      shift: a bias is learned; without, values are centred on 0.
    """

    eps: float = 1e-5
    shift: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Normalise every feature over the batch, which may lie on several devices."""
        x = standard(x, self.eps, axis=0)
        if self.shift:
            return scaled(self, x)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        return x * _last(scale, x)


class BiasNorm(nn.Module):
    """Divide by the root mean square of the values less a learned bias (Zipformer, arXiv:2310.11230).

    The bias acts on the length only, and there is one scale, so lengths are not lost altogether.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last axis."""
        x = x.astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        scale = self.param("log_scale", nn.initializers.ones, (), jnp.float32)
        square = jnp.mean((x - _last(bias, x)) ** 2, -1, keepdims=True)
        return x * jax.lax.rsqrt(square) * jnp.exp(scale)


def swoosh_l(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Return log(1 + e^(x - 4)) - 0.08 x - 0.035 (Zipformer: after the wide layer of a perceptron)."""
    return jax.nn.softplus(x - 4) - 0.08 * x - 0.035


def swoosh_r(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Return log(1 + e^(x - 1)) - 0.08 x - 0.313261687: 0 at 0 (Zipformer: after convolutions)."""
    return jax.nn.softplus(x - 1) - 0.08 * x - 0.313261687


def _statistics(module, shape):
    """Return a module's running mean and variance, without a gradient, and whether training moves them."""
    mean = module.param("mean", nn.initializers.zeros, shape, jnp.float32)
    var = module.param("var", nn.initializers.ones, shape, jnp.float32)
    moves = not isinstance(mean, Stored)
    if not moves:
        mean, var = mean.value, var.value
    return *jax.lax.stop_gradient((mean, var)), moves


def _latest(before, now):
    del before
    return now


def _last(vector, x):
    """Shape a [D] vector to broadcast over all but the last axis of x."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
