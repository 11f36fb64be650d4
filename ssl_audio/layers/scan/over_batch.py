"""Run kernels that XLA cannot divide, each device on its part of the batch where a mesh is set."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec


def over_batch(run: Callable, operands: Sequence[Any], *, split: Any, results: Any) -> Any:
    """Return run(*operands).

    Args:
      run: takes and returns arrays in nested sequences; None for one that is left out.
      operands: of `run`. The first axis of the first array is the batch.
      split: which operands have such an axis; the others are the same for every example.
      results: which results do.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return run(*operands)
    (axes,) = nn.logical_to_mesh_axes(("batch",)) or (None,)
    names = (axes,) if isinstance(axes, str) else axes or ()
    parts = 1
    for axis in names:
        parts *= mesh.shape[axis]
    first = jax.tree.leaves(operands)[0]
    spec = PartitionSpec(axes) if first.shape[0] % parts == 0 else PartitionSpec()

    def specs(split):
        return jax.tree.map(lambda one: spec if one else PartitionSpec(), split)

    return jax.shard_map(
        run,
        in_specs=tuple(specs(split)),
        out_specs=specs(results),
        check_vma=False,
    )(*operands)
