"""An encoder that leaves tokens as they are: for targets made of the input itself."""

import flax.linen as nn

from ssl_audio.structs import Encoded, Tokens


class Identity(nn.Module):
    """Return the tokens; the only layer is the input."""

    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Return what was given."""
        del train
        return Encoded(tokens=tokens, layers=tokens.x[None] if layers else None)
