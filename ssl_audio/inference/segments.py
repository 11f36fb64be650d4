"""Unit vectors of the windows of clips, by any model that hears: what `ssl-audio search` works with.

A model of audio and text gives vectors of the space that both share, any other its encoder's features.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ssl_audio.inference.encoder import FINAL
from ssl_audio.inference.model import check_finite
from ssl_audio.inference.pooling import Pooled
from ssl_audio.inference.windows import cover, half_apart

SHORTEST = 0.1  # s, of a window


@dataclasses.dataclass(frozen=True)
class Segments:
    """A model and what is taken of it. `of` makes one.

    Attributes:
      model: that `load` returned.
      pool: of the encoder's features, see `Encoder.embed`; None: the space shared with words.
      layer: of the encoder; None with the shared space.
      window: s; None: the length of the training clips.
    """

    model: Any
    pool: str | None = None
    layer: int | None = None
    window: float | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What two indexes of one model may differ in."""
        return {"pool": self.pool, "layer": self.layer, "window": self.window}

    @property
    def words(self) -> bool:
        """Whether texts have vectors of the same space."""
        return "text" in self.takes

    @property
    def takes(self) -> tuple[str, ...]:
        """Modalities that a query may have."""
        return getattr(self.model, "takes", ("audio",)) if self.pool is None else ("audio",)

    @property
    def rate(self) -> int:
        """Sampling rate, Hz."""
        return self._source.rate

    @property
    def seconds(self) -> float:
        """Length of a window, s."""
        return self.window or self._source.window

    def spans(self, clips: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (number, first samples [n], unit vectors [n, D]) of the windows that cover each clip [S].

        Windows are at most half a window apart. Vectors of a clip that the model cannot take are not finite.
        """
        if self.pool is None:
            return self.model.spans(clips)
        return self._encoded(clips)

    def sound(self, waveform: Any, sample_rate: int) -> np.ndarray:
        """Return the unit vector [D] of a clip [S]: the mean of its windows', normalised.

        Raises:
          ValueError: as `Encoder.embed`.
        """
        (_, _, vectors), *_ = self.spans(self._source.clips([waveform], sample_rate))
        check_finite(vectors)
        return _unit(np.mean(vectors, axis=0, dtype=np.float64))

    def text(self, text: str) -> np.ndarray:
        """Return the unit vector [D] of a text.

        Raises:
          ValueError: the model knows no words, or the vectors are not of the space shared with them.
        """
        if not self.words:
            raise ValueError(no_words(f"{self.model!r}", self.pool))
        return self.query(text=text)

    def query(self, **asked: Any) -> np.ndarray:
        """Return the unit vector [D] of one query of several modalities; see `AudioTextModel.embed_query`.

        Raises:
          ValueError: as there; the vectors are of an encoder of sound, which takes a sound alone.
        """
        nothing = [n for n, v in asked.items() if v is None or (isinstance(v, Mapping) and not v)]
        given = asked.keys() - nothing
        if given == {"audio", "sample_rate"}:
            return self.sound(asked["audio"], asked["sample_rate"])
        if self.pool is not None or not hasattr(self.model, "embed_query"):
            named = ", ".join(sorted(given - {"audio", "sample_rate"}))
            raise ValueError(
                f"query by {named}: these vectors are of sound, and asked with a sound."
            )
        return self.model.embed_query(**asked)

    @property
    def _source(self) -> Any:
        return self.model if self.pool is None else self.model.encoder

    def _encoded(self, clips: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        encoder = self._source
        layer, rows, pool = encoder.readout(self.layer, self.pool)
        size = round(self.seconds * encoder.rate)
        of: list[tuple[int, int]] = []  # clip and first sample of each window
        count: dict[int, int] = {}  # windows of a clip, known with its last one

        def cut() -> Iterator[np.ndarray]:
            for number, clip in enumerate(clips):
                windows = 0
                for window in cover(clip, size, lambda n: half_apart(n, size), moving=True):
                    of.append((number, window.start))
                    windows += 1
                    if window.samples is not None:
                        count[number] = windows
                    yield window.audio

        done: dict[int, dict[int, np.ndarray]] = {}
        for i, pooled in encoder.stream(cut(), (layer,), lambda _: Pooled(rows, pool)):
            number, start = of[i]
            found = done.setdefault(number, {})
            found[start] = _unit(pooled[0])
            if len(found) == count.get(number):
                starts = sorted(done.pop(number))
                yield number, np.array(starts), np.stack([found[start] for start in starts])


def of(
    model: Any, pool: str | None = None, layer: int | None = None, window: float | None = None
) -> Segments:
    """Return what is indexed of a model.

    Without `pool`, `layer` and `window` it is the space shared with words where there is one, else the mean
    of the last layer over windows of the training clips' length.

    Raises:
      ValueError: the model has no encoder of audio, or no such pool or layer; a window too short.
    """
    asked = (pool, layer, window) != (None, None, None)
    if "embed_audio" in model.offers and not asked:
        return Segments(model)
    pool, layer = pool or "mean", FINAL if layer is None else layer
    model.encoder.readout(layer, pool)
    if window is not None and not (math.isfinite(window) and window >= SHORTEST):
        raise ValueError(f"window: got {window!r} s, wanted at least {SHORTEST} s.")
    return Segments(model, pool, layer, window)


def no_words(what: str, pool: str | None) -> str:
    """Return what is said to those who ask with words where there are none."""
    cause = (
        f"vectors pooled by {pool!r} of its encoder of sound"
        if pool
        else "no tower of text in their space"
    )
    return (
        f"words cannot be asked for: {what}: {cause}. Ask by sound, --audio FILE; or make another index "
        "with a model of audio and text (CLAP: ssl-audio convert --help; contrastive configs: ssl-audio "
        "configs)."
    )


def _unit(vector: Any) -> np.ndarray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-30), np.float32)
