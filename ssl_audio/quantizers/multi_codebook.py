"""A vector as the sum of one entry from each of several codebooks, found by a beam search.

Multi-codebook vector quantisation (Guo et al. 2023, arXiv:2211.00508; the targets of SPEAR,
arXiv:2510.25955).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.distributed.sharding import by_rows
from ssl_audio.quantizers.codebooks import perplexity

SPEED = 10.0  # scales are e to the power of this times a parameter: it learns so much faster
BEAM = 128  # most choices that are kept of a group of codebooks


class MultiCodebook(nn.Module):
    """Codebooks, and a linear classifier that predicts where the search starts.

    Attributes:
      books: Q, a power of 2.
      codes: V of each.
      width: of the vectors.
    """

    books: int = 8
    codes: int = 256
    width: int = 256

    def __post_init__(self):
        super().__post_init__()
        if self.books & (self.books - 1) or self.books < 1:
            raise ValueError(f"MultiCodebook: books is {self.books}; wanted a power of 2.")

    def setup(self):
        """Declare the parameters."""
        shape = self.books, self.codes, self.width
        normal = nn.initializers.normal(self.width**-0.5)
        self.centers = self.param("centers", normal, shape, jnp.float32)
        self.guess = nn.Dense(self.books * self.codes)
        zero = nn.initializers.zeros
        self.guess_scale = self.param("guess_scale", zero, (), jnp.float32)
        self.center_scale = self.param("center_scale", zero, (), jnp.float32)

    def __call__(self, x: Float[Array, "*B D"]) -> Int[Array, "*B Q"]:
        """Return the codes of vectors."""
        return self.encode(x)

    def logits(self, x: Float[Array, "*B D"]) -> Float[Array, "*B Q V"]:
        """Return the logits of the classifier."""
        logits = self.guess(x * jnp.exp(self.guess_scale * SPEED))
        return logits.reshape(*x.shape[:-1], self.books, self.codes)

    def encode(self, x: Float[Array, "*B D"], rounds: int = 5) -> Int[Array, "*B Q"]:
        """Return the codes of vectors: the classifier's, improved by rounds of search."""
        codes = jnp.argmax(self.logits(x), axis=-1).astype(jnp.int32)
        flat, codes = x.reshape(-1, x.shape[-1]), codes.reshape(-1, self.books)
        books = self._scaled()
        codes = jax.lax.fori_loop(0, rounds, lambda _, now: refined(flat, books, now), codes)
        return codes.reshape(*x.shape[:-1], self.books)

    def decode(self, codes: Int[Array, "*B Q"]) -> Float[Array, "*B D"]:
        """Return the vectors that codes stand for."""
        books = self._scaled()
        return jnp.sum(jnp.stack([books[q][codes[..., q]] for q in range(self.books)]), axis=0)

    def losses(
        self, x: Float[Array, "M D"], rounds: int = 1
    ) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        """Return what is descended in training the quantiser; the codes themselves have no gradient.

        Returns:
          Squared error relative to that of the entries' mean; minus the mean log probability that
          the classifier gives to the codes; how far the mean use of codes is from even, in nats.
        """
        codes = jax.lax.stop_gradient(self.encode(x, rounds))
        error = jnp.sum((self.decode(codes) - x) ** 2)
        mean = jax.lax.stop_gradient(jnp.sum(jnp.mean(self._scaled(), 1), 0))
        relative = error / jnp.sum((x - mean[None]) ** 2)
        logp = jax.nn.log_softmax(self.logits(x))
        chosen = jnp.take_along_axis(logp, codes[..., None], axis=-1)
        even = perplexity(jnp.mean(jnp.exp(logp), axis=0))
        return relative, -jnp.mean(chosen), jnp.mean(jnp.log(self.codes / even))

    def _scaled(self) -> Float[Array, "Q V D"]:
        return self.centers * jnp.exp(self.center_scale * SPEED)


def refined(
    x: Float[Array, "M D"], books: Float[Array, "Q V D"], codes: Int[Array, "M Q"]
) -> Int[Array, "M Q"]:
    """Return better codes: the best of what a search around the given ones finds.

    Each codebook proposes the entries that would reduce the error most with all others as they are.
    Then neighbouring groups of codebooks are merged, each pair of proposals tried, and the best kept,
    until one group is left. The beam starts at 16 (8 for books of up to 16 codes) and doubles each
    time the groups have grown fourfold.
    """
    count, size = books.shape[:2]
    old = jnp.stack([books[q][codes[:, q]] for q in range(count)], axis=1)  # [M, Q, D]
    error = jnp.sum(old, axis=1) - x
    delta = books[None] - old[:, :, None]  # [M, group, choice, D]: what a choice adds to the error
    gain = jnp.sum((error[:, None, None] + delta) ** 2, -1)  # the squared error with it
    square = jnp.sum(error**2, -1)[:, None, None]
    which = jnp.broadcast_to(jnp.arange(size)[None, None, :, None], (*gain.shape, 1))
    base = 8 if size <= 16 else 16
    while True:
        groups, choices, members = which.shape[1:]
        beam = min(BEAM, base * 2 ** ((members.bit_length() - 1) // 2))
        keep = 1 if groups == 1 else min(beam, choices)
        _, best = by_rows(functools.partial(jax.lax.top_k, k=keep), -gain)
        gain = jnp.take_along_axis(gain, best, axis=2)
        which = jnp.take_along_axis(which, best[..., None], axis=2)
        delta = jnp.take_along_axis(delta, best[..., None], axis=2)
        if groups == 1:
            return which[:, 0, 0].astype(jnp.int32)
        a, b = delta[:, 0::2, :, None], delta[:, 1::2, None]
        # |e + a + b|^2 = |e + a|^2 + |e + b|^2 - |e|^2 + 2 a.b
        cross = jnp.einsum("mgid,mgjd->mgij", delta[:, 0::2], delta[:, 1::2])
        gain = gain[:, 0::2, :, None] + gain[:, 1::2, None] - square[..., None] + 2 * cross
        shape = (*gain.shape[:2], keep * keep)
        gain, delta = gain.reshape(shape), (a + b).reshape(*shape, -1)
        pairs = (*gain.shape[:2], keep, keep, members)
        left = jnp.broadcast_to(which[:, 0::2, :, None], pairs)
        right = jnp.broadcast_to(which[:, 1::2, None], pairs)
        which = jnp.concatenate([left, right], axis=-1).reshape(*shape, -1)
