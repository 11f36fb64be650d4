"""Stochastic gradient descent with momentum, and layer-wise rates (LARC); `optim.kind` "sgd"."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_audio.distributed.sharding import path_name
from ssl_audio.train.optim import Optim


@dataclasses.dataclass(frozen=True)
class Sgd(Optim):
    """Momentum, as PyTorch's SGD has it; with `trust` every array has a rate of its own.

    Schedules, decay, factors by path and layer, clip and averages are those of `Optim`; b1, b2 and eps mean
    nothing here. Set `coupled`, so that the decay goes through the momentum as in PyTorch.

    Attributes:
      momentum: decay of the sum of gradients.
      trust: a gradient is first scaled to this share of the norm of its parameters (LARC without clipping:
        You et al. 2017, arXiv:1708.03888); where either norm is 0 it stays as it is. Each of stacked layers
        counts by itself. 0: off.
    """

    momentum: float = 0.9
    trust: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: wanted 0 to 1, and less than 1, got {self.momentum}")
        if self.trust < 0:
            raise ValueError(f"trust: wanted at least 0, got {self.trust}")

    def scaling(self) -> optax.GradientTransformation:
        """Return what turns gradients into updates, before rate."""
        momentum = optax.trace(self.momentum)
        if not self.trust:
            return momentum

        def scaled(updates, params):
            return jax.tree_util.tree_map_with_path(
                lambda path, g, p: g * _ratio(path_name(path), g, p, self.trust), updates, params
            )

        return optax.chain(optax.stateless(scaled), momentum)


def _ratio(name: str, gradient: Any, param: Any, trust: float) -> Any:
    """Return what a gradient is multiplied by."""
    axes = tuple(range(int("/layers/" in name), gradient.ndim))
    sizes = [jnp.sqrt(jnp.sum(x**2, axes, keepdims=True)) for x in (param, gradient)]
    there = (sizes[0] > 0) & (sizes[1] > 0)
    return jnp.where(there, trust * sizes[0] / jnp.where(there, sizes[1], 1.0), 1.0)
