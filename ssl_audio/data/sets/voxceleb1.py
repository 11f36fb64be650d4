"""VoxCeleb1, speaker identification: celebrities' interviews, 1251 speakers."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, folder, keep
from ssl_audio.storage import opened

_SPLITS = {"1": "train", "2": "validation", "3": "test"}


@dataclass(frozen=True)
class Voxceleb1(Files):
    """The utterances that `iden_split.txt` lists, as `root/wav/{speaker}/{video}/{n}.wav`.

    A line is a number and a path: 1 train, 2 validation, 3 test. The label is the speaker (all
    speakers of the list, sorted). `wav` may have been unpacked into `dev/wav` and `test/wav`.
    """

    root: str
    split: str = ""  # keep this split only: "train", "validation" or "test"
    rate: int = 16_000  # Hz

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Voxceleb1.root")
        table = root / "iden_split.txt"
        if not table.is_file():
            raise ValueError(f"Voxceleb1.root: no iden_split.txt in {root}")
        places = [p for p in (root / "wav", root / "dev/wav", root / "test/wav") if p.is_dir()]
        if not places:
            raise ValueError(f"Voxceleb1.root: no folder wav, dev/wav or test/wav in {root}")
        home = {path.name: path for place in places for path in place.iterdir()}
        rows = []
        for line, text in enumerate(opened.text(table, "a list of files, UTF-8").splitlines(), 1):
            if not text.strip():
                continue
            number, _, path = text.strip().partition(" ")
            if number not in _SPLITS or path.count("/") != 2:
                raise ValueError(f"{table}, line {line}: wanted '1 speaker/video/n.wav': {text}")
            rows.append((_SPLITS[number], path))
        speakers = sorted({path.split("/")[0] for _, path in rows})
        number = {speaker: i for i, speaker in enumerate(speakers)}
        clips = []
        for split, path in rows:
            speaker, _, rest = path.partition("/")
            file = home.get(speaker, places[0] / speaker) / rest
            clips.append(Clip(str(file), path, label=number[speaker], split=split))
        info = SourceInfo(
            "voxceleb1",
            tuple(speakers),
            licence="CC BY 4.0 (the lists; the sound belongs to its owners)",
            citation="A. Nagrani, J. S. Chung, A. Zisserman. VoxCeleb: a large-scale speaker "
            "identification dataset. Interspeech 2017. arXiv:1706.08612",
            url="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html",
        )
        return info, keep(clips, str(table), self.split)
