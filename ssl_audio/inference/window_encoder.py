"""An encoder of sound whose features are one vector per window: a tower without patches along time.

`AudioTextModel.encoder` is one where its audio tower has coarser tokens than patches (HTSAT, CNNs).
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


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class WindowEncoder(Encoder):
    """What a tower pools of each window of the training clips' length, before the projection.

    A window counts as one column of one token. The windows of a longer clip are half a window apart.

    Attributes:
      tower: whose tokens are pooled.
      tower_params: of its pool; those of tokenizer and encoder are `params`.
    """

    tower: Any = None
    tower_params: Any = None

    @property
    def window(self) -> float:
        """Length of the training clips, s."""
        return self._size / self.rate

    @property
    def width(self) -> int:
        """Values that the tower pools of a window, D."""
        return jax.eval_shape(_program(self.tower), self._all_params, self.blank()).shape[-1]

    @property
    def num_layers(self) -> int:
        """0: layers are not told apart."""
        return 0

    @property
    def rows(self) -> int:
        """Tokens in a column: 1."""
        return 1

    def times(self, columns: int) -> np.ndarray:
        """Raise ValueError."""
        raise ValueError(
            f"{type(self.tower.encoder).__name__}: this audio tower has no features along time; use "
            "embed."
        )

    def blank(self, columns: int | None = None) -> dict[str, np.ndarray]:
        """Return a batch of one silent clip; `columns` has no say."""
        return silence(self._size, self.tower.length)

    def stream(
        self,
        clips: Iterable[windows.Clip],
        layers: Sequence[int] = (FINAL,),
        collect: Callable[[int], Collector] = lambda _: Whole(),
        *,
        pad: str | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, what its collector made of it) of each clip, as `Encoder.stream`.

        Raises:
          ValueError: `pad` is given: clips are filled as in training.
        """
        if pad is not None:
            raise ValueError(f"pad: got {pad!r}, but this tower fills clips as in training.")
        fill = written.entry(self.config, "audio").get("fill", "zeros")
        count = windows.windows_per_call(self.batch_size, self.window)
        found = windows.vectors(clips, self._size, fill, self._pool, count)
        for number, _, vectors in found:
            collector = collect(number)
            collector.add(vectors[None])
            yield number, collector.result()

    def readout(self, layer: int, pool: str) -> tuple[int, int, str]:
        """Return as `Encoder.readout`; there are no special tokens."""
        if pool == SPECIAL:
            raise ValueError("pool: 'special', but this tower's vector of a window is all it has.")
        return super().readout(layer, pool)

    @property
    def _size(self) -> int:
        return written.samples(self.config)

    @property
    def _all_params(self) -> Any:
        return {**self.tower_params, **self.params}

    @functools.cached_property
    def _tower_on_device(self) -> Any:
        return jax.device_put(self._all_params)

    def _pool(self, audio: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        batch = {"audio": audio, self.tower.length: lengths}
        return np.asarray(_program(self.tower)(self._tower_on_device, batch))


@functools.lru_cache(8)
def _program(tower: Any) -> Any:
    """Return the jitted pass (params, batch) → [B, D]."""
    return jax.jit(lambda params, batch: tower.pooled(params, tower.encode(params, batch, "audio")))
