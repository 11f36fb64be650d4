"""Free Spoken Digit Dataset: the digits 0 to 9 said fifty times each by several speakers, 8 kHz."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, audio_files, folder, keep

WORDS = "zero one two three four five six seven eight nine".split()
_NAME = re.compile(r"(\d)_([^_]+)_(\d+)")


@dataclass(frozen=True)
class SpokenDigit(Files):
    """The files `{digit}_{speaker}_{take}.wav` of `root` or its folder `recordings`.

    Takes 0 to 4 are the split "test" and the others "train". A clip's fold is its speaker's number,
    from 1 in alphabetical order, so that leaving a fold out leaves a speaker out. Its `text` is as
    "digit seven by jackson".
    """

    root: str
    target: str = "digit"  # what the label is: "digit" or "speaker"
    split: str = ""  # keep this split only: "train" or "test"
    folds: tuple[int, ...] = ()  # keep these speakers only
    rate: int = 16_000  # Hz

    def __post_init__(self):
        if self.target not in ("digit", "speaker"):
            raise ValueError(f"SpokenDigit.target: got {self.target!r}, wanted digit or speaker")

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "SpokenDigit.root")
        if (root / "recordings").is_dir():
            root = root / "recordings"
        named = [(path, _NAME.fullmatch(path.stem)) for path in audio_files(root)]
        found = [(path, *match.groups()) for path, match in named if match]
        if not found:
            raise ValueError(f"SpokenDigit.root: no file digit_speaker_take.wav in {root}")
        speakers = sorted({speaker for _, _, speaker, _ in found})
        clips = [
            Clip(
                path=str(path),
                id=path.stem,
                label=int(digit) if self.target == "digit" else speakers.index(speaker),
                fold=speakers.index(speaker) + 1,
                split="test" if int(take) < 5 else "train",
                text=f"digit {WORDS[int(digit)]} by {speaker}",
            )
            for path, digit, speaker, take in found
        ]
        info = SourceInfo(
            "spoken_digit",
            tuple(map(str, range(10))) if self.target == "digit" else tuple(speakers),
            licence="CC BY-SA 4.0",
            citation="Z. Jackson et al. Free Spoken Digit Dataset. doi:10.5281/zenodo.1342401",
            url="https://github.com/Jakobovski/free-spoken-digit-dataset",
        )
        return info, keep(clips, str(root), self.split, self.folds)
