"""Word numbers to tokens: word, position and type embeddings. Called by text towers."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.dense import XAVIER
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.structs import Tokens

_init = nn.initializers.normal(0.02)


class Words(nn.Module):
    """The sum of a word's, a place's and a type's vector, normalised (BERT, arXiv:1810.04805).

    Attributes:
      width: D.
      vocab: V, rows of the word table.
      length: rows of the position table; it limits W.
      first: row of the first word's place. Above 0 only words count, and padding has the place before
        the first (RoBERTa: 2); with 0, padding has places like words (BERT).
      types: rows of the type table. Every word has type 0 unless another is given.
      eps: of the LayerNorm.
    """

    width: int
    vocab: int
    length: int
    first: int = 0
    types: int = 1
    eps: float = 1e-12

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "B W"],
        valid: Bool[Array, "B W"] | None = None,
        types: Int[Array, "B W"] | None = None,
    ) -> Tokens:
        """Return tokens in a grid of one row; padding is where `valid` is False.

        Raises:
          ValueError: more words than places.
        """
        batch, count = ids.shape
        if self.first + count > self.length:
            raise ValueError(
                f"words: {count} words, but the position table has {self.length} rows, the first word's "
                f"is row {self.first}; cut the text, or raise length."
            )
        index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], (batch, count))
        place = index
        if self.first:
            counted = jnp.ones_like(ids) if valid is None else valid.astype(jnp.int32)
            place = jnp.cumsum(counted, axis=1) * counted + self.first - 1
        x = self._table("word", self.vocab)[ids] + self._table("position", self.length)[place]
        kind = jnp.zeros_like(ids) if types is None else types
        x = LayerNorm(self.eps, name="norm")(x + self._table("type", self.types)[kind])
        return Tokens(x=x, index=index, grid=(1, count), valid=valid)

    def _table(self, name: str, rows: int) -> Float[Array, "V D"]:
        return self.param(name, _init, (rows, self.width), jnp.float32)


class WordsPlaced(nn.Module):
    """The sum of a word's and a place's vector, as it is (GPT-2).

    Attributes:
      width: D.
      vocab: V, rows of the word table.
      length: rows of the position table, the most words.
    """

    width: int
    vocab: int
    length: int

    @nn.compact
    def __call__(self, ids: Int[Array, "B W"], valid: Bool[Array, "B W"] | None = None) -> Tokens:
        """Return tokens in a grid of one row; padding is where `valid` is False.

        Raises:
          ValueError: more words than places.
        """
        batch, count = ids.shape
        if count > self.length:
            raise ValueError(
                f"words: {count} words, but the position table has {self.length} rows; cut the text, "
                "or raise length."
            )
        table = self.param("word", _init, (self.vocab, self.width), jnp.float32)
        place = self.param("position", _init, (self.length, self.width), jnp.float32)
        index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], (batch, count))
        return Tokens(x=table[ids] + place[index], index=index, grid=(1, count), valid=valid)


class WordsAlone(nn.Module):
    """A word's vector and nothing else: for encoders that learn places by distance (T5).

    Attributes:
      width: D.
      vocab: V, rows of the table.
    """

    width: int
    vocab: int

    @nn.compact
    def __call__(self, ids: Int[Array, "B W"], valid: Bool[Array, "B W"] | None = None) -> Tokens:
        """Return tokens in a grid of one row; padding is where `valid` is False."""
        batch, count = ids.shape
        table = self.param("word", _init, (self.vocab, self.width), jnp.float32)
        index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], (batch, count))
        return Tokens(x=table[ids], index=index, grid=(1, count), valid=valid)


class WordsProjected(nn.Module):
    """A word's vector, from a table of another width, through one layer with GELU (VATT, arXiv:2104.11178).

    Attributes:
      width: D.
      vocab: V, rows of the table.
      inner: width of the table: 300 for word2vec.
      bias: whether the layer has one.
    """

    width: int
    vocab: int
    inner: int = 300
    bias: bool = True

    @nn.compact
    def __call__(self, ids: Int[Array, "B W"], valid: Bool[Array, "B W"] | None = None) -> Tokens:
        """Return tokens in a grid of one row; padding is where `valid` is False."""
        batch, count = ids.shape
        table = self.param("word", _init, (self.vocab, self.inner), jnp.float32)
        dense = nn.Dense(self.width, use_bias=self.bias, kernel_init=XAVIER, name="dense")
        x = nn.gelu(dense(table[ids]), approximate=False)
        index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], (batch, count))
        return Tokens(x=x, index=index, grid=(1, count), valid=valid)
