"""A recurrent encoder of sequences, in one direction or both; its last states are one special token."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.layers.lstm import Lstm
from ssl_audio.structs import Encoded, Tokens


class Recurrent(nn.Module):
    """Layers of long short-term memory, which padding does not change.

    `special` of what it returns is one token: the last layer's state after the last valid token and, with
    `both`, the state at the first one of the layer that runs backwards.

    Attributes:
      hidden: width of each direction.
      both: whether a layer also runs from the last token to the first.
      depth: number of layers.
    """

    hidden: int = 128
    both: bool = True
    depth: int = 1

    @property
    def width(self) -> int:
        """Features per token that comes out."""
        return self.hidden * (2 if self.both else 1)

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens that lie in order; padding comes last."""
        del train
        x, kept, last = tokens.x, [], []
        for number in range(self.depth):
            found = []
            for name in ("ahead", "back")[: 1 + self.both]:
                layer = Lstm(self.hidden, reverse=name == "back", name=f"{name}_{number}")
                found.append(layer(x, valid=tokens.valid))
            x = jnp.concatenate([outputs for outputs, _ in found], axis=-1)
            last = [state[0] for _, state in found]
            kept.append(x)
        special = jnp.concatenate(last, axis=-1)[:, None]
        whole = Tokens(x=x, index=tokens.index, grid=tokens.grid, valid=tokens.valid)
        return Encoded(tokens=whole, special=special, layers=jnp.stack(kept) if layers else None)
