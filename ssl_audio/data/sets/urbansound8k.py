"""UrbanSound8K: urban sounds of up to 4 s in ten classes and ten folds that share no recording."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, folder, keep, table
from ssl_audio.data.tables import read

_SOUND = {
    "metadata/UrbanSound8K.csv": "audio",
    "UrbanSound8K.csv": ".",
}  # table → where the folds are


@dataclass(frozen=True)
class Urbansound8k(Files):
    """The clips of `root`: `metadata/UrbanSound8K.csv` beside `audio/fold1` to `audio/fold10`.

    Copies with `UrbanSound8K.csv` beside `fold1` to `fold10` are read too.
    """

    root: str
    folds: tuple[int, ...] = ()  # keep these folds (1 to 10) only
    rate: int = 16_000  # Hz

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Urbansound8k.root")
        name = table(root, tuple(_SOUND), "Urbansound8k.root")
        place = root / name
        rows = list(read(place))
        names = {row.whole("classID"): row["class"] for row in rows}
        targets = sorted(names)
        clips = [
            Clip(
                path=str(root / _SOUND[name] / f"fold{row['fold']}" / row["slice_file_name"]),
                id=row["slice_file_name"].rpartition(".")[0],
                label=targets.index(row.whole("classID")),
                fold=row.whole("fold"),
            )
            for row in rows
        ]
        info = SourceInfo(
            "urbansound8k",
            tuple(names[target] for target in targets),
            licence="CC BY-NC 3.0",
            citation="J. Salamon, C. Jacoby, J. P. Bello. A Dataset and Taxonomy for Urban Sound "
            "Research. ACM Multimedia 2014. doi:10.1145/2647868.2655045",
            url="https://urbansounddataset.weebly.com/urbansound8k.html",
        )
        return info, keep(clips, str(place), folds=self.folds)
