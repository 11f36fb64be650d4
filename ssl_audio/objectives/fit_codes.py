"""Fit a multi-codebook quantiser to a teacher's features: the targets of SPEAR.

Guo et al. 2023 (arXiv:2211.00508); Yang et al. 2025 (arXiv:2510.25955) section 3.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.objectives import teacher
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.slots import AnyObjective, Quantizer
from ssl_audio.structs import Encoded, Loss

FINAL = -1


@dataclasses.dataclass(frozen=True)
class FitCodes(Objective):
    """Approximate features by sums of codebook entries.

    Attributes:
      teacher: an objective that offers "encode"; frozen, in `extra`.
      quantizer: `multi_codebook`.
      layer: of the teacher; -1: after its last norm.
      rounds: of search for better codes in each step.
      even: weight of how unevenly codes are used, in nats.
    """

    teacher: AnyObjective
    quantizer: Quantizer
    layer: int = FINAL
    rounds: int = 1
    even: float = 0.01

    needs: ClassVar[tuple[str, ...]] = ("teacher",)
    interface: ClassVar[str] = "ssl_audio.inference.model:Model"  # its features are its teacher's

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return a fresh quantiser, and the teacher."""
        first, second = jax.random.split(key)
        frozen, state = self.teacher.init(first, batch)
        extra = {"teacher": {"params": frozen, "extra": state}}
        x = self._taught(extra, batch)
        return {"quantizer": self.quantizer.init(second, x[:, :1])["params"]}, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the relative error, the classifier's entropy of the codes, and their unevenness."""
        del key, train
        x = self._taught(extra, batch)
        weights = {"params": params["quantizer"]}
        flat = x.reshape(-1, x.shape[-1])
        relative, guess, uneven = self.quantizer.apply(weights, flat, self.rounds, method="losses")
        metrics = {
            "relative_error": (relative, 1.0),
            "guess": (guess, 1.0),
            "unevenness": (uneven, 1.0),
        }
        return Loss(total=relative + guess + self.even * uneven, metrics=metrics, extra=extra)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode" and "codes"; both need the teacher in `extra`."""
        return {"encode": self.encode, "codes": self.codes}

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Return the teacher's features."""
        del params
        state = extra["teacher"]
        return self.teacher.predictors()["encode"](state["params"], state["extra"], batch)

    def codes(self, params: Params, extra: Extra, batch: Batch) -> Int[Array, "B N Q"]:
        """Return the codes of the teacher's features."""
        return self.quantizer.apply({"params": params["quantizer"]}, self._taught(extra, batch))

    def _taught(self, extra: Extra, batch: Batch) -> Float[Array, "B N D"]:
        state = jax.lax.stop_gradient(extra["teacher"])
        encoded = teacher.encoded(teacher.heard_by(self.teacher), state, batch)
        x = encoded.tokens.x if self.layer == FINAL else encoded.layers[self.layer]
        return jax.lax.stop_gradient(x.astype(jnp.float32))
