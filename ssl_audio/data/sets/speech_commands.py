"""Speech Commands: one-second recordings of 30 (version 1) or 35 (version 2) spoken words."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, audio_files, folder, keep, table
from ssl_audio.storage import opened

log = logging.getLogger(__name__)

_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


@dataclass(frozen=True)
class SpeechCommands(Files):
    """The files `{word}/{speaker}_nohash_{n}.wav` of the unpacked archive `root`.

    The labels are the words there are, sorted. The archive's two lists make the splits "validation"
    and "test"; the rest is "train". Folders that begin with "_" (background noise) are left out.
    """

    root: str
    split: str = ""  # keep this split only: "train", "validation" or "test"
    rate: int = 16_000  # Hz

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "SpeechCommands.root")
        splits: dict[str, str] = {}
        for split, name in _LISTS.items():
            path = root / table(root, (name,), "SpeechCommands.root")
            lines = opened.text(path, "a list of files, UTF-8").splitlines()
            splits.update({line.strip(): split for line in lines if line.strip()})
        words = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] not in "_.")
        clips = [
            Clip(
                path=str(path),
                id=(id := path.relative_to(root).as_posix()),
                label=label,
                split=splits.get(id, "train"),
            )
            for label, word in enumerate(words)
            for path in audio_files(root / word)
        ]
        if lost := splits.keys() - {clip.id for clip in clips}:
            log.warning(
                "%s: %d of %d files that its lists name are not there, as %s",
                root, len(lost), len(splits), min(lost),
            )  # fmt: skip
        info = SourceInfo(
            "speech_commands",
            tuple(words),
            licence="CC BY 4.0",
            citation="P. Warden. Speech Commands: A Dataset for Limited-Vocabulary Speech "
            "Recognition. 2018. arXiv:1804.03209",
            url="https://www.tensorflow.org/datasets/catalog/speech_commands",
        )
        return info, keep(clips, str(root), self.split)
