"""AudioSet: ten-second excerpts of YouTube videos with any of 527 labels."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, audio_files, folder
from ssl_audio.data.tables import Row, read

log = logging.getLogger(__name__)

_SEGMENTS = ("balanced_train", "unbalanced_train", "eval")


@dataclass(frozen=True)
class Audioset(Files):
    """The excerpts of one segment list whose files exist below `root`.

    `root` holds `{segments}_segments.csv`, `class_labels_indices.csv` and, at any depth, the
    excerpts already cut: file names begin with the video's id, or with "Y" and the id. Videos
    disappear, so listed excerpts without a file are only counted (`missing`).
    """

    root: str
    segments: str = "balanced_train"  # or "unbalanced_train", "eval"
    audio: str = ""  # folder of the excerpts within `root`, to search less
    rate: int = 16_000  # Hz

    def __post_init__(self):
        if self.segments not in _SEGMENTS:
            raise ValueError(
                f"Audioset.segments: got {self.segments!r}, wanted one of {', '.join(_SEGMENTS)}"
            )

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Audioset.root")
        plain, prefixed = {}, {}
        for path in audio_files(folder(root / self.audio, "Audioset.audio")):
            plain[path.stem[:11]] = path  # the length of every video id
            if path.stem[0] == "Y":
                prefixed[path.stem[1:12]] = path
        clips = []
        for video, label in self._listed:
            path = plain.get(video) or prefixed.get(video)
            if path is not None:
                clips.append(Clip(str(path), id=video, label=label, split=self.segments))
        if not clips:
            raise ValueError(f"Audioset: none of {len(self._listed)} excerpts has a file in {root}")
        log.info("%s: %d of %d excerpts have a file", root, len(clips), len(self._listed))
        info = SourceInfo(
            "audioset",
            tuple(row["display_name"] for row in self._classes),
            licence="labels CC BY 4.0; the videos have their own",
            citation="J. F. Gemmeke et al. Audio Set: An Ontology and Human-Labeled Dataset for "
            "Audio Events. ICASSP 2017. doi:10.1109/ICASSP.2017.7952261",
            url="https://research.google.com/audioset",
            multilabel=True,
        )
        return info, clips

    @property
    def missing(self) -> int:
        """Return how many listed excerpts have no file."""
        return len(self._listed) - len(self.clips)

    @functools.cached_property
    def _classes(self) -> list[Row]:
        rows = read(folder(self.root, "Audioset.root") / "class_labels_indices.csv")
        return sorted(rows, key=lambda row: row.whole("index"))

    @functools.cached_property
    def _listed(self) -> list[tuple[str, tuple[int, ...]]]:
        """The videos and labels of all excerpts: a damaged table is named whatever files there are."""
        path = folder(self.root, "Audioset.root") / f"{self.segments}_segments.csv"
        number = {row["mid"]: i for i, row in enumerate(self._classes)}
        columns = ("YTID", "start_seconds", "end_seconds", "positive_labels")
        return [
            (row["YTID"], row.numbers("positive_labels", row["positive_labels"].split(","), number))
            for row in read(path, columns, comments=True)
        ]
