"""Pictures beside sound: the entry `Image` of a batch, a table of pictures alone, synthetic pictures.

A source's example holds the picture itself, or a column of the user's table names its file.
"""

import contextlib
import functools
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.beside_files import chosen
from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Arrays, Entry, Shape
from ssl_audio.data.source import Example, Manifest, Over

CHANNELS = {1: "L", 3: "RGB"}  # values per pixel → Pillow's name for it
MOST = 2**26  # pixels of a picture; beyond, one file could fill the memory
ORIENTATION = 0x0112  # the tag of EXIF that says how a camera was held
# Its values → numbers of Pillow's `Transpose` that put the picture upright.
UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


@dataclass(frozen=True)
class Image(Entry):
    """`image` float32 [size, size, channels]: a picture scaled to its shorter side, cut, normalised.

    CLIP's steps (Radford et al. 2021, arXiv:2103.00020): bicubic to `size`, a square cut out, from 0 to 1,
    less `mean`, divided by `std`.

    Attributes:
      size: pixels of a side.
      column: of the source's table, with a file or a list of files, of which one is drawn (frames of a
        video); or the name under which the source gives pictures.
      root: what these files are relative to; "": the folder of the source.
      pick: which of several: "random" or "middle".
      crop: where the square lies in the longer side: "middle" or "random".
      channels: 3 (red, green, blue) or 1 (grey).
      mean, std: of each channel, on the scale of 0 to 1.
    """

    size: int
    column: str = "image"
    root: str = ""
    pick: str = "random"
    crop: str = "middle"
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        for name, allowed in (("pick", ("random", "middle")), ("crop", ("middle", "random"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted one of {allowed}")
        if self.size < 1 or self.channels not in CHANNELS:
            raise ValueError(
                f"size, channels: wanted at least 1 and 1 or 3, got {self.size}, {self.channels}"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(
                f"mean, std: wanted {self.channels} each, std above 0; got {self.mean}, {self.std}"
            )

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        shape = (self.size, self.size, self.channels)
        return {"image": (shape, np.dtype(np.float32))}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        picture = chosen(example, self.column, self.root, self.pick, rng)
        return {"image": self.prepared(picture, rng if self.crop == "random" else None)}

    def prepared(self, picture: Any, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return a picture (path, or uint8 [Y, X] or [Y, X, 1 or 3]) as the entry gives it.

        Raises:
          DecodeError: the file is no picture that can be read.
        """
        opened = _opened(picture, CHANNELS[self.channels])
        scale = self.size / min(opened.size)
        sides = [max(self.size, round(side * scale)) for side in opened.size]
        if sides[0] * sides[1] > MOST:
            name = picture if isinstance(picture, (str, pathlib.Path)) else "a picture"
            raise DecodeError(
                f"{name}: {opened.size[0]} x {opened.size[1]} pixels, scaled to {sides[0]} x {sides[1]}; "
                f"wanted at most {MOST}"
            )
        if tuple(sides) != opened.size:
            opened = opened.resize((sides[0], sides[1]), resample=3)  # bicubic
        spare = [side - self.size for side in sides]
        left, top = (n // 2 if rng is None else int(rng.integers(n + 1)) for n in spare)
        values = np.asarray(opened, np.float32).reshape(sides[1], sides[0], self.channels) / 255
        values = values[top : top + self.size, left : left + self.size]
        return (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)


def _opened(picture: Any, mode: str) -> Any:
    """Return Pillow's image of a path or of an array, upright; what is transparent becomes white."""
    from PIL import Image as pillow

    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
            raise DecodeError(
                f"a picture of type {picture.dtype} and shape {picture.shape}; wanted uint8 [Y, X, 3]"
            )
        flat = picture.ndim == 3 and picture.shape[2] == 1
        return pillow.fromarray(picture[..., 0] if flat else picture).convert(mode)
    path = pathlib.Path(picture)
    if not path.is_file():
        raise DecodeError(f"{path}: no such picture")
    try:
        with pillow.open(path) as found:
            if found.width * found.height > MOST:
                raise DecodeError(
                    f"{path}: {found.width} x {found.height} pixels; wanted at most {MOST}"
                )
            found = _upright(found)
            if found.mode.startswith("I;16"):  # Pillow makes all above 255 white
                return pillow.fromarray((np.asarray(found) >> 8).astype(np.uint8)).convert(mode)
            if found.mode[0] in "IF":
                raise DecodeError(f"{path}: pixels of 32 bits; wanted 8 or 16")
            if found.mode in ("RGBA", "LA", "PA") or "transparency" in found.info:
                clear = found.convert("RGBA")
                found = pillow.alpha_composite(pillow.new("RGBA", clear.size, "white"), clear)
            return found.convert(mode)
    except DecodeError:
        raise
    except Exception as error:  # Pillow raises what each format's reader does
        raise DecodeError(f"{path}: no picture that can be read ({error})") from error


def _upright(picture: Any) -> Any:
    """Return an image turned as its file says that it is to be shown, as those of a camera do."""
    turn = None
    with contextlib.suppress(Exception):  # damaged EXIF: the picture itself is whole
        turn = UPRIGHT.get(picture.getexif().get(ORIENTATION))
    return picture if turn is None else picture.transpose(turn)


@dataclass(frozen=True)
class Pictures(Manifest):
    """The rows of a table whose `path` names a picture: examples have an `image` and an empty sound.

    Other columns are those of a manifest of sound (`source.Manifest`). With a column `image` the path only
    names the row: for tables of features.
    """

    def __getitem__(self, i: int) -> Example:
        clip = self.clips[i]
        found = {"audio": np.zeros(0, np.float32), "root": self.clips.root, **self.meta(i)}
        if "image" in (clip.columns or {}):  # a table of features, say
            return found
        return {**found, "image": clip.path}

    def open(self, i: int) -> Example:
        """Return example `i`."""
        return self[i]


@dataclass(frozen=True)
class Drawn(Over):
    """Another source, and beside each of its clips a synthetic picture of its label, `size` pixels wide.

    A pattern for every label, with noise: tests need no download.
    """

    size: int = 16

    def __getitem__(self, i: int) -> Example:
        return {**self.source[i], "image": self.picture(i)}

    def picture(self, i: int) -> np.ndarray:
        """Return the picture of example `i`, uint8 [size, size, 3]."""
        label = self.source.meta(i).get("label") or 0
        number = label[0] if isinstance(label, tuple) else label
        noise = np.random.default_rng((1, i)).normal(0, 20, (self.size, self.size, 3))
        return np.clip(_pattern(number, self.size) + noise, 0, 255).astype(np.uint8)


@functools.lru_cache(256)
def _pattern(number: int, size: int) -> np.ndarray:
    coarse = np.random.default_rng((0, number)).uniform(0, 255, (4, 4, 3))
    places = np.arange(size) * 4 // size
    return coarse[places][:, places]
