"""LibriSpeech: read English, cut into utterances, with transcripts."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, folder, keep
from ssl_audio.storage import opened


@dataclass(frozen=True)
class Librispeech(Files):
    """The files `{split}/{speaker}/{chapter}/*.flac` of `root`, with the text of `*.trans.txt`.

    The label is the speaker (all speakers of `root`, sorted by number).
    """

    root: str
    split: str = ""  # keep this split only: "train-clean-100", "dev-clean", "test-other", …
    rate: int = 16_000  # Hz

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Librispeech.root")
        transcripts = sorted(root.glob("*/*/*/*.trans.txt"))
        if not transcripts:
            raise ValueError(f"Librispeech.root: no split/speaker/chapter/*.trans.txt in {root}")
        speakers = sorted({path.parts[-3] for path in transcripts}, key=lambda s: (len(s), s))
        number = {speaker: i for i, speaker in enumerate(speakers)}
        clips = []
        for path in transcripts:
            split, speaker = path.parts[-4], path.parts[-3]
            if self.split and split != self.split:
                continue
            for line in opened.text(path, "transcripts, UTF-8").splitlines():
                id, _, text = line.partition(" ")
                file = str(path.with_name(f"{id}.flac"))
                clips.append(Clip(file, id, label=number[speaker], split=split, text=text))
        info = SourceInfo(
            "librispeech",
            tuple(speakers),
            licence="CC BY 4.0",
            citation="V. Panayotov et al. Librispeech: An ASR Corpus Based on Public Domain Audio "
            "Books. ICASSP 2015. doi:10.1109/ICASSP.2015.7178964",
            url="https://www.openslr.org/12",
        )
        return info, keep(clips, f"{root}, split {self.split!r}", self.split)
