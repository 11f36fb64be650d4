"""IEMOCAP: acted dialogues of ten speakers in five sessions, with the emotion of each utterance."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, folder, keep
from ssl_audio.storage import opened

# As in SUPERB: excited counts as happy, the other emotions are left out.
_LABELS = ("neutral", "happy", "angry", "sad")
_CODES = {"neu": 0, "hap": 1, "exc": 1, "ang": 2, "sad": 3}
_LINE = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(\S+)\t(\w+)\t", re.MULTILINE)


@dataclass(frozen=True)
class Iemocap(Files):
    """The utterances of four emotions in the folders `Session1` to `Session5` of `root`.

    `dialog/EmoEvaluation/*.txt` gives the emotions of `sentences/wav/{dialogue}/{utterance}.wav`. A
    clip's fold is its session, so that leaving a fold out leaves two speakers out.
    """

    root: str
    folds: tuple[int, ...] = ()  # keep these sessions (1 to 5) only
    rate: int = 16_000  # Hz

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Iemocap.root")
        tables = sorted(root.glob("Session*/dialog/EmoEvaluation/*.txt"))
        if not tables:
            raise ValueError(f"Iemocap.root: no Session*/dialog/EmoEvaluation/*.txt in {root}")
        clips = []
        for table in tables:
            session = table.parents[2]
            for utterance, code in _LINE.findall(
                opened.text(table, "the labels of a dialogue, UTF-8")
            ):
                if code not in _CODES:
                    continue
                wav = session / "sentences" / "wav" / table.stem / f"{utterance}.wav"
                fold = int(session.name.removeprefix("Session"))
                clips.append(Clip(str(wav), utterance, label=_CODES[code], fold=fold))
        info = SourceInfo(
            "iemocap",
            _LABELS,
            licence="by agreement with USC; research only",
            citation="C. Busso et al. IEMOCAP: interactive emotional dyadic motion capture "
            "database. Language Resources and Evaluation 42, 2008. doi:10.1007/s10579-008-9076-6",
            url="https://sail.usc.edu/iemocap",
        )
        return info, keep(clips, str(root), folds=self.folds)
