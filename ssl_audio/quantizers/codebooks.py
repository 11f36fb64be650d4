"""Continuous vectors to discrete codes: random projection, nearest centroid, moving averages, Gumbel.

Called by objectives, for targets that are predicted and for bottlenecks. Codes of several books at
once are in `multi_codebook.py`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int, PRNGKeyArray

_BLOCK = 4096  # vectors that are compared with all entries at once


def unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Scale vectors to length 1."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def nearest(x: Float[Array, "*B D"], book: Float[Array, "V D"]) -> Int[Array, "*B"]:
    """Return the number of the nearest entry of a codebook, by Euclidean distance."""
    # The vector's own length is the same for all entries.
    square = jnp.sum(book**2, -1).reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.argmin(square - 2 * (x @ book.T), axis=-1).astype(jnp.int32)


def closest(x: Float[Array, "*B D"], book: Float[Array, "V D"]) -> Int[Array, "*B"]:
    """Return the number of the entry with the greatest cosine."""
    return jnp.argmax(unit(x) @ unit(book).T, axis=-1).astype(jnp.int32)


def usage(codes: Int[Array, "*B"], count: int) -> Float[Array, " V"]:
    """Return the share of each of `count` codes."""
    flat = codes.reshape(-1)
    return jnp.zeros(count, jnp.float32).at[flat].add(1.0) / flat.size


def perplexity(share: Float[Array, "*B V"]) -> Float[Array, "*B"]:
    """Return e to the entropy of shares that sum to 1: how many codes are in use."""
    return jnp.exp(-jnp.sum(share * jnp.log(share + 1e-7), axis=-1))


class RandomProjection(nn.Module):
    """A codebook and a projection that nobody trains (Chiu et al. 2022, arXiv:2202.01855).

    The first tokenizer of BEATs (arXiv:2212.09058, section 3.2). Parameters of this module belong in
    an objective's `extra`.

    Attributes:
      codes: V.
      width: of the projected vectors.
      standardise: subtract each vector's mean and divide by its deviation first. Without it almost
        all patches fall on the few codes that tell loud from silent.
    """

    codes: int = 1024
    width: int = 256
    standardise: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B N G"]) -> Int[Array, "B N"]:
        """Return the code of each vector."""
        init = nn.initializers.xavier_uniform()
        shape = x.shape[-1], self.width
        projection = self.param("projection", init, shape, jnp.float32)
        normal = nn.initializers.normal(1.0)
        book = self.param("codebook", normal, (self.codes, self.width), jnp.float32)
        if self.standardise:
            x = x - jnp.mean(x, -1, keepdims=True)
            x = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)
        return closest(x @ projection, book)


class Centroids(nn.Module):
    """A codebook of the nearest vector (k-means); a parameter that no gradient reaches.

    Attributes:
      codes: V.
    """

    codes: int

    @nn.compact
    def __call__(self, x: Float[Array, "B N G"]) -> Int[Array, "B N"]:
        """Return the code of each vector."""
        normal = nn.initializers.normal(1.0)
        return nearest(x, self.param("book", normal, (self.codes, x.shape[-1]), jnp.float32))


class Cosine(nn.Module):
    """A small network and a codebook of unit vectors: BEATs' trained tokenizer, on encoded patches.

    Linear → tanh → linear → length 1 → the entry with the greatest cosine (arXiv:2212.09058, section
    3.2). The book is moved by `moved`, not by gradients.

    Attributes:
      hidden: width of the layer in between; BEATs: that of the encoder.
      codes: V.
      width: of the entries.
    """

    hidden: int
    codes: int = 1024
    width: int = 256

    def setup(self):
        """Declare the parameters."""
        self.into, self.out = nn.Dense(self.hidden), nn.Dense(self.width)
        normal = nn.initializers.normal(1.0)
        self.book = self.param("book", normal, (self.codes, self.width), jnp.float32)

    def __call__(self, x: Float[Array, "B N D"]) -> Int[Array, "B N"]:
        """Return the code of each vector."""
        return nearest(self.vectors(x), self.book)

    def vectors(self, x: Float[Array, "B N D"]) -> Float[Array, "B N E"]:
        """Return what is compared with the book: vectors of length 1."""
        return unit(self.out(jnp.tanh(self.into(x.astype(jnp.float32)))))


class Gumbel(nn.Module):
    """Product quantisation by Gumbel softmax (wav2vec 2.0, arXiv:2006.11477, section 2).

    Attributes:
      groups: codebooks; each gives a part of the quantised vector.
      codes: V of each.
      width: of the quantised vector.
    """

    groups: int = 2
    codes: int = 320
    width: int = 256

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.groups:
            raise ValueError(f"Gumbel: width {self.width} is not divisible by {self.groups}.")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N C"],
        key: PRNGKeyArray | None = None,
        temperature: Float[Array, ""] | float = 1.0,
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B N Q V"]]:
        """Return quantised vectors, and the probability of each code.

        With a key, codes are drawn and the gradient is that of a softmax at the temperature; without
        one, the most probable codes are taken and their probability is 1.
        """
        shape = self.groups, self.codes, self.width // self.groups
        books = self.param("book", nn.initializers.uniform(1.0), shape, jnp.float32)
        # Choices that differ from the start: with small scores the noise of the draws alone would choose,
        # and targets that say nothing of their frames teach nothing.
        normal = nn.initializers.normal(1.0)
        choose = nn.Dense(self.groups * self.codes, kernel_init=normal, name="choose")
        logits = choose(x.astype(jnp.float32))
        logits = logits.reshape(*x.shape[:2], self.groups, self.codes)
        probable = jax.nn.softmax(logits)
        scores = logits
        if key is not None:
            scores = (logits + jax.random.gumbel(key, logits.shape)) / temperature
        chosen = jax.nn.one_hot(jnp.argmax(scores, -1), self.codes)
        if key is None:
            probable = chosen
        else:
            chosen = straight_through(jax.nn.softmax(scores), chosen)
        quantised = jnp.einsum("bnqv,qvd->bnqd", chosen, books)
        return quantised.reshape(*x.shape[:2], self.width), probable


def straight_through(z: Float[Array, "*B D"], code: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Return the code, to the last bit, with the gradient of z."""
    return jax.lax.stop_gradient(code) + (z - jax.lax.stop_gradient(z))


def moved(
    book: Float[Array, "V D"],
    z: Float[Array, "M D"],
    codes: Int[Array, " M"],
    decay: float = 0.99,
) -> Float[Array, "V D"]:
    """Move each used entry of a codebook of unit vectors towards the mean of the vectors it stands for.

    e_k becomes unit(decay e_k + (1 - decay) unit(mean z)); entries without vectors stay as they are
    (BEATs' tokenizer, after van den Oord et al. 2017, arXiv:1711.00937, appendix A.1).
    """
    count = jnp.zeros(book.shape[0], z.dtype).at[codes].add(1.0)
    total = jnp.zeros_like(book).at[codes].add(z)
    mean = unit(total / jnp.maximum(count, 1)[:, None])
    return jnp.where((count > 0)[:, None], unit(decay * book + (1 - decay) * mean), book)


def kmeans(
    key: PRNGKeyArray, x: Float[Array, "M D"], codes: int, iterations: int = 10
) -> Float[Array, "V D"]:
    """Return centroids: Lloyd's algorithm, from vectors drawn far from each other.

    The draw is k-means++ (Arthur & Vassilvitskii 2007). An entry that loses all its vectors stays
    where it was.

    Raises:
      ValueError: there are fewer vectors than codes.
    """
    if len(x) < codes:
        raise ValueError(f"kmeans: {len(x)} vectors are less than {codes} codes.")
    x = x.astype(jnp.float32)  # bfloat16 counts to 256, and draws from 128 numbers
    first, key = jax.random.split(key)
    start = x[jax.random.randint(first, (), 0, len(x))]

    def draw(state, key):
        distance, last = state
        distance = jnp.minimum(distance, jnp.sum((x - last[None]) ** 2, -1))
        new = x[jax.random.categorical(key, jnp.log(distance + 1e-12))]
        return (distance, new), new

    far = jnp.full(len(x), jnp.inf, x.dtype)
    _, more = jax.lax.scan(draw, (far, start), jax.random.split(key, codes - 1))
    start = jnp.concatenate([start[None], more])

    def step(book, _):
        which = nearest(x, book)
        count = jnp.zeros(codes, x.dtype).at[which].add(1.0)
        total = jnp.zeros_like(book).at[which].add(x)
        return jnp.where((count > 0)[:, None], total / jnp.maximum(count, 1)[:, None], book), None

    return jax.lax.scan(step, start, None, length=iterations)[0]


def dot_kmeans(
    key: PRNGKeyArray,
    x: Float[Array, "M D"],
    codes: int,
    iterations: int = 10,
    valid: Bool[Array, " M"] | None = None,
) -> tuple[Float[Array, "V D"], Int[Array, " M"]]:
    """Return centroids of length 1, and for each vector the one with the greatest dot product; -1: not valid.

    It begins from vectors drawn without replacement, as long as they are; each iteration assigns all vectors
    and makes their mean, at length 1, the new entry. One that loses all its vectors stays as it was
    (DeepCluster-v2: Caron et al. 2020, arXiv:2006.09882, appendix).

    Args:
      key: of the draw.
      x: vectors of any length.
      codes: V.
      iterations: of Lloyd's algorithm.
      valid: which vectors count; None: all. If these are fewer than `codes`, others are among the first
        entries, and may stay.

    Raises:
      ValueError: there are fewer vectors than codes.
    """
    if len(x) < codes:
        raise ValueError(f"kmeans: {len(x)} vectors are less than {codes} codes.")
    x = x.astype(jnp.float32)
    valid = jnp.ones(len(x), bool) if valid is None else valid
    order = jnp.where(valid, jax.random.uniform(key, (len(x),)), -1.0)
    start = x[jax.lax.top_k(order, codes)[1]]

    def assign(book):
        # In blocks: the scores of a large collection would fill the memory.
        return jax.lax.map(lambda v: jnp.argmax(book @ v).astype(jnp.int32), x, batch_size=_BLOCK)

    def step(book, _):
        which, weight = assign(book), valid.astype(x.dtype)
        count = jnp.zeros(codes, x.dtype).at[which].add(weight)
        total = jnp.zeros_like(book).at[which].add(weight[:, None] * x)
        mean = unit(total / jnp.maximum(count, 1)[:, None])
        return jnp.where((count > 0)[:, None], mean, book), None

    book = jax.lax.scan(step, start, None, length=iterations)[0]
    return book, jnp.where(valid, assign(book), -1)
