"""What a separator is asked for: the condition that `separation.py` gives its network with each mixture.

Kong et al. 2023 (arXiv:2305.07447): classes, what a tagger says of the clean sound, its embedding.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.slots import AnyObjective


class Query(abc.ABC):
    """Make conditions [B, C] of clean sounds; subclasses are frozen dataclasses.

    `by_class` says that place c of a condition is class c, so that a separator can be asked for classes;
    `heard` that conditions are made of sound, so that it can be asked by example.
    """

    by_class: ClassVar[bool] = False
    heard: ClassVar[bool] = False

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return parameters that learn, and state that does not."""
        del key, batch
        return {}, {}

    @abc.abstractmethod
    def __call__(
        self, params: Params, extra: Extra, batch: Batch, key: Array | None = None
    ) -> Float[Array, "B C"]:
        """Return the condition of each clean clip; with a key as in training."""


@dataclasses.dataclass(frozen=True)
class Given(Query):
    """`batch["condition"]`, made elsewhere: as a text's embedding (AudioSep, arXiv:2308.05037)."""

    def __call__(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array | None = None
    ) -> Float[Array, "B C"]:
        del params, extra, key
        return batch["condition"]


@dataclasses.dataclass(frozen=True)
class Label(Query):
    """`batch["label"]`: ones at a clip's classes (a hard condition)."""

    by_class: ClassVar[bool] = True

    def __call__(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array | None = None
    ) -> Float[Array, "B C"]:
        del params, extra, key
        return batch["label"]


@dataclasses.dataclass(frozen=True)
class Tags(Query):
    """The probabilities that a frozen tagger has for the clean sound (a soft condition).

    Attributes:
      tagger: an objective that offers "logits", as `ssl_audio.inference.frozen:Frozen` of a run or of
        converted weights; it works at the rate of the separator.
      exclusive: of its classes each clip has one: probabilities are a softmax.
    """

    tagger: AnyObjective
    exclusive: bool = False

    by_class: ClassVar[bool] = True
    heard: ClassVar[bool] = True

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:  # noqa: D102
        return {}, frozen(self.tagger, key, batch)

    def __call__(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array | None = None
    ) -> Float[Array, "B C"]:
        del params, key
        logits = asked(self.tagger, "logits", extra, batch)
        found = jax.nn.softmax(logits) if self.exclusive else jax.nn.sigmoid(logits)
        return jax.lax.stop_gradient(found)


@dataclasses.dataclass(frozen=True)
class Embedding(Query):
    """The vector of a clip that a frozen tagger's last layer reads, or what an adaptor makes of it.

    Of a model without such a layer it is the mean over the tokens of its last layer.

    Attributes:
      encoder: an objective that offers "encode", as `ssl_audio.inference.frozen:Frozen` of a run.
      hidden: width of the adaptor, two linear layers that learn with the separator; 0: none. Published: 2048.
      dropout: behind each of them.
    """

    encoder: AnyObjective
    hidden: int = 0
    dropout: float = 0.5

    heard: ClassVar[bool] = True

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:  # noqa: D102
        extra = frozen(self.encoder, key, batch)
        if not self.hidden:
            return {}, extra
        return self._adaptor.init(key, self._pooled(extra, batch))["params"], extra

    def __call__(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array | None = None
    ) -> Float[Array, "B C"]:
        found = self._pooled(extra, batch)
        if not self.hidden:
            return found
        rngs = None if key is None else {"dropout": key}
        made: Any = self._adaptor.apply({"params": params}, found, key is not None, rngs=rngs)
        return made

    @property
    def _adaptor(self) -> "Adaptor":
        return Adaptor(self.hidden, self.dropout)

    def _pooled(self, extra: Extra, batch: Batch) -> Float[Array, "B D"]:
        encoded = asked(self.encoder, "encode", extra, batch)
        head = getattr(inner(self.encoder), "head", None)
        if head is not None and hasattr(head, "pool"):
            weights = {"params": extra["params"]["head"].get("pool", {})}
            return jax.lax.stop_gradient(head.pool.apply(weights, encoded))
        tokens = encoded.tokens
        there = jnp.ones(tokens.x.shape[:2]) if tokens.valid is None else tokens.valid
        there = there.astype(tokens.x.dtype)[..., None]
        mean = jnp.sum(tokens.x * there, axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1)
        return jax.lax.stop_gradient(mean)


class Adaptor(nn.Module):
    """Two linear layers, each with a leaky rectifier and dropout."""

    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "B D"], train: bool = False) -> Float[Array, "B C"]:
        """Return conditions."""
        for i in (0, 1):
            x = jax.nn.leaky_relu(nn.Dense(self.hidden, name=f"dense_{i}")(x), 0.01)
            x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return x


def frozen(model: Any, key: Array, batch: Batch) -> dict[str, Any]:
    """Return the parameters and state of a model that does not learn, for `extra`."""
    params, state = model.init(key, batch)
    return {"params": params, "extra": state}


def inner(model: Any) -> Any:
    """Return the objective of a model, which may be a folder's."""
    return getattr(model, "objective", model)


def asked(model: Any, name: str, extra: Mapping[str, Any], batch: Batch) -> Any:
    """Return what a predictor of a frozen model says of clean sound.

    Raises:
      ValueError: it has no such predictor.
    """
    if name not in (offered := model.predictors()):
        raise ValueError(
            f"query: {type(model).__name__} offers {', '.join(offered) or 'nothing'}; wanted a model with "
            f"{name!r}: train or convert one that has it."
        )
    return offered[name](extra["params"], extra["extra"], batch)
