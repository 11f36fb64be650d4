"""Sentences about sounds, by label: to train on in place of plain captions, and as prompts.

A bank is a JSON file {label: {"train": [sentence, …], "test": [sentence, …]}}; labels that begin with
"=" name another: {"=dog_bark": "dog"}. The one shipped, "esc", covers ESC-50; "train" its ESC-10.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssl_audio.storage import opened

SHIPPED = ("esc",)


@dataclass(frozen=True)
class Bank:
    """The sentences of a file, by label and use."""

    path: str
    entries: Mapping[str, Mapping[str, Sequence[str]]]
    same: Mapping[str, str]

    def of(self, label: str, use: str) -> tuple[str, ...]:
        """Return the sentences for a label: for "train" or "test"; none if it has none."""
        name = label.replace(" ", "_")
        return tuple(self.entries.get(self.same.get(name, name), {}).get(use, ()))

    def sentences(self) -> list[str]:
        """Return all."""
        return [s for uses in self.entries.values() for some in uses.values() for s in some]


@functools.cache
def bank(where: str) -> Bank:
    """Return a shipped bank by its name, or that of a file.

    Raises:
      ValueError: no such file, or another form.
    """
    path = pathlib.Path(where).expanduser()
    if where in SHIPPED:
        path = pathlib.Path(__file__).with_name(f"{where}.json")
    if not path.is_file():
        raise ValueError(f"bank '{where}': wanted {', '.join(SHIPPED)}, or a file.")
    wanted = "sentences by label: {label: {'train': […], 'test': […]}}"
    found = opened.json_file(path, wanted)
    with opened.reading(path, wanted):
        same = {k[1:]: str(v) for k, v in found.items() if k.startswith("=")}
        entries = {
            name: {use: tuple(map(str, some)) for use, some in uses.items()}
            for name, uses in found.items()
            if not name.startswith("=")
        }
    return Bank(str(path), entries, same)
