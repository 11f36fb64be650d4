"""What a batch holds: each entry declares its arrays and computes them from one example, for `pipeline.py`.

A picture, a video or a second view is one more class like these, here or in a package of your own.
"""

import abc
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data import transforms
from ssl_audio.data.source import Example, multi_hot

Shape = tuple[int, ...]
Arrays = Mapping[str, Any]  # numpy arrays and scalars


class Entry(abc.ABC):
    """One or several arrays per clip of a batch; subclasses are frozen dataclasses."""

    @property
    def of_several(self) -> bool:
        """Tell whether clips composed of several can have this entry; see `compose.py`."""
        return False

    @abc.abstractmethod
    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:
        """Return name → shape and type of each array of one clip, without reading data."""

    @abc.abstractmethod
    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:
        """Return name → array of one clip, as `spec` says.

        Args:
          example: what a source gives, with `names` (its labels in words), `source` (the number of its
            source among the sorted names of all), `source_name`, `number` (of the clip among those of all
            sources) and `more` (a function without arguments that reads another example of that source).
          rng: the only source of randomness; it depends on the seed and the clip's place in the stream alone.
        """

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:
        """Return the arrays of a mixture (mixup): `share` of the first clip and 1 - `share` of the second.

        Raises:
          ValueError: this entry cannot be mixed.
        """
        raise ValueError(f"mixup: {type(self).__name__} cannot be mixed; leave mixup 0.")

    def check_mix(self) -> None:
        """Raise ValueError if `mix` would."""
        if type(self).mix is Entry.mix:
            self.mix({}, {}, 1.0)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of a table's columns that are looked up, its own and those of entries within."""
        found = [getattr(self, "column", "")]
        for inside in vars(self).values():
            found += inside.columns if isinstance(inside, Entry) else ()
        return tuple(filter(None, found))

    def check_sources(self, names: Collection[str]) -> None:
        """Raise ValueError if this entry is of other sources than those of these names."""
        del names


@dataclass(frozen=True)
class Audio(Entry):
    """`audio` float32 [S], and `length` int32: samples before the padding.

    Attributes:
      samples: S.
      crop: where a longer clip is cut: "random" or "first".
      fill: what lengthens a shorter clip: see `transforms.fill`.
      speed: clips are resampled to be up to this share faster or slower; the pitch changes too.
      gain: clips are made up to this much louder or softer, dB.
    """

    samples: int
    crop: str = "random"
    fill: str = "zeros"
    speed: float = 0.0
    gain: float = 0.0

    def __post_init__(self):
        for name, allowed in (("crop", transforms.CROPS), ("fill", transforms.FILLS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted one of {allowed}")
        if self.samples < 1:
            raise ValueError(f"samples: wanted at least 1, got {self.samples}")
        if not 0 <= self.speed < 1 or not 0 <= self.gain < 100:
            raise ValueError(
                f"speed, gain: wanted 0 to 1, 0 to 100 dB; got {self.speed:g}, {self.gain:g}"
            )

    @property
    def of_several(self) -> bool:  # noqa: D102
        return True

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        return {
            "audio": ((self.samples,), np.dtype(np.float32)),
            "length": ((), np.dtype(np.int32)),
        }

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        return self.cut(example, rng)[0]

    def cut(self, example: Example, rng: np.random.Generator) -> tuple[Arrays, int, float]:
        """Return what `draw` does, where the clip begins in the sound that it is cut out of, and its speed.

        The begin counts samples as they are played, `speed` times faster than in the example.
        """
        audio, speed = example["audio"], 1.0
        if self.speed:
            speed = 1 + rng.uniform(-self.speed, self.speed)
            audio = transforms.speed(audio, speed)
        if self.gain:
            audio = transforms.gain(audio, rng.uniform(-self.gain, self.gain))
        more = example["more"]
        audio = transforms.fill(audio, self.samples, self.fill, lambda: more()["audio"])
        start = transforms.crop_start(len(audio), self.samples, self.crop, rng)
        audio, length = transforms.crop(
            audio[start : start + self.samples], self.samples, "first", rng
        )
        return {"audio": audio, "length": np.int32(length)}, start, speed

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:  # noqa: D102
        length = int(first["length"])
        other = second["audio"][: int(second["length"])]
        mixed = transforms.mixup(first["audio"][:length], other, share)
        return {**first, "audio": np.pad(mixed, (0, self.samples - length))}


@dataclass(frozen=True)
class Labels(Entry):
    """`label` float32 [C], with ones at a clip's labels.

    Attributes:
      classes: C.
      names: of the classes, in the order of their numbers; none: those of the sources. Only kept here, so
        that a trained model knows them; the sources number the labels.
      unlabelled: clips without a label are allowed; the batch then has `labelled`, float32: 1 for labelled
        clips, else 0.
    """

    classes: int
    names: tuple[str, ...] = ()
    unlabelled: bool = False

    def __post_init__(self):
        if self.classes < 1:
            raise ValueError(f"classes: wanted at least 1, got {self.classes}")
        if self.names and len(self.names) != self.classes:
            raise ValueError(f"names: wanted one per class, {self.classes}; got {len(self.names)}")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        single = np.dtype(np.float32)
        spec: dict[str, tuple[Shape, np.dtype]] = {"label": ((self.classes,), single)}
        return spec | ({"labelled": ((), single)} if self.unlabelled else {})

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        del rng
        label = example.get("label")
        known = label is not None
        numbers = label if isinstance(label, tuple) else (label,) if known else ()
        if any(not 0 <= n < self.classes for n in numbers) or not (known or self.unlabelled):
            hint = "" if known else "; unlabelled=True allows clips without one"
            raise ValueError(
                f"clip {example['id']}: its label is {label}, with classes={self.classes}{hint}"
            )
        arrays = {"label": multi_hot(numbers, self.classes)}
        return arrays | ({"labelled": np.float32(known)} if self.unlabelled else {})

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:  # noqa: D102
        label = share * first["label"] + (1 - share) * second["label"]
        mixed = {"label": label.astype(np.float32)}
        # A mixture counts as labelled only if both clips are.
        return mixed | (
            {"labelled": first["labelled"] * second["labelled"]} if self.unlabelled else {}
        )


@dataclass(frozen=True)
class Weight(Entry):
    """`weight` float32: how much a clip counts in the loss; unknown counts 1, a mixture as its parts do."""

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        return {"weight": ((), np.dtype(np.float32))}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        del rng
        return {"weight": np.float32(example.get("weight", 1.0))}

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:  # noqa: D102
        return {"weight": np.float32(share * first["weight"] + (1 - share) * second["weight"])}


@dataclass(frozen=True)
class SourceNumber(Entry):
    """`source` int32: the number of a clip's source among the sorted names of all."""

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        return {"source": ((), np.dtype(np.int32))}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        del rng
        return {"source": np.int32(example["source"])}

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:  # noqa: D102
        return first


@dataclass(frozen=True)
class Domain(Entry):
    """`domain` int32: what a clip is of, as speech or music: the number that its source has; -1: unknown.

    Attributes:
      sources: name → number; those that are not named are unknown.
    """

    sources: Mapping[str, int]

    def __post_init__(self):
        for name, number in self.sources.items():
            if number < 0:
                raise ValueError(f"sources.{name}: wanted a number from 0 on, got {number}")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        return {"domain": ((), np.dtype(np.int32))}

    def check_sources(self, names: Collection[str]) -> None:  # noqa: D102
        if unknown := sorted(self.sources.keys() - set(names)):
            raise ValueError(
                f"entries: Domain: sources.{unknown[0]}: no source has this name, so its number would be "
                f"given to no clip; wanted some of {', '.join(sorted(names))}."
            )

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        del rng
        return {"domain": np.int32(self.sources.get(example["source_name"], -1))}

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:  # noqa: D102
        return first


@dataclass(frozen=True)
class ClipNumber(Entry):
    """`clip` int32: the number of a clip among those of all sources, for a memory of each clip."""

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        return {"clip": ((), np.dtype(np.int32))}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        del rng
        return {"clip": np.int32(example["number"])}


@dataclass(frozen=True)
class Group(Entry):
    """`ARRAY` int32: the same number for clips with the same text in a column, as a listener's name.

    The number is the text's CRC-32, the same on every machine; an empty cell has one that is the clip's own.

    Attributes:
      column: of the source's table.
      array: name of the array in the batch; "": `column`.
    """

    column: str
    array: str = ""

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        return {self.array or self.column: ((), np.dtype(np.int32))}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        del rng
        cell = (example.get("columns") or {}).get(self.column)
        name = str(cell if cell not in (None, "") else example["id"])
        number = np.uint32(zlib.crc32(name.encode())).astype(np.int32)
        return {self.array or self.column: number}


def audio(
    samples: int, *, crop: str = "random", fill: str = "zeros", **more: Any
) -> dict[str, Any]:
    """Return the options of entry `Audio` for a config, with the usual ones written out."""
    return dict(kind="entries:Audio", samples=samples, crop=crop, fill=fill, **more)


def clips(samples: int, *, rate: int | None = None, **options: Any) -> dict[str, Any]:
    """Return the `data` options of a converted model: the length and rate of its clips."""
    audio = dict(kind="entries:Audio", samples=samples, **options)
    return dict(entries=dict(audio=audio)) | ({} if rate is None else dict(rate=rate))
