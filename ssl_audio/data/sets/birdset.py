"""BirdSet: recordings of birds from Xeno-Canto to train with, soundscapes in pieces of 5 s to test with."""

import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.source import Clip, Files, SourceInfo, folder
from ssl_audio.data.tables import read
from ssl_audio.storage import opened

SPLITS = ("train", "test", "test_5s")
NOISE = -1  # cluster of events that belong to no other


@dataclass(frozen=True)
class Birdset(Files):
    """One of its subsets: `SUBSET_metadata_SPLIT.parquet` (or .csv) somewhere in `root`, audio beside it.

    A training clip is an event that was detected in a recording; events of the largest cluster count,
    and a recording without any gives its first 5 s. Test clips are the rows as they are, with any
    number of labels. Codes of species are numbered in the order of the alphabet, over all splits.
    """

    root: str
    subset: str = "HSN"
    split: str = "train"  # "train", "test" or "test_5s"
    per_class: int = 0  # keep so many events of a species at most; 0: all
    per_recording: int = 0  # and so many of a recording
    seconds: float = 5.0  # length of a training clip, from the event's start on
    seed: int = 0  # of which events are kept
    rate: int = 16_000  # Hz; the recordings' own is mostly 32 000 or more

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(
                f"Birdset.split: got {self.split!r}, wanted one of {', '.join(SPLITS)}"
            )
        if self.per_class < 0 or self.per_recording < 0 or self.seconds <= 0:
            raise ValueError(
                "Birdset: per_class and per_recording must not be below 0, nor seconds 0"
            )

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Birdset.root")
        tables = {split: self._table(root, split) for split in SPLITS}
        here = tables[self.split]
        if here is None:
            wanted = f"{self.subset}_metadata_{self.split}.parquet (or .csv)"
            raise ValueError(f"Birdset.root: no {wanted} under {root}")
        found = (row for path in tables.values() if path for row in _rows(path))
        codes = sorted({code for row in found for code in _codes(row)})
        number = {code: i for i, code in enumerate(codes)}
        make = self._events if self.split == "train" else self._segments
        clips = [clip for row in _rows(here) for clip in make(row, here.parent, number)]
        if self.split == "train" and (self.per_class or self.per_recording):
            kept = curate(
                [(clip.path, clip.label) for clip in clips],
                self.per_class,
                self.per_recording,
                self.seed,
            )
            clips = [clips[i] for i in kept]
        info = SourceInfo(
            f"birdset_{self.subset}",
            tuple(codes),
            licence="each recording its own: see the table",
            citation="L. Rauch et al. BirdSet: A Large-Scale Dataset for Audio Classification in Avian "
            "Bioacoustics. ICLR 2025. arXiv:2403.10380",
            url="https://huggingface.co/datasets/DBD-research-group/BirdSet",
            multilabel=True,
        )
        return info, clips

    def _table(self, root: pathlib.Path, split: str) -> pathlib.Path | None:
        names = [f"{self.subset}_metadata_{split}.{kind}" for kind in ("parquet", "csv")]
        return next((path for name in names for path in sorted(root.rglob(name))), None)

    def _events(self, row: dict, place: pathlib.Path, number: dict) -> Iterator[Clip]:
        events, clusters = _list(row, "detected_events"), _list(row, "event_cluster")
        real = [(e, c) for e, c in zip(events, clusters, strict=False) if c != NOISE]
        if not real and len(events) == 1:  # the only event there is, noise or not
            real = [(events[0], NOISE)]
        if real:
            largest = Counter(c for _, c in real).most_common(1)[0][0]
            starts = [float(e[0]) for e, c in real if c == largest]
        else:
            starts = [0.0]
        label = tuple(sorted(number[code] for code in _codes(row)))
        path = str(place / row["filepath"])
        for start in starts:
            end = start + self.seconds
            id = f"{row['filepath']}@{start:g}"
            yield Clip(path, id, label, split="train", start=start, end=end)

    def _segments(self, row: dict, place: pathlib.Path, number: dict) -> Iterator[Clip]:
        start, end = (row.get(f"{side}_time") for side in ("start", "end"))
        start, end = float(start or 0), None if end in (None, "") else float(end)
        label = tuple(sorted(number[code] for code in _codes(row)))
        id = f"{row['filepath']}@{start:g}"
        path = str(place / row["filepath"])
        yield Clip(path, id, label, split=self.split, start=start, end=end)


def curate(
    events: Sequence[tuple[str, Any]], per_class: int, per_recording: int, seed: int = 0
) -> list[int]:
    """Return which events to keep: some of each recording, then some of each species, in their order.

    The pretraining set of Bird-MAE keeps 2 of a recording and 500 of a species (arXiv:2504.12880).

    Args:
      events: (recording, species) of each.
      per_class: at most so many of a species, drawn at random; 0: all.
      per_recording: at most so many of a recording, drawn at random; 0: all.
      seed: of the draws; the same gives the same.
    """
    order = np.random.default_rng(seed).permutation(len(events))
    recordings: Counter = Counter()
    species: Counter = Counter()
    kept = []
    for i in order:
        recording, kind = events[i]
        if per_recording and recordings[recording] >= per_recording:
            continue
        if per_class and species[kind] >= per_class:
            continue
        recordings[recording] += 1
        species[kind] += 1
        kept.append(int(i))
    return sorted(kept)


def _rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".csv":
        yield from read(path)
        return
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"{path} takes pyarrow to read: pip install 'ssl_audio[parquet]'"
        ) from None
    yield from pyarrow.parquet.read_table(path).to_pylist()


def _list(row: dict[str, Any], name: str) -> list:
    """Return a column that holds a list; in CSV it is written as JSON."""
    value = row.get(name)
    if isinstance(value, str):
        where = f"{getattr(row, 'where', 'a row')}: {name}"
        return opened.parsed(value, where, "a list", list) if value else []
    return [] if value is None else list(value)


def _codes(row: dict[str, Any]) -> list[str]:
    """Return the species of a row: all that are heard, or else the one of the recording."""
    several = _list(row, "ebird_code_multilabel")
    single = row.get("ebird_code")
    return several or ([single] if single else [])
