"""Scenes made of labelled clips: one sound after another at known times, over noise.

A source to train from where nobody has marked onsets and offsets, as in Scaper (Salamon et al., WASPAA 2017).
"""

from dataclasses import dataclass, field

import numpy as np

from ssl_audio.data.source import Example, SourceInfo
from ssl_audio.data.synthetic import Synthetic, noise
from ssl_audio.slots import AnySource

_FRAME = 0.01  # s, of which the level is taken
_QUIETER = (
    40.0  # dB below a clip's loudest frame: silence at its ends, which is no part of the sound
)


@dataclass(frozen=True)
class Scenes:
    """`size` scenes of `seconds`; a scene depends on its number and `seed` alone.

    Each sound is a clip of the source without the silence at its ends; its example has `events`, a tuple of
    (start, end, class), s, and as `label` the classes in it.
    """

    source: AnySource = field(default_factory=lambda: Synthetic(size=240, seconds=1.0))
    size: int = 1000
    seconds: float = 10.0
    gaps: tuple[float, float] = (0.5, 4.0)  # s, the shortest and longest silence between sounds
    longest: float = 5.0  # s, of a sound
    snr: tuple[float, float] = (10.0, 40.0)  # dB, of each sound over the noise
    seed: int = 0

    def __post_init__(self):
        if self.size < 1 or self.seconds <= 0 or self.longest <= 0 or self.seed < 0:
            raise ValueError(
                f"Scenes: wanted size >= 1, seconds > 0, longest > 0 and seed >= 0, got size={self.size}, "
                f"seconds={self.seconds:g}, longest={self.longest:g}, seed={self.seed}"
            )
        for name in ("gaps", "snr"):
            low, high = getattr(self, name)
            if not low <= high or (name == "gaps" and not 0 <= low < high):
                raise ValueError(f"Scenes.{name}: wanted the least and the most, got {low}, {high}")

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is: with the classes of the source."""
        info = self.source.info
        if not info.labels:
            raise ValueError(f"Scenes.source: {info.name} has no labels.")
        return SourceInfo(
            f"scenes of {info.name}", info.labels, info.licence, info.citation, multilabel=True
        )

    @property
    def rate(self) -> int:
        """Of the source, Hz."""
        return self.source.meta(0)["rate"]

    def __len__(self) -> int:
        return self.size

    def meta(self, i: int) -> Example:
        """Return what is known of a scene before it is made."""
        return {"rate": self.rate, "id": f"scene-{self.seed}-{i:06d}"}

    def __getitem__(self, i: int) -> Example:
        rng = np.random.default_rng((self.seed, i))
        rate = self.rate
        audio = noise(rng, round(self.seconds * rate), rate, slope=rng.uniform(0.0, 1.0))
        audio *= 10 ** (rng.uniform(-55.0, -35.0) / 20)
        level, events = float(np.sqrt(np.mean(audio**2))), []
        at = rng.uniform(0, self.gaps[1])
        while at < self.seconds - 2 * _FRAME:
            clip = self.source[int(rng.integers(len(self.source)))]
            sound = sounding(np.asarray(clip["audio"]), rate)[: round(self.longest * rate)]
            gain = level * 10 ** (rng.uniform(*self.snr) / 20)
            first = round(at * rate)
            sound = sound[: len(audio) - first]
            power = np.sqrt(np.mean(sound**2)) if len(sound) else 0
            if power > 0:
                audio[first : first + len(sound)] += sound * (gain / power)
                label = clip["label"]
                if not isinstance(label, int):
                    raise ValueError(
                        f"Scenes: clip {clip['id']}: its label is {label}, wanted one."
                    )
                events.append((first / rate, (first + len(sound)) / rate, label))
            at = (first + len(sound)) / rate + max(rng.uniform(*self.gaps), 2 / rate)
        audio /= max(1.0, 1.1 * float(np.abs(audio).max()))
        label = tuple(sorted({number for *_, number in events}))
        known = {"events": tuple(events), "label": label, **self.meta(i)}
        return {"audio": audio.astype(np.float32), **known}


def sounding(audio: np.ndarray, rate: int) -> np.ndarray:
    """Return a clip [S] without the frames of 10 ms at its ends that are 40 dB below its loudest."""
    size = max(1, round(_FRAME * rate))
    padded = np.pad(audio.astype(np.float64), (0, -len(audio) % size))
    power = np.mean(padded.reshape(-1, size) ** 2, axis=1)
    loud = np.flatnonzero(power > power.max(initial=0) * 10 ** (-_QUIETER / 10))
    return audio[loud[0] * size : (loud[-1] + 1) * size] if len(loud) else audio[:0]
