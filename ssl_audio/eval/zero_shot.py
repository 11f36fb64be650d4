"""Classify clips by the words of their labels, nothing learned: an evaluator of `train/loop.py`.

Also how well labels find their clips, and how far the two modalities lie apart.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ssl_audio.data.banks import bank
from ssl_audio.data.entries import audio
from ssl_audio.data.reading import examples
from ssl_audio.data.source import multi_hot
from ssl_audio.data.text import Text
from ssl_audio.distributed import sharding
from ssl_audio.eval import inputs, metrics, retrieval
from ssl_audio.inference.audio_text import TEMPLATES, AudioTextModel
from ssl_audio.slots import AnySource
from ssl_audio.structs import TrainState


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """Compare every clip of a source with its labels in words.

    Attributes:
      source: labelled clips.
      samples: length of the windows that cover a clip.
      text: how words are cut.
      fill: what becomes of shorter clips, see `data.transforms.fill`.
      templates: prompts; of several, the vectors' mean counts.
      bank: of prompts, in place of templates; see `data.banks`.
      max_bad_share: of clips that cannot be read.
    """

    source: AnySource
    samples: int
    text: Text
    fill: str = "zeros"
    templates: tuple[str, ...] = TEMPLATES
    bank: str = ""
    max_bad_share: float = 0.01

    def check(self, objective: Any, training: Any) -> None:
        """Open the clips and the prompts; the classes need not be those of `training`.

        Raises:
          ValueError: no clip can be read, one has no label, or the labels have no names.
        """
        del objective, training
        if not self.source.info.labels:
            raise ValueError(f"{self.source.info.name}: its labels have no names to put in words.")
        inputs.check(self.source, len(self.source.info.labels))
        if self.bank:
            bank(self.bank)

    def run(self, objective: Any, state: TrainState, mesh: jax.sharding.Mesh) -> dict[str, float]:
        """Return the scores of a training state; every host computes the same."""
        whole = jax.jit(lambda params: params, out_shardings=sharding.replicated(mesh))
        config = dict(data=dict(entries=dict(audio=audio(self.samples, fill=self.fill))))
        params = jax.device_get(whole(state.params))
        with jax.set_mesh(sharding.alone()):
            return self.scores(AudioTextModel(objective, params, config, words=self.text))

    def scores(self, model: AudioTextModel) -> dict[str, float]:
        """Return the scores of a model.

        accuracy (clips with one label) or mAP (several); text_to_audio_mAP: over labels, of all clips;
        classes: how many labels have a clip, which means over labels are over;
        centroid_distance, separability, spread: see `retrieval`.
        """
        model.check_offers("embed_audio", "embed_text")
        names = self.source.info.labels
        if len(names) < 2:
            raise ValueError(
                f"{self.source.info.name}: zero-shot needs two classes or more, got {', '.join(names)}."
            )
        numbers, audio = self.vectors(model)
        prompts = model.embed_labels(names, self.templates, bank(self.bank) if self.bank else None)
        hot = np.stack([self._label(int(i)) for i in numbers])
        found = zero_shot(audio, prompts, hot, multilabel=self.source.info.multilabel)
        said = prompts[hot.argmax(axis=1)]
        return (
            found
            | retrieval.modality_gap(audio, said)
            | {"spread": retrieval.spread([audio, prompts])}
        )

    def vectors(self, model: AudioTextModel) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers [n] of the clips that could be read, and their unit vectors [n, D]."""
        numbers: list[int] = []
        read: Any = examples(self.source, max_bad_share=self.max_bad_share)

        def clips():
            for i, example in read:
                numbers.append(i)
                yield example["audio"]

        with contextlib.closing(read):
            vectors = dict(model.vectors(clips()))
        if not vectors:
            raise ValueError(f"{self.source.info.name}: no clip could be read.")
        return np.array(numbers), np.stack([vectors[k] for k in range(len(vectors))])

    def _label(self, number: int) -> np.ndarray:
        meta: Mapping[str, Any] = self.source.meta(number)
        if meta.get("label") is None:
            raise ValueError(f"zero_shot: clip {meta['id']} has no label.")
        return multi_hot(meta["label"], len(self.source.info.labels))


def zero_shot(
    audio: np.ndarray, prompts: np.ndarray, labels: np.ndarray, *, multilabel: bool = False
) -> dict[str, float]:
    """Return the scores of clips [n, D] against classes [C, D], labels multi-hot [n, C]."""
    scores = audio @ prompts.T
    mean = metrics.mean_average_precision(scores, labels)
    found = {"text_to_audio_mAP": mean, "classes": metrics.classes(labels)}
    if multilabel:
        return found | {"mAP": mean}
    return found | {"accuracy": metrics.accuracy(scores, labels)}
