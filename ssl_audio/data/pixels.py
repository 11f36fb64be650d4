"""Pictures with labelled pixels: the entry `Pixels` of a batch, and synthetic ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssl_audio.data.beside_files import chosen
from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Arrays, Entry, Shape
from ssl_audio.data.features import read
from ssl_audio.data.pictures import Image
from ssl_audio.data.source import Example, SourceInfo

IGNORED = -1  # as `objectives/segmentation.py` has it


@dataclass(frozen=True)
class Pixels(Entry):
    """`image` float32 [size, size, channels], and `pixels` int32 [size, size]: classes, IGNORED: none.

    A column `pixels` of the table names an array [size, size] of class numbers (`FILE.npy`, or
    `FILE.npy#12` for one of many), below 0 or from `classes` on where there is no label. Pictures have just
    that size: labels cannot be resampled.

    Attributes:
      image: how a picture is read; its size is that of the labels.
      classes: C.
      column: of the source's table.
    """

    image: Image
    classes: int
    column: str = "pixels"

    def __post_init__(self):
        if self.classes < 2:
            raise ValueError(f"classes: wanted at least 2, got {self.classes}")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        sides = (self.image.size, self.image.size)
        return {**self.image.spec(), "pixels": (sides, np.dtype(np.int32))}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        found = self.image.draw(example, rng)
        place = chosen(example, self.column, self.image.root, "middle")
        labels = read(place) if isinstance(place, str) else np.asarray(place)
        sides = (self.image.size, self.image.size)
        if labels.shape != sides or labels.dtype.kind not in "iu":
            raise DecodeError(
                f"{place}: {labels.dtype} {labels.shape}; wanted whole numbers {sides}, as the picture"
            )
        labels = labels.astype(np.int64)
        inside = (labels >= 0) & (labels < self.classes)
        return {**found, "pixels": np.where(inside, labels, IGNORED).astype(np.int32)}


@dataclass(frozen=True)
class Drawn:
    """Synthetic pictures of tiles, each with the pattern of its class, and few labelled pixels.

    Attributes:
      size: how many; a picture depends on its number and `seed` alone.
      side: pixels of a side.
      classes: C.
      labelled: share of the tiles whose pixels are labelled; at least one is.
      tile: pixels of a tile's side.
      seed: of the pictures.
      rate: of no meaning.
    """

    size: int = 64
    side: int = 40
    classes: int = 5
    labelled: float = 0.05
    tile: int = 8
    seed: int = 0
    rate: int = 16_000

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return SourceInfo("tiles", licence="CC0 1.0")

    def __len__(self) -> int:
        return self.size

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its picture."""
        return {"rate": self.rate, "id": f"tiles-{self.seed}-{i:06d}"}

    def __getitem__(self, i: int) -> Example:
        rng = np.random.default_rng((self.seed, i))
        count = -(-self.side // self.tile)
        classes = rng.integers(0, self.classes, (count, count))
        patterns = np.random.default_rng(0).uniform(0, 255, (self.classes, self.tile, self.tile))
        tiles = patterns[classes] + rng.normal(0, 20, (count, count, self.tile, self.tile))
        known = rng.random((count, count)) < self.labelled
        known[rng.integers(count), rng.integers(count)] = True
        image = tiles.swapaxes(1, 2).reshape(count * self.tile, -1)[: self.side, : self.side]
        labels = np.where(known, classes, IGNORED)
        labels = labels.repeat(self.tile, 0).repeat(self.tile, 1)[: self.side, : self.side]
        return {
            **self.meta(i),
            "audio": np.zeros(0, np.float32),
            "image": np.clip(image, 0, 255).astype(np.uint8),
            "pixels": labels,
        }
