"""Separate what a condition asks for from a mixture: universal source separation (arXiv:2305.07447).

Kong et al. 2023: two seconds around the moment at which a tagger hears a class best are mixed with those of
other clips, and recovered, given what the tagger says of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int, Wave
from ssl_audio.frontend.spectrum import LEAST, Spectrum
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.slots import Backbone
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class Separation(Objective):
    """Mean absolute error of the waveform of one source of a mixture.

    Each clip of `batch["audio"]` is mixed with the next ones; `batch["condition"]` [B, C] says what it is.

    Attributes:
      spectrum: waveform → magnitude and phase, and back.
      model: `resunet`, with 3 maps for each channel of sound: of the magnitude, and two of the phase.
      sources: in a mixture.
      match: bring the others to the energy of the clip.
    """

    spectrum: Spectrum
    model: Backbone
    sources: int = 2
    match: bool = True

    couples_examples: ClassVar[bool] = True
    interface: ClassVar[str] = "ssl_audio.inference.model:Model"

    def __post_init__(self):
        if self.sources < 2:
            raise ValueError(f"separation: sources is {self.sources}; wanted 2 or more.")

    @property
    def channels(self) -> int:
        """Return the channels of sound."""
        return self.model.maps // 3

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters."""
        magnitude, _, _ = self.heard(batch["audio"])
        return {"model": self.model.init(key, magnitude, batch["condition"])["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean absolute error, and the gain in signal-to-distortion ratio."""
        del key
        target = batch["audio"]
        mixture = mixed(target, self.sources, match=self.match)
        heard = self.heard(mixture)
        maps, after = statistics.applied(
            self.model, params["model"], heard[0], batch["condition"], renew=train
        )
        found = self.sound(maps, heard, target.shape[1])
        error = jnp.mean(jnp.abs(found - target), axis=tuple(range(1, target.ndim)))
        gain = distortion(found, target) - distortion(mixture, target)
        rows = float(len(target))
        metrics = {"wave": (jnp.sum(error), rows), "gain": (jnp.sum(gain), rows)}
        renewed = statistics.renewed(params, dict(params) | {"model": after})
        return Loss(total=jnp.mean(error), metrics=metrics, extra=extra, renewed=renewed)

    def heard(self, audio: Float[Array, "B S *C"]) -> Any:
        """Return magnitude, cosine and sine of the phase, [B, T, F, channels] each."""
        sound = audio[..., None] if audio.ndim == 2 else audio
        parts = [self.spectrum(sound[..., c]) for c in range(sound.shape[-1])]
        return tuple(jnp.stack(some, -1) for some in zip(*parts, strict=True))

    def sound(
        self, maps: Float[Array, "B T F K"], heard: Any, samples: int
    ) -> Float[Array, "B S *C"]:
        """Return the waveform that the maps make of a mixture."""
        magnitude, cos, sin = heard
        maps = maps.reshape(*maps.shape[:3], magnitude.shape[-1], 3)
        mask, real, imaginary = jnp.moveaxis(maps, -1, 0)
        mask, real, imaginary = jax.nn.sigmoid(mask), jnp.tanh(real), jnp.tanh(imaginary)
        # Where both are 0, as at the highest frequency, nothing is heard; a root has no gradient there.
        square = real**2 + imaginary**2
        silent = square < LEAST**2
        length = jnp.sqrt(jnp.where(silent, 1.0, square))
        turn = [jnp.where(silent, part / LEAST, part / length) for part in (real, imaginary)]
        found = (
            jax.nn.relu(magnitude * mask),
            cos * turn[0] - sin * turn[1],
            sin * turn[0] + cos * turn[1],
        )
        parts = [
            self.spectrum.inverse(found[0][..., c], found[1][..., c], found[2][..., c], samples)
            for c in range(magnitude.shape[-1])
        ]
        return parts[0] if self.channels == 1 else jnp.stack(parts, -1)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "separate"."""
        return {"separate": self.separate}

    def separate(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B S *C"]:
        """Return what `batch["condition"]` asks for of the mixture `batch["audio"]`."""
        del extra
        heard = self.heard(batch["audio"])
        maps: Any = self.model.apply({"params": params["model"]}, heard[0], batch["condition"])
        return self.sound(maps, heard, batch["audio"].shape[1])


def anchors(
    likely: Float[Array, "B T"], frames: int, last: int | None = None
) -> tuple[Float[Array, "B U"], Int[Array, " B"]]:
    """Return how likely a class is around each frame, and the frame around which it is most likely.

    Args:
      likely: probability of the class at each frame.
      frames: of a segment; its ends are repeated beyond those of the clip.
      last: frames of the clip, within which the whole segment is to lie; None: T.

    Returns:
      Means over `frames` [B, U], U is T, or T + 1 for an even number of them; the centres [B].
    """
    half = frames // 2
    padded = jnp.pad(likely, ((0, 0), (half, half)), mode="edge")
    total = jnp.cumsum(jnp.pad(padded, ((0, 0), (1, 0))), axis=1)
    scores = (total[:, frames:] - total[:, :-frames]) / frames
    best = jnp.argmax(scores, axis=1)
    return scores, jnp.clip(best, half, (last or likely.shape[1]) - half).astype(jnp.int32)


def cut(audio: Wave, centre: Int[Array, " B"], frames: int, hop: int) -> tuple[Any, Any, Any]:
    """Return the segment around each anchor, and the samples where it begins and ends."""
    half = frames // 2
    begin = (centre - half) * hop
    size = 2 * half * hop
    found = jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (at,), (size,)))(audio, begin)
    return found, begin, begin + size


def mixed(
    audio: Float[Array, "B S *C"], sources: int, *, match: bool = True
) -> Float[Array, "B S *C"]:
    """Return each clip with the next ones of the batch added, at its energy if they are to match it."""
    rest = tuple(range(1, audio.ndim))
    energy = jnp.mean(audio**2, axis=rest, keepdims=True)
    total = audio
    for i in range(1, sources):
        other, own = jnp.roll(audio, -i, axis=0), jnp.roll(energy, -i, axis=0)
        gain = jnp.sqrt(energy / jnp.maximum(own, LEAST))
        total = total + (jnp.clip(gain, 0.02, 50.0) if match else 1.0) * other
    return total


def distortion(found: Float[Array, "B S *C"], target: Float[Array, "B S *C"]) -> Float[Array, " B"]:
    """Return the signal-to-distortion ratio of each clip, dB."""
    rest = tuple(range(1, target.ndim))
    signal = jnp.maximum(jnp.mean(target**2, axis=rest), LEAST)
    return 10 * jnp.log10(signal / jnp.maximum(jnp.mean((found - target) ** 2, rest), LEAST))
