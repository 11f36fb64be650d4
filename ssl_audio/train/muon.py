"""Muon: matrices of the layers learn by orthogonalised momentum, all else by Adam; `optim.kind` "muon"."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from ssl_audio.distributed.sharding import path_name
from ssl_audio.train.optim import Optim


@dataclasses.dataclass(frozen=True)
class Muon(Optim):
    """Momentum whose matrices are made orthogonal by Newton-Schulz iterations (Jordan et al. 2024).

    Every matrix of a layer is one of its own, also where the layers are stacked [depth, in, out]. An update
    of a matrix has a root mean square of about 0.2, as Adam's have, so that rate and decay of AdamW serve
    here too (Liu et al. 2025, arXiv:2502.16982, section 2.2). Schedules, decay, factors by path and layer,
    clip and averages are those of `Optim`; b1, b2 and eps are those of Adam for all that is no such matrix:
    embeddings, heads, biases, norms, convolutions.

    Attributes:
      momentum: decay of the momentum, Nesterov's.
      iterations: of Newton-Schulz.
      matrices: regex of the paths of matrices; their last two axes are inputs and outputs, and one axis may
        stand before them. Arrays with more axes (convolutions) or fewer are left to Adam.
    """

    momentum: float = 0.95
    iterations: int = 5
    matrices: str = r"/(layers|stack_\d+)/.*(/kernel|_proj)$"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: wanted 0 to 1, and less than 1, got {self.momentum}")
        if self.iterations < 1:
            raise ValueError(f"iterations: wanted at least 1, got {self.iterations}")
        if self.coupled:
            raise ValueError(
                "coupled: got True, wanted False: the size of a gradient, and so of what is added to it, "
                "means nothing to Muon."
            )

    def scaling(self) -> optax.GradientTransformation:
        """Return what turns gradients into updates, before decay and rate."""

        def dimensions(updates):
            inner = contrib.MuonDimensionNumbers(-2, -1)
            return jax.tree.map(lambda _: inner, updates)

        muon = optax.chain(
            contrib.scale_by_muon(
                ns_steps=self.iterations,
                beta=self.momentum,
                weight_dimension_numbers=dimensions,
            ),
            optax.stateless(lambda updates, _: jax.tree.map(_as_large_as_adam, updates)),
        )
        adam = optax.scale_by_adam(self.b1, self.b2, self.eps)
        return optax.partition({"muon": muon, "adam": adam}, self._labels)

    def _labels(self, params: Any) -> Any:
        labels = jax.tree_util.tree_map_with_path(
            lambda path, p: "muon" if self._is_matrix(path_name(path), p.shape) else "adam", params
        )
        if "muon" not in jax.tree.leaves(labels):
            raise ValueError(
                f"config.optim.matrices: '{self.matrices}' matches no matrix of the parameters; name some, "
                "or leave out optim.kind."
            )
        return labels

    def _is_matrix(self, name: str, shape: tuple[int, ...]) -> bool:
        return len(shape) in (2, 3) and re.search(self.matrices, name) is not None


def _as_large_as_adam(update: jax.Array) -> jax.Array:
    """Scale orthogonal matrices [..., I, O] to a root mean square of 0.2."""
    return update * jnp.asarray(0.2 * math.sqrt(max(update.shape[-2:])), update.dtype)
