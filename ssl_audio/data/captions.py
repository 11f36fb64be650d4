"""Which words a clip gets: its own captions, sentences made from its labels, rewritten ones.

Called by `text.py`, once for every draw of a clip.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ssl_audio.data.banks import bank
from ssl_audio.data.source import Example

# For labels alone; "{}" is the label, or several as "a, b, and c".
TEMPLATES = (
    "This is a sound of {}.",
    "The sound of {}.",
    "A recording of {}.",
    "You can hear {}.",
    "{}",
)
_ASIDE = re.compile(r"\[[^\]]*\]|\([^)]*\)|<br\s*/?>")
# Tags about people say more than can be heard (arXiv:2211.06687, section 3.3).
_NEUTRAL = {
    "man": "person",
    "woman": "person",
    "men": "people",
    "women": "people",
    "boy": "child",
    "girl": "child",
    "male": "human",
    "female": "human",
}


class Captions(Protocol):
    """A frozen dataclass that chooses."""

    def __call__(self, example: Example, rng: np.random.Generator) -> str:
        """Return a caption of an example: `text` (one or several), `names` of its labels, `rewrites`."""
        ...


@dataclass(frozen=True)
class Own:
    """One of the clip's own captions, each as likely as the others."""

    def __call__(self, example: Example, rng: np.random.Generator) -> str:
        """Return a caption; ValueError if there is none."""
        texts = example.get("text")
        if not texts:
            raise ValueError(
                f"clip {example['id']} has no caption; take captions from its labels: "
                "text.captions=dict(kind='captions:Templates')."
            )
        return texts if isinstance(texts, str) else texts[int(rng.integers(len(texts)))]


@dataclass(frozen=True)
class Metadata:
    """What further columns of the clip's table say, joined: title, artist, genre … (HTCL, arXiv:2505.23298).

    Attributes:
      columns: in this order; empty cells are left out.
      form: of each; "{column}" and "{value}" are filled in.
      between: put between them.
    """

    columns: tuple[str, ...]
    form: str = "{value}"
    between: str = ", "

    def __post_init__(self):
        if not self.columns or "{value}" not in self.form:
            raise ValueError(
                f"Metadata: wanted columns, and a form with {{value}}; got {self.columns}, {self.form!r}."
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> str:
        """Return a caption; ValueError if all of the clip's cells are empty."""
        del rng
        cells = {**(example.get("columns") or {}), "label": listed(example.get("names") or ())}
        said = [
            self.form.replace("{column}", name.replace("_", " ")).replace(
                "{value}", _plain(cells[name])
            )
            for name in self.columns
            if _plain(cells.get(name))
        ]
        if not said:
            raise ValueError(
                f"clip {example['id']}: nothing in {', '.join(self.columns)}; its table's further columns: "
                f"{', '.join(example.get('columns') or {}) or 'none'}"
            )
        return self.between.join(said)


@dataclass(frozen=True)
class Nothing:
    """No words, for every clip: of a text tower that nothing but evaluation asks."""

    def __call__(self, example: Example, rng: np.random.Generator) -> str:
        """Return an empty caption."""
        del example, rng
        return ""


@dataclass(frozen=True)
class Templates:
    """A sentence from the names of the clip's labels.

    Attributes:
      templates: each with "{}", one is drawn.
      neutral: replace words about the sex of people.
    """

    templates: tuple[str, ...] = TEMPLATES
    neutral: bool = False

    def __post_init__(self):
        if not self.templates or any("{}" not in t for t in self.templates):
            raise ValueError(f"templates: each needs a {{}}, got {self.templates}.")

    def __call__(self, example: Example, rng: np.random.Generator) -> str:
        """Return a sentence; ValueError if the clip has no label."""
        if not example.get("names"):
            raise ValueError(f"clip {example['id']} has no label to make a caption of.")
        said = listed(example["names"])
        if self.neutral:
            said = " ".join(_NEUTRAL.get(word, word) for word in said.split(" "))
        return self.templates[int(rng.integers(len(self.templates)))].replace("{}", said)


@dataclass(frozen=True)
class Rewritten:
    """The original caption, or one of its rewritings (ReCLAP, arXiv:2409.09213, section 3.1).

    Attributes:
      captions: makes the original.
      original: its probability; else one of the rewritings, each as likely as the others.
      bank: a file of `banks`, or a shipped one's name, whose "train" sentences are taken by label; "": the
        clip's own `rewrites`. A clip without any keeps its original.
    """

    captions: Captions
    original: float = 0.4
    bank: str = ""

    def __post_init__(self):
        if not 0 <= self.original <= 1:
            raise ValueError(f"original: wanted 0 to 1, got {self.original}.")

    def __call__(self, example: Example, rng: np.random.Generator) -> str:
        """Return a caption without what stands in brackets."""
        others = self._rewritings(example)
        if not others or rng.random() < self.original:
            return clean(self.captions(example, rng))
        return clean(others[int(rng.integers(len(others)))])

    def _rewritings(self, example: Example) -> Sequence[str]:
        if not self.bank:
            return example.get("rewrites", ())
        return [s for name in example.get("names", ()) for s in bank(self.bank).of(name, "train")]


@dataclass(frozen=True)
class Shuffled:
    """The caption of any label, whatever the clip's own: a control that must not learn.

    Attributes:
      captions: made of the names of labels.
      names: the labels.
    """

    captions: Captions
    names: tuple[str, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> str:
        """Return a caption."""
        name = self.names[int(rng.integers(len(self.names)))]
        return self.captions({**example, "names": (name,)}, rng)


def _plain(cell: Any) -> str:
    """Return a cell of a table as text; several values with commas."""
    several = cell if isinstance(cell, (list, tuple)) else [] if cell is None else [cell]
    return ", ".join(" ".join(str(one).split()) for one in several if str(one).strip())


def with_names(example: Example, labels: Sequence[str]) -> Example:
    """Return an example with the `names` of its labels, if they are known."""
    label = example.get("label")
    numbers = label if isinstance(label, tuple) else () if label is None else (label,)
    if label is None or any(not 0 <= n < len(labels) for n in numbers):
        return example
    return {**example, "names": tuple(labels[n] for n in numbers)}


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b, and c", with spaces for underscores."""
    plain = [name.replace("_", " ") for name in names]
    if len(plain) < 3:
        return " and ".join(plain)
    return f"{', '.join(plain[:-1])}, and {plain[-1]}"


def clean(text: str) -> str:
    """Return a text without asides in brackets and line breaks."""
    return " ".join(_ASIDE.sub(" ", text).split())
