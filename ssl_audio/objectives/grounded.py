"""Text-grounded events: which of some phrases is heard when, beside which caption belongs to which clip.

FineLAP (arXiv:2604.01155): a sigmoid on each pair of a time column and a phrase, and on each of a clip and a
caption. `Queried` is what a trained model becomes when it is asked for phrases: a tagger of columns.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.heads.readout import over_frequency
from ssl_audio.objectives.base import Batch, Encoding, Extra, Joint, Params, Predictor
from ssl_audio.slots import AnyFrontend, AnyObjective, Backbone, Projector, Tokenizer
from ssl_audio.structs import Encoded, Loss, Tokens

POSITIVES = ("pairs", "texts")


@dataclasses.dataclass(frozen=True, eq=False)
class Grounded(Joint):
    """Fit `batch["active"]` [B, T, P], whether phrase `batch["phrases"]` [B, P, W] is heard in a column.

    The loss is `clips` times -1/B sum over all pairs of log sigmoid(y (s / temperature + bias)), y being 1
    where clip and caption belong together and -1 elsewhere, plus `frames` times the mean binary
    cross-entropy of columns and phrases, with a temperature and bias of their own; all four are learned, as
    they are. s is the cosine. Columns with `batch["heard"]` 0 count nowhere: padding, and clips of which
    nobody has said what is heard when.

    Attributes:
      towers: "audio" and "text" → `Tower`; captions and phrases go through the same.
      along: from a column's mean token to the common space (`projectors`).
      context: backbone over the columns behind that; None: none.
      edges: of `Joint`: audio and text.
      temperature, bias: the first values of both pairs.
      positives: which captions belong to a clip: "pairs" its own, "texts" all with the same words.
      clips, frames: weights of the two losses.
    """

    towers: dict[str, AnyObjective]
    along: Projector
    context: Backbone | None = None
    edges: tuple = (("audio", "text", 1.0),)
    temperature: float = 0.1
    bias: float = -10.0
    positives: str = "pairs"
    clips: float = 1.0
    frames: float = 1.0

    couples_examples = True

    def __post_init__(self):
        if self.towers.keys() != {"audio", "text"}:
            raise ValueError(f"towers: got {', '.join(self.towers)}; wanted audio and text.")
        if self.positives not in POSITIVES:
            raise ValueError(f"positives '{self.positives}': wanted one of {', '.join(POSITIVES)}.")
        if self.temperature <= 0 or min(self.clips, self.frames) < 0:
            raise ValueError(
                f"temperature {self.temperature:g}, clips {self.clips:g}, frames {self.frames:g}: wanted a "
                "temperature above 0 and weights of 0 or more."
            )
        self.check_edges()

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 4)
        params: dict[str, Any] = {
            name: tower.init(tower_key, batch, name)
            for (name, tower), tower_key in zip(self._sorted, keys, strict=False)
        }
        encoded = self.towers["audio"].encode(params["audio"], batch, "audio")
        x, variables = self.along.init_with_output(keys[2], over_frequency(encoded))
        params["along"] = variables.get("params", {})
        if self.context is not None:
            params["context"] = self.context.init(keys[3], _tokens(x))["params"]
        for name in ("clip", "frame"):
            first = {"temperature": self.temperature, "bias": self.bias}
            params[name] = {k: jnp.asarray(v, jnp.float32) for k, v in first.items()}
        if "active" in batch and batch["active"].shape[1] != x.shape[1]:
            raise ValueError(
                f"the model has {x.shape[1]} columns; wanted the {batch['active'].shape[1]} of data.entries."
                "audio.frames: make them the same."
            )
        return params, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the weighted sum of both losses, and how well phrases' columns are told apart.

        "precision": of the columns where a phrase is said to be heard (0.5), "recall": of those where it is.
        """
        keys = jax.random.split(key, 3) if train else (None, None, None)
        tower, words = self.towers["audio"], self.towers["text"]
        encoded = tower.encode(params["audio"], batch, "audio", keys[0])
        audio = losses.unit(tower.project(params["audio"], tower.pooled(params["audio"], encoded)))
        text = losses.unit(words(params["text"], batch, "text", keys[1]))
        clip = losses.sigmoid_pairs(
            audio @ text.T,
            self._belongs(batch),
            params["clip"]["temperature"],
            params["clip"]["bias"],
        )
        clips, count = batch["phrases"].shape[:2]
        said = {
            "text": batch["phrases"].reshape(clips * count, -1),
            words.length: batch["phrases_length"].reshape(-1),
        }
        phrases = losses.unit(words(params["text"], said, "text", keys[2]))
        columns = self._columns(params, encoded)
        scores = jnp.einsum("btd,bpd->btp", columns, phrases.reshape(clips, count, -1))
        logits = scores / params["frame"]["temperature"] + params["frame"]["bias"]
        active, heard = batch["active"], batch["heard"]
        each = losses.sigmoid_cross_entropy(logits.reshape(-1, count), active.reshape(-1, count))
        frame = jnp.sum(each * heard.reshape(-1)), jnp.sum(heard)
        total = self.clips * jnp.mean(clip) + self.frames * frame[0] / jnp.maximum(frame[1], 1.0)
        found, true = (logits > 0) * heard[..., None], active * heard[..., None]
        right = jnp.sum(found * true)
        metrics = {
            "clip": (jnp.sum(clip), float(clips)),
            "frame": frame,
            "precision": (right, jnp.sum(found)),
            "recall": (right, jnp.sum(true)),
        }
        return Loss(total=total, metrics=metrics, extra=extra)

    def embed(self, name: str, params: Params, batch: Batch) -> Array:
        """Return unit vectors of a modality."""
        return losses.unit(self.towers[name](params[name], batch, name))

    def scale(self, params: Params, name: str, other: str) -> float | None:
        """Return 1 / temperature of clips and captions."""
        return float(1 / params["clip"]["temperature"]) if name != other else None

    def queried(self, params: Params, queries: Float[Array, "C D"]) -> tuple[Encoding, Params]:
        """Return the tagger of columns whose classes are phrases, given by their unit vectors."""
        tower = self.towers["audio"]
        parts = {name: getattr(tower, name) for name in ("frontend", "tokenizer", "encoder")}
        mine = {name: params["audio"].get(name, {}) for name in ("tokenizer", "encoder")}
        mine |= {name: params[name] for name in ("along", "context", "frame") if name in params}
        objective = Queried(**parts, along=self.along, context=self.context, length=tower.length)
        return objective, {**mine, "queries": jnp.asarray(queries)}

    def _columns(self, params: Params, encoded: Encoded) -> Float[Array, "B T D"]:
        return _columns(self.along, self.context, params, encoded)

    def _belongs(self, batch: Batch) -> Float[Array, "B B"]:
        text = batch["text"]
        if self.positives == "pairs":
            return jnp.eye(len(text))
        return jnp.all(text[:, None] == text[None], axis=-1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Queried(Encoding):
    """A trained `Grounded` that listens for phrases: class c is row c of params["queries"], a unit vector.

    Attributes:
      frontend, tokenizer, encoder: of the audio tower.
      along, context: as in `Grounded`.
      length: name of the batch's entry with the clips' lengths.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    along: Projector
    context: Backbone | None = None
    length: str = "length"
    criterion: str = "sigmoid"

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Raise ValueError: it is made of a trained model."""
        raise ValueError("objective 'grounded:Queried' has nothing to learn; train 'grounded'.")

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Raise ValueError: it is made of a trained model."""
        raise ValueError("objective 'grounded:Queried' has no loss; train 'grounded'.")

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", "logits" of clips and "frame_logits" of their columns."""
        offers = {"logits": self.logits, "frame_logits": self.frame_logits}
        return {**super().predictors(), **offers}

    def frame_logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B T C"]:
        """Return the logits of each column and phrase."""
        columns = _columns(self.along, self.context, params, self.encode(params, extra, batch))
        scores = columns @ params["queries"].T
        return scores / params["frame"]["temperature"] + params["frame"]["bias"]

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return the logits of each clip: the highest of the columns that begin before its end."""
        logits = self.frame_logits(params, extra, batch)
        step = self.tokenizer.stride[1] * getattr(self.encoder, "joined", 1) * self.frontend.hop
        begins = jnp.arange(logits.shape[1]) * step
        inside = (begins[None] < batch[self.length][:, None]) | (begins == 0)[None]
        return jnp.max(jnp.where(inside[..., None], logits, -jnp.inf), axis=1)


def _columns(along: Any, context: Any, params: Params, encoded: Encoded) -> Array:
    """Return the unit vectors of the columns in the common space."""
    x = along.apply({"params": params["along"]}, over_frequency(encoded))
    if context is not None:
        x = over_frequency(context.apply({"params": params["context"]}, _tokens(x)))
    return losses.unit(x)


def _tokens(x: Float[Array, "B T D"]) -> Tokens:
    index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32), x.shape[:2])
    return Tokens(x=x, index=index, grid=(1, x.shape[1]))
