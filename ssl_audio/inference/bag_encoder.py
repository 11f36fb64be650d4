"""Bags of spectral codes in use: one vector per clip, of any length, and no features along time.

`load` returns a `BagEncoder` for what `ssl-audio evaluate --features statistics` has fitted.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio.inference import windows
from ssl_audio.inference.encoder import FINAL, Encoder
from ssl_audio.inference.model import silence
from ssl_audio.inference.pooling import SPECIAL, Collector, Whole
from ssl_audio.storage import written

LONGEST = 30  # s, that are coded at a time


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BagEncoder(Encoder):
    """How often the codes of the spectrum occur in a clip.

    A clip counts as one column of one token. What is longer than 30 s is coded piece by piece, and the codes
    of all pieces are counted together.
    """

    @property
    def window(self) -> float:
        """Length of the clips that the codes were fitted to, s."""
        return written.samples(self.config) / self.rate

    @property
    def rate(self) -> int:
        """Sampling rate, Hz."""
        return self.objective.rate

    @property
    def width(self) -> int:
        """Values of a clip's vector, D."""
        return self.objective.width

    @property
    def num_layers(self) -> int:
        """0: there are no layers to choose from."""
        return 0

    @property
    def rows(self) -> int:
        """Tokens in a column: 1."""
        return 1

    @property
    def pad(self) -> str:
        """How a clip's end is treated: nothing is added that counts."""
        return "none"

    def times(self, columns: int) -> np.ndarray:
        """Raise ValueError."""
        raise ValueError("bags of codes have no features along time; use embed.")

    def blank(self, columns: int | None = None) -> dict[str, np.ndarray]:
        """Return a batch of one silent clip; `columns` has no say."""
        return silence(written.samples(self.config))

    def readout(self, layer: int, pool: str) -> tuple[int, int, str]:
        """Return as `Encoder.readout`; there are no special tokens."""
        if pool == SPECIAL:
            raise ValueError("pool: 'special', but a bag of codes has no special tokens.")
        return super().readout(layer, pool)

    def stream(
        self,
        clips: Iterable[windows.Clip],
        layers: Sequence[int] = (FINAL,),
        collect: Callable[[int], Collector] = lambda _: Whole(),
        *,
        pad: str | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, what its collector made of it) of each clip, in order, as `Encoder.stream`.

        Raises:
          ValueError: another `pad` than "none".
        """
        if pad not in (None, self.pad):
            raise ValueError(f"pad: got {pad!r}, but clips are coded as they are: {self.pad!r}.")
        for number, clip in enumerate(clips):
            collector = collect(number)
            vector = self._bag(clip)
            collector.add(np.repeat(vector[None, None], len(layers), axis=0))
            yield number, collector.result()

    def _bag(self, clip: windows.Clip) -> np.ndarray:
        """Return the vector [D] of a clip, or of the pieces of one."""
        size = LONGEST * self.rate
        squares, total = np.zeros(self.width), 0
        for piece in windows.cover(clip, size, lambda samples: range(0, max(1, samples), size)):
            length = len(piece.audio)
            whole = -(-length // self.rate) * self.rate  # whole seconds: few programs to compile
            audio = np.pad(piece.audio, (0, whole - length))[None]
            found = _program(self.objective)(self._on_device, audio, np.array([length], np.int32))
            squares += length * np.square(np.asarray(found, np.float64))
            total += length
        return np.sqrt(squares / max(1, total)).astype(np.float32)


@functools.lru_cache(64)
def _program(objective: Any) -> Any:
    """Return the jitted pass (params, audio, length) → [D] of one clip."""
    encode = objective.predictors()["encode"]

    def program(params, audio, length):
        return encode(params, {}, {"audio": audio, "length": length}).tokens.x[0, 0]

    return jax.jit(program)
