"""An encoder without a task: what a converted checkpoint without heads becomes, and what gives targets."""

import dataclasses
from collections.abc import Mapping

import jax

from ssl_audio.arrays import Array, Int
from ssl_audio.frontend.base import Frontend
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.slots import Backbone, Quantizer, Tokenizer
from ssl_audio.structs import Loss

FINAL = -1


@dataclasses.dataclass(frozen=True)
class Features(Encoding):
    """Encode audio, and quantise what comes out; there is nothing to learn.

    Attributes:
      frontend: waveform → normalised log-mel, or whatever the tokenizer takes.
      tokenizer: its features → tokens.
      encoder: any backbone.
      quantizer: tokens → codes, or None.
      layer: whose output is quantised: 0, 1, …; -1: after the last norm.
    """

    frontend: Frontend
    tokenizer: Tokenizer
    encoder: Backbone
    quantizer: Quantizer = None
    layer: int = FINAL

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        first, second, third = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(first, spec)
        encoded, encoder = self.encoder.init_with_output(second, tokens)
        made = {"tokenizer": tokenizer, "encoder": encoder}
        if self.quantizer is not None:
            made["quantizer"] = self.quantizer.init(third, encoded.tokens.x)
        return {name: variables.get("params", {}) for name, variables in made.items()}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Raise ValueError."""
        raise ValueError(
            "objective 'features' has no loss: train another objective, with config.warm_start from "
            "this checkpoint."
        )

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", and "codes" if there is a quantizer."""
        codes = {} if self.quantizer is None else {"codes": self.codes}
        return {**super().predictors(), **codes}

    def codes(self, params: Params, extra: Extra, batch: Batch) -> Int[Array, "B N Q"]:
        """Return the codes of the tokens; Q is 1 unless the quantizer has several books."""
        encoded = self.encode(params, extra, batch)
        x = encoded.tokens.x if self.layer == FINAL else encoded.layers[self.layer]
        found = self.quantizer.apply({"params": params["quantizer"]}, x)
        return found[..., None] if found.ndim == 2 else found
