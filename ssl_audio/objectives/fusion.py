"""A tower of several modalities: their vectors are merged into one, and some may be missing.

McKee et al. 2023, ViML (arXiv:2306.09327): video and text ask for music. Used as a tower of `contrastive.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.layers.dense import INIT
from ssl_audio.slots import AnyObjective, Backbone, Pool, Projector
from ssl_audio.structs import Tokens


@dataclasses.dataclass(frozen=True)
class Fused:
    """Entries of a batch → their towers' vectors, a token each → encoder → one vector → projection.

    In place of a modality that is missing the encoder sees a learned vector. It is missing where the batch
    has no entry of its name, or where `NAME_given` [B] is 0.

    Attributes:
      towers: entry of the batch → `Tower`; their vectors are as long as the encoder is wide.
      encoder: any backbone that takes a token for each modality, in the order of their names.
      pool: tokens → one vector.
      projector: to the common space; None: the vector as it is.
      dropout: entry → share of the examples that it is taken from in training ("text dropout").
    """

    towers: dict[str, AnyObjective]
    encoder: Backbone
    pool: Pool
    projector: Projector = None
    dropout: dict[str, float] = dataclasses.field(default_factory=dict)

    frontend: ClassVar[None] = None  # of the whole: its towers have their own

    def __post_init__(self):
        if unknown := sorted(self.dropout.keys() - self.towers.keys()):
            raise ValueError(
                f"dropout.{unknown[0]}: wanted one of the towers {', '.join(self.towers)}."
            )
        for name, share in self.dropout.items():
            if not 0 <= share < 1:
                raise ValueError(f"dropout.{name}: got {share:g}, wanted 0 or more, below 1.")
        if not any(self.dropout.get(name, 0) == 0 for name in self.towers):
            raise ValueError("dropout: one modality must stay, so that a query is never empty.")

    @property
    def length(self) -> str:
        """Name of an entry of lengths: a query has none."""
        return "query_length"

    def init(self, key: Array, batch: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return fresh parameters for batches shaped like `batch`."""
        del name
        keys = iter(jax.random.split(key, 2 * len(self.towers) + 3))
        params: dict[str, Any] = {}
        tokens = {}
        for entry, tower in sorted(self.towers.items()):
            params[f"tower_{entry}"] = tower.init(next(keys), batch, entry)
            tokens[entry] = tower(params[f"tower_{entry}"], batch, entry)
            width = tokens[entry].shape[-1]
            params[f"null_{entry}"] = INIT(next(keys), (width,), jnp.float32)
        x: Any = _tokens([tokens[entry] for entry in sorted(tokens)])
        for part in ("encoder", "pool", "projector"):
            module = getattr(self, part)
            if module is not None:
                x, variables = module.init_with_output(next(keys), x)
                if "params" in variables:
                    params[part] = variables["params"]
        return params

    def __call__(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], name: str, key: Any = None
    ) -> Float[Array, "B D"]:
        """Return one vector per example; a key means training, and feeds dropout.

        Raises:
          ValueError: the batch has none of the modalities.
        """
        del name
        there = [entry for entry in sorted(self.towers) if entry in batch]
        if not there:
            raise ValueError(f"a query needs one of {', '.join(self.towers)}.")
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        count, found = len(batch[there[0]]), []
        for number, (entry, tower) in enumerate(sorted(self.towers.items())):
            null = jnp.broadcast_to(
                params[f"null_{entry}"][None], (count, params[f"null_{entry}"].size)
            )
            if entry not in batch:
                found.append(null)
                continue
            own = None if keys[0] is None else jax.random.fold_in(keys[0], number)
            x = tower(params[f"tower_{entry}"], batch, entry, own)
            given = self._given(batch, entry, count, keys[1], number)
            found.append(x if given is None else jnp.where(given[:, None], x, null))
        rngs = None if keys[2] is None else {"drop_path": keys[2]}
        x = self._part("encoder", params, _tokens(found), train=key is not None, rngs=rngs)
        x = self._part("pool", params, x)
        return x if self.projector is None else self._part("projector", params, x)

    def _given(
        self, batch: Mapping[str, Any], entry: str, count: int, key: Any, number: int
    ) -> Bool[Array, "B"] | None:
        """Return where a modality is seen; None: everywhere."""
        given = None
        if f"{entry}_given" in batch:
            given = batch[f"{entry}_given"] > 0
        share = self.dropout.get(entry, 0.0)
        if key is not None and share:
            kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - share, (count,))
            given = kept if given is None else given & kept
        return given

    def _part(self, part: str, params: Mapping[str, Any], x: Any, **how: Any) -> Any:
        variables = {"params": params[part]} if part in params else {}
        return getattr(self, part).apply(variables, x, **how)


def _tokens(vectors: list[Float[Array, "B D"]]) -> Tokens:
    x = jnp.stack(vectors, axis=1)
    index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
    return Tokens(x=x, index=index, grid=(1, x.shape[1]))
