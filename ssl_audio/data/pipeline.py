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

from ssl_audio.data import mixture, tables
from ssl_audio.data.captions import with_names
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.entries import Arrays, Entry
from ssl_audio.data.long_audio import LongAudio
from ssl_audio.data.reading import PAGE, check_share, check_shared_memory, read_ahead
from ssl_audio.data.source import Example, coded_labels, content
from ssl_audio.slots import AnySource, Compose

log = logging.getLogger(__name__)

_TRIES = 20  # unreadable clips in a row before giving up
_ENDLESS = 2**62
_TOGETHER = 4  # clips at most that a thread reads before it hands them over


@dataclass(frozen=True)
class Pipeline:
    """Endless seeded batches of clips from one or several sources.

    A batch is what its `entries` add (see `entries.py`), each array with a first axis [B], and `index`
    int32 [B], the clip's number (see `ids`). With `compose` it also has what that makes beside, under the
    same names with an ending (see `compose.py`).

    A clip that cannot be decoded is logged once by name, kept in `bad` and replaced by another of
    its source, the same one in every run. When the different bad clips exceed `max_bad_share` of
    the clips read so far (taken as at least 1000, and at most all there are), iteration raises
    ValueError; a single bad clip never does, unless `max_bad_share` is 0.
    """

    sources: Mapping[str, AnySource]
    batch_size: int  # global: over all hosts
    entries: Mapping[str, Entry]  # under names of one's choice, in whose order they draw
    rate: int = 16_000  # Hz; the sources must agree
    weights: Mapping[str, float] | None = None  # share of each source; default: by size
    mixup: float = 0.0  # probability that a clip is mixed with another
    mixup_beta: float = 10.0  # its share is drawn from Beta(b, b)
    balanced: bool = False  # draw clips with replacement, rare labels as often as common ones
    compose: Compose = None  # makes one example of several; see `compose.py`
    seed: int = 0
    shuffle: bool = True
    workers: int = 0  # processes; 0: none. The program then needs a `__main__` guard
    threads: int = 8  # that read ahead, in each process; 0: none
    max_bad_share: float = 0.01
    bad: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self):
        for name in ("batch_size", "rate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        for name in ("seed", "workers", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: wanted at least 0, got {getattr(self, name)}")
        for name in ("mixup", "max_bad_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: wanted 0 to 1, got {getattr(self, name)}")
        for name in ("sources", "entries"):
            if not getattr(self, name):
                raise ValueError(f"{name}: none given")
        given: dict[str, str] = {"index": "the pipeline"}
        for name, entry in self._entries:
            tables.name_columns(entry.columns)
            for array in entry.spec():
                if array in given:
                    raise ValueError(f"entries: {name} and {given[array]} both give '{array}'.")
                given[array] = name
            entry.check_sources(self._names)
            if self.mixup:
                entry.check_mix()
            if self.compose and not entry.of_several:
                raise ValueError(f"compose: a composed clip has no {', '.join(entry.spec())}.")
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
        # As many as leave work for all threads: to hand clips over one by one costs more.
        together = rows // (max(1, self.threads) * max(1, self.workers))
        together = min(max(1, together), _TOGETHER)
        # Two batches read ahead, others in hand or about to be given back: fewer than five were seen.
        waiting = 5 * rows + 4 * self.workers * together
        check_shared_memory(self.workers, self._clip_bytes() * waiting)
        numbers = range(start_step * rows, _ENDLESS)  # of the clips that this host reads
        draw = functools.partial(self._draw_row, rows, shard * rows)
        clips = read_ahead(draw, numbers, self.workers, self.threads, 2 * rows, together)
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
    def all_sources(self) -> dict[str, AnySource]:
        """Return all sources that batches are drawn from, by the names that `collections` gives them."""
        return dict(self.sources)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Return the clips in a batch, by the name of the option that says so."""
        return {"batch_size": self.batch_size}

    @property
    def epoch_steps(self) -> int:
        """Return the steps in which as many clips are drawn as there are; at least 1."""
        return max(1, self.clips // self.batch_size)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers; none: no source names any.

        Raises:
          ValueError: batches have labels, and two sources number theirs differently.
        """
        named = {n: found for n in self._names if (found := self.sources[n].info.labels)}
        first = next(iter(named), "")
        for name, labels in named.items() if "label" in self.spec() else ():
            if labels != named[first]:
                only = sorted(set(labels) ^ set(named[first])) or ["none; their order differs"]
                raise ValueError(
                    f"sources.{name}: its classes are not those of sources.{first}, so their numbers would "
                    f"be mixed up; in one of them only: {', '.join(only)}. Name the classes of both with "
                    "`labels` of a manifest, or leave data.entries.label out."
                )
        return tuple(named.get(first, ()))

    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Return the shape and type of each entry of a global batch, without reading anything."""
        spec: dict[str, Any] = {"index": ((), np.dtype(np.int32))}
        for _, entry in self._entries:
            spec |= entry.spec()
        if self.compose and self.compose.reversal:
            spec |= {f"{name}_reversed": spec[name] for name in spec if name != "index"}
        return {name: ((self.batch_size, *shape), dtype) for name, (shape, dtype) in spec.items()}

    def check(self) -> None:
        """Open every source.

        Raises:
          ValueError: one is missing, or its rate is another.
        """
        self._check_sources()

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return of each source the number of clips and a digest of their metadata."""
        return {
            name: {"clips": size, "content": content(self.sources[name])}
            for name, size in zip(self._names, self._sizes, strict=True)
        }

    def describe(self) -> str:
        """Return a line per source (clips, classes, licence) and one about the batches."""
        lines = []
        for name, size in zip(self._names, self._sizes, strict=True):
            info = self.sources[name].info
            kinds = f", {len(info.labels)} classes" if info.labels else ""
            share = f", weight {self.weights[name]:g}" if self.weights else ""
            lines.append(f"{name}: {info.name}, {size} clips{kinds}{share}, licence {info.licence}")
            if info.left_out:
                lines.append(f"{name}: left out: {info.left_out}")
        audio = self.spec().get("audio")
        each = f" x {audio[0][1] / self.rate:g} s at {self.rate} Hz" if audio else ""
        lines.append(
            f"{self.clips} clips; batches of {self.batch_size}{each}; "
            f"{self.epoch_steps} steps per epoch"
        )
        return "\n".join(lines)

    def _clip_bytes(self) -> int:
        """Return what one clip of a batch takes in memory that processes share: whole pages per array."""
        arrays = ((shape[1:], dtype) for shape, dtype in self.spec().values())
        return sum(-(-int(np.prod(s)) * dtype.itemsize // PAGE) * PAGE for s, dtype in arrays)

    @property
    def _names(self) -> list[str]:
        return sorted(self.sources)  # not the order of the config, which a round trip may change

    @functools.cached_property
    def _entries(self) -> tuple[tuple[str, Entry], ...]:
        return tuple(sorted(self.entries.items()))

    @functools.cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(len(self.sources[name]) for name in self._names)

    @functools.cached_property
    def _draws(self) -> mixture.Draws:
        weights = None if self.weights is None else tuple(self.weights[n] for n in self._names)
        chances = self._chances(weights) if self.balanced else None
        return mixture.Draws(self._sizes, weights, chances, self.seed, self.shuffle)

    def _chances(self, weights: tuple[float, ...] | None) -> np.ndarray:
        chances = mixture.balanced([coded_labels(self.sources[name]) for name in self._names])
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
                raise ValueError(
                    f"sources.{name}: its rate is {rate} Hz, wanted that of data.rate, {self.rate} Hz; set "
                    f"data.sources.{name}.rate={self.rate}, or prepare shards at that rate."
                )
        _ = self.labels
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
        first, clip = self._draws[position], {}
        for _ in range(_TRIES):
            try:
                index, example = load(first)
                clip = self._clip(index, example, rng, load)
            except _Unreadable as error:  # the next clip is another of the same source
                failed.append((error.id, str(error)))
                name, i = self._locate(index)
                first = index - i + int(rng.integers(len(self.sources[name])))
                continue
            except _GaveUp:
                pass
            break
        return {**clip, "read": next(reads), "failed": failed}

    def _clip(
        self, index: int, example: Example, rng: np.random.Generator, load: Callable
    ) -> dict[str, Any]:
        if self.compose:
            made = self.compose(example, lambda: load(int(rng.integers(self.clips)))[1], rng)
        else:
            made = {"": example}
        clip: dict[str, Any] = {"index": np.int32(index)}
        for ending, example in made.items():
            arrays = self._arrays(index, example, rng, load)
            clip |= {f"{name}{ending}": array for name, array in arrays.items()}
        return clip

    def _arrays(
        self, index: int, example: Example, rng: np.random.Generator, load: Callable
    ) -> dict[str, np.ndarray]:
        """Return what the entries make of an example, mixed with another one by chance."""
        parts = self._parts(index, example, rng, load)
        if self.mixup and rng.random() < self.mixup:
            share = rng.beta(self.mixup_beta, self.mixup_beta)
            other, partner = load(int(rng.integers(self.clips)))
            others = self._parts(other, partner, rng, load)
            parts = [
                entry.mix(first, second, share)
                for (_, entry), first, second in zip(self._entries, parts, others, strict=True)
            ]
        return {name: array for part in parts for name, array in part.items()}

    def _parts(
        self, index: int, example: Example, rng: np.random.Generator, load: Callable
    ) -> list[Arrays]:
        name, i = self._locate(index)

        def more() -> Example:
            return load(index - i + int(rng.integers(len(self.sources[name]))))[1]

        known = {**example, "source": self._names.index(name), "source_name": name}
        known |= {"number": index, "more": more}
        try:
            return [entry.draw(known, rng) for _, entry in self._entries]
        except DecodeError as error:  # of a file beside the sound
            raise _Unreadable(self._id(name, i), error) from error

    def _load(
        self, index: int, *, rng: np.random.Generator, failed: list, reads: Iterator[int]
    ) -> tuple[int, Example]:
        name, i = self._locate(index)
        first = index - i
        for _ in range(_TRIES):
            next(reads)
            try:
                source = self.sources[name]
                # Of long sound only what the entries take is decoded; composers take all of it.
                get = source.__getitem__ if self.compose else getattr(source, "open", None)
                example = get(i) if get else source[i]
                if isinstance(example["audio"], LongAudio):
                    example = {**example, "audio": _watched(example["audio"], self._id(name, i))}
                return first + i, with_names(example, source.info.labels)
            except DecodeError as error:
                failed.append((self._id(name, i), str(error)))
                i = int(rng.integers(len(self.sources[name])))
        raise _GaveUp

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


def _watched(audio: LongAudio, id: str) -> LongAudio:
    """Return long audio whose slices, where they cannot be read, say of which clip they are."""

    def read(first: int, stop: int) -> np.ndarray:
        try:
            return audio[first:stop]
        except DecodeError as error:
            raise _Unreadable(id, error) from error

    return LongAudio(len(audio), read)


class _Unreadable(Exception):
    """A part of long sound, or a file beside the sound, that cannot be read."""

    def __init__(self, id: str, cause: DecodeError):
        super().__init__(str(cause))
        self.id = id


class _GaveUp(Exception):
    """Too many unreadable clips in a row."""
