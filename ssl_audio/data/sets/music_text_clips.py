"""YouTube8M-MusicTextClips: what people wrote about the music in ten seconds of 4169 music videos.

McKee et al. 2023 (arXiv:2306.09327); for `configs/viml.py` and its gallery.
"""

import logging
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data import listing
from ssl_audio.data.clips import Clip
from ssl_audio.data.source import Files, SourceInfo, folder
from ssl_audio.data.tables import read
from ssl_audio.storage import opened

SPLITS = ("train", "test")
COLUMNS = ("video_id", "start", "end", "text")
VIDEOS, FEATURES = (".mp4", ".webm", ".mkv", ".mov", ".avi"), ".npy"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MusicTextClips(Files):
    """The described clips of one split whose video is below `root`.

    `root` holds `{split}.csv` (video_id, start, end in s, text) and, at any depth, files named by the id of
    the video. Of a video there may be a file of sound beside that of pictures (ID.wav and ID.mp4): the first
    is heard. Column `video` of each clip is the path of the pictures, for `video:AudioVideo`; with features
    computed before, name them ID.npy: then it is that file, for the entry `features`. Videos disappear, so
    clips without a file are only counted.
    """

    root: str
    split: str = "train"  # or "test", of which the paper's figures are
    whole: bool = True  # files are whole videos; False: the ten seconds, already cut out
    rate: int = 16_000  # Hz

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(
                f"MusicTextClips.split: got {self.split!r}, wanted one of {', '.join(SPLITS)}"
            )

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "MusicTextClips.root")
        table = root / f"{self.split}.csv"
        if not table.is_file():
            raise ValueError(f"MusicTextClips.root: no {table.name} in {root}")
        heard, seen = _files(root)
        clips, count = [], 0
        for row in read(table, need=COLUMNS):
            count += 1
            video = str(row["video_id"]).strip()
            start, end = (row.number(name, float) for name in ("start", "end"))
            if start is None or end is None or not 0 <= start < end:
                raise opened.error(
                    f"{row.where}: start, end", f"{start}, {end}", "seconds, in order"
                )
            if not (row["text"] or "").strip():
                raise opened.error(f"{row.where}: text", "nothing", "a description")
            if video not in heard:
                continue
            clips.append(
                Clip(
                    path=str(heard[video]),
                    id=f"{video}_{start:g}",
                    split=self.split,
                    text=row["text"].strip(),
                    columns={"video": str(seen.get(video, heard[video]))},
                    start=start if self.whole else 0.0,
                    end=end if self.whole else None,
                )
            )
        if not clips:
            raise ValueError(
                f"MusicTextClips: none of the {count} clips of {table} has a file of sound named by its "
                f"video's id below {root}, as {video}.wav or, with ssl_audio[av], {video}.mp4."
            )
        log.info("%s: %d of %d clips have a file", table, len(clips), count)
        info = SourceInfo(
            "music_text_clips",
            (),
            licence="texts: Adobe Research License, for research, not commercial; the videos have their own",
            citation="D. McKee et al. Language-Guided Music Recommendation for Video via Prompt Analogies. "
            "CVPR 2023. arXiv:2306.09327",
            url="https://zenodo.org/records/8040754",
        )
        return info, clips


def _files(root: pathlib.Path) -> tuple[dict[str, pathlib.Path], dict[str, pathlib.Path]]:
    """Return id → the file that is heard, and id → that of the pictures or of their features."""
    # Where there are both, the file of sound comes last, and is read without taking a video apart.
    sounds = sorted(listing.audio_files(root), key=lambda path: path.suffix.lower() not in VIDEOS)
    there = sorted(root.rglob("*"), key=lambda path: path.suffix.lower() == FEATURES)
    seen = {path.stem: path for path in there if path.suffix.lower() in (*VIDEOS, FEATURES)}
    return {path.stem: path for path in sounds}, seen
