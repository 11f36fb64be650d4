"""FSD50K: Freesound clips of 0.3 to 30 s with any of 200 labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, folder, keep
from ssl_audio.data.tables import read


@dataclass(frozen=True)
class Fsd50k(Files):
    """The clips of `root`, which holds `FSD50K.ground_truth` and the two audio folders.

    The splits are those of the tables: "train" and "val" (development), "eval".
    """

    root: str
    split: str = ""  # keep this split only: "train", "val" or "eval"
    rate: int = 16_000  # Hz

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Fsd50k.root")
        truth = folder(root / "FSD50K.ground_truth", "Fsd50k.root")
        rows = read(truth / "vocabulary.csv", ("number", "name", "mid"))
        names = [row["name"] for row in sorted(rows, key=lambda row: row.whole("number"))]
        number = {name: i for i, name in enumerate(names)}
        clips = []
        for part in ("dev", "eval"):
            for row in read(truth / f"{part}.csv"):
                clips.append(
                    Clip(
                        path=str(root / f"FSD50K.{part}_audio" / f"{row['fname']}.wav"),
                        id=row["fname"],
                        label=row.numbers("labels", row["labels"].split(","), number),
                        split=row.get("split") or part,
                    )
                )
        info = SourceInfo(
            "fsd50k",
            tuple(names),
            licence="CC BY 4.0; each clip CC0, CC BY, CC BY-NC or CC Sampling+",
            citation="E. Fonseca et al. FSD50K: An Open Dataset of Human-Labeled Sound Events. "
            "IEEE/ACM TASLP 30, 2022. doi:10.1109/TASLP.2021.3133208",
            url="https://zenodo.org/records/4060432",
            multilabel=True,
        )
        return info, keep(clips, str(truth), self.split)
