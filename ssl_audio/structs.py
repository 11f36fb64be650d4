"""The pytrees that are passed along the data path. Everything else is a plain function or a frozen dataclass.

Kept out of the shape-checking hook: JAX rebuilds pytrees with non-arrays inside `jax.tree.map`.
"""

from collections.abc import Mapping
from typing import Any

from flax import struct


@struct.dataclass
class Tokens:
    """A sequence of embedded patches.

    `index` is the row-major position in `grid`, whatever order the sequence is in, so it survives
    masking, shuffling and dropping.
    """

    x: Any  # [B, N, D]
    index: Any  # [B, N]
    grid: tuple[int, int] = struct.field(pytree_node=False)  # (frequency rows, time columns)
    valid: Any = None  # [B, N], False on padding; None: all valid


@struct.dataclass
class Encoded:
    """What a backbone returns."""

    tokens: Tokens  # after the last norm, patch tokens only
    special: Any = None  # [B, P, D] after the last norm: cls, then distillation token, if any
    # [L, B, N, D] residual stream after each block, if requested; a tuple of [B, N_l, D_l] if they differ
    layers: Any = None
    specials: Any = None  # [L, B, P, D] the special tokens in each of `layers`, if there are any


@struct.dataclass
class Loss:
    """What an objective returns for one batch."""

    total: Any  # scalar to descend
    metrics: Mapping[
        str, Any
    ]  # name -> (sum, weight), so that means over shards and steps are exact
    extra: Any  # `extra` after the forward pass
    renewed: Any = None  # parameters that the pass itself renews (running statistics); None: none
    # name -> (term, amount): the terms of `total` and what each is a mean over, where that differs between
    # batches of one size, so that parts of a batch count as in the whole; None: by their examples
    means: Mapping[str, Any] | None = None


@struct.dataclass
class TrainState:
    """All that a run needs to continue: saved, restored and donated as one."""

    step: Any  # int32 scalar: updates done
    params: Any  # what gradients change
    opt_state: Any  # phase name -> optax state
    extra: Any  # EMA teachers, codebooks, queues, frozen networks
    key: Any  # typed PRNG key; each step folds `step` into it and never changes it
