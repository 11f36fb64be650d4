"""What objectives share that compare two augmented views of every clip: their passes, a teacher, a queue.

Objectives are subclasses, one file each; the formulas that two of them need are here too.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float, PRNGKeyArray, Spec
from ssl_audio.frontend.mixed_crops import MixedCrops
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.objectives.teacher import follow
from ssl_audio.slots import AnyFrontend, Backbone, Pool, Projector, Tokenizer
from ssl_audio.structs import Encoded


@dataclasses.dataclass(frozen=True)
class TwoViews(Encoding):
    """An encoder and what draws the views.

    Attributes:
      frontend, tokenizer, encoder: of any encoder.
      pool: Encoded → one vector a clip.
      views: draws a view of each normalised log-mel; what it remembers of earlier clips is in `extra`.
    """

    couples_examples: ClassVar[bool] = True

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    pool: Pool
    views: MixedCrops

    def begin(self, key: PRNGKeyArray, batch: Batch) -> tuple[Params, Spec, Encoded, Array]:
        """Return fresh parameters of the encoder; a log-mel, and its encoding and vector."""
        keys = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens, layers=True)
        vector, pool = self.pool.init_with_output(keys[2], encoded)
        made = {"tokenizer": tokenizer, "encoder": encoder, "pool": pool}
        params = {name: variables.get("params", {}) for name, variables in made.items()}
        return params, spec, encoded, vector

    def pair(self, extra: Extra, batch: Batch, key: PRNGKeyArray) -> tuple[Spec, Spec, Extra]:
        """Return two views of each clip, and `extra` with the clips remembered."""
        spec = self.frontend(batch["audio"], batch["length"])
        first, second = (self.views(spec, extra["views"], k) for k in jax.random.split(key))
        return first, second, extra | {"views": self.views.remember(extra["views"], spec)}

    def encoded(
        self, params: Params, spec: Spec, key: PRNGKeyArray | None
    ) -> tuple[Encoded, Array, Params]:
        """Return the encoding and the vector of each clip, and parameters with renewed statistics.

        Args:
          params: a student's or a teacher's.
          spec: one view.
          key: in training; None: with stored statistics and without dropout.
        """
        train, after = key is not None, dict(params)
        how: dict[str, Any] = dict(
            train=train, layers=True, rngs=None if key is None else {"drop_path": key}
        )
        x: Any = spec
        x, after["tokenizer"] = statistics.applied(
            self.tokenizer, params["tokenizer"], x, renew=train
        )
        x, after["encoder"] = statistics.applied(
            self.encoder, params["encoder"], x, renew=train, **how
        )
        vector, after["pool"] = statistics.applied(self.pool, params["pool"], x, renew=train)
        return x, vector, after


@dataclasses.dataclass(frozen=True)
class TaughtViews(TwoViews):
    """Two views, one for a student and one for a teacher that slowly follows it (MoCo, arXiv:1911.05722).

    The student's vector of a clip must be told from a queue of the teacher's latest vectors of other clips.
    The teacher has statistics of its own from its own passes, which then follow the student's as its
    weights do; in training both use those of the batch.

    Attributes:
      projector: the vector of a clip → the space of the queue, where lengths do not matter.
      queue: vectors in it; a new one takes the place of the oldest. It begins with random directions.
      temperature: divides the cosines.
      momentum: of the teacher.
    """

    projector: Projector
    queue: int
    temperature: float
    momentum: float

    def __post_init__(self):
        if self.queue < 1 or self.temperature <= 0 or not 0 <= self.momentum <= 1:
            raise ValueError(
                f"queue {self.queue}, temperature {self.temperature}, momentum {self.momentum}: wanted at "
                "least 1, above 0, and from 0 to 1."
            )

    def start(self, key: PRNGKeyArray, batch: Batch) -> tuple[Params, Extra, Encoded, Array]:
        """Return parameters, and in `extra` a teacher that equals them, a queue, no earlier clips.

        Also the encoding and the vectors, for heads of the student alone.
        """
        key, projector_key, queue_key = jax.random.split(key, 3)
        params, spec, encoded, vector = self.begin(key, batch)
        x, projector = self.projector.init_with_output(projector_key, vector)
        params["projector"] = projector["params"]
        queue = jax.random.normal(queue_key, (self.queue, x.shape[-1]), jnp.float32)
        # A copy: the state of a run is donated, and no buffer may be donated twice.
        teacher = jax.tree.map(jnp.copy, params)
        extra = {"teacher": teacher, "queue": losses.unit(queue), "views": self.views.empty(spec)}
        return params, extra, encoded, vector

    def projected(
        self, params: Params, spec: Spec, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, "B O"], Encoded, Array, Params]:
        """Return unit vectors in the queue's space, and what `encoded` does."""
        encoded, vector, after = self.encoded(params, spec, key)
        x: Any
        x, after["projector"] = statistics.applied(
            self.projector, params["projector"], vector, renew=key is not None
        )
        return losses.unit(x), encoded, vector, after

    def enqueued(self, queue: Float[Array, "Q O"], *new: Float[Array, "B O"]) -> Array:
        """Return the queue with these vectors at its front."""
        return jnp.concatenate([*reversed(new), queue])[: self.queue]

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Move the teacher towards the student."""
        del step
        return extra | {"teacher": follow(extra["teacher"], params, self.momentum)}


def queue_nce(
    q: Float[Array, "B D"],
    k: Float[Array, "B D"],
    queue: Float[Array, "Q D"],
    temperature: float,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Tell each clip's other view from the queue: (loss, accuracy) of each (MoCo, equation 1).

    All vectors have length 1. Clips of the batch are not each other's negatives.
    """
    right = jnp.sum(q * k, axis=-1, keepdims=True)
    scores = jnp.concatenate([right, q @ queue.T], axis=1) / temperature
    hit = (jnp.argmax(scores, axis=1) == 0).astype(jnp.float32)
    return jax.nn.logsumexp(scores, axis=1) - scores[:, 0], hit


def correlation(x: Float[Array, "B D"], y: Float[Array, "B D"]) -> Float[Array, "D D"]:
    """Return the correlation over the batch of each value of one view with each of the other.

    Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230), equation 2; 1e-5 is added to the variances.
    """

    def standard(z):
        mean = jnp.mean(z, axis=0, keepdims=True)
        return (z - mean) * jax.lax.rsqrt(jnp.var(z, axis=0, keepdims=True) + 1e-5)

    return standard(x).T @ standard(y) / len(x)


def redundancy(matrix: Float[Array, "D D"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the sums of (1 - c)^2 on the diagonal, and of c^2 off it (Barlow Twins, equation 1)."""
    diagonal = jnp.diagonal(matrix)
    cross = jnp.sum(matrix**2) - jnp.sum(diagonal**2)
    return jnp.sum((1 - diagonal) ** 2), cross
