"""Residual codebooks of few dimensions, compared by their cosine and moved by gradients: DAC's quantizer.

Kumar et al. 2023 (arXiv:2306.06546) section 3.2, after Yu et al. 2022 (arXiv:2110.04627) section 3.2.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int, PRNGKeyArray
from ssl_audio.layers.seanet import Conv
from ssl_audio.quantizers.codebooks import closest, straight_through
from ssl_audio.quantizers.residual import Learned


class Factorised(nn.Module):
    """Each book projects what is left over to a few dimensions, takes an entry, and projects it back.

    An entry stands for the vectors whose cosine with it is the greatest of its book; what is projected back
    is the entry as long as it is.

    Attributes:
      books: Q.
      codes: V of each.
      width: D of the vectors.
      inner: of the entries.
      norm: of the projections, see `layers/seanet.py`.
      drop: share of the clips that learn with a number of books drawn from 1 to Q (section 3.3).
      commitment, codebook: weights of the losses that move projected vectors, and entries.
    """

    books: int = 9
    codes: int = 1024
    width: int = 1024
    inner: int = 8
    norm: str = "weight"
    drop: float = 0.0
    commitment: float = 0.25
    codebook: float = 1.0

    by_gradient: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.drop <= 1:
            raise ValueError(f"Factorised: drop is {self.drop}; wanted 0 to 1.")

    def setup(self):
        """Declare the parameters."""
        conv = Conv(1, 1, pad="constant", norm=self.norm, parent=None)
        self.into = [conv.copy(channels=self.inner) for _ in range(self.books)]
        self.out = [conv.copy(channels=self.width) for _ in range(self.books)]
        shape = self.books, self.codes, self.inner
        self.book = self.param("book", nn.initializers.normal(1.0), shape, jnp.float32)

    def __call__(self, x: Float[Array, "B N D"]) -> Int[Array, "B N Q"]:
        """Return the codes of all books; those of the first ones do not depend on the others."""
        return jnp.stack([code for code, *_ in self.stages(x)], -1)

    def vectors(self, codes: Int[Array, "B N Q"]) -> Float[Array, "B N D"]:
        """Return what codes of the first books stand for."""
        total = jnp.zeros((*codes.shape[:-1], self.width), self.book.dtype)
        for q in range(codes.shape[-1]):
            total = total + self.out[q](self.book[q][codes[..., q]])
        return total

    def stages(self, x: Float[Array, "B N D"]) -> list[tuple[Array, Array, Array, Array]]:
        """Return of each book: codes, what they are the codes of, entries, and what these stand for."""
        found = []
        for into, out, book in zip(self.into, self.out, self.book, strict=True):
            low = into(x)
            code = closest(low, book)
            entry = book[code]
            back = out(straight_through(low, entry))
            found.append((code, low, entry, back))
            x = x - back
        return found

    @nn.nowrap
    def begun(self) -> dict[str, Any]:
        """Return no state: gradients do it all."""
        return {}

    def learn(
        self,
        x: Float[Array, "B N D"],
        state: Mapping[str, Any],
        key: PRNGKeyArray,
        *,
        train: bool,
    ) -> Learned:
        """Return quantised vectors, and the losses of the commitment and of the codebooks.

        Both are the squared distance of projected vectors and entries, the mean over time, the sum over the
        books that a clip learns with.

        Args:
          x: vectors.
          state: nothing.
          key: of how many books each clip learns with.
          train: let some learn with fewer than all.
        """
        del state
        clips = len(x)
        used = jnp.full(clips, self.books)
        if train:
            drawn = jax.random.randint(key, (clips,), 1, self.books + 1)
            used = jnp.where(jnp.arange(clips) < int(self.drop * clips), drawn, used)
        vectors = jnp.zeros_like(x)
        losses: list[Any] = [jnp.zeros(()), jnp.zeros(())]
        codes = []
        for q, (code, low, entry, back) in enumerate(self.stages(x)):
            counts = (used > q).astype(x.dtype)
            vectors = vectors + counts[:, None, None] * back
            pairs = (low, jax.lax.stop_gradient(entry)), (entry, jax.lax.stop_gradient(low))
            for i, (a, b) in enumerate(pairs):
                losses[i] = losses[i] + jnp.mean(counts * jnp.mean((a - b) ** 2, (1, 2)))
            codes.append(code)
        commitment, codebook = losses
        metrics = {"commitment": commitment, "codebook": codebook}
        total = self.commitment * commitment + self.codebook * codebook
        return Learned(vectors, jnp.stack(codes, -1), total, metrics, None, {})
