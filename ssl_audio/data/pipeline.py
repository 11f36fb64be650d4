"""From sources to batches: which clip, which part of it, how many, in what order, on which host.

`train/loop.py` iterates `Pipeline.batches`. Every random choice depends on (seed, position in the stream)
alone, so resuming needs no state but the step.
"""

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_audio.data import mixture, transforms
from ssl_audio.data.captions import with_names
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.reading import check_share, read_ahead
from ssl_audio.data.source import Example, multi_hot
from ssl_audio.data.text import Text
from ssl_audio.slots import AnySource, Compose

log = logging.getLogger(__name__)

_TRIES = 20  # unreadable clips in a row before giving up
_ENDLESS = 2**62


@dataclass(frozen=True)
class Pipeline:
    """Endless seeded batches of equally long clips from one or several sources.

    A batch is `audio` float32 [B S], `length` int32 [B] (samples before the padding), `index` int32
    [B] (the clip's number, see `ids`) and, with `classes`, `label` float32 [B C]; with `text`, `text`
    int32 [B W] and `text_length` int32 [B] (and negatives, see `Text.draw`); with `weighted`, `weight`
    float32 [B]; with `tell_source`, `source` int32 [B] (the place of its
    source among the sorted names of all); what `compose` makes beside (see `compose.py`).

    A clip that cannot be decoded is logged once by name, kept in `bad` and replaced by another of
    its source, the same one in every run. When the different bad clips exceed `max_bad_share` of
    the clips read so far (taken as at least 1000, and at most all there are), iteration raises
    ValueError; a single bad clip never does, unless `max_bad_share` is 0.
    """

    sources: Mapping[str, AnySource]
    batch_size: int  # global: over all hosts
    samples: int  # S: length of a clip
    rate: int = 16_000  # Hz; the sources must agree
    weights: Mapping[str, float] | None = None  # share of each source; default: by size
    crop: str = "random"  # of longer clips: "random" or "first"
    fill: str = "zeros"  # shorter clips: see `transforms.fill`
    speed: float = 0.0  # clips are played up to this share faster or slower, pitch and all
    gain: float = 0.0  # dB; and up to this much louder or softer
    mixup: float = 0.0  # probability that a clip is mixed with another
    mixup_beta: float = 10.0  # its share is drawn from Beta(b, b)
    balanced: bool = False  # draw clips with replacement, rare labels as often as common ones
    classes: int = 0  # C: give multi-hot labels; 0: no labels
    text: Text | None = None  # captions and how to cut them into words
    weighted: bool = False  # give the clips' weights in the loss
    compose: Compose = None  # makes one example of several; see `compose.py`
    tell_source: bool = False  # say which source a clip is of
    seed: int = 0
    shuffle: bool = True
    workers: int = 0  # processes; 0: none. The program then needs a `__main__` guard
    threads: int = 8  # that read ahead, in each process; 0: none
    max_bad_share: float = 0.01
    bad: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self):
        for name, allowed in (("crop", transforms.CROPS), ("fill", transforms.FILLS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted one of {allowed}")
        for name in ("batch_size", "samples", "rate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        if not 0 <= self.speed < 1 or not 0 <= self.gain < 100:
            raise ValueError(
                f"speed, gain: wanted 0 to 1, 0 to 100 dB; got {self.speed:g}, {self.gain:g}"
            )
        for name in ("mixup", "max_bad_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: wanted 0 to 1, got {getattr(self, name)}")
        if not self.sources:
            raise ValueError("sources: none given")
        if self.mixup and (self.text or self.compose):
            raise ValueError("mixup: the words would be of one clip only; leave it 0 with text.")
        if self.compose and (self.classes or self.weighted or (self.text and self.text.negatives)):
            raise ValueError(
                "compose: a composed clip has no label, weight or negatives; leave classes, weighted and "
                "text.negatives 0."
            )
        if self.balanced and not self.classes:
            raise ValueError("balanced: needs classes (the number of labels)")
        if self.weights is not None:
            mixture.check_shares(self.weights, self._names)

    def batches(
        self, start_step: int = 0, *, shard: int = 0, shards: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield this host's part of each batch from `start_step` on, forever.

        Host p gives the p-th of `shards` equal blocks of rows, so the global batch is the same for
        any number of hosts, row by row. It never ends, so no host waits for another that has run
        out. Close it (or drop it) to stop reading.

        Raises:
          ValueError: `batch_size` not divisible by `shards`; too many unreadable clips; sources
            whose rates or labels do not fit.
        """
        if self.batch_size % shards or not 0 <= shard < shards:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided over {shards} hosts (host {shard})"
            )
        self._check_sources()
        rows = self.batch_size // shards
        numbers = range(start_step * rows, _ENDLESS)  # of the clips that this host reads
        draw = functools.partial(self._draw_row, rows, shard * rows)
        clips = read_ahead(draw, numbers, self.workers, self.threads, 2 * rows)
        return self._batched(clips, rows)

    def _batched(self, clips: Any, rows: int) -> Iterator[dict[str, np.ndarray]]:
        read = 0
        with contextlib.closing(clips):
            while True:
                batch = []
                for clip in itertools.islice(clips, rows):
                    read += clip.pop("read")
                    self._report(clip.pop("failed"), read)
                    batch.append(clip)
                yield {key: np.stack([clip[key] for clip in batch]) for key in batch[0]}

    def ids(self, index: Sequence[int] | np.ndarray) -> list[str]:
        """Return "source:clip" for each number in a batch's `index`, for reports to people."""
        return [self._id(*self._locate(int(i))) for i in np.asarray(index).ravel()]

    @property
    def clips(self) -> int:
        """Return the number of clips in all sources."""
        return sum(self._sizes)

    @property
    def epoch_steps(self) -> int:
        """Return the steps in which as many clips are drawn as there are; at least 1."""
        return max(1, self.clips // self.batch_size)

    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Return the shape and type of each entry of a global batch, without reading anything."""
        rows = (self.batch_size,)
        spec = {
            "audio": ((*rows, self.samples), np.dtype(np.float32)),
            "length": (rows, np.dtype(np.int32)),
            "index": (rows, np.dtype(np.int32)),
        }
        if self.classes:
            spec["label"] = ((*rows, self.classes), np.dtype(np.float32))
        if self.text:
            shapes = self.text.shapes().items()
            spec |= {name: ((*rows, *shape), np.dtype(np.int32)) for name, shape in shapes}
        if self.weighted:
            spec["weight"] = (rows, np.dtype(np.float32))
        if self.compose and self.compose.reversal:
            spec |= {f"{name}_reversed": spec[name] for name in spec if name != "index"}
        return spec | ({"source": (rows, np.dtype(np.int32))} if self.tell_source else {})

    def describe(self) -> str:
        """Return a line per source (clips, classes, licence) and one on what becomes of them."""
        lines = []
        for name, size in zip(self._names, self._sizes, strict=True):
            info = self.sources[name].info
            kinds = f", {len(info.labels)} classes" if info.labels else ""
            share = f", weight {self.weights[name]:g}" if self.weights else ""
            lines.append(f"{name}: {info.name}, {size} clips{kinds}{share}, licence {info.licence}")
        seconds = self.samples / self.rate
        lines.append(
            f"{self.clips} clips; batches of {self.batch_size} x {seconds:g} s at {self.rate} Hz; "
            f"{self.epoch_steps} steps per epoch"
        )
        return "\n".join(lines)

    @property
    def _names(self) -> list[str]:
        return sorted(self.sources)  # not the order of the config, which a round trip may change

    @functools.cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(len(self.sources[name]) for name in self._names)

    @functools.cached_property
    def _draws(self) -> mixture.Draws:
        weights = None if self.weights is None else tuple(self.weights[n] for n in self._names)
        chances = self._chances(weights) if self.balanced else None
        return mixture.Draws(self._sizes, weights, chances, self.seed, self.shuffle)

    def _chances(self, weights: tuple[float, ...] | None) -> np.ndarray:
        labels = [
            self._meta(name, i).get("label")
            for name, size in zip(self._names, self._sizes, strict=True)
            for i in range(size)
        ]
        chances = mixture.balanced(labels, self.classes)
        if weights is not None:
            parts = np.split(chances, np.cumsum(self._sizes)[:-1])
            if not all(part.sum() for part in parts):
                raise ValueError("weights: balanced sampling needs labels in every source")
            chances = np.concatenate([w * p / p.sum() for w, p in zip(weights, parts, strict=True)])
        return chances

    def _meta(self, name: str, i: int) -> Example:
        return self.sources[name].meta(i)

    def _check_sources(self) -> None:
        for name in self._names:
            rate = self._meta(name, 0)["rate"]
            if rate != self.rate:
                raise ValueError(f"sources.{name}: its rate is {rate} Hz, wanted {self.rate} Hz")
        _ = self._draws  # made once, before the workers copy it

    def _locate(self, index: int) -> tuple[str, int]:
        for name, size in zip(self._names, self._sizes, strict=True):
            if index < size:
                return name, index
            index -= size
        raise IndexError(f"clip {index} of {self.clips}")

    def _id(self, name: str, i: int) -> str:
        return f"{name}:{self._meta(name, i)['id']}"

    def _draw_row(self, rows: int, first: int, number: int) -> dict[str, Any]:
        step, row = divmod(number, rows)
        return self._draw(step * self.batch_size + first + row)

    def _draw(self, position: int) -> dict[str, Any]:
        """Return the clip at a position of the stream, and what could not be read on the way."""
        rng = np.random.default_rng((self.seed, 3, position))
        failed: list[tuple[str, str]] = []
        reads = itertools.count()
        load = functools.partial(self._load, rng=rng, failed=failed, reads=reads)
        try:
            index, example = load(self._draws[position])
            if self.compose:
                composed = self.compose(
                    example, lambda: load(int(rng.integers(self.clips)))[1], rng
                )
                clip = self._composed(index, composed, rng, load)
                return {**clip, "read": next(reads), "failed": failed}
            audio, length = self._cut(index, example, rng, load)
            label = self._label(example)
            if self.mixup and rng.random() < self.mixup:
                share = rng.beta(self.mixup_beta, self.mixup_beta)
                other, partner = load(int(rng.integers(self.clips)))
                second, heard = self._cut(other, partner, rng, load)
                mixed = transforms.mixup(audio[:length], second[:heard], share)
                audio = np.pad(mixed, (0, self.samples - length))
                label = share * label + (1 - share) * self._label(partner)
        except _GaveUp:
            return {"read": next(reads), "failed": failed}
        clip = {"audio": audio, "length": np.int32(length), "index": np.int32(index)}
        if self.classes:
            clip["label"] = label.astype(np.float32)
        if self.text:
            clip |= self.text.draw(example, rng)
        if self.weighted:
            clip["weight"] = np.float32(example.get("weight", 1.0))
        if self.tell_source:
            clip["source"] = np.int32(self._names.index(self._locate(index)[0]))
        return {**clip, "read": next(reads), "failed": failed}

    def _load(
        self, index: int, *, rng: np.random.Generator, failed: list, reads: Iterator[int]
    ) -> tuple[int, Example]:
        name, i = self._locate(index)
        first = index - i
        for _ in range(_TRIES):
            next(reads)
            try:
                example, labels = self.sources[name][i], self.sources[name].info.labels
                return first + i, with_names(example, labels) if self.text else example
            except DecodeError as error:
                failed.append((self._id(name, i), str(error)))
                i = int(rng.integers(len(self.sources[name])))
        raise _GaveUp

    def _composed(
        self, index: int, examples: Mapping[str, Example], rng: np.random.Generator, load: Callable
    ) -> dict[str, Any]:
        clip: dict[str, Any] = {"index": np.int32(index)}
        for suffix, example in examples.items():
            audio, length = self._cut(index, example, rng, load)
            clip[f"audio{suffix}"], clip[f"length{suffix}"] = audio, np.int32(length)
            if self.text:
                words = self.text.draw(example, rng)
                clip |= {f"{name}{suffix}": value for name, value in words.items()}
        return clip

    def _cut(
        self, index: int, example: Example, rng: np.random.Generator, load: Callable
    ) -> tuple[np.ndarray, int]:
        def more() -> np.ndarray:
            name, i = self._locate(index)
            return load(index - i + int(rng.integers(len(self.sources[name]))))[1]["audio"]

        audio = example["audio"]
        if self.speed:
            audio = transforms.speed(audio, 1 + rng.uniform(-self.speed, self.speed))
        if self.gain:
            audio = transforms.gain(audio, rng.uniform(-self.gain, self.gain))
        audio = transforms.fill(audio, self.samples, self.fill, more)
        return transforms.crop(audio, self.samples, self.crop, rng)

    def _label(self, example: Example) -> np.ndarray:
        if not self.classes:
            return np.zeros(0, np.float32)
        label = example.get("label")
        numbers = label if isinstance(label, tuple) else () if label is None else (label,)
        if label is None or any(not 0 <= n < self.classes for n in numbers):
            raise ValueError(
                f"clip {example['id']}: its label is {label}, with classes={self.classes}"
            )
        return multi_hot(numbers, self.classes)

    def _report(self, failed: list[tuple[str, str]], read: int) -> None:
        for name, cause in failed:
            if name not in self.bad:
                self.bad[name] = cause
                log.warning("skipped %s: %s", name, cause)
        if failed:
            judged = min(max(read, 1000), self.clips)
            check_share(self.bad, judged, self.max_bad_share)
        if len(failed) >= _TRIES:
            raise ValueError(
                f"{len(failed)} clips drawn one after the other could not be read; "
                f"the last: {failed[-1][1]}"
            )


class _GaveUp(Exception):
    """Too many unreadable clips in a row."""
