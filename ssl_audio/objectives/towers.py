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
from ssl_audio.objectives.statistics import applied
from ssl_audio.slots import Backbone, Masking, Pool, Projector, Tokenizer
from ssl_audio.structs import Encoded
from ssl_audio.tokens.masking import dropped

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
      drop: in training only the tokens that this policy does not hide are encoded (VATT's DropToken).
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
    drop: Masking = None

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
    ) -> Any:
        """Return what `project` does; a key means training, and feeds augmentation and drop-path."""
        return self.renewing(params, batch, name, key)[0]

    def renewing(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], name: str, key: Any = None
    ) -> tuple[Any, Any]:
        """Return what `__call__` does, and the parameters with renewed running statistics."""
        keys = (None, None) if key is None else jax.random.split(key)
        encoded, params = self._encoded(params, self.inputs(batch, name, keys[0]), keys[1])
        learns = key is not None
        x, params = self._part("pool", params, encoded, renew=learns and not self.frozen)
        if self.projector is None:
            return x, params
        return self._part("projector", params, x, renew=learns)

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
        return self._encoded(params, inputs, key)[0]

    def _encoded(self, params: Any, inputs: tuple[Any, ...], key: Any) -> tuple[Encoded, Any]:
        if self.frozen:
            key = None
        renew = key is not None
        tokens, params = self._part("tokenizer", params, *inputs, renew=renew)
        if self.drop is not None and key is not None:
            hidden = self.drop(jax.random.fold_in(key, 1), len(tokens.x), tokens.grid)
            tokens = dropped(tokens, hidden)
        rngs = None if key is None else {"drop_path": key}
        return self._part("encoder", params, tokens, renew=renew, train=key is not None, rngs=rngs)

    def _part(
        self, part: str, params: Any, *inputs: Any, renew: bool, **how: Any
    ) -> tuple[Any, Any]:
        """Apply a part; return what it gives, and the tower's parameters with renewed statistics."""
        own = params.get(part, {})
        if self.frozen and part != "projector":
            own = jax.lax.stop_gradient(own)
        x, after = applied(getattr(self, part), own, *inputs, renew=renew, **how)
        return x, params if after is own else {**params, part: after}

    def pooled(self, params: Mapping[str, Any], encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector per example, before the projection."""
        return self._part("pool", params, encoded, renew=False)[0]

    def project(self, params: Mapping[str, Any], x: Float[Array, "B D"]) -> Any:
        """Return vectors in the common space [B, O], not normalised.

        Where the projector has K branches: [B, K, O], or branch → [B, O], as it gives them.
        """
        if self.projector is None:
            return x
        return self._part("projector", params, x, renew=False)[0]


def branch_names(tower: Any) -> list[str]:
    """Return the names of a tower's branches in the order of its vectors; none: it has one vector."""
    return sorted(getattr(getattr(tower, "projector", None), "branches", ()))
