"""What a benchmark's tasks ask of a model: vectors of clips, words and moments; sound, parts of it, captions.

`Listener` asks a trained model, once for each source. `Deaf` answers without one and reads no sound: its
vectors are replaced by those of a control.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ssl_audio.data.banks import Bank
from ssl_audio.data.reading import examples
from ssl_audio.data.source import Source
from ssl_audio.storage import written

if TYPE_CHECKING:
    from ssl_audio.inference.model import Model

# Numbers [n] of the clips that could be read, and their vectors.
Vectors = tuple[np.ndarray, np.ndarray]
WINDOW, HOP = (
    1.0,
    0.25,
)  # s, in which a model that knows whole clips only is asked when words are heard


class Absent(ValueError):
    """A set or a package is not there; the message says what is wanted and where it comes from."""


class Inapplicable(ValueError):
    """A model cannot be asked this of a set; the message says why."""


class Listening(Protocol):
    """What hears a source and reads words."""

    @property
    def rate(self) -> int:
        """Return the sampling rate that sources should have, Hz."""
        ...

    def lacks(self, needs: Sequence[str]) -> str:
        """Return what of some things, as "clips" or "words", is asked for and not offered; "": nothing."""
        ...

    def clips(self, source: Source) -> Vectors:
        """Return a vector [n, D] of each clip."""
        ...

    def shared(self, source: Source) -> Vectors:
        """Return a unit vector [n, D] of each clip in the space of words."""
        ...

    def moments(self, source: Source, spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the clip's number, the moment's number and the vector of each stretch of `spacing` s."""
        ...

    def words(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors [n, D] of texts."""
        ...

    def labels(
        self, names: Sequence[str], templates: Sequence[str], bank: Bank | None
    ) -> np.ndarray:
        """Return a unit vector [C, D] of each label; see `AudioTextModel.embed_labels`."""
        ...

    def grounded(
        self, source: Source, names: Sequence[str], templates: Sequence[str], spacing: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the clip's number, the moment's number and the vector of each stretch, and of each name.

        The dot product of both says how well the name in words fits the stretch of `spacing` s.
        """
        ...

    def separator(self, labels: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
        """Return what separates, as `Mixtures.measure` takes it, and the names of its classes."""
        ...

    def generated(self, texts: Sequence[str], seconds: float, seed: int) -> list[np.ndarray]:
        """Return sound [S] of each text, at `rate`."""
        ...

    def captions(self, source: Source) -> tuple[np.ndarray, list[str]]:
        """Return the numbers of the clips that could be read, and what is said of each."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Listener:
    """A trained model, frozen.

    Attributes:
      model: of `ssl_audio.load`.
      layer, pool: see `Encoder.embed`.
      max_bad_share: of clips that cannot be read.
    """

    model: Model
    layer: int = -1
    pool: str = "mean"
    max_bad_share: float = 0.01
    known: dict[Hashable, Any] = dataclasses.field(default_factory=dict)

    @property
    def rate(self) -> int:
        """Of the encoder, or of a model without one, Hz."""
        return self.model.rate if self._encoder is None else self._encoder.rate

    def lacks(self, needs: Sequence[str]) -> str:  # noqa: D102
        from ssl_audio.inference.window_encoder import WindowEncoder

        offered = set(self.model.objective.predictors())
        if "parts" in needs and not {"separate", "condition"} <= offered:
            return "it separates nothing"
        if "sound" in needs and not hasattr(self.model, "generate"):
            return "it generates no sound"
        if "captions" in needs and not hasattr(self.model, "caption"):
            return "it makes no captions"
        if self._encoder is None and {"clips", "moments", "moments in words"} & set(needs):
            return "it has no features of sound"
        words = {"words", "moments in words"} & set(needs)
        if words and not {"embed_audio", "embed_text"} <= offered:
            return "it compares no sound with words"
        if "moments" in needs and isinstance(self._encoder, WindowEncoder):
            return "it has no features along time, but one vector for each window"
        return ""

    def clips(self, source: Source) -> Vectors:  # noqa: D102
        return self._once(("clips", source), lambda: self._pooled(source))

    def shared(self, source: Source) -> Vectors:  # noqa: D102
        return self._once(("shared", source), lambda: self._joint(source))

    def moments(  # noqa: D102
        self, source: Source, spacing: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frames = functools.partial(self.model.encoder.frames, layer=self.layer)
        key = "moments", source, spacing
        return self._once(key, lambda: self._stretches(source, spacing, frames))

    def _stretches(
        self, source: Source, spacing: float, heard: Callable[[np.ndarray, int], Vectors]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `moments` of what is heard in clips: vectors, and their times, ms."""
        from tqdm import tqdm

        clips, numbers, found = [], [], []
        read: Any = examples(source, max_bad_share=self.max_bad_share)
        for i, example in tqdm(read, total=len(source), desc="moments", dynamic_ncols=True):
            audio, rate = np.asarray(example["audio"]), example["rate"]
            features, times = heard(audio, rate)
            count = max(1, round(len(audio) / rate / spacing))
            at = np.minimum((times / 1000 / spacing).astype(int), count - 1)
            for k in range(count):
                # A stretch without a column of its own has that which is nearest.
                middle = (k + 0.5) * spacing * 1000
                own = np.flatnonzero(at == k)
                own = own if len(own) else np.argmin(np.abs(times - middle), keepdims=True)
                found.append(features[own].mean(axis=0))
            clips += [i] * count
            numbers += range(count)
        return np.array(clips), np.array(numbers), np.stack(found)

    def grounded(  # noqa: D102
        self, source: Source, names: Sequence[str], templates: Sequence[str], spacing: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        model: Any = self.model
        if hasattr(model.objective, "queried"):  # it was trained to say when a sentence is heard
            classifier = model.listening(names, templates)

            def columns(audio: np.ndarray, rate: int) -> Vectors:
                clips = classifier.clips([audio], rate)
                ((_, logits),) = classifier.stream_predictor(
                    "frame_logits", clips, pad=classifier.fill
                )
                times = classifier.times(logits.shape[1])
                inside = times < 1000 * len(audio) / rate
                return logits[0][inside], times[inside]

            heard, text = columns, np.eye(len(names), dtype=np.float32)
        else:

            def windows(audio: np.ndarray, rate: int) -> Vectors:
                size, hop = round(WINDOW * rate), round(HOP * rate)
                starts = range(0, max(1, len(audio) - size + hop), hop)
                found = model.embed_audio([audio[i : i + size] for i in starts], rate)
                return found, (np.array(starts) + min(size, len(audio)) / 2) / rate * 1000

            heard, text = windows, model.embed_labels(names, templates)
        return *self._stretches(source, spacing, heard), text

    def separator(self, labels: Sequence[str]) -> tuple[Any, tuple[str, ...]]:  # noqa: D102
        model: Any = self.model
        known = model.labels or tuple(labels)
        if missing := [label for label in labels if label not in known]:
            raise Inapplicable(f"it cannot be asked for {missing[0]!r}")
        return (model.objective, model.params, model.extra), known

    def generated(  # noqa: D102
        self, texts: Sequence[str], seconds: float, seed: int
    ) -> list[np.ndarray]:
        model: Any = self.model
        longest = getattr(model, "window", None) or written.samples(model.config) / model.rate
        return model.generate(list(texts), min(seconds, longest), seed)

    def captions(self, source: Source) -> tuple[np.ndarray, list[str]]:  # noqa: D102
        from tqdm import tqdm

        model: Any = self.model
        numbers, said = [], []
        read: Any = examples(source, max_bad_share=self.max_bad_share)
        for i, example in tqdm(read, total=len(source), desc="captions", dynamic_ncols=True):
            numbers.append(i)
            said.append(model.caption(np.asarray(example["audio"]), example["rate"]))
        return np.array(numbers), said

    def words(self, texts: Sequence[str]) -> np.ndarray:  # noqa: D102
        model: Any = self.model
        return model.embed_text(list(texts))

    def labels(  # noqa: D102
        self, names: Sequence[str], templates: Sequence[str], bank: Bank | None
    ) -> np.ndarray:
        model: Any = self.model
        return model.embed_labels(names, templates, bank)

    @functools.cached_property
    def _encoder(self) -> Any:
        """The model's encoder; None: it has none."""
        try:
            return self.model.encoder
        except ValueError:
            return None

    def _once(self, key: Hashable, make: Any) -> Any:
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def _pooled(self, source: Source) -> Vectors:
        from ssl_audio.eval import features

        extract = features.encoded(self.model.encoder, [self.layer], self.pool)
        options: Any = dict(desc=source.info.name, max_bad_share=self.max_bad_share)
        numbers, x = features.matrix(source, extract, **options)
        return numbers, x[:, 0]

    def _joint(self, source: Source) -> Vectors:
        from ssl_audio.eval.zero_shot import ZeroShot

        model: Any = self.model
        fill = written.entry(model.config, "audio").get("fill", "zeros")
        samples = written.samples(model.config)
        shared: Any = dict(fill=fill, max_bad_share=self.max_bad_share)
        return ZeroShot(source, samples, model.text, **shared).vectors(model)


@dataclasses.dataclass(frozen=True)
class Deaf:
    """No model: a vector of one zero for everything, whatever it sounds like."""

    rate: int = 16_000  # Hz

    def lacks(self, needs: Sequence[str]) -> str:  # noqa: D102
        del needs
        return ""

    def clips(self, source: Source) -> Vectors:  # noqa: D102
        return np.arange(len(source)), np.zeros((len(source), 1), np.float32)

    shared = clips

    def moments(  # noqa: D102
        self, source: Source, spacing: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts = [max(1, round(_seconds(source, i) / spacing)) for i in range(len(source))]
        clips = np.repeat(np.arange(len(source)), counts)
        moments = np.concatenate([np.arange(count) for count in counts])
        return clips, moments, np.zeros((len(clips), 1), np.float32)

    def words(self, texts: Sequence[str]) -> np.ndarray:  # noqa: D102
        return np.zeros((len(texts), 1), np.float32)

    def labels(  # noqa: D102
        self, names: Sequence[str], templates: Sequence[str], bank: Bank | None
    ) -> np.ndarray:
        del templates, bank
        return self.words(names)

    def grounded(  # noqa: D102
        self, source: Source, names: Sequence[str], templates: Sequence[str], spacing: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        del templates
        return *self.moments(source, spacing), self.words(names)

    def separator(self, labels: Sequence[str]) -> tuple[Any, tuple[str, ...]]:  # noqa: D102
        return None, tuple(labels)

    def generated(  # noqa: D102
        self, texts: Sequence[str], seconds: float, seed: int
    ) -> list[np.ndarray]:
        del seed
        return [np.zeros(round(seconds * self.rate), np.float32) for _ in texts]

    def captions(self, source: Source) -> tuple[np.ndarray, list[str]]:  # noqa: D102
        return np.arange(len(source)), [""] * len(source)


@functools.lru_cache(100_000)
def _seconds(source: Any, i: int) -> float:
    example = source[i]
    return len(example["audio"]) / example["rate"]
