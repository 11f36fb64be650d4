"""Any tokenizer, and one more layer on its tokens."""

import dataclasses
from typing import Any

import flax.linen as nn

from ssl_audio.layers.dense import XAVIER
from ssl_audio.structs import Tokens
from ssl_audio.tokens.wrapped import Wrapped


class DenseGelu(Wrapped):
    """Another tokenizer's tokens through one layer with GELU (VATT's shared Transformer, arXiv:2104.11178).

    Attributes:
      tokenizer: see `Wrapped`.
      width: D.
    """

    width: int

    @nn.compact
    def __call__(self, *inputs: Any) -> Tokens:
        """Return tokens of what the inner tokenizer takes."""
        tokens = self.tokenizer(*inputs)
        x = nn.Dense(self.width, kernel_init=XAVIER, name="dense")(tokens.x)
        return dataclasses.replace(tokens, x=nn.gelu(x, approximate=False))
