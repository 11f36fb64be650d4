"""Low-rank adapters of frozen matrices (LoRA): a config's `adapt`; built by train/run.py and on loading.

Adapters are a tree of their own beside the parameters, so no layer knows of them. `backbones/stack.py`
multiplies a layer's out inside the scan; all others are multiplied out before the model is applied.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

ADAPTERS = (
    "adapters"  # of a tree of parameters: {"a": …, "b": …}, each in the places of the matrices
)
STACKED = re.compile(r"/(layers|stack_\d+)/")  # paths of what `over_layers` scans


@struct.dataclass
class LowRank:
    """A matrix with its adapter, in the place of the matrix.

    Attributes:
      base: [..., I, O].
      a, b: [..., I, R] and [..., R, O].
      scale: of their product.
    """

    base: Any
    a: Any
    b: Any
    scale: float = struct.field(pytree_node=False)


def multiplied(tree: Any) -> Any:
    """Return a tree with matrices in the places of `LowRank`: base + scale a b (section 4.1)."""

    def matrix(leaf):
        if not isinstance(leaf, LowRank):
            return leaf
        return leaf.base + leaf.scale * (leaf.a @ leaf.b)

    return jax.tree.map(matrix, tree, is_leaf=lambda leaf: isinstance(leaf, LowRank))


@dataclasses.dataclass(frozen=True)
class Lora:
    """Freeze an encoder and learn a low-rank change of its matrices (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
      rank: of the change; 0: none, so that only what is not frozen learns.
      alpha: the change is alpha / rank times the product of the two factors.
      where: regex of the paths of frozen matrices that get an adapter. Matrices are arrays [I, O], or
        [L, I, O] in stacked layers: one adapter per layer. Convolutions are not.
      freeze: regex of the paths that are frozen; the rest, as a head, learns as ever.
    """

    rank: int = 8
    alpha: float = 16.0
    where: str = r"/(layers|stack_\d+)/.*/(kernel|(in|x|out)_proj)$"
    freeze: str = r"(^|/)(tokenizer|encoder)/"

    def __post_init__(self):
        if self.rank < 0:
            raise ValueError(f"rank: wanted at least 0, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha: wanted more than 0, got {self.alpha}")
        for name in ("where", "freeze"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ValueError(f"{name}: {getattr(self, name)!r} is no regex: {error}") from None

    def trains(self, pattern: str) -> str:
        """Return the regex of the paths that learn, of those that a regex without adapters matches."""
        if pattern == ".*":
            return rf"^{ADAPTERS}/|^(?!.*?(?:{self.freeze}))"
        return rf"^(?:{ADAPTERS}/[ab]/|(?!.*?(?:{self.freeze}))).*?(?:{pattern})"

    def init(self, key: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return fresh adapters of parameters; b is zero, so that they change nothing yet.

        Raises:
          ValueError: no matrix to adapt, with those that there are; nothing is frozen.
        """
        named: Any = flatten_dict(params, sep="/")
        frozen = {name: x for name, x in named.items() if re.search(self.freeze, name)}
        if not frozen:
            raise ValueError(
                f"config.adapt.freeze: '{self.freeze}' matches no parameter; the paths begin with "
                f"{', '.join(sorted({name.rpartition('/')[0] for name in named})[:20])}."
            )
        if not self.rank:
            return {}
        matrices = {n: x for n, x in frozen.items() if x.ndim == 2 + bool(STACKED.search(n))}
        found = {n: x for n, x in matrices.items() if re.search(self.where, n)}
        if not found:
            raise ValueError(
                f"config.adapt.where: '{self.where}' matches no frozen matrix; there are "
                f"{', '.join(sorted(matrices)) or 'none'}."
            )
        a, b = {}, {}
        for number, name in enumerate(sorted(found)):
            *layers, size, out = found[name].shape
            shape, own = (*layers, size, self.rank), jax.random.fold_in(key, number)
            bound = size**-0.5
            a[name] = jax.random.uniform(own, shape, found[name].dtype, -bound, bound)
            b[name] = jax.numpy.zeros((*layers, self.rank, out), found[name].dtype)
        return {"a": unflatten_dict(a, sep="/"), "b": unflatten_dict(b, sep="/")}

    def joined(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that a model is applied to: scanned layers' matrices as `LowRank`."""
        named: Any = flatten_dict({k: v for k, v in params.items() if k != ADAPTERS}, sep="/")
        parts = (flatten_dict(params.get(ADAPTERS, {}).get(side, {}), sep="/") for side in "ab")
        a, b = parts
        for name in a:
            one = LowRank(named[name], a[name], b[name], self.alpha / self.rank)
            named[name] = one if STACKED.search(name) else multiplied(one)
        return unflatten_dict(named, sep="/")

    def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of the same model without adapters."""
        return multiplied(self.joined(params))
