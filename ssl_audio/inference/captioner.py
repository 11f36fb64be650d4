"""An encoder that says in words what it hears: what `load` returns for runs of `caption`."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio.data.text import Text
from ssl_audio.inference import windows
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.model import check_finite
from ssl_audio.inference.sampling import Sampling, Saying
from ssl_audio.inference.windows import Clip
from ssl_audio.storage import written


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Captioner(Encoder):
    """Captions of sound of any rate and length; its features are the encoder's, see `Encoder`.

    ```python
    model = ssl_audio.load("runs/caption")
    words = model.caption(waveform, 44_100)
    ```
    """

    @functools.cached_property
    def text(self) -> Text:
        """The entry that cuts captions into numbered words.

        Raises:
          ValueError: the model was saved without one.
        """
        options = written.entry(self.config, "text")
        if not options:
            raise ValueError(
                f"{self._name}: it was saved without a tokenizer; set data.entries.text in its config.json."
            )
        return configs.build({k: v for k, v in options.items() if k != "captions"}, "data")

    def caption(self, waveform: Any, sample_rate: int) -> Any:
        """Return the caption of a clip [S], or a list of those of several, [B, S] or a list of [S].

        The likeliest word each time. Of a clip that is longer than those of training, windows half a window
        apart are heard, all of which the words are told of.

        Raises:
          ValueError: unusable audio; a model without a tokenizer.
        """
        single = not isinstance(waveform, (list, tuple)) and np.ndim(waveform) == 1
        clips = self.clips([waveform] if single else waveform, sample_rate)
        said = [self.words_of(numbers) for _, numbers in sorted(self.numbers(clips))]
        return said[0] if single else said

    def numbers(self, clips: Iterable[Clip]) -> Iterator[tuple[int, list[int]]]:
        """Yield (number, those of a caption's words) of clips [S] at `rate` Hz, or in pieces."""
        fill = written.entry(self.config, "audio").get("fill", "zeros")
        samples = written.samples(self.config)
        count = windows.windows_per_call(self.batch_size, samples / self.rate)

        def embed(audio: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            batch = {"audio": audio, "length": lengths}
            found = self._prefix(self._on_device, self._extra_on_device, batch)
            return np.asarray(found).reshape(len(audio), -1)

        made = self.objective
        for number, _, found in windows.vectors(clips, samples, fill, embed, count):
            check_finite(found)
            told = found.reshape(-1, made.prefix.width)[None]
            (codes,) = self._saying(
                self._on_device["words"]["model"],
                told,
                np.ones(told.shape[:2], bool),
                [np.zeros((0, 1), np.int32)],
                [(0,)],
            )
            said = codes[:, 0].tolist()
            yield number, said[: said.index(made.end)] if made.end in said else said

    def words_of(self, numbers: Sequence[int]) -> str:
        """Return the caption that some numbers of words are."""
        return self.text.words.decode(numbers)

    @functools.cached_property
    def _saying(self) -> Saying:
        words = self.objective.words
        greedy = Sampling(guidance=1.0, temperature=0.0)
        return Saying(words.model, words.pattern, greedy, self.text.length)

    @functools.cached_property
    def _prefix(self) -> Any:
        return jax.jit(self.objective.predictors()["prefix"])
