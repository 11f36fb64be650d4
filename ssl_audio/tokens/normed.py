"""Any tokenizer behind a norm of the mel bins, as of a model that keeps its data's statistics.

Called by objectives in the place of the tokenizer that it wraps.
"""

import flax.linen as nn

from ssl_audio.arrays import Spec
from ssl_audio.layers.norms import FrozenBatchNorm
from ssl_audio.slots import Norm, Tokenizer
from ssl_audio.structs import Tokens


class Normed(nn.Module):
    """Normalise each mel bin, then make tokens; targets that are cut from the spectrogram stay as they are.

    Attributes:
      tokenizer: template.
      norm: template, over bins. By default with the statistics of a checkpoint, or 0 and 1.
    """

    tokenizer: Tokenizer
    norm: Norm = FrozenBatchNorm()

    @nn.compact
    def __call__(self, spec: Spec) -> Tokens:
        """Return the tokens of a normalised spectrogram."""
        return self.tokenizer(self.norm(spec))

    @property
    def width(self) -> int:
        """Return the inner tokenizer's width."""
        return self.tokenizer.width

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
