"""A language model of the codes of several books (AudioGen, arXiv:2209.15352; MusicGen, arXiv:2306.05284)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.backbones.stack import check_depth, over_layers
from ssl_audio.layers.conditioned import Conditioned
from ssl_audio.layers.norms import LayerNorm


class Memory(NamedTuple):
    """What a sequence that is continued has so far; arrays of a fixed length."""

    layers: Any  # cache [L, …], keys and values of the condition [L, B, M, H, W]; or `apart`
    valid: Any  # [B, M]
    length: Any  # int32 scalar: columns so far


def apart(layers: Any, depth: int) -> dict[str, Any]:
    """Return what is stacked over layers as arrays of each layer, under its number.

    In a loop over columns, XLA would copy each slice of a stacked array anew for every column.
    """
    return {str(at): jax.tree.map(lambda x, at=at: x[at], layers) for at in range(depth)}


class CodesLm(nn.Module):
    """Columns of codes → logits of the next column's.

    The embeddings of a column's codes are added, then sine positions (cosines first); pre-norm layers attend
    to what came before and to a condition; after a norm, each book has a linear map.

    Attributes:
      books: Q.
      codes: V; code V stands for none.
      width, depth, heads, hidden: D, the number of layers, H, and the width inside the perceptrons.
      given: width of the condition, which a linear map with bias brings to D; 0: it has it.
      remat: see `Stack`.
    """

    books: int = 4
    codes: int = 2048
    width: int = 1536
    depth: int = 48
    heads: int = 24
    hidden: int = 6144
    given: int = 0
    remat: str = "none"

    def __post_init__(self):
        super().__post_init__()
        check_depth("codes_lm: depth", self.depth)

    @nn.compact
    def __call__(
        self,
        codes: Int[Array, "B L Q"],
        condition: Float[Array, "B M C"] | None = None,
        valid: Bool[Array, "B M"] | None = None,
        *,
        memory: Memory | None = None,
        length: int | None = None,
        logits: bool = True,
    ) -> Any:
        """Return logits [B, L, Q, V].

        Args:
          codes: columns, V where there is no code.
          condition: [B, M, C]; with `memory`: None, it is in there.
          valid: which parts of the condition exist; None: all. Of an example without any, nothing is heard.
          memory: of the columns before these; the result is then (logits, memory of these, too). If its
            layers are `apart`, those of the parameters have to be, too.
          length: begin a memory that has room for so many columns; the result is as with `memory`.
          logits: False: return what the heads are given, [B, L, D], in their place.
        """
        normal = nn.initializers.normal(self.width**-0.5)
        shape = self.books, self.codes + 1, self.width
        table = self.param("embed", normal, shape, jnp.float32)
        x = sum(table[q][codes[..., q]] for q in range(self.books))
        begin = 0 if memory is None else memory.length
        x = x + sines(begin + jnp.arange(codes.shape[1]), self.width)[None]
        if condition is not None:
            if valid is None:
                valid = jnp.ones(condition.shape[:2], bool)
            if self.given:
                mapped = nn.Dense(self.width, name="condition")(condition)
                condition = jnp.where(valid[..., None], mapped, 0)
        elif memory is not None:
            valid = memory.valid
        block = Conditioned(self.width, self.heads, self.hidden, name="layers")
        batch = codes.shape[0]

        def body(block, x, known):
            if known is None:
                cache, keys = None, block.keys(condition)
                cache = None if length is None else block.start(batch, length)
            else:
                cache, keys = known
            x, cache = block(x, keys, valid, cache)
            return x, None if cache is None else (cache, keys)

        layers = None if memory is None else memory.layers
        if isinstance(layers, dict):
            own, alone = self.get_variable("params", "layers"), block.clone(parent=None)
            for name, (cache, keys) in layers.items():
                x, cache = alone.apply({"params": own[name]}, x, keys, valid, cache)
                layers = layers | {name: (cache, keys)}
        else:
            x, layers = over_layers(body, self.depth, self.remat)(block, x, layers)
        x = LayerNorm(1e-5, name="final_norm")(x)
        heads = self.param("heads", normal, (self.books, self.width, self.codes), jnp.float32)
        found = jnp.einsum("bld,qdv->blqv", x, heads) if logits else x
        if memory is None and length is None:
            return found
        return found, Memory(layers, valid, begin + jnp.asarray(codes.shape[1], jnp.int32))


def sines(place: Int[Array, " L"], width: int) -> Float[Array, "L D"]:
    """Return sine positions, cosines first; frequencies 10000^(-i / (D/2 - 1))."""
    half = width // 2
    rate = jnp.exp(jnp.arange(half) * (-jnp.log(10_000.0) / (half - 1)))
    angle = place[:, None].astype(jnp.float32) * rate[None]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
