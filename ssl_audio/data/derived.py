"""Sources made of other sources: fewer of their clips, changed ones, pairs in either order. And notes.

What they hold depends on a clip's number and a seed alone. Called by `eval/tasks.py`.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.altered import Change
from ssl_audio.data.captions import with_names
from ssl_audio.data.compose import RELATIONS, another, joined, named
from ssl_audio.data.source import Example, Over, SourceInfo
from ssl_audio.data.synthetic import noise

PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
COUNTS = ("one", "two", "three", "four", "five")


@dataclass(frozen=True)
class Fewer:
    """At most `most` clips of a source, shared out among its classes, folds and splits as they are in it."""

    source: Any  # a Source
    most: int
    seed: int = 0

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return self.source.info

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> Example:
        return self.source[self._numbers[i]]

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio."""
        return self.source.meta(self._numbers[i])

    @functools.cached_property
    def _numbers(self) -> list[int]:
        count = len(self.source)
        if count <= self.most:
            return list(range(count))
        rng = np.random.default_rng((self.seed, 11))
        cells: dict[Any, list[int]] = {}
        for i in rng.permutation(count).tolist():
            meta = self.source.meta(i)
            key = meta.get("label"), meta.get("fold"), meta.get("split")
            cells.setdefault(key, []).append(i)
        # A clip's rank in its cell, in parts of the cell: the first `most` hold the same part of each.
        place = {i: (k + rng.random()) / len(c) for c in cells.values() for k, i in enumerate(c)}
        return sorted(sorted(place, key=place.__getitem__)[: self.most])


@dataclass(frozen=True)
class Changed(Over):
    """The clips of a source, each changed as its number and `seed` say."""

    change: Change
    seed: int = 0

    def __getitem__(self, i: int) -> Example:
        example = self.source[i]
        rng = np.random.default_rng((self.seed, 12, i))
        audio = self.change(np.asarray(example["audio"]), example["rate"], rng)
        return {**example, "audio": audio.astype(np.float32)}


@dataclass(frozen=True)
class Noisy(Change):
    """Add pink noise; `snr`: dB over the whole clip. Silence gets noise of 60 dB below full scale."""

    snr: float = 10.0

    def __call__(self, audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        level = max(float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))), 1e-3)
        heard = audio + noise(rng, len(audio), rate, slope=0.5) * level * 10 ** (-self.snr / 20)
        return (heard / max(1.0, float(np.abs(heard).max()))).astype(np.float32)


@dataclass(frozen=True)
class Softer(Change):
    """Make a sound softer by `decibels`."""

    decibels: float = 20.0

    def __call__(self, audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        del rate, rng
        return audio * np.float32(10 ** (-self.decibels / 20))


@dataclass(frozen=True)
class Part(Change):
    """Keep a part of a sound, from anywhere in it; `share`: of its length."""

    share: float = 0.5

    def __call__(self, audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        del rate
        length = max(1, round(self.share * len(audio)))
        start = int(rng.integers(len(audio) - length + 1))
        return audio[start : start + length]


@dataclass(frozen=True)
class Pairs:
    """`size` pairs of clips of different classes: example 2j is "u before v", 2j + 1 "v before u".

    A pair's two examples have the same sounds and the same `fold`; the label is 0 where the class that
    comes first by its number is heard first, else 1.
    """

    source: Any  # a Source with labels
    size: int = 100
    gap: float = 0.1  # s of silence between both, at most
    longest: float = 2.5  # s of each
    seed: int = 0

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        info = self.source.info
        labels = ("lower class first", "higher class first")
        return SourceInfo(f"pairs of {info.name}", labels, info.licence, info.citation, info.url)

    def __len__(self) -> int:
        return 2 * self.size

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio."""
        return {k: v for k, v in self._drawn(i).items() if k not in ("pair", "silence")}

    def __getitem__(self, i: int) -> Example:
        found = self._drawn(i)
        first, second = (self._sound(n) for n in found.pop("pair"))
        silence = round(found.pop("silence") * found["rate"])
        return {**found, "audio": joined(first, second, silence)}

    def _drawn(self, i: int) -> Example:
        pair, back = divmod(i, 2)
        rng = np.random.default_rng((self.seed, 13, pair))

        def draw() -> Example:
            number = int(rng.integers(len(self.source)))
            return {
                **with_names(self.source.meta(number), self.source.info.labels),
                "number": number,
            }

        first = draw()
        second = another(first, draw)
        u, v = (second, first) if back else (first, second)
        return {
            "rate": u["rate"],
            "id": f"pair-{self.seed}-{pair:05d}{'b' if back else 'a'}",
            "text": f"{named(u)} {RELATIONS[0]} {named(v)}",
            "label": int(u["label"] > v["label"]),
            "fold": pair % 5 + 1,
            "group": pair,
            "pair": (u["number"], v["number"]),
            "silence": rng.uniform(0, self.gap),
        }  # fmt: skip

    def _sound(self, number: int) -> np.ndarray:
        example = self.source[number]
        return np.asarray(example["audio"])[: round(self.longest * example["rate"])]


@dataclass(frozen=True)
class Notes:
    """`size` clips of one note each, of a random timbre and octave; the label is its pitch class."""

    size: int = 480
    seconds: float = 1.0
    rate: int = 16_000  # Hz
    seed: int = 0

    @property
    def info(self) -> SourceInfo:
        """Return the names of the classes."""
        return SourceInfo("notes", PITCHES, licence="CC0 1.0")

    def __len__(self) -> int:
        return self.size

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio."""
        label, fold = i % len(PITCHES), i // len(PITCHES) % 5 + 1
        return {"rate": self.rate, "id": f"note-{self.seed}-{i:05d}", "label": label, "fold": fold}

    def __getitem__(self, i: int) -> Example:
        meta = self.meta(i)
        rng = np.random.default_rng((self.seed, 14, i))
        t = np.arange(round(self.seconds * self.rate)) / self.rate
        octave = int(rng.integers(3))
        pitch = 130.81 * 2 ** (octave + (meta["label"] + rng.uniform(-0.1, 0.1)) / 12)
        partials = np.arange(1, max(2, min(12, int(0.45 * self.rate / pitch))))
        sizes = partials ** -rng.uniform(0.5, 2.0) * rng.uniform(0.3, 1.0, len(partials))
        phases = rng.uniform(0, 2 * np.pi, len(partials))
        waves = np.sin(2 * np.pi * pitch * partials[:, None] * t + phases[:, None])
        fade = np.exp(-t * rng.uniform(0, 4)) * np.minimum(1, t / rng.uniform(0.005, 0.05))
        return {**meta, "audio": _finished(sizes @ waves * fade, rng, self.rate)}


@dataclass(frozen=True)
class Counted:
    """`size` clips of one to five short sounds, alike within a clip; the label is their number less one."""

    size: int = 400
    seconds: float = 3.0
    rate: int = 16_000  # Hz
    seed: int = 0

    @property
    def info(self) -> SourceInfo:
        """Return the names of the classes."""
        return SourceInfo("counted", COUNTS, licence="CC0 1.0")

    def __len__(self) -> int:
        return self.size

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio."""
        label, fold = i % len(COUNTS), i // len(COUNTS) % 5 + 1
        return {"rate": self.rate, "id": f"count-{self.seed}-{i:05d}", "label": label, "fold": fold}

    def __getitem__(self, i: int) -> Example:
        meta = self.meta(i)
        rng = np.random.default_rng((self.seed, 15, i))
        audio = np.zeros(round(self.seconds * self.rate))
        # Whatever their number, the sounds last equally long together: loudness does not tell it.
        count, slots = meta["label"] + 1, 2 * len(COUNTS)
        length = int(0.3 * len(audio) / count)
        t = np.arange(length) / self.rate
        tone = np.sin(2 * np.pi * rng.uniform(300, 2000) * t)
        rough = noise(rng, length, self.rate) if rng.random() < 0.5 else tone
        sound = rough * np.hanning(length)
        free = len(audio) - count * length
        starts = np.sort(rng.choice(slots, count, replace=False)) * (free / slots)
        for number, start in enumerate(starts.astype(int)):
            at = start + number * length
            audio[at : at + length] += sound
        return {**meta, "audio": _finished(audio, rng, self.rate)}


def _finished(audio: np.ndarray, rng: np.random.Generator, rate: int) -> np.ndarray:
    """Return a sound over soft noise, of a random level."""
    audio = audio / (np.abs(audio).max() + 1e-9)
    audio = audio + noise(rng, len(audio), rate, slope=0.5) * 10 ** (rng.uniform(-50, -30) / 20)
    return (audio * 10 ** (rng.uniform(-12, -1) / 20) / np.abs(audio).max()).astype(np.float32)
