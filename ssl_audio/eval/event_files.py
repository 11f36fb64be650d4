"""The files that `ssl-audio events` writes: one table of all recordings, or a file for each."""

import collections
import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

from ssl_audio.data import annotations
from ssl_audio.data.annotations import ENDINGS, Event
from ssl_audio.data.decode import printable, stated_rate
from ssl_audio.storage import atomic


class Output:
    """Where events go, and how they are written there.

    Args:
      place: a file, or a folder of a file for each recording.
      kind: a key of `ENDINGS`; None: by the name of the file.
      paths: of the recordings.
      labels: names of the classes.

    Raises:
      ValueError: a name that says nothing, or something else than `kind`; one file that several would need;
        labels that the format cannot hold.
    """

    def __init__(self, place: str, kind: str | None, paths: Sequence[str], labels: Sequence[str]):
        self.place, self._paths = pathlib.Path(place).expanduser(), paths
        named = annotations.format_of(self.place.name)
        folder = not named or self.place.is_dir()
        if folder and kind is None:
            endings = ", ".join(ENDINGS.values())
            raise ValueError(
                f"--output {place}: wanted a name that ends in {endings}, or a folder and --format."
            )
        if named and kind not in (None, named) and not folder:
            raise ValueError(f"--output {place}: its ending means {named}, but --format is {kind}.")
        self._kind = kind or named
        if folder and self._kind == "csv":
            raise ValueError(
                f"--output {place}: a table is one file: give it a name that ends in .csv."
            )
        if not folder and self._kind != "csv" and len(paths) > 1:
            raise ValueError(
                f"--output {place}: {self._kind} has a file for each recording, and there are {len(paths)}: "
                f"give a folder, and --format {self._kind}."
            )
        annotations.check_labels(self._kind, labels)
        if self._kind == "jams":
            annotations.needs("jams", "JAMS")
        self._files = _names(self.place, self._kind, paths) if folder else [self.place] * len(paths)
        if folder:
            atomic.check_folder(self.place)
        else:
            atomic.check(self.place)

    @property
    def parts(self) -> pathlib.Path:
        """The folder of what is found before it is written."""
        return self.place.absolute().with_name(f"{self.place.name}.parts")

    @property
    def files(self) -> Sequence[pathlib.Path]:
        """The files that are written."""
        return self._files

    def write(self, found: Mapping[int, Sequence[Event]], durations: Mapping[int, float]) -> None:
        """Write the events, by the number of their recording; durations in s."""
        if self._kind == "csv":
            return self._write_table(found)
        for i, events in found.items():
            self._write_file(i, events, durations[i])

    def _write_file(self, i: int, events: Sequence[Event], duration: float) -> None:
        rate = stated_rate(self._paths[i])
        name = printable(os.path.basename(self._paths[i]))
        text = annotations.written(self._kind, events, rate=rate, duration=duration, name=name)
        self._files[i].parent.mkdir(parents=True, exist_ok=True)
        atomic.write(self._files[i], text)

    def _write_table(self, found: Mapping[int, Sequence[Event]]) -> None:
        lines = io.StringIO()
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(annotations.HEAD)
        folder = self.place.absolute().parent
        for i in sorted(found):
            # As every table that this package reads: relative to the table's folder.
            path = self._paths[i]
            path = path if os.path.isabs(path) else os.path.relpath(path, folder)
            table.writerows(annotations.rows(printable(path), found[i]))
        atomic.write(self.place, lines.getvalue())


def _names(folder: pathlib.Path, kind: str, paths: Sequence[str]) -> list[pathlib.Path]:
    """Return the file of each recording in a folder: below the folders that tell them apart."""
    parents = [os.path.dirname(os.path.abspath(path)) for path in paths]
    above = os.path.commonpath(parents)
    inside = [
        pathlib.Path(os.path.relpath(parent, above), pathlib.Path(path).stem)
        for parent, path in zip(parents, paths, strict=True)
    ]
    times = collections.Counter(inside)
    full = [
        stem.with_name(pathlib.Path(path).name) for stem, path in zip(inside, paths, strict=True)
    ]
    # a.wav and a.flac keep their endings, and so does a.wav.ogg beside them: it would be a.wav again.
    taken = {name for stem, name in zip(inside, full, strict=True) if times[stem] > 1}
    ending = ENDINGS[kind]
    return [
        folder / f"{name if times[stem] > 1 or stem in taken else stem}{ending}"
        for stem, name in zip(inside, full, strict=True)
    ]
