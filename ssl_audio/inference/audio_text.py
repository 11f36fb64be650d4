"""A model whose audio, text and pictures share one space: what `load` returns for contrastive models.

Nothing is cropped at random: audio is covered by windows of the training clips' length, and a clip's
vector never depends on what else is embedded with it.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio.data.banks import Bank
from ssl_audio.data.decode import decode
from ssl_audio.data.text import Text
from ssl_audio.inference import kinds, queries, windows
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.model import Model
from ssl_audio.inference.queries import apart
from ssl_audio.inference.window_encoder import WindowEncoder
from ssl_audio.objectives.features import Features
from ssl_audio.storage import written

TEMPLATES = ("This is a sound of {}.",)
SCALE = 20.0  # of similarities, for models that learn none


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AudioTextModel(Model):
    """Audio and text as unit vectors [D] of one space, and an encoder of sound.

    Attributes:
      objective: has `towers`; its "embed_audio" and "embed_text" are the forward passes.
      params: of all its towers.
      config: of the run.
      extra: state that other predictors need beside the parameters.
      batch_size: most windows or texts embedded together: on an accelerator always that many, the last
        one repeated; on a CPU one by one, and short windows as many as make four seconds.
      words: tokenizer of texts; None: that of the config.
    """

    batch_size: int = 16
    words: Text | None = None

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoder of sound: the audio tower without its projection.

        Its features lie along time where the tower has patches; otherwise they are one vector per window.

        Raises:
          ValueError: there is no audio tower.
        """
        tower = self._tower("audio")
        params = self.params.get("audio", {})
        encoder = Encoder(
            Features(tower.frontend, tower.tokenizer, tower.encoder),
            {name: params.get(name, {}) for name in ("tokenizer", "encoder")},
            self.config,
            self.batch_size,
        )
        if hasattr(tower.tokenizer, "grid") and encoder.num_layers:
            return encoder
        fields = {f.name: getattr(encoder, f.name) for f in dataclasses.fields(Encoder)}
        return WindowEncoder(**fields, tower=tower, tower_params=params)

    def embed(self, waveform: Any, sample_rate: int, **how: Any) -> np.ndarray:
        """Return the encoder's features of a clip, before the projection; see `Encoder.embed`."""
        return self.encoder.embed(waveform, sample_rate, **how)

    def frames(self, waveform: Any, sample_rate: int, **how: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the encoder's features along time; see `Encoder.frames`.

        Raises:
          ValueError: as `Encoder.frames`; the audio tower has no patches.
        """
        return self.encoder.frames(waveform, sample_rate, **how)

    @property
    def rate(self) -> int:
        """Sampling rate of the audio tower, Hz."""
        return self._tower("audio").frontend.rate

    @property
    def window(self) -> float:
        """Length of the training clips, s."""
        return self._size / self.rate

    @property
    def width(self) -> int:
        """Length of a vector in the common space, D; vectors of `embed` have `encoder.width`."""
        return self.width_of(next(iter(self.objective.towers)))

    def width_of(self, name: str) -> int:
        """Return the length of a tower's vectors: towers of one space have the same."""
        embed = self.objective.predictors()[f"embed_{name}"]
        return jax.eval_shape(embed, self.params, {}, self.blank()).shape[-1]

    def check_offers(self, *names: str) -> None:
        """Raise ValueError unless there are predictors of these names, and their vectors are comparable.

        VATT's sound meets video in one space and video meets words in another.
        """
        super().check_offers(*names)
        towers = [name.removeprefix("embed_") for name in names if name.startswith("embed_")]
        widths = {name: self.width_of(name) for name in towers}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"{self.origin or self._name}: vectors of {apart(widths)} are of different spaces, and "
                "cannot be compared; wanted a model that was trained to compare them."
            )

    def blank(self) -> dict[str, np.ndarray]:
        """Return a batch of one silent clip, an empty text and zeros for any other modality."""
        batch: dict[str, np.ndarray] = {}
        words = written.entry(self.config, "text").get("length", 2)
        for name, tower in queries.takes(self.objective).items():
            other = written.entry(self.config, name)
            if name not in ("audio", "text") and not other:  # sound and picture in one entry
                other = written.entry(self.config, "audio")
                given = configs.build(other, "data").spec() if other else {}
                there = {key: given[key] for key in (name, tower.length) if key in given}
                batch |= {key: np.zeros((1, *shape), kind) for key, (shape, kind) in there.items()}
                if name in there:
                    continue
            elif name != "audio" and other and "words" not in other:
                spec = configs.build(other, "data").spec()
                batch |= {key: np.zeros((1, *shape), kind) for key, (shape, kind) in spec.items()}
                continue
            size, kind = (words, np.int32) if tower.frontend is None else (self._size, np.float32)
            batch |= {name: np.zeros((1, size), kind), tower.length: np.ones(1, np.int32)}
        return batch

    def embed_audio(self, waveform: Any, sample_rate: int) -> np.ndarray:
        """Return unit vectors of audio: [D] for [S], [B, D] for [B, S] or a list of [S].

        Longer audio than the training clips: the normalised mean over windows half a clip apart.

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

    def spans(self, clips: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (number, first samples [n], unit vectors [n, D]) of the windows that cover each clip."""
        length = self._tower("audio").length

        def embed(audio: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            return self._embed("audio", {"audio": audio, length: lengths})

        fill = written.entry(self.config, "audio").get("fill", "zeros")
        count = windows.windows_per_call(self.batch_size, self.window)
        return windows.vectors(clips, self._size, fill, embed, count)

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
        count = windows.windows_per_call(self.batch_size, windows.ALONE)
        for start in range(0, len(some), count):
            group = some[start : start + count]
            ids, lengths = self.text.encode(group + group[-1:] * (count - len(group)))
            found.append(self._embed("text", {"text": ids, length: lengths})[: len(group)])
        vectors = np.concatenate(found)
        return vectors[0] if single else vectors

    def embed_image(self, pictures: Any) -> np.ndarray:
        """Return unit vectors of pictures: [D] for one, [B, D] for a list.

        Args:
          pictures: paths, or arrays uint8 [Y, X, 3].

        Raises:
          ValueError: no pictures; there is no tower of them; one cannot be read.
        """
        self._tower("image")
        entry = configs.build(written.entry(self.config, "image"), "data")
        single = not isinstance(pictures, (list, tuple))
        if not single and not pictures:
            raise ValueError("pictures: wanted one or a list of at least one, got an empty list.")
        some = [entry.prepared(one) for one in ([pictures] if single else pictures)]
        found = np.concatenate([self._embed("image", {"image": one[None]}) for one in some])
        return found[0] if single else found

    @property
    def takes(self) -> tuple[str, ...]:
        """The modalities that it can be asked with, for `embed_query`: those of the first tower's space."""
        towers = {n: queries.fused(self.objective, n) or n for n in queries.takes(self.objective)}
        near = {tower: self.width_of(tower) == self.width for tower in set(towers.values())}
        return tuple(name for name, tower in towers.items() if near[tower])

    def embed_query(
        self,
        *,
        text: str | None = None,
        audio: Any = None,
        sample_rate: int | None = None,
        image: Any = None,
        features: Mapping[str, Any] = queries.NOTHING,
        weights: Mapping[str, float] = queries.NOTHING,
        alpha: float | None = None,
    ) -> np.ndarray:
        """Return the unit vector [D] of one query of several modalities.

        Those that a tower merges go through it together, with what is missing left empty; the vectors of
        others are added up by their weights, and normalised.

        Args:
          text: words.
          audio: a clip [S], with its `sample_rate`, Hz.
          image: as `embed_image` takes it.
          features: modality → features [width] or [rows, width], as the entry of its name has them.
          weights: modality → how much it counts; default: 1.
          alpha: of a model with the branches `pair` and `class`: the share of the class, 0 to 1; compare
            with vectors of `embed_audio`. None: both alike.

        Raises:
          ValueError: nothing to ask with, or the model cannot be asked with it; as the other methods.
        """
        return queries.vector(
            self, text=text, audio=audio, sample_rate=sample_rate, image=image, features=features,
            weights=weights, alpha=alpha,
        )  # fmt: skip

    def embed_batch(self, name: str, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the unit vectors [B, D] of a tower, of the entries that it takes."""
        return self._embed(name, batch)

    def embed_labels(
        self,
        labels: Sequence[str],
        templates: Sequence[str] = TEMPLATES,
        bank: Bank | None = None,
    ) -> np.ndarray:
        """Return a unit vector per label [C, D]: the mean of the vectors of its prompts, normalised.

        The prompts are the templates with the label filled in, or the "test" sentences of a bank.

        Raises:
          ValueError: the bank has no sentence about a label; labels or templates that are none.
        """
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"labels: got {labels!r}, wanted a list of names, as ['dog', 'rain'].")
        if not bank and (odd := [text for text in templates if "{}" not in text]):
            raise ValueError(
                f"templates: got {odd[0]!r}, wanted texts with {{}} for the label, as {TEMPLATES}."
            )
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

    def listening(self, labels: Sequence[str], templates: Sequence[str] = ("{}",)) -> Classifier:
        """Return a classifier of time columns whose classes are phrases, for `event_scores`.

        Args:
          labels: in words.
          templates: see `embed_labels`.

        Raises:
          ValueError: as `embed_labels`; an empty phrase; the model was not trained to say when one is heard.
        """
        kinds.check(self, "when")
        if any(not str(label).strip() for label in labels):
            raise ValueError(f"labels: got {list(labels)!r}, wanted words in each.")
        vectors = self.embed_labels(labels, templates)
        objective, params = self.objective.queried(self.params, jax.numpy.asarray(vectors))
        data = self.config["data"]
        listened = {**data["entries"]["audio"], "names": tuple(labels)}
        entries = {**data["entries"], "audio": listened}
        known = {**self.config, "data": {**data, "entries": entries}}
        return Classifier(objective, params, known, self.batch_size, origin=self.origin)

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
        self.check_offers("embed_audio", "embed_text")
        if isinstance(audio, (str, os.PathLike)):
            audio, sample_rate = decode(audio, self.rate), self.rate
        elif (
            isinstance(audio, (list, tuple)) and audio and isinstance(audio[0], (str, os.PathLike))
        ):
            audio, sample_rate = [decode(path, self.rate) for path in audio], self.rate
        if sample_rate is None:
            raise ValueError(
                "sample_rate: give the rate of the waveform, Hz, or the path of a file."
            )
        scores = self.embed_audio(audio, sample_rate) @ self.embed_labels(labels, templates).T
        scaled = np.float64(self.scale) * scores
        odds = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return (odds / odds.sum(axis=-1, keepdims=True)).astype(np.float32)

    @property
    def scale(self) -> float:
        """Factor of the similarities before a softmax; 20 for models that do not learn one."""
        found = self.objective.scale(self.params, "audio", "text")
        return SCALE if found is None else found

    @functools.cached_property
    def text(self) -> Text:
        """The tokenizer of texts."""
        if self.words:
            return self.words
        options = written.entry(self.config, "text")
        if not options:
            raise ValueError(
                "this model was saved without a tokenizer: set data.entries.text in its config.json, as "
                '{"kind": "text", "words": {"kind": "text:Pretrained", "file": "tokenizer.json"}}.'
            )
        return configs.build({k: v for k, v in options.items() if k != "captions"}, "data")

    @property
    def _size(self) -> int:
        return written.samples(self.config)

    def _tower(self, name: str) -> Any:
        if name not in self.objective.towers:
            raise ValueError(
                f"this model has no {name} tower, only {', '.join(self.objective.towers)}."
            )
        return self.objective.towers[name]

    def _embed(self, name: str, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(_program(self.objective, name)(self._on_device, {}, batch))


@functools.lru_cache(8)
def _program(objective: Any, name: str) -> Any:
    return jax.jit(objective.predictors()[f"embed_{name}"])
