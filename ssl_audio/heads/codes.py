"""From encoded tokens to logits of discrete codes: what a masked prediction of tokens ends in."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.quantizers.codebooks import unit


class Codes(nn.Module):
    """A linear classifier per codebook (BEATs with one book, SPEAR with several).

    Attributes:
      codes: V.
      books: Q.
    """

    codes: int
    books: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B Q V"]:
        """Return logits."""
        init = nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2)
        )
        shape = (x.shape[-1], self.books, self.codes)
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape[1:], jnp.float32)
        logits = jnp.einsum("...d,dqv->...qv", x.astype(jnp.float32), kernel)
        return logits + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class CosineCodes(nn.Module):
    """Cosines to a learned vector per code, over a temperature (HuBERT, arXiv:2106.07447, eq. 3).

    Attributes:
      codes: V.
      books: Q.
      width: of the vectors; tokens are mapped to it, for each book by itself.
      temperature: the cosines are divided by it.
    """

    codes: int
    books: int = 1
    width: int = 256
    temperature: float = 0.1

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B Q V"]:
        """Return logits."""
        y = nn.Dense(self.books * self.width, name="project")(x.astype(jnp.float32))
        y = unit(y.reshape(*x.shape[:-1], self.books, self.width))
        shape = (self.books, self.codes, self.width)
        book = self.param("book", nn.initializers.normal(1.0), shape, jnp.float32)
        return jnp.einsum("...qd,qvd->...qv", y, unit(book)) / self.temperature
