"""A tower: all that leads from one entry of a batch to one vector per example.

Objectives that compare modalities hold a dict of them, by modality.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.frontend.augment import SpecAugment
from ssl_audio.frontend.base import Frontend, before, counted
from ssl_audio.slots import Backbone, Pool, Projector, Tokenizer
from ssl_audio.structs import Encoded

PARTS = ("tokenizer", "encoder", "pool", "projector")  # those with parameters, in order


@dataclasses.dataclass(frozen=True)
class Tower:
    """Sound with a frontend, words without: input → tokens → encoder → one vector → projection.

    Attributes:
      tokenizer: log-mel → tokens (`patchify`, `folded`), or word numbers → tokens (`words:Words`).
      encoder: any backbone.
      pool: tokens → one vector (`pools`).
      projector: to the common space (`projectors`); None: the vector as it is.
      frontend: waveform → log-mel; None: the input is word numbers.
      spec_augment: hides a band and a stretch of the log-mel in training.
      length: name of the batch's entry that tells how much of each example is not padding.
      frozen: only the projector learns.
      entry: of the batch that is encoded; "": that of the tower's name.
    """

    tokenizer: Tokenizer
    encoder: Backbone
    pool: Pool
    projector: Projector = None
    frontend: Frontend | None = None
    spec_augment: SpecAugment | None = None
    length: str = "length"
    frozen: bool = False
    entry: str = ""

    def init(self, key: Array, batch: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return fresh parameters for the entry `name` of batches shaped like `batch`."""
        keys = jax.random.split(key, len(PARTS))
        params: dict[str, Any] = {}
        x: Any = self.inputs(batch, name)
        for part, part_key in zip(PARTS, keys, strict=True):
            module = getattr(self, part)
            if module is not None:
                inputs = x if part == "tokenizer" else (x,)
                x, variables = module.init_with_output(part_key, *inputs)
                if "params" in variables:
                    params[part] = variables["params"]
        return params

    def __call__(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], name: str, key: Any = None
    ) -> Float[Array, "B *K D"]:
        """Return one vector per example; a key means training, and feeds augmentation and drop-path."""
        return self.project(params, self.pooled(params, self.encode(params, batch, name, key)))

    def inputs(self, batch: Mapping[str, Any], name: str, key: Any = None) -> tuple[Any, ...]:
        """Return what the tokenizer takes."""
        name = self.entry or name
        length = batch.get(self.length)
        if self.frontend is None:
            ids = batch[name]
            valid = None if length is None else before(length, ids.shape[1])
            return ids, valid
        if length is None:
            length = jnp.full(batch[name].shape[:1], batch[name].shape[1], jnp.int32)
        spec = self.frontend(batch[name], length)
        count = ()
        if getattr(self.tokenizer, "takes_count", False):
            count = (counted(self.frontend, spec, length),)
        if key is not None and self.spec_augment:
            spec = self.spec_augment(spec, key)
        return spec, *count

    def encode(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], name: str, key: Any = None
    ) -> Encoded:
        """Return the encoder's tokens."""
        first, second = (None, None) if key is None else jax.random.split(key)
        return self.encode_inputs(params, *self.inputs(batch, name, first), key=second)

    def encode_inputs(self, params: Mapping[str, Any], *inputs: Any, key: Any = None) -> Encoded:
        """Return the encoder's tokens of what the tokenizer takes."""
        if self.frozen:
            params, key = jax.lax.stop_gradient(params), None
        tokens = self.tokenizer.apply(_variables(params, "tokenizer"), *inputs)
        rngs = None if key is None else {"drop_path": key}
        variables = _variables(params, "encoder")
        return self.encoder.apply(variables, tokens, train=key is not None, rngs=rngs)

    def pooled(self, params: Mapping[str, Any], encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector per example, before the projection."""
        variables = _variables(params, "pool")
        if self.frozen:
            variables = jax.lax.stop_gradient(variables)
        return self.pool.apply(variables, encoded)

    def project(self, params: Mapping[str, Any], x: Float[Array, "B D"]) -> Float[Array, "B *K O"]:
        """Return the vectors in the common space, not normalised; K branches, where it has them."""
        if self.projector is None:
            return x
        return self.projector.apply(_variables(params, "projector"), x)


def branch_names(tower: Any) -> list[str]:
    """Return the names of a tower's branches in the order of its vectors; none: it has one vector."""
    return sorted(getattr(getattr(tower, "projector", None), "branches", ()))


def _variables(params: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {"params": params[part]} if part in params else {}
