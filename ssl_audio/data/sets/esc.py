"""ESC-50 and ESC-10: environmental sounds of up to 5 s in five folds that share no recording."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data.source import Clip, Files, SourceInfo, folder, keep, table
from ssl_audio.data.tables import read

_CITATION = (
    "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. ACM Multimedia 2015. "
    "doi:10.1145/2733373.2806390"
)
_LICENCES = {"esc50": "CC BY-NC 3.0", "esc10": "CC BY 3.0"}


@dataclass(frozen=True)
class Esc(Files):
    """The clips of `root`: `meta/esc50.csv` or `meta.csv` beside a folder `audio`.

    `subset` "esc10" is the freely licensed ten classes, renumbered 0 to 9 in ESC-50's order.
    """

    root: str
    subset: str = "esc50"  # or "esc10"
    folds: tuple[int, ...] = ()  # keep these folds (1 to 5) only
    rate: int = 16_000  # Hz

    def __post_init__(self):
        if self.subset not in _LICENCES:
            raise ValueError(f"Esc.subset: got {self.subset!r}, wanted esc50 or esc10")

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Esc.root")
        found = root / table(root, ("meta/esc50.csv", "meta.csv"), "Esc.root")
        rows = list(read(found))
        if self.subset == "esc10":
            rows = [row for row in rows if row.get("esc10", "True") == "True"]
        names = {row.whole("target"): row["category"] for row in rows}
        wanted = int(self.subset.removeprefix("esc"))
        if len(names) != wanted:
            raise ValueError(f"{found}: {len(names)} classes, but subset is {self.subset!r}")
        targets = sorted(names)
        clips = [
            Clip(
                path=str(root / "audio" / row["filename"]),
                id=row["filename"].rpartition(".")[0],
                label=targets.index(row.whole("target")),
                fold=row.whole("fold"),
            )
            for row in rows
        ]
        info = SourceInfo(
            self.subset,
            tuple(names[target] for target in targets),
            licence=_LICENCES[self.subset],
            citation=_CITATION,
            url="https://github.com/karolpiczak/ESC-50",
        )
        return info, keep(clips, str(found), folds=self.folds)
