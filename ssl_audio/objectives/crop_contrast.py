"""Tell which two crops are of the same clip, among all crops of a batch: SimCLR on sound.

COLA (Saeed et al. 2021, arXiv:2010.10915) is this without changes to the crops; the loss is that of SimCLR
(Chen et al. 2020, arXiv:2002.05709).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float, Int, PRNGKeyArray, Wave
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.two_views import TwoViews
from ssl_audio.slots import Augment, Projector
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class CropContrast(TwoViews):
    """Bring two crops of a clip together and all other crops apart.

    The two lie anywhere in the clip that the batch holds, so they may overlap or not. Both go through
    the encoder in one pass, so batch normalisation sees them together.

    Attributes:
      projector: the vector of a crop → the space that is compared, where lengths do not matter.
      crop: samples of a crop; clips that are shorter than the batch's are padded, and cropped as they are.
      temperature: divides the cosines.
      places: so many are drawn for each crop, and the loudest is taken. With 1, two of three crops of some
        clips are silent, and a silent crop has no partner that can be found.
      augment: what changes the crops, one after the other: (audio, length, key) → audio.
    """

    projector: Projector
    crop: int
    temperature: float = 0.1
    places: int = 1
    augment: tuple[Augment, ...] = ()

    def __post_init__(self):
        if self.crop < 1 or self.temperature <= 0 or self.places < 1:
            raise ValueError(
                f"CropContrast: crop={self.crop}, temperature={self.temperature}, places={self.places}; "
                "wanted at least one sample, a temperature above 0 and at least one place."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and no earlier clips.

        Raises:
          ValueError: the clips of the batch are shorter than a crop.
        """
        samples = batch["audio"].shape[1]
        if samples < self.crop:
            raise ValueError(
                f"CropContrast: crop={self.crop} samples, but the clips have {samples}; make crop smaller or "
                "data.entries.audio.samples larger."
            )
        key, projector_key = jax.random.split(key)
        audio = batch["audio"][:, : self.crop]
        short = {"audio": audio, "length": jnp.minimum(batch["length"], self.crop)}
        params, spec, _, vector = self.begin(key, short)
        params["projector"] = self.projector.init(projector_key, vector)["params"]
        return params, {"views": self.views.empty(spec)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean over all crops of the cross-entropy with the clip's other crop."""
        key, *keys = jax.random.split(key, 5)
        specs = [self.view(batch["audio"], batch["length"], k, train) for k in keys[:2]]
        memory = extra["views"]
        pair = [self.views(spec, memory, k) for spec, k in zip(specs, keys[2:], strict=True)]
        extra = extra | {"views": self.views.remember(memory, specs[0])}
        _, vector, after = self.encoded(params, jnp.concatenate(pair), key if train else None)
        x: Any
        x, after["projector"] = statistics.applied(
            self.projector, params["projector"], vector, renew=train
        )
        first, second = jnp.split(losses.unit(x), 2)
        loss, hit = losses.nt_xent(first, second, self.temperature)
        weight = float(len(batch["audio"]))
        found = {"accuracy": jnp.mean(hit), "spread": losses.spread(vector)}
        metrics = {name: (weight * value, weight) for name, value in found.items()}
        return Loss(jnp.mean(loss), metrics, extra, statistics.renewed(params, after))

    def view(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray, train: bool) -> Array:
        """Return the spectrogram of a crop of each clip, whose waveform has been changed in training."""
        place_key, augment_key = jax.random.split(key)
        audio, length = cropped(audio, length, self.crop, self.places, place_key)
        for number, change in enumerate(self.augment if train else ()):
            audio = change(audio, length, jax.random.fold_in(augment_key, number))
        return self.frontend(audio, length)


def cropped(
    audio: Wave, length: Int[Array, "B"], size: int, places: int, key: PRNGKeyArray
) -> tuple[Float[Array, "B C"], Int[Array, "B"]]:
    """Return a crop of each clip, the loudest of those at so many random places, and its samples."""
    free = jnp.maximum(length - size, 0)
    start = jax.random.randint(key, (len(audio), places), 0, free[:, None] + 1)
    take = jax.vmap(lambda wave, first: jax.lax.dynamic_slice(wave, (first,), (size,)))
    if places > 1:
        energy = [jnp.sum(take(audio, start[:, place]) ** 2, axis=1) for place in range(places)]
        loudest = jnp.argmax(jnp.stack(energy, axis=1), axis=1)
        start = jnp.take_along_axis(start, loudest[:, None], axis=1)
    return take(audio, start[:, 0]), jnp.minimum(length, size)
