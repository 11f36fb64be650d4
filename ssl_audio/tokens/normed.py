"""Any tokenizer behind a norm of the mel bins, as of a model that keeps its data's statistics.

Called by objectives in the place of the tokenizer that it wraps.
"""

import flax.linen as nn

from ssl_audio.arrays import Array, Int, Spec
from ssl_audio.layers.norms import FrozenBatchNorm
from ssl_audio.slots import Norm
from ssl_audio.structs import Tokens
from ssl_audio.tokens.wrapped import Wrapped


class Normed(Wrapped):
    """Normalise each mel bin, then make tokens; targets that are cut from the spectrogram stay as they are.

    Attributes:
      tokenizer: see `Wrapped`.
      norm: template, over bins. By default with the statistics of a checkpoint, or 0 and 1.
    """

    norm: Norm = FrozenBatchNorm()

    @nn.compact
    def __call__(self, spec: Spec, *count: Int[Array, "B"]) -> Tokens:
        """Return the tokens of a normalised spectrogram; `count`: of inner tokenizers that take it."""
        return self.tokenizer(self.norm(spec), *count)

    @property
    def width(self) -> int:
        """Return the inner tokenizer's width."""
        return self.tokenizer.width
