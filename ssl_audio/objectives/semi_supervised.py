"""What methods of semi-supervised learning share: passes over clips with and without labels.

Cances et al. 2022 (arXiv:2102.08183) compare them for sound. A batch holds "audio" with "label", and clips
without labels as "unlabelled_audio" (`data/beside.py`). Each method is a file beside this one.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.backbones import stretches
from ssl_audio.frontend.base import counted
from ssl_audio.frontend.views import View, augmented
from ssl_audio.objectives import base, statistics
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor, replaced
from ssl_audio.objectives.mixing import Clips
from ssl_audio.slots import AnyFrontend, Backbone, Head, Tokenizer
from ssl_audio.structs import Encoded, Loss

Metrics = Mapping[str, Any]  # name → (sum, weight)
MOST = float(np.finfo(np.float32).max)
# Least and most of the numbers that methods have; outside, a share would be NaN or a part never be learned.
RANGES = {
    "mixup": [0.0, MOST],
    "temperature": [1e-3, MOST],
    "threshold": [0.0, 1.0],
    "decay": [0.0, 1.0],
    "epsilon": [0.0, MOST],
}


@dataclasses.dataclass(frozen=True)
class SemiSupervised(Encoding):
    """A classifier of clips, one label each, that learns from clips without labels too.

    Batch normalisation sees the passes of a method in the order of its code. In evaluation there is
    cross-entropy with the labels only, without views.

    Attributes:
      frontend, tokenizer, encoder: as in pretraining, any of them.
      head: Encoded → logits.
      weak, strong: views of a clip; None: the clip as it is.
      window: columns that are encoded together, as in pretraining on short clips; 0: the whole clip.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    head: Head
    weak: View | None = None
    strong: View | None = None
    window: int = 0

    def __post_init__(self):
        for name, (least, most) in RANGES.items():
            value = getattr(self, name, None)
            if isinstance(value, (int, float)) and not least <= value <= most:
                bounds = f"at least {least:g}" if most > 1 else f"{least:g} to {most:g}"
                raise ValueError(f"{name}: got {value:g}, wanted {bounds}, and not infinite.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 3)
        clips = Clips(self.frontend(batch["audio"], batch["length"]), batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], *self._taken(clips))
        encoder = self.encoder.init(keys[1], self._cut(tokens), layers=True)
        # A module without parameters has no entry in a checkpoint either.
        params = {"tokenizer": tokenizer.get("params", {}), "encoder": encoder.get("params", {})}
        encoded, _ = self.encoded(params, clips)
        logits, head = self.head.init_with_output(keys[2], encoded)
        if "label" in batch and batch["label"].shape[-1] != logits.shape[-1]:
            raise ValueError(
                f"objective.head.classes: got {logits.shape[-1]}, wanted the {batch['label'].shape[-1]} of "
                "the batch's labels, data.entries.label.classes: make them the same number."
            )
        return {**params, "head": head["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the method's loss; not in training the cross-entropy with the labels.

        Raises:
          ValueError: there are no clips without labels beside those with labels.
        """
        if not train:
            logits, label = self.logits(params, extra, batch), labels(batch)
            value = jnp.mean(losses.softmax_cross_entropy(logits, label))
            return Loss(total=value, metrics=accuracy(logits, label), extra=extra)
        total, metrics, extra, after = self.learned(params, extra, batch, key)
        return Loss(total, metrics, extra, statistics.renewed(params, after))

    @abc.abstractmethod
    def learned(
        self, params: Params, extra: Extra, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], Metrics, Extra, Params]:
        """Return the loss in training, metrics, `extra`, and parameters with renewed statistics."""

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode" and "logits"."""
        return {"encode": self.encode, "logits": self.logits}

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Encode audio; `layers` of the result is filled."""
        del extra
        return self.encoded(params, self.clips(batch))[0]

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return class logits."""
        del extra
        return self.scored(params, self.clips(batch))[0]

    def clips(
        self, batch: Batch, of: str = "", view: View | None = None, key: Array | None = None
    ) -> Clips:
        """Return the features of a batch's clips, or of a view of each.

        Args:
          batch: holds them.
          of: begins the names of their entries, as "unlabelled_".
          view: what changes them, with the key; None: nothing.
          key: of the view.

        Raises:
          ValueError: the batch has no such clips.
        """
        if f"{of}audio" not in batch:
            raise ValueError(
                f"{type(self).__name__}: got a batch without {of}audio, wanted clips beside those with "
                f"labels: config.data.kind='beside' with data.beside.{of.rstrip('_')}."
            )
        audio, length = batch[f"{of}audio"], batch[f"{of}length"]
        return Clips(*augmented(self.frontend, view, audio, length, key))

    def scored(
        self,
        params: Params,
        clips: Clips,
        key: Array | None = None,
        renew: bool | None = None,
        head: str = "head",
    ) -> tuple[Any, Params]:
        """Return the logits of a pass, and the parameters with renewed statistics; see `encoded`."""
        encoded, params = self.encoded(params, clips, key, renew)
        renew = key is not None if renew is None else renew
        module = self.heads[head]
        logits, own = statistics.applied(module, params[head], encoded, renew=renew)
        return logits, params | {head: own}

    def encoded(
        self, params: Params, clips: Clips, key: Array | None = None, renew: bool | None = None
    ) -> tuple[Any, Params]:
        """Return what the encoder makes of clips, and the parameters with renewed statistics.

        Args:
          params: also with parts that this does not use, which come back as they are.
          clips: their features.
          key: of what the encoder draws in training; None: it draws nothing.
          renew: normalise with the batch's statistics and renew the running ones; None: if there is a key.
        """
        renew = key is not None if renew is None else renew
        rngs = None
        if key is not None:
            drop_key, place_key = jax.random.split(key)
            rngs = {"drop_path": drop_key, "positions": place_key}
        tokens: Any
        own = params.get("tokenizer", {})
        tokens, tokenizer = statistics.applied(
            self.tokenizer, own, *self._taken(clips), renew=renew
        )
        encoded, encoder = statistics.applied(
            self.encoder,
            params.get("encoder", {}),
            self._cut(tokens),
            renew=renew,
            train=key is not None,
            layers=True,
            rngs=rngs,
        )
        encoded = stretches.join(encoded, tokens) if self.window else encoded
        return encoded, params | {"tokenizer": tokenizer, "encoder": encoder}

    @property
    def heads(self) -> Mapping[str, Any]:
        """Heads by the name of their parameters."""
        return {"head": self.head}

    def _taken(self, clips):
        """Return what the tokenizer is called with."""
        if not getattr(self.tokenizer, "takes_count", False):
            return (clips.spec,)
        return clips.spec, counted(self.frontend, clips.spec, clips.length)

    def _cut(self, tokens):
        return stretches.cut(tokens, self.window) if self.window else tokens


@dataclasses.dataclass(frozen=True)
class PseudoLabels(SemiSupervised):
    """A method that labels clips itself, in passes without a gradient.

    Attributes:
      pseudo_label_bn: batch normalisation in these passes: "train", as in the published code (statistics of
        the batch, and running ones that see it), or "eval" (running ones, that do not).
    """

    pseudo_label_bn: str = "train"

    def __post_init__(self):
        super().__post_init__()
        if self.pseudo_label_bn not in ("train", "eval"):
            raise ValueError(
                f"pseudo_label_bn: got '{self.pseudo_label_bn}', wanted train or eval."
            )

    def guessed(self, params: Params, clips: Clips) -> tuple[Float[Array, "B C"], Params]:
        """Return logits without a gradient, and the parameters with renewed statistics."""
        still = jax.lax.stop_gradient(params)
        logits, after = self.scored(still, clips, renew=self.pseudo_label_bn == "train")
        return logits, replaced(params, statistics.renewed(still, after) or {})


def labels(batch: Batch, of: str = "") -> Float[Array, "B C"]:
    """Return the labels of a batch as distributions over classes.

    Raises:
      ValueError: some of its clips may have none.
    """
    base.check_labelled(batch, of)
    label = batch[f"{of}label"]
    return label / jnp.maximum(jnp.sum(label, -1, keepdims=True), 1e-6)


def accuracy(logits: Float[Array, "B C"], label: Float[Array, "B C"]) -> dict[str, Any]:
    """Return how many clips have their likeliest label as their best class, as a metric."""
    chosen = jnp.take_along_axis(label, jnp.argmax(logits, -1)[:, None], 1)[:, 0]
    right = (chosen >= jnp.max(label, -1)).astype(jnp.float32)
    return {"accuracy": (jnp.sum(right), float(len(right)))}
