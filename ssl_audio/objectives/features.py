"""An encoder without a task: what a converted checkpoint without heads becomes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from ssl_audio.frontend.base import Frontend
from ssl_audio.letters import Array
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.structs import Encoded, Loss


@dataclasses.dataclass(frozen=True)
class Features(Objective):
    """Encode audio; there is nothing to learn.

    Attributes:
      frontend: waveform → normalised log-mel, or whatever the tokenizer takes.
      tokenizer: its features → tokens.
      encoder: any backbone.
    """

    frontend: Frontend
    tokenizer: Any
    encoder: Any

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        first, second = jax.random.split(key)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(first, spec)
        encoder = self.encoder.init(second, tokens)
        return {"tokenizer": tokenizer["params"], "encoder": encoder["params"]}, {}

    def loss(
        self,
        params: Params,
        extra: Extra,
        batch: Batch,
        key: Array,
        *,
        train: bool,
        phase: str = "main",
    ) -> Loss:
        """Raise ValueError."""
        raise ValueError(
            "objective 'features' has no loss: train another objective, with config.warm_start from "
            "this checkpoint."
        )

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode"."""
        return {"encode": self.encode}

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Encode audio; `layers` of the result is filled."""
        del extra
        spec = self.frontend(batch["audio"], batch["length"])
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        return self.encoder.apply({"params": params["encoder"]}, tokens, layers=True)
