"""A vector as a sum of entries: each codebook quantises what those before it have left over.

Zeghidour et al. 2021, SoundStream (arXiv:2107.03312) section III-C; EnCodec (arXiv:2210.13438) section 3.2.
`factorised.py` has codebooks that gradients move.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int, PRNGKeyArray
from ssl_audio.quantizers.codebooks import kmeans, nearest, straight_through


class Learned(NamedTuple):
    """What a quantizer of a codec gives in training.

    Attributes:
      vectors: quantised, with the gradient of what they stand for.
      codes: of each vector.
      loss: to descend, before a codec weights it.
      metrics: name → value.
      renewed: parameters that no gradient changes; None: none.
      state: what `begun` gave, after this batch.
    """

    vectors: Float[Array, "B N D"]
    codes: Int[Array, "B N Q"]
    loss: Float[Array, ""]
    metrics: dict[str, Any]
    renewed: dict[str, Any] | None
    state: dict[str, Any]


class Residual(nn.Module):
    """Codebooks as one parameter that no gradient reaches: entries are moving averages.

    Attributes:
      books: Q.
      codes: V of each.
      width: of the vectors.
      decay: of the moving averages.
    """

    books: int = 8
    codes: int = 1024
    width: int = 128
    decay: float = 0.99

    by_gradient: ClassVar[bool] = False

    def setup(self):
        """Declare the parameter."""
        shape = self.books, self.codes, self.width
        self.book = self.param("book", nn.initializers.normal(1.0), shape, jnp.float32)

    def __call__(self, x: Float[Array, "B N D"]) -> Int[Array, "B N Q"]:
        """Return the codes of all books; those of the first ones do not depend on the others."""
        return encode(x, self.book)

    def vectors(self, codes: Int[Array, "B N Q"]) -> Float[Array, "B N D"]:
        """Return what codes of the first books stand for."""
        return decode(codes, self.book)

    @nn.nowrap
    def begun(self) -> dict[str, Any]:
        """Return moving averages of nothing, for `learn`."""
        shape = self.books, self.codes, self.width
        return dict(count=jnp.zeros(shape[:2]), total=jnp.zeros(shape), started=jnp.zeros((), bool))

    def learn(
        self,
        x: Float[Array, "B N D"],
        state: Mapping[str, Any],
        key: PRNGKeyArray,
        *,
        train: bool,
    ) -> Learned:
        """Return the vectors' entries, the commitment, and, in training, renewed codebooks.

        The first batch says where entries begin (EnCodec, appendix A.1).

        Args:
          x: vectors.
          state: holds what `begun` gave.
          key: of draws.
          train: renew the codebooks.
        """
        start_key, draw_key = jax.random.split(key)
        flat, books = x.reshape(-1, x.shape[-1]), self.book
        if train:
            given = jax.lax.stop_gradient(flat)
            books = jax.lax.cond(
                state["started"], lambda: books, lambda: started(start_key, given, books)
            )
        codes, left = stages(flat, books)
        entries = jax.vmap(lambda book, code: book[code])(books, codes.T)
        commitment = jnp.mean((left - jax.lax.stop_gradient(entries)) ** 2)
        vectors = straight_through(flat, decode(codes, books)).reshape(x.shape)
        renewed, after = None, {}
        if train:
            decay = jnp.where(state["started"], self.decay, 0.0)
            book, count, total = moved(
                draw_key, jax.lax.stop_gradient(left), codes, state["count"], state["total"], decay
            )
            renewed = {"book": book}
            after = dict(count=count, total=total, started=jnp.ones((), bool))
        codes = codes.reshape(*x.shape[:-1], -1)
        return Learned(vectors, codes, commitment, {"commitment": commitment}, renewed, after)


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


def stages(
    x: Float[Array, "M D"], books: Float[Array, "Q V D"]
) -> tuple[Int[Array, "M Q"], Float[Array, "Q M D"]]:
    """Return the codes of vectors, and what was left for each book to quantise, with its gradient."""

    def stage(left, book):
        code = nearest(jax.lax.stop_gradient(left), book)
        return left - jax.lax.stop_gradient(book[code]), (code, left)

    _, (codes, left) = jax.lax.scan(stage, x, books)
    return codes.T, left


def started(
    key: PRNGKeyArray, x: Float[Array, "M D"], books: Float[Array, "Q V D"], iterations: int = 50
) -> Float[Array, "Q V D"]:
    """Return books that are the centroids of what those before them leave of some vectors."""

    def stage(left, key):
        book = kmeans(key, left, books.shape[1], iterations)
        return left - book[nearest(left, book)], book

    return jax.lax.scan(stage, x, jax.random.split(key, len(books)))[1]


def moved(
    key: PRNGKeyArray,
    left: Float[Array, "Q M D"],
    codes: Int[Array, "M Q"],
    count: Float[Array, "Q V"],
    total: Float[Array, "Q V D"],
    decay: Float[Array, ""] | float = 0.99,
    least: float = 2.0,
) -> tuple[Float[Array, "Q V D"], Float[Array, "Q V"], Float[Array, "Q V D"]]:
    """Return books whose entries are moving averages of what they stand for, and the averages.

    An entry that stands for fewer than `least` vectors on average becomes one of these vectors, drawn at
    random. (In EnCodec's released code the moving average overwrites such a replacement in the same step.)

    Args:
      key: of the draws.
      left: what each book quantised.
      codes: of the vectors.
      count, total: moving averages of how many vectors each entry stands for, and of their sum.
      decay: of the averages.
      least: see above.
    """

    def book(key, left, code, count, total):
        codes = len(count)
        here = jnp.zeros(codes, left.dtype).at[code].add(1.0)
        count = decay * count + (1 - decay) * here
        total = decay * total + (1 - decay) * jnp.zeros_like(total).at[code].add(left)
        rare = count < least
        new = left[jax.random.randint(key, (codes,), 0, len(left))]
        count = jnp.where(rare, least, count)
        total = jnp.where(rare[:, None], least * new, total)
        whole = jnp.sum(count)
        smooth = (count + 1e-5) / (whole + codes * 1e-5) * whole
        return total / smooth[:, None], count, total

    keys = jax.random.split(key, len(count))
    return jax.vmap(book)(keys, left, codes.T, count, total)
