"""Any run that `ssl_audio.load` takes as a model of `mteb`, whose tasks of sound are MAEB. See `Maeb`.

import mteb
from ssl_audio.eval.maeb import model
mteb.evaluate(model("runs/ssamba"), mteb.get_tasks(["ESC50"]))
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.eval.protocols import unit
from ssl_audio.inference import kinds
from ssl_audio.inference.encoder import FINAL
from ssl_audio.inference.load import load


def model(
    run: str,
    *,
    layer: int = FINAL,
    pool: str = "mean",
    shared: bool | None = None,
    trust: Iterable[str] = (),
) -> "Maeb":
    """Return a run as a model of mteb.

    Args:
      run: the workdir of a run, or an exported or converted folder.
      layer, pool: of vectors of sound; see `Encoder.embed`.
      shared: take vectors of sound in the space of words instead; None: of models of sound and text, as tasks
        may compare the two.
      trust: see `ssl_audio.load`.

    Raises:
      ValueError: no such layer or pool; `shared` of a model that reads no words; see `ssl_audio.load`.
      RuntimeError: mteb is not installed.
    """
    heard = load(run, trust=trust)
    reads = {"embed_audio", "embed_text"} <= set(heard.objective.predictors())
    if shared and not reads:
        kinds.check(heard, "sound and words")
    heard.encoder.readout(layer, pool)
    return Maeb(heard, pathlib.PurePath(run).name, layer, pool, reads if shared is None else shared)


class Maeb:
    """What mteb asks of an encoder: `encode`, `similarity` of vectors (cosine), and what the model is.

    Sound is resampled to the model's rate, its channels are averaged, and long clips are heard whole.
    """

    def __init__(self, model: Any, name: str, layer: int, pool: str, shared: bool):
        try:
            from mteb.models import ModelMeta
        except ImportError:
            raise RuntimeError("MAEB needs mteb: pip install 'ssl_audio[maeb]'.") from None
        self.model, self.layer, self.pool, self.shared = model, layer, pool, shared
        self.mteb_model_meta = ModelMeta.create_empty(
            dict(
                name=f"ssl_audio/{name}", revision=f"layer{layer}-{'shared' if shared else pool}",
                modalities=["audio", "text"] if shared else ["audio"], framework=["JAX"],
                similarity_fn_name="cosine",
            )
        )  # fmt: skip

    def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        """Return a vector [n, D] of each input.

        Args:
          inputs: a `DataLoader` of batches with `text`, or with `audio`, each of which has an "array", [S] or
            [channels, S], and a "sampling_rate".
          **kwargs: what mteb says of the task; nothing depends on it.

        Raises:
          ValueError: inputs that are neither sound nor, for a model that reads words, text.
        """
        del kwargs
        kinds = set(inputs.dataset.features)
        inputs.collate_fn = together
        if "audio" in kinds:
            return np.concatenate([self._heard(batch["audio"]) for batch in inputs])
        if "text" in kinds and self.shared:
            found = [self.model.embed_text(list(batch["text"])) for batch in inputs]
            return np.concatenate(found)
        name = self.mteb_model_meta.name
        raise ValueError(f"{name}: the task gives {', '.join(sorted(kinds))}; it takes audio.")

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines [n, m] of vectors [n, D] and [m, D], a tensor."""
        import torch

        first, second = (unit(np.atleast_2d(np.asarray(x))) for x in (embeddings1, embeddings2))
        return torch.from_numpy(first @ second.T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines [n] of vectors [n, D] and [n, D], a tensor."""
        import torch

        first, second = (unit(np.atleast_2d(np.asarray(x))) for x in (embeddings1, embeddings2))
        return torch.from_numpy(np.sum(first * second, axis=1))

    def _heard(self, sounds: Sequence[Mapping[str, Any]]) -> np.ndarray:
        found = []
        for sound in sounds:
            audio, rate = np.asarray(sound["array"], np.float32), int(sound["sampling_rate"])
            audio = audio if audio.ndim == 1 else audio.mean(axis=0)
            if self.shared:
                found.append(self.model.embed_audio(audio, rate))
            else:
                found.append(
                    self.model.encoder.embed(audio, rate, layer=self.layer, pool=self.pool)
                )
        return np.stack(found)


def together(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as lists by column: sounds of different lengths cannot be stacked."""
    return {name: [row[name] for row in rows] for name in rows[0]}
