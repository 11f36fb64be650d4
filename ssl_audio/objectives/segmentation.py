"""Classes of pixels, learned from pictures of which few pixels are labelled, by sound for instance.

Zürn et al. 2021 (arXiv:1912.03227); weights of classes: ENet (Paszke et al. 2016, arXiv:1606.02147).
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.slots import Layer
from ssl_audio.structs import Loss

IGNORED = -1  # of pixels without a label


@dataclasses.dataclass(frozen=True)
class Segmentation(Objective):
    """Cross-entropy of the labelled pixels of `image` [B, H, W, K]; `pixels` [B, H, W], IGNORED elsewhere.

    A pixel of class c counts 1 / log(base + share of c among all labelled pixels so far), so that rare
    classes are learned too.

    Attributes:
      model: picture → logits [B, H, W, C]: `unet:UNet`.
      classes: C.
      base: 1.02 as published: a rare class counts up to 50 times; much more than 1: all count alike.
      noise: deviation of normal noise added to pictures in training, in their values; a network that sees
        few labelled pixels then cannot know them again by what lies around them.
    """

    model: Layer
    classes: int
    base: float = 1.02
    noise: float = 0.0

    interface: ClassVar[str] = "ssl_audio.inference.model:Model"

    def __post_init__(self):
        if self.base <= 1 or self.classes < 2 or self.noise < 0:
            raise ValueError(
                f"segmentation: base {self.base}, classes {self.classes}, noise {self.noise}; wanted above "
                "1, at least 2, and at least 0."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and no pixel counted yet."""
        model = self.model.init(key, batch["image"])["params"]
        return {"model": model}, {"counts": jnp.zeros(self.classes, jnp.float32)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the weighted mean over labelled pixels; 0 where there is none."""
        pixels, image = batch["pixels"], batch["image"]
        there = pixels != IGNORED
        target = jnp.where(there, pixels, 0)
        counts = extra["counts"]
        if train:
            counts = counts + self.counted(target, there)
            if self.noise:
                image = image + self.noise * jax.random.normal(key, image.shape, image.dtype)
        logits = self.model.apply({"params": params["model"]}, image)
        weight = there * self.weights(counts)[target]
        own = jnp.take_along_axis(logits, target[..., None], -1)[..., 0]
        entropy = jax.nn.logsumexp(logits, -1) - own
        total = jnp.sum(weight * entropy) / jnp.maximum(jnp.sum(weight), 1e-6)
        right = jnp.sum(there * (jnp.argmax(logits, -1) == target)).astype(jnp.float32)
        labelled = jnp.sum(there).astype(jnp.float32)
        metrics = {
            "accuracy": (right, labelled),
            "labelled_pixels": (labelled, float(there.size)),
        }
        means = {"entropy": (total, jnp.sum(weight))}
        return Loss(total, metrics, extra={**extra, "counts": counts}, means=means)

    def counted(
        self, target: Int[Array, "B H W"], there: Bool[Array, "B H W"]
    ) -> Float[Array, " C"]:
        """Return how many labelled pixels each class has."""
        return jnp.zeros(self.classes).at[target].add(there.astype(jnp.float32))

    def weights(self, counts: Float[Array, " C"]) -> Float[Array, " C"]:
        """Return what a pixel of each class counts."""
        return 1 / jnp.log(self.base + counts / jnp.maximum(jnp.sum(counts), 1))

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "segment": logits of `batch["image"]`."""
        return {"segment": self.segment}

    def segment(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B H W C"]:
        """Return the logits of each pixel."""
        del extra
        return self.model.apply({"params": params["model"]}, batch["image"])
