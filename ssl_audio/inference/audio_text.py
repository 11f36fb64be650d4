"""An encoder whose audio and text share one space: what `load` returns for contrastive models.

Nothing is cropped at random: audio is covered by windows of the training clips' length, and a clip's
vector never depends on what else is embedded with it.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio.data import transforms
from ssl_audio.data.banks import Bank
from ssl_audio.data.decode import decode
from ssl_audio.data.text import Text
from ssl_audio.inference.encoder import FINAL, Clip, Encoder
from ssl_audio.inference.pooling import Collector, Whole
from ssl_audio.objectives.features import Features

TEMPLATES = ("This is a sound of {}.",)


@dataclasses.dataclass(frozen=True, eq=False)
class JointEncoder(Encoder):
    """Audio and text as unit vectors [D] of one space, and all that an `Encoder` does.

    Attributes:
      joint: the objective; its "embed_audio" and "embed_text" are the forward passes.
      joint_params: of all its towers.
      words: how texts are cut; None: as the config says.
    """

    joint: Any = None
    joint_params: Any = None
    words: Text | None = None

    @classmethod
    def of(cls, objective: Any, params: Any, options: Mapping[str, Any]) -> "JointEncoder":
        """Return the encoder of an objective with towers."""
        tower = objective.towers.get("audio")
        audio = tower and Features(tower.frontend, tower.tokenizer, tower.encoder)
        own = {k: params.get("audio", {}).get(k, {}) for k in ("tokenizer", "encoder")}
        return cls(audio, own, options, joint=objective, joint_params=params)

    @property
    def window(self) -> float:
        """Length of the training clips, s."""
        return self._window / self.rate

    @property
    def width(self) -> int:
        """Values of a vector in the common space, D."""
        name = next(iter(self.joint.towers))
        embed = self.joint.predictors()[f"embed_{name}"]
        return jax.eval_shape(embed, self.joint_params, {}, self.blank()).shape[-1]

    def blank(self, columns: int | None = None) -> dict[str, np.ndarray]:
        """Return a batch of one silent clip and an empty text."""
        if columns is not None:
            return super().blank(columns)
        batch: dict[str, np.ndarray] = {}
        words = (self.config["data"].get("text") or {}).get("length", 2)
        for name, tower in self.joint.towers.items():
            size, kind = (words, np.int32) if tower.frontend is None else (self._window, np.float32)
            batch |= {name: np.zeros((1, size), kind), tower.length: np.ones(1, np.int32)}
        return batch

    def stream(
        self,
        clips: Iterable[Clip],
        layers: Sequence[int] = (FINAL,),
        collect: Callable[[int], Collector] = lambda _: Whole(),
    ) -> Iterator[tuple[int, Any]]:
        """Yield features of the audio tower, as `Encoder.stream`.

        Where its tokens are coarser than its patches (HTSAT, CNNs), a window of the training clips' length
        counts as one column: what the tower pools of it, before the projection.
        """
        if self._has_patches:
            yield from super().stream(clips, layers, collect)
            return
        whole = (c if isinstance(c, np.ndarray) else np.concatenate(list(c)) for c in clips)
        for number, _, vectors in self.spans(whole, pooled=True):
            collector = collect(number)
            collector.add(vectors[None])
            yield number, collector.result()

    @property
    def rows(self) -> int:
        """Tokens in a column."""
        return super().rows if self._has_patches else 1

    @property
    def num_layers(self) -> int:
        """Number of blocks of the audio tower's backbone, L; 0 where they are not told apart."""
        return super().num_layers if self._has_patches else 0

    def times(self, columns: int) -> np.ndarray:
        """Return the centres of so many patch columns, ms; ValueError for towers without them."""
        if not self._has_patches:
            encoder = type(self._tower("audio").encoder).__name__
            raise ValueError(f"{encoder}: this audio tower has no features along time; use embed.")
        return super().times(columns)

    @functools.cached_property
    def _has_patches(self) -> bool:
        tower = self._tower("audio")
        return hasattr(tower.tokenizer, "grid") and self._shapes.layers is not None

    def embed_audio(self, waveform: Any, sample_rate: int) -> np.ndarray:
        """Return unit vectors of audio: [D] for [S], [B, D] for [B, S] or a list of [S].

        Longer audio than the training clips: the mean over windows half a clip apart, scaled to 1.

        Raises:
          ValueError: as `Encoder.embed`; there is no audio tower.
        """
        self._tower("audio")
        single = not isinstance(waveform, (list, tuple)) and np.ndim(waveform) == 1
        clips = self.clips([waveform] if single else waveform, sample_rate)
        found = np.stack([vector for _, vector in sorted(self.vectors(clips))])
        return found[0] if single else found

    def vectors(self, clips: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, unit vector [D]) of clips [S] at `rate` Hz, as batches fill up."""
        for number, _, found in self.spans(clips):
            mean = np.mean(found, axis=0, dtype=np.float64)
            yield number, np.asarray(mean / np.linalg.norm(mean), np.float32)

    def spans(
        self, clips: Iterable[np.ndarray], *, pooled: bool = False
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (number, first samples [n], unit vectors [n, D]) of the windows that cover each clip.

        `pooled`: what the tower pools, neither projected nor scaled, in place of unit vectors.
        """
        embed = self._pool if pooled else functools.partial(self._embed, "audio")
        waiting: list[tuple[int, np.ndarray, int]] = []
        done: dict[int, tuple[list[int], list[np.ndarray]]] = {}

        def run() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
            group, waiting[:] = waiting[: self.batch_size], waiting[self.batch_size :]
            filled = group + group[-1:] * (self.batch_size - len(group))
            batch = {
                "audio": np.stack([audio for _, audio, _ in filled]),
                self._tower("audio").length: np.array([n for _, _, n in filled], np.int32),
            }
            for (number, _, _), vector in zip(group, embed(batch), strict=False):
                starts, found = done[number]
                found.append(vector)
                if len(found) == len(starts):
                    yield number, np.array(starts), np.stack(done.pop(number)[1])

        fill = self.config["data"].get("fill", "zeros")
        for number, clip in enumerate(clips):
            cut = list(windows(clip, self._window, fill))
            done[number] = [start for start, _, _ in cut], []
            waiting += [(number, audio, length) for _, audio, length in cut]
            while len(waiting) >= self.batch_size:
                yield from run()
        while waiting:
            yield from run()

    def embed_text(self, texts: str | Sequence[str]) -> np.ndarray:
        """Return unit vectors of texts: [D] for one, [B, D] for several.

        Raises:
          ValueError: no texts, or the model has no text tower or no tokenizer.
        """
        single = isinstance(texts, str)
        some = [texts] if isinstance(texts, str) else list(texts)
        if not some or not all(isinstance(text, str) for text in some):
            raise ValueError(f"texts: wanted a text or a list of at least one, got {texts!r}.")
        length, found = self._tower("text").length, []
        for start in range(0, len(some), self.batch_size):
            group = some[start : start + self.batch_size]
            ids, lengths = self.text.encode(group + group[-1:] * (self.batch_size - len(group)))
            found.append(self._embed("text", {"text": ids, length: lengths})[: len(group)])
        vectors = np.concatenate(found)
        return vectors[0] if single else vectors

    def embed_labels(
        self,
        labels: Sequence[str],
        templates: Sequence[str] = TEMPLATES,
        bank: Bank | None = None,
    ) -> np.ndarray:
        """Return a unit vector per label [C, D]: of its prompts' vectors the mean, scaled to 1.

        The prompts are the templates, filled in; of a bank, its "test" sentences about the label instead.

        Raises:
          ValueError: a bank knows nothing of a label.
        """
        prompts: list[list[str]] = []
        for label in labels:
            plain = label.replace("_", " ")
            said = (
                list(bank.of(label, "test"))
                if bank
                else [t.replace("{}", plain) for t in templates]
            )
            if not said:
                raise ValueError(f"bank: no 'test' sentence about {label!r}.")
            prompts.append(said)
        vectors = iter(self.embed_text([text for some in prompts for text in some]))
        means = np.stack([np.mean([next(vectors) for _ in some], axis=0) for some in prompts])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def classify(
        self,
        audio: Any,
        labels: Sequence[str],
        sample_rate: int | None = None,
        *,
        templates: Sequence[str] = TEMPLATES,
    ) -> np.ndarray:
        """Return the probability of each label, [C] for one clip, [B, C] for several.

        Args:
          audio: as `embed_audio` takes it, with `sample_rate`; or the path of a file, or a list of paths.
          labels: in words.
          sample_rate: of waveforms, Hz.
          templates: see `embed_labels`.

        Raises:
          ValueError: as `embed_audio` and `embed_text`; waveforms without a sample rate.
        """
        if isinstance(audio, (str, os.PathLike)):
            audio, sample_rate = decode(audio, self.rate), self.rate
        elif (
            isinstance(audio, (list, tuple)) and audio and isinstance(audio[0], (str, os.PathLike))
        ):
            audio, sample_rate = [decode(path, self.rate) for path in audio], self.rate
        if sample_rate is None:
            raise ValueError(
                "sample_rate: say the rate of the waveform, Hz; or give a file's path."
            )
        scores = self.embed_audio(audio, sample_rate) @ self.embed_labels(labels, templates).T
        scaled = np.float64(self.scale) * scores
        odds = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return (odds / odds.sum(axis=-1, keepdims=True)).astype(np.float32)

    @property
    def scale(self) -> float:
        """What similarities are multiplied by before a softmax; a model without one: 20."""
        if "logit_scale" not in self.joint_params:
            return 20.0
        return float(np.exp(np.clip(self.joint_params["logit_scale"][0][0], 0, np.log(100))))

    @functools.cached_property
    def text(self) -> Text:
        """How texts are cut into words."""
        if self.words:
            return self.words
        options = self.config.get("data", {}).get("text")
        if not options:
            raise ValueError(
                "this model came without a tokenizer: set data.text in its config.json, as "
                '{"kind": "text", "words": {"kind": "text:Pretrained", "file": "tokenizer.json"}}.'
            )
        return configs.build({k: v for k, v in options.items() if k != "captions"}, "data")

    @property
    def _window(self) -> int:
        return self.config["data"]["samples"]

    def _tower(self, name: str) -> Any:
        if name not in self.joint.towers:
            raise ValueError(
                f"this model has no {name} tower, only {', '.join(self.joint.towers)}."
            )
        return self.joint.towers[name]

    def _embed(self, name: str, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(_program(self.joint, name)(self._joint_on_device, {}, batch))

    def _pool(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(_pool_program(self.joint)(self._audio_on_device, batch))

    @functools.cached_property
    def _audio_on_device(self) -> Any:
        return jax.device_put({**self.joint_params["audio"], **self.params})

    @functools.cached_property
    def _joint_on_device(self) -> Any:
        return jax.device_put(self.joint_params)


@functools.lru_cache(8)
def _program(objective: Any, name: str) -> Any:
    return jax.jit(objective.predictors()[f"embed_{name}"])


@functools.lru_cache(8)
def _pool_program(objective: Any) -> Any:
    tower = objective.towers["audio"]
    return jax.jit(lambda params, batch: tower.pooled(params, tower.encode(params, batch, "audio")))


def windows(audio: np.ndarray, samples: int, fill: str) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield first sample, piece of exactly `samples` and how much of it is sound, to cover a clip [S].

    A shorter clip is filled as in training ("join": repeated); of a longer one the pieces are at most
    half a piece apart, the first at its begin and the last at its end.
    """
    if len(audio) <= samples:
        mode = "repeat" if fill == transforms.FILLS[-1] else fill
        audio = transforms.fill(audio, samples, mode, lambda: audio)
        yield 0, *transforms.crop(audio, samples, "first", np.random.default_rng(0))
        return
    count = 1 + -(-(len(audio) - samples) * 2 // samples)
    for start in np.linspace(0, len(audio) - samples, count).round().astype(int):
        yield int(start), audio[start : start + samples], samples
