"""Any tokenizer, and one more layer on its tokens."""

import dataclasses
from typing import Any

import flax.linen as nn

from ssl_audio.layers.dense import XAVIER
from ssl_audio.slots import Tokenizer
from ssl_audio.structs import Tokens


class DenseGelu(nn.Module):
    """Another tokenizer's tokens through one layer with GELU (VATT's shared Transformer, arXiv:2104.11178).

    Attributes:
      tokenizer: template.
      width: D.
    """

    tokenizer: Tokenizer
    width: int

    @nn.compact
    def __call__(self, *inputs: Any) -> Tokens:
        """Return tokens of what the inner tokenizer takes."""
        tokens = self.tokenizer(*inputs)
        x = nn.Dense(self.width, kernel_init=XAVIER, name="dense")(tokens.x)
        return dataclasses.replace(tokens, x=nn.gelu(x, approximate=False))

    @property
    def takes_count(self) -> bool:
        """Whether the inner tokenizer takes the lengths of clips."""
        return getattr(self.tokenizer, "takes_count", False)

    @property
    def patch(self) -> tuple[int, int]:
        """Return the inner tokenizer's patch."""
        return self.tokenizer.patch

    @property
    def stride(self) -> tuple[int, int]:
        """Return the inner tokenizer's stride."""
        return self.tokenizer.stride

    @nn.nowrap
    def grid(self, frames: int, bins: int) -> tuple[int, int]:
        """Return the inner tokenizer's grid."""
        return self.tokenizer.grid(frames, bins)
