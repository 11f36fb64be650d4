"""A language model of codes in use: words, a condition or the begin of a sound → sound.

Sampling is `sampling.py`'s; `ssl-audio generate` is a command around `Generator.generate`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio.inference.codec import CodecModel
from ssl_audio.inference.model import Model
from ssl_audio.inference.sampling import Sampling, Saying, check_seeds
from ssl_audio.storage import written

Told = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Generator(Model):
    """Generate sound with a `token_lm`; see `Model` for the fields.

    ```python
    model = ssl_audio.load(FOLDER)
    sound = model.generate("rain on a roof", seconds=5.0, seed=1)
    ```

    Attributes:
      batch_size: sounds that are made at the same time.
      limit: most seconds that the model says in one go; longer sound slides. None: of its training clips,
        or 30 (MusicGen's) where these are not known.
    """

    batch_size: int = dataclasses.field(default=8, kw_only=True)
    limit: float | None = dataclasses.field(default=None, kw_only=True)

    @functools.cached_property
    def codec(self) -> CodecModel:
        """What turns codes into sound.

        Raises:
          ValueError: the model has none.
        """
        if self.objective.codec is None:
            raise ValueError(
                f"{self._name}: it was saved without a codec, so it makes codes but no sound: convert it "
                "with --option codec=FOLDER (of a converted codec), or train with codec=RUN."
            )
        return CodecModel(self.objective.codec, self.params["codec"], self.config)

    @property
    def rate(self) -> int:
        """Sampling rate of what it makes, Hz: the codec's."""
        return self.codec.rate

    @property
    def books(self) -> int:
        """Codebooks that it says, Q."""
        return self.objective.model.books

    @property
    def window(self) -> float:
        """Most seconds in one go; see `limit`."""
        if self.limit is not None:
            return self.limit
        if "samples" in written.entry(self.config, "audio"):
            return written.samples(self.config) / self.config.get("data", {}).get("rate", self.rate)
        return 30.0

    def blank(self) -> dict[str, Any]:
        """Return a batch of one without words and without sound."""
        made, single, whole = self.objective, np.float32, np.int32
        batch: dict[str, Any] = {"codes": np.zeros((1, 2, self.books), whole)}
        if made.text is not None:
            return batch | {"text": np.zeros((1, 2), whole), made.text.length: np.ones(1, whole)}
        width = made.model.given or made.model.width
        return batch | {
            "condition": np.zeros((1, 2, width), single),
            "condition_length": np.ones(1, whole),
        }

    def generate(
        self,
        texts: str | Sequence[str] | None = None,
        seconds: float = 10.0,
        seed: int = 0,
        *,
        guidance: float = Sampling.guidance,
        temperature: float = Sampling.temperature,
        top_k: int = Sampling.top_k,
        top_p: float = Sampling.top_p,
        condition: Sequence[Any] | None = None,
        begins: Sequence[Any] | None = None,
        begins_rate: int | None = None,
        stride: float | None = None,
        told: Told | None = None,
    ) -> Any:
        """Return sound [S] at `rate` of a text, or a list of it of several.

        The i-th of several is the one that its text gives alone with `seed` + i.

        Args:
          texts: words; "": without any. One string is one text.
          seconds: length of each sound, its begin included.
          seed: other seeds give other sounds.
          guidance, temperature, top_k, top_p: how codes are drawn, see `Sampling`.
          condition: in place of texts, what a text tower would give: arrays [M, C], M may be 0.
          begins: of each sound a waveform [S] that it continues, None where it has none.
          begins_rate: of these waveforms, Hz.
          stride: of sound longer than `window`: seconds said in each further go, from what came before;
            None: a fifth of the window (AudioGen's 2 s of 10).
          told: called with how many columns are said, and of how many, as they are.

        Raises:
          ValueError: no texts or not text, no time, begins that do not fit, a model without a codec.
        """
        single = isinstance(texts, str)
        some = [texts] if isinstance(texts, str) else None if texts is None else list(texts)
        sampling = Sampling(guidance, temperature, top_k, top_p)
        codec, hop = self.codec, self.codec.hop
        if not 0 < seconds < float("inf"):
            raise ValueError(f"seconds: got {seconds!r}, wanted more than 0.")
        samples = round(seconds * self.rate)
        conditions = self._conditions(some, condition)
        started = self._begun(begins, begins_rate, len(conditions))
        steps = -(-samples // hop)
        if any(len(codes) > steps for codes in started):
            raise ValueError(
                f"begins: one is longer than the {seconds:g} s that were asked for; cut it, or ask for more."
            )
        codes = self.say(
            conditions, steps, seed, begins=started, sampling=sampling, stride=stride, told=told
        )
        sounds = [codec.decode(one, samples=samples) for one in codes]
        return sounds[0] if single else sounds

    def say(
        self,
        conditions: Sequence[np.ndarray],
        steps: int,
        seed: int = 0,
        *,
        begins: Sequence[np.ndarray] | None = None,
        sampling: Sampling | None = None,
        stride: float | None = None,
        told: Told | None = None,
    ) -> list[np.ndarray]:
        """Return codes int32 [T, Q] of conditions [M, C].

        Args:
          conditions: of each example; M may be 0.
          steps: T.
          seed, stride, told: see `generate`.
          sampling: how codes are drawn; None: as `Sampling` has it.
          begins: codes [P, Q] that each example continues; P may be 0, and P <= T.

        Raises:
          ValueError: a stride that is not within the window; seeds of more than 32 bits.
        """
        check_seeds(seed, len(conditions))
        sampling = sampling or Sampling()
        nothing = np.zeros((0, self.books), np.int32)
        begins = [nothing] * len(conditions) if begins is None else list(begins)
        once, ahead = self._strides(steps, stride)
        goes = 1 if steps <= once else 1 + -(-(steps - once) // ahead)
        groups = [
            range(i, min(i + self.batch_size, len(conditions)))
            for i in range(0, len(conditions), self.batch_size)
        ]
        saying = self._saying(sampling, once)
        found: list[np.ndarray] = []
        done, whole = 0, len(groups) * goes * saying.columns

        def tell(columns: int) -> None:
            if told is not None:
                told(min(done + columns, whole), whole)

        for group in groups:
            # A lone example is not filled up; groups are, so that the last needs no program of its own.
            numbers = [*group, *[group[-1]] * (self.batch_size - len(group))]
            numbers = numbers if len(groups) > 1 else list(group)
            given, valid = _stacked([conditions[i] for i in numbers])
            rows = [np.asarray(begins[i], np.int32) for i in numbers]
            for go in range(goes):
                first = go * ahead
                said = saying(
                    self._on_device["model"],
                    given,
                    valid,
                    [row[first : first + once] for row in rows],
                    [(seed + i, go) for i in numbers],
                    tell,
                )
                rows = [
                    np.concatenate([row[:first], new, row[first + once :]])
                    for row, new in zip(rows, said, strict=True)
                ]
                done += saying.columns
            found += [row[:steps] for row in rows[: len(group)]]
        return found

    @functools.cached_property
    def text(self) -> Any:
        """The entry that cuts texts into numbered pieces.

        Raises:
          ValueError: the model was saved without one.
        """
        options = written.entry(self.config, "text")
        if not options:
            raise ValueError(
                f"{self._name}: it was saved without a tokenizer; set data.entries.text in its config.json, "
                "or give a condition in place of texts."
            )
        return configs.build({k: v for k, v in options.items() if k != "captions"}, "data")

    def embed_text(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the conditions [M, C] that texts become, to keep and give again; "" becomes none.

        Raises:
          ValueError: no text tower, no tokenizer, or something that is not text.
        """
        if self.objective.text is None:
            raise ValueError(
                f"{self._name}: it was saved without a text tower; give a condition in place of texts, or "
                "convert it with --option text=FOLDER (of a converted text model)."
            )
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"texts: wanted a text or a list of at least one, got {texts!r:.100}.")
        ids, lengths = self.text.encode(list(texts))
        found = []
        for text, row, length in zip(texts, ids, lengths, strict=True):
            if not text.strip():
                length = np.int32(0)
            batch = {"text": row[None], self.objective.text.length: np.maximum(length, 1)[None]}
            tokens, _ = self._condition(self._on_device, batch)
            found.append(np.asarray(tokens[0, : int(length)]))
        return found

    def _conditions(
        self, texts: list[str] | None, condition: Sequence[Any] | None
    ) -> list[np.ndarray]:
        if (texts is None) == (condition is None):
            raise ValueError("texts, condition: wanted one of them.")
        if condition is None:
            return self.embed_text(texts or [])
        made = self.objective.model
        found = [np.asarray(one, np.float32) for one in condition]
        width = made.given or made.width
        if not found or any(one.ndim != 2 or one.shape[1] != width for one in found):
            shapes = ", ".join(str(one.shape) for one in found) or "nothing"
            raise ValueError(f"condition: got {shapes}, wanted arrays [M, {width}].")
        return found

    def _begun(
        self, begins: Sequence[Any] | None, rate: int | None, count: int
    ) -> list[np.ndarray]:
        nothing = np.zeros((0, self.books), np.int32)
        if begins is None:
            return [nothing] * count
        if len(begins) != count or rate is None:
            raise ValueError(
                f"begins: got {len(begins)} with begins_rate={rate}, wanted {count}, one of each text (None: "
                "none), and their rate."
            )
        found = []
        for sound in begins:
            if sound is None:
                found.append(nothing)
                continue
            coded = self.codec.encode(sound, rate, books=self.books)
            first, *more = coded.chunks
            if more:
                raise ValueError("begins: a codec with chunks that overlap cannot be continued.")
            # The last token may stand for the end of the begin; whole ones stay.
            found.append(first[: max(1, coded.samples // self.codec.hop)])
        return found

    def _strides(self, steps: int, stride: float | None) -> tuple[int, int]:
        """Return how many steps are said in one go, and how many further ones in each after it."""
        frames = self.rate / self.codec.hop if self.objective.codec is not None else 50.0
        most = max(1, math.floor(self.window * frames + 1e-6))
        ahead = most // 5 or 1 if stride is None else round(stride * frames)
        if not 0 < ahead <= most:
            raise ValueError(
                f"stride: got {stride} s, wanted more than 0, up to the window's {self.window:g} s."
            )
        return min(steps, most), ahead

    def _saying(self, sampling: Sampling, steps: int) -> Saying:
        known: dict[Any, Any] = self._programs
        if (sampling, steps) not in known:
            made = self.objective
            known[sampling, steps] = Saying(made.model, made.pattern, sampling, steps)
        return known[sampling, steps]

    @functools.cached_property
    def _condition(self) -> Any:
        return jax.jit(lambda params, batch: self.objective.condition(params, batch))


def _stacked(conditions: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return conditions [B, M, C] with zeros where they are shorter, and where they are not [B, M]."""
    most = max(1, *(len(one) for one in conditions))
    most = 2 ** math.ceil(math.log2(most))  # few programs to compile
    given = np.zeros((len(conditions), most, conditions[0].shape[1]), np.float32)
    for row, one in zip(given, conditions, strict=True):
        row[: len(one)] = one
    lengths = np.array([len(one) for one in conditions])
    return given, np.arange(most)[None] < lengths[:, None]
