"""Another sound beside a clip, as an entry of a batch: the one of a pair that is liked less.

For `objectives/preference.py`: columns of a table name files, as in `triplet.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssl_audio.data.beside_files import chosen
from ssl_audio.data.decode import decode
from ssl_audio.data.entries import Arrays, Audio, Entry, Shape
from ssl_audio.data.source import Example


@dataclass(frozen=True)
class Rejected(Entry):
    """`audio_rejected` [S] and `length_rejected`: of several files in a column, one is drawn.

    Attributes:
      audio: how it is cut and filled.
      column: of the source's table.
      root: what files are relative to; "": the folder of the source.
    """

    audio: Audio
    column: str = "rejected"
    root: str = ""

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        return {f"{name}_rejected": value for name, value in self.audio.spec().items()}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        path = chosen(example, self.column, self.root, "random", rng)
        other = {
            **example,
            "audio": decode(path, example["rate"], channels=example.get("channels", "average")),
        }
        return {f"{name}_rejected": value for name, value in self.audio.draw(other, rng).items()}
