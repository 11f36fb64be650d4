"""A vector as a sum of entries: each codebook quantises what those before it have left over.

Zeghidour et al. 2021, SoundStream (arXiv:2107.03312) section III-C; EnCodec (arXiv:2210.13438) section 3.2.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.quantizers.codebooks import nearest


class Residual(nn.Module):
    """Codebooks as one parameter that no gradient reaches.

    Attributes:
      books: Q.
      codes: V of each.
      width: of the vectors.
    """

    books: int = 8
    codes: int = 1024
    width: int = 128

    def setup(self):
        """Declare the parameter."""
        shape = self.books, self.codes, self.width
        self.book = self.param("book", nn.initializers.normal(1.0), shape, jnp.float32)

    def __call__(self, x: Float[Array, "B N D"], count: int | None = None) -> Int[Array, "B N Q"]:
        """Return the codes of the first `count` books; None: of all."""
        return encode(x, self.book[:count])

    def vectors(self, codes: Int[Array, "B N Q"]) -> Float[Array, "B N D"]:
        """Return what codes of the first books stand for."""
        return decode(codes, self.book)


def encode(x: Float[Array, "*B D"], books: Float[Array, "Q V D"]) -> Int[Array, "*B Q"]:
    """Return the number of the nearest entry of each book to what the ones before have left over."""

    def stage(left, book):
        code = nearest(left, book)
        return left - book[code], code

    _, codes = jax.lax.scan(stage, x, books)
    return jnp.moveaxis(codes, 0, -1)


def decode(codes: Int[Array, "*B Q"], books: Float[Array, "L V D"]) -> Float[Array, "*B D"]:
    """Return the sum of the entries; of as many books as there are codes."""
    total = jnp.zeros((*codes.shape[:-1], books.shape[-1]), books.dtype)
    for q in range(codes.shape[-1]):
        total = total + books[q][codes[..., q]]
    return total
