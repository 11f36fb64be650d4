"""Separate what a condition asks for from a mixture: universal source separation (arXiv:2305.07447).

Kong et al. 2023: two seconds around the moment at which a tagger hears a class best are mixed with those of
other clips, and recovered, given what the tagger says of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.frontend.spectrum import LEAST, Spectrum
from ssl_audio.objectives import statistics
from ssl_audio.objectives.anchors import Anchor
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.objectives.queries import Given, Query, inner
from ssl_audio.slots import Backbone
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class Separation(Objective):
    """Mean absolute error of the waveform of one source of a mixture.

    Each clip of `batch["audio"]` is mixed with the next ones; a query of the clean clip says what it is.

    Attributes:
      spectrum: waveform → magnitude and phase, and back.
      model: `resunet`, with 3 maps for each channel of sound: of the magnitude, and two of the phase.
      sources: in a mixture.
      match: bring the others to the energy of the clip.
      query: what makes the condition [B, C] of a clean clip.
      anchor: which segment of a clip is a source; None: all of it.
    """

    spectrum: Spectrum
    model: Backbone
    sources: int = 2
    match: bool = True
    query: Query = Given()
    anchor: Anchor | None = None

    couples_examples: ClassVar[bool] = True
    interface: ClassVar[str] = "ssl_audio.inference.separator:Separator"

    def __post_init__(self):
        if self.sources < 2:
            raise ValueError(f"separation: sources is {self.sources}; wanted 2 or more.")

    @property
    def needs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return what predictors need of `extra`: the frozen model of the query, if it has one."""
        return ("query",) if self.query.heard else ()

    @property
    def channels(self) -> int:
        """Return the channels of sound."""
        return self.model.maps // 3

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and what query and anchor have that does not learn.

        Raises:
          ValueError: a frozen model of theirs hears sound of another rate.
        """
        for name, part in (("query", self.query), ("anchor", self.anchor)):
            for field in ("tagger", "encoder", "model"):
                heard = getattr(inner(getattr(part, field, None)), "frontend", None)
                rate = getattr(heard, "rate", self.spectrum.rate)
                if rate != self.spectrum.rate:
                    raise ValueError(
                        f"{name}.{field}: it hears sound at {rate} Hz, the separator at {self.spectrum.rate} "
                        "Hz; wanted a model of the same rate."
                    )
        keys = jax.random.split(key, 3)
        extra: dict[str, Any] = {"anchor": self.anchor.init(keys[0], batch)} if self.anchor else {}
        clean = self.segments(extra, batch)
        query, extra["query"] = self.query.init(keys[1], clean)
        condition = self.query(query, extra["query"], clean)
        magnitude, _, _ = self.heard(clean["audio"])
        params = {"model": self.model.init(keys[2], magnitude, condition)["params"]}
        return params | ({"query": query} if query else {}), extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean absolute error, and the gain in signal-to-distortion ratio."""
        keys = jax.random.split(key)
        clean = self.segments(extra, batch, keys[0] if train else None)
        target = clean["audio"]
        condition = self.query(
            params.get("query", {}), extra["query"], clean, keys[1] if train else None
        )
        mixture = mixed(target, self.sources, match=self.match)
        heard = self.heard(mixture)
        maps, after = statistics.applied(
            self.model, params["model"], heard[0], condition, renew=train
        )
        found = self.sound(maps, heard, target.shape[1])
        error = jnp.mean(jnp.abs(found - target), axis=tuple(range(1, target.ndim)))
        gain = distortion(found, target) - distortion(mixture, target)
        rows = float(len(target))
        metrics = {"wave": (jnp.sum(error), rows), "gain": (jnp.sum(gain), rows)}
        renewed = statistics.renewed(params, dict(params) | {"model": after})
        return Loss(total=jnp.mean(error), metrics=metrics, extra=extra, renewed=renewed)

    def segments(self, extra: Extra, batch: Batch, key: Array | None = None) -> Batch:
        """Return a batch whose clips are the segments of their anchors; with a key as in training."""
        if self.anchor is None:
            return batch
        # A model that was loaded for use has it only where it is a frozen network in training.
        audio = self.anchor(extra.get("anchor", {}), batch, key)
        length = jnp.full(len(audio), audio.shape[1], jnp.int32)
        return {**batch, "audio": audio, "length": length}

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
        """Offer "separate", and "condition" of clean sound."""
        return {"separate": self.separate, "condition": self.condition}

    def condition(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return what the query makes of clean clips, all of each."""
        return self.query(params.get("query", {}), extra.get("query", {}), batch)

    def separate(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B S *C"]:
        """Return what `batch["condition"]` asks for of the mixture `batch["audio"]`."""
        del extra
        heard = self.heard(batch["audio"])
        maps: Any = self.model.apply({"params": params["model"]}, heard[0], batch["condition"])
        return self.sound(maps, heard, batch["audio"].shape[1])


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
    """Return the signal-to-distortion ratio of each clip, dB, whatever its level; at most 100.

    Of a silent target there is none: what is heard counts as if the target had a power of 1e-10.
    """
    rest = tuple(range(1, target.ndim))
    signal = jnp.mean(target**2, axis=rest)
    signal = jnp.where(signal > 0, signal, LEAST)
    least = jnp.minimum(LEAST, LEAST * signal)
    return 10 * jnp.log10(signal / jnp.maximum(jnp.mean((found - target) ** 2, rest), least))
