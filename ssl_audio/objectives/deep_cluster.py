"""Cluster what is remembered of every clip, and learn to tell the clusters apart in another view of it.

DECAR-v2, the teacher of UnFuSeD (Seth et al. 2023, arXiv:2303.05668): DeepCluster-v2 (Caron et al. 2020,
arXiv:2006.09882, appendix) on augmented log-mels.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.quantizers.codebooks import dot_kmeans, perplexity
from ssl_audio.slots import AnyFrontend, Augment, Backbone, Pool, Projector, Tokenizer
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class DeepCluster(Encoding):
    """Assign a second view of a clip to the cluster that its first view had after the last epoch.

    A bank in `extra` keeps the projected first view of each clip. After every epoch k-means clusters the
    bank; its centroids, which no gradient reaches, are the weights of the classifier until the next
    epoch's end. The first epoch fills the bank and teaches nothing: its loss is 0.

    The batch needs `clip`, the number of each clip (`entries:ClipNumber`).

    Attributes:
      frontend, tokenizer, encoder: of any encoder.
      pool: Encoded → one vector a clip.
      projector: that vector → the one that is clustered.
      views: draws a view of each log-mel, with a memory of earlier ones: `mixed_crops:MixedCrops`.
      clips: N, how many there are.
      every: updates between two clusterings; an epoch.
      clusters: K.
      iterations: of k-means.
      temperature: divides the scores.
      unit: vectors are brought to length 1 first, as in DeepCluster-v2; False: they are taken as they come,
        as in DECAR-v2's code, where vectors that are longer than 1 can end in very few clusters.
    """

    couples_examples: ClassVar[bool] = True

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    pool: Pool
    projector: Projector
    views: Augment
    clips: int
    every: int
    clusters: int = 1024
    iterations: int = 10
    temperature: float = 1.0
    unit: bool = False

    def __post_init__(self):
        for name in ("every", "clusters", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted 1 or more.")
        if self.clips < self.clusters:
            raise ValueError(
                f"clips {self.clips}, clusters {self.clusters}: wanted no more clusters than clips."
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; wanted more than 0.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, an empty bank and no clusters yet."""
        keys = jax.random.split(key, 4)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        vector, pool = self.pool.init_with_output(keys[2], encoded)
        projected, projector = self.projector.init_with_output(keys[3], vector)
        found = dict(tokenizer=tokenizer, encoder=encoder, pool=pool, projector=projector)
        width = projected.shape[-1]
        extra = {
            "views": self.views.empty(spec),
            "bank": jnp.zeros((self.clips, width), jnp.float32),
            "seen": jnp.zeros(self.clips, bool),
            "target": jnp.full(self.clips, -1, jnp.int32),
            "prototypes": jnp.zeros((self.clusters, width), jnp.float32),
        }
        return {name: variables.get("params", {}) for name, variables in found.items()}, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the cross-entropy of the clips that have a cluster, 0 where none has.

        The first view has a pass of its own without a gradient, before the second one's: batch
        normalisation sees them in this order.
        """
        if "clip" not in batch:
            raise ValueError(
                f"the batch has {', '.join(batch)}; wanted also 'clip': add the entry entries:ClipNumber."
            )
        keys = jax.random.split(key, 4)
        spec, clip = self.frontend(batch["audio"], batch["length"]), batch["clip"]
        first, second = (self.views(spec, extra["views"], k) for k in keys[:2])
        z, after = self._project(params, first, keys[2], train)
        z = jax.lax.stop_gradient(z)
        other, after = self._project(after, second, keys[3], train)
        scores = other @ extra["prototypes"].T / self.temperature
        target = extra["target"][clip]
        known = (target >= 0).astype(jnp.float32)
        value = losses.code_cross_entropy(scores, jnp.maximum(target, 0))
        right = (jnp.argmax(scores, -1) == target).astype(jnp.float32)
        extra = extra | {
            "views": self.views.remember(extra["views"], spec),
            "bank": extra["bank"].at[clip].set(z),
            "seen": extra["seen"].at[clip].set(True),
        }
        weight = float(len(clip))
        deviation = jnp.mean(jnp.std(losses.unit(z), axis=0))
        size = (
            jnp.zeros(self.clusters).at[jnp.maximum(extra["target"], 0)].add(extra["target"] >= 0)
        )
        used = perplexity(size / jnp.maximum(jnp.sum(size), 1))
        metrics = {
            # Of the clips that have a cluster; in the first epoch there is none, and no accuracy.
            "accuracy": (jnp.sum(known * right), jnp.sum(known)),
            "known": (jnp.sum(known), weight),
            "clusters": (weight * used, weight),
            "deviation": (weight * deviation, weight),
        }
        return Loss(
            total=losses.weighted_mean(value, known),
            metrics=metrics,
            extra=extra,
            renewed=statistics.renewed(params, after),
        )

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Cluster the bank after the last update of an epoch."""
        del params

        def cluster(extra):
            key = jax.random.fold_in(jax.random.key(0), step)
            book, target = dot_kmeans(
                key, extra["bank"], self.clusters, self.iterations, extra["seen"]
            )
            return extra | {"prototypes": book, "target": target}

        return jax.lax.cond((step + 1) % self.every == 0, cluster, lambda extra: extra, extra)

    def _project(
        self, params: Params, spec: Float[Array, "B T F"], key: Array, train: bool
    ) -> tuple[Float[Array, "B D"], Params]:
        """Return projected vectors, and the parameters with renewed statistics."""
        rngs = {"drop_path": key} if train else None
        after = dict(params)
        x: Any = spec
        x, after["tokenizer"] = statistics.applied(
            self.tokenizer, params.get("tokenizer", {}), x, renew=train
        )
        x, after["encoder"] = statistics.applied(
            self.encoder, params["encoder"], x, renew=train, train=train, rngs=rngs
        )
        for name, module in (("pool", self.pool), ("projector", self.projector)):
            x, after[name] = statistics.applied(module, params.get(name, {}), x, renew=train)
        return losses.unit(x) if self.unit else x, after
