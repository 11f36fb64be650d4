"""From tags to a description: prompts with examples, for a language model of the user's own.

McKee et al. 2023, ViML (arXiv:2306.09327), "prompt analogies": pairs of tags and what a person wrote about
the same music, then the tags of a clip without a description, which the language model goes on to write.
"""

import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.tables import read
from ssl_audio.storage import atomic

Tags = Mapping[str, Sequence[str]]  # kind, as "genre" → tags


@dataclass(frozen=True)
class Example:
    """Tags of a piece, and what a person wrote about it."""

    tags: Tags
    description: str


@dataclass(frozen=True)
class Analogies:
    """Make prompts: some examples, then a clip's tags.

    Attributes:
      examples: to choose from.
      shots: how many are shown; 0: none, a plain request to rewrite the tags.
      task: the prompt's first line.
      source, target: what stands before tags and descriptions.
      seed: of the choice; the same clip gets the same prompt.
    """

    examples: Sequence[Example] = ()
    shots: int = 5
    task: str = "Write what a listener would say about a piece of music, given its tags."
    source: str = "Tags:"
    target: str = "Description:"
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.shots <= len(self.examples):
            raise ValueError(
                f"shots: got {self.shots}, wanted 0 to {len(self.examples)}, as many as there are examples."
            )

    def prompt(self, tags: Tags, name: str = "") -> str:
        """Return the prompt of a clip; `name` and the seed choose its examples.

        Raises:
          ValueError: there are no tags.
        """
        asked = joined(tags)
        if not asked:
            raise ValueError(f"clip {name!r}: no tags to describe.")
        rng = np.random.default_rng((self.seed, zlib.crc32(name.encode())))
        chosen = rng.choice(len(self.examples), self.shots, replace=False) if self.shots else ()
        shown = [self.examples[int(i)] for i in chosen]
        lines = [self.task]
        for one in shown:
            lines += ["", f"{self.source} {joined(one.tags)}", f"{self.target} {one.description}"]
        return "\n".join([*lines, "", f"{self.source} {asked}", self.target])

    def describe(self, tags: Tags, complete: Callable[[str], str], name: str = "") -> str:
        """Return what a language model writes about tags: the first line of how it goes on.

        Args:
          tags: of the clip.
          complete: prompt → continuation, with or without the prompt before it.
          name: of the clip.

        Raises:
          ValueError: it wrote nothing.
        """
        prompt = self.prompt(tags, name)
        said = complete(prompt)
        if not isinstance(said, str):
            raise ValueError(f"clip {name!r}: got {type(said).__name__} back, wanted text.")
        lines = said.removeprefix(prompt).strip().splitlines() or [""]
        found = " ".join(lines[0].removeprefix(self.target).split())
        if not found or found.startswith(self.source):
            raise ValueError(f"clip {name!r}: nothing was written about {joined(tags)!r}.")
        return found


def joined(tags: Tags) -> str:
    """Return tags as one text, "genre: rock, blues; mood: calm": also the plain caption of a clip."""
    parts = []
    for kind, several in tags.items():
        few = [several] if isinstance(several, str) else several
        words = [" ".join(str(tag).replace("_", " ").split()) for tag in few]
        if words := [word for word in words if word]:
            parts.append(f"{kind.replace('_', ' ')}: {', '.join(words)}")
    return "; ".join(parts)


def write(
    manifest: str,
    out: str,
    columns: Sequence[str],
    analogies: Analogies,
    complete: Callable[[str], str] | None = None,
) -> int:
    """Write a manifest again with a `text` for each row; return how many were described.

    Args:
      manifest: with a column of tags for each kind; several are separated by ";".
      out: JSON lines, whose paths are relative as before: beside the manifest.
      columns: of tags, in this order.
      analogies: makes prompts.
      complete: see `Analogies.describe`; None: the joined tags are the text.

    Raises:
      ValueError: a row without tags; see `Analogies.describe`.
    """
    lines = []
    for row in read(pathlib.Path(manifest).expanduser()):
        tags = {name: _several(row.get(name)) for name in columns}
        name = str(row.get("id") or row.get("path") or "")
        if complete is None:
            if not (text := joined(tags)):
                raise ValueError(f"clip {name!r}: no tags to describe.")
        else:
            text = analogies.describe(tags, complete, name)
        lines.append(json.dumps({**_cells(row), "text": text}))
    atomic.write(pathlib.Path(out).expanduser(), "".join(f"{line}\n" for line in lines))
    return len(lines)


def _several(cell: Any) -> list[str]:
    if isinstance(cell, (list, tuple)):
        return [str(one) for one in cell]
    return [one.strip() for one in str(cell or "").split(";") if one.strip()]


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value not in (None, "")}
