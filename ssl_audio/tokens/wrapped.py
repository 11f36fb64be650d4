"""What a tokenizer that changes another's tokens shares with it."""

import flax.linen as nn

from ssl_audio.slots import Tokenizer


class Wrapped(nn.Module):
    """Any tokenizer's grid, patches and strides, for a subclass that says what becomes of its tokens.

    Attributes:
      tokenizer: template.
    """

    tokenizer: Tokenizer

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
