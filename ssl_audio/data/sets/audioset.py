"""AudioSet: ten-second excerpts of YouTube videos with any of 527 labels."""

import functools
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ssl_audio.data import hierarchy
from ssl_audio.data.clip_columns import Builder, cell
from ssl_audio.data.listing import audio_names
from ssl_audio.data.source import Clip, Clips, Files, SourceInfo, folder
from ssl_audio.data.tables import ABSENT, Block, Row, blocks, read

log = logging.getLogger(__name__)

_SEGMENTS = ("balanced_train", "unbalanced_train", "eval")


@dataclass(frozen=True)
class Audioset(Files):
    """The excerpts of one segment list whose files exist below `root`.

    `root` holds `{segments}_segments.csv`, `class_labels_indices.csv` and, at any depth, the
    excerpts already cut: file names begin with the video's id, or with "Y" and the id. Videos
    disappear, so listed excerpts without a file are only counted (`missing`).

    An excerpt often has a label without a broader one that it implies, "Bark" without "Dog": see
    `data/hierarchy.py`.
    """

    root: str
    segments: str = "balanced_train"  # or "unbalanced_train", "eval"
    audio: str = ""  # folder of the excerpts within `root`, to search less
    rate: int = 16_000  # Hz
    ontology: str = ""  # path of `ontology.json`; default: that in `root`, if there is one
    parents: str = (
        "check"  # labels that others imply: "check" logs missing ones, "add" adds them, "ignore"
    )

    def __post_init__(self):
        if self.segments not in _SEGMENTS:
            raise ValueError(
                f"Audioset.segments: got {self.segments!r}, wanted one of {', '.join(_SEGMENTS)}"
            )
        if self.parents not in hierarchy.MODES:
            modes = ", ".join(hierarchy.MODES)
            raise ValueError(f"Audioset.parents: got {self.parents!r}, wanted one of {modes}")

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Audioset.root")
        place = folder(root / self.audio, "Audioset.audio")
        names, _ = audio_names(place)
        plain, prefixed = {}, {}
        for name in names:
            stem = os.path.splitext(name[name.rfind("/") + 1 :])[0]
            plain[stem[:11]] = name  # the length of every video id
            if stem[0] == "Y":
                prefixed[stem[1:12]] = name
        made, listed, size = Builder(), 0, 0
        numbers: dict[str, int] = {}  # of the different lists of labels
        values: list[tuple[int, ...]] = []
        counts = np.zeros(0, int)  # excerpts of each
        for block in self._listed():
            videos, texts = block.columns["YTID"], block.columns["positive_labels"]
            for i, text in enumerate(texts):
                if text not in numbers:
                    row = block.row(i)
                    texts_of = row["positive_labels"].split(",")
                    values.append(row.numbers("positive_labels", texts_of, self._number))
                    numbers[text] = len(numbers)
            if ABSENT in videos:
                block.row(videos.index(ABSENT))["YTID"]
            files = [plain.get(video) or prefixed.get(video) for video in videos]
            kept = [i for i, file in enumerate(files) if file is not None]
            made.cells("path", [file for file in files if file is not None])
            made.cells("id", [videos[i] for i in kept])
            codes = np.asarray([numbers[texts[i]] for i in kept], np.uint32)
            made.codes("label", codes)
            here = np.bincount(codes, minlength=len(values))
            here[: len(counts)] += counts
            counts = here
            made.end(len(kept))
            listed, size = listed + len(videos), size + len(kept)
        if not size:
            raise ValueError(f"Audioset: none of {listed} excerpts has a file in {root}")
        log.info("%s: %d of %d excerpts have a file", root, size, listed)
        values = self._propagated(values, counts, root)
        # The number of clips that no block tells of is 0: all are of one split.
        made.codes("split", np.zeros(0, np.uint32))
        columns = made.finish({"label": list(map(cell, values)), "split": [self.segments]})
        info = SourceInfo(
            "audioset",
            tuple(row["display_name"] for row in self._classes),
            licence="labels CC BY 4.0; the videos have their own",
            citation="J. F. Gemmeke et al. Audio Set: An Ontology and Human-Labeled Dataset for "
            "Audio Events. ICASSP 2017. doi:10.1109/ICASSP.2017.7952261",
            url="https://research.google.com/audioset",
            multilabel=True,
        )
        return info, Clips(columns, f"{place / '_'}"[:-1])

    def _propagated(
        self, labels: list[tuple[int, ...]], counts: np.ndarray, root: pathlib.Path
    ) -> list[tuple[int, ...]]:
        """Return the different labels as they are, or with those that they imply."""
        need = self.parents == "add"
        found = None
        if self.parents != "ignore":
            mids = [row["mid"] for row in self._classes]
            found = hierarchy.find(self.ontology, [root], mids, need=need)
        if found is None:
            return labels
        names = [row["display_name"] for row in self._classes]
        clips: dict[tuple[int, ...], int] = {}
        for label, count in zip(labels, counts.tolist(), strict=True):
            clips[label] = clips.get(label, 0) + count
        where = str(root / f"{self.segments}_segments.csv")
        whole = hierarchy.checked(
            {k: n for k, n in clips.items() if n}, found, names, where, add=need
        )
        return [whole.get(label, label) for label in labels]

    @property
    def missing(self) -> int:
        """Return how many listed excerpts have no file."""
        return sum(len(block.lines) for block in self._listed()) - len(self.clips)

    @functools.cached_property
    def _classes(self) -> list[Row]:
        rows = read(folder(self.root, "Audioset.root") / "class_labels_indices.csv")
        return sorted(rows, key=lambda row: row.whole("index"))

    @functools.cached_property
    def _number(self) -> dict[str, int]:
        return {row["mid"]: i for i, row in enumerate(self._classes)}

    def _listed(self) -> Iterator[Block]:
        """Give the videos and labels of all excerpts: a damaged table is named whatever files there are."""
        path = folder(self.root, "Audioset.root") / f"{self.segments}_segments.csv"
        columns = ("YTID", "start_seconds", "end_seconds", "positive_labels")
        return blocks(path, columns, comments=True)
