"""Softmax attention, written once: every module of the package that attends to tokens calls `attend`.

`weights` gives the softmax alone; `Cache` keeps keys and values for decoding. `Attention` is one of the
mixers that a residual block can hold (others: t5.py, relative.py, windows.py, mamba.py).
"""

import functools
import logging
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.dense import INIT

IMPLEMENTATIONS = ("auto", "plain", "blockwise", "cudnn")
LONG = 1024  # queries from which "auto" takes the blockwise form
BLOCK = 128  # queries at a time in the blockwise form
SHORT = (jnp.bfloat16, jnp.float16)  # what cuDNN's fused attention computes in
# Not -inf: where a whole row is masked the softmax and its gradient must stay finite.
MASKED = float(jnp.finfo(jnp.float32).min)

log = logging.getLogger(__name__)


def attend(
    q: Float[Array, "*B N H W"],
    k: Float[Array, "*B M H W"],
    v: Float[Array, "*B M H W"],
    *,
    bias: Float[Array, "..."] | None = None,
    gate: Float[Array, "*B H N"] | None = None,
    valid: Bool[Array, "*B M"] | None = None,
    pairs: Bool[Array, "..."] | None = None,
    causal: bool = False,
    start: Int[Array, ""] | int = 0,
    implementation: str = "auto",
    block: int = BLOCK,
) -> Float[Array, "*B N H W"]:
    """Return softmax(q k^T + gate bias) v for each head, over the keys that a query may see.

    Scores, softmax and bias are float32. A query that may see no key gets zeros, and no gradient.

    Args:
      q: queries, which come scaled.
      k, v: keys and values.
      bias: added to the scores; broadcastable to [*B, H, N, M], and it may lack leading axes.
      gate: what each query multiplies its bias by.
      valid: keys that exist; False on padding.
      pairs: which key each query may see; broadcastable to [*B, H, N, M].
      causal: query n sees the keys up to start + n only.
      start: position of the first query among the keys: 0, or the length of a cache.
      implementation: "plain" holds all scores at once; "blockwise" those of `block` queries, and its
        backward pass computes them again (Rabe and Staats 2021, arXiv:2112.05682, without the split
        over keys: exact); "cudnn": jax.nn.dot_product_attention on an NVIDIA GPU, 16-bit only;
        "auto": cudnn where it can run, else plain below 1024 queries and blockwise from there on.
      block: queries at a time in the blockwise form.

    Raises:
      ValueError: an unknown implementation, cudnn in 32 bits, or a gate without a bias.
    """
    known(implementation)
    terms = _terms(bias, gate, valid, pairs, start if causal else None)
    chosen = _choose(q, k, v, terms) if implementation == "auto" else implementation
    if chosen == "cudnn":
        return _cudnn(q, k, v, terms)
    q, k, v = _turned(q), _turned(k), _turned(v)  # once, not for every block
    if chosen == "blockwise":
        return _turned(_blockwise(q, k, v, terms, block))
    return _turned(_mixed(q, k, v, terms))


def weights(
    q: Float[Array, "*B N H W"],
    k: Float[Array, "*B M H W"],
    *,
    bias: Float[Array, "..."] | None = None,
    gate: Float[Array, "*B H N"] | None = None,
    valid: Bool[Array, "*B M"] | None = None,
    pairs: Bool[Array, "..."] | None = None,
    causal: bool = False,
    start: Int[Array, ""] | int = 0,
) -> Float[Array, "*B H N M"]:
    """Return what `attend` multiplies the values by, for layers that use it several times."""
    terms = _terms(bias, gate, valid, pairs, start if causal else None)
    return _weights(_turned(q), _turned(k), terms)


def known(implementation: str) -> None:
    """Refuse an implementation that does not exist.

    Raises:
      ValueError: naming those that do.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"attention: got implementation '{implementation}'; "
            f"wanted one of {', '.join(IMPLEMENTATIONS)}."
        )


class Cache(NamedTuple):
    """Keys and values of the tokens so far, in arrays of a fixed length."""

    k: Any  # [B, M, H, W]
    v: Any  # [B, M, H, W]
    length: Any  # int32 scalar: how many are written

    def write(self, k: Float[Array, "B N H W"], v: Float[Array, "B N H W"]) -> "Cache":
        """Return a cache with the next N tokens written too.

        The length is not known while tracing, so the caller sees to it that it stays within M; beyond
        it, the last tokens would be overwritten.

        Raises:
          ValueError: more tokens than the whole cache holds.
        """
        if k.shape[1] > self.k.shape[1]:
            raise ValueError(
                f"attention: got {k.shape[1]} tokens for a cache of {self.k.shape[1]}; start it with "
                "as many as will ever be written."
            )
        at = (0, self.length, 0, 0)
        return Cache(
            lax.dynamic_update_slice(self.k, k.astype(self.k.dtype), at),
            lax.dynamic_update_slice(self.v, v.astype(self.v.dtype), at),
            self.length + k.shape[1],
        )


def empty_cache(batch: int, length: int, heads: int, size: int, dtype: Any) -> Cache:
    """Return a cache for `length` tokens of H `heads` of width `size`, none of them written."""
    shape = batch, length, heads, size
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32))


class Attention(nn.Module):
    """Softmax attention over all tokens, as in ViT: fused qkv, scale head_dim^-0.5.

    Attributes:
      heads: H.
      bias: of qkv.
      causal: a token sees itself and those before it (GPT-2).
      gate: multiply each channel, before the output map, by the logistic function of a linear map of the
        input with bias (BAT, arXiv:2602.16305).
      implementation, block: see `attend`.
    """

    heads: int
    bias: bool = True
    causal: bool = False
    gate: bool = False
    implementation: str = "auto"
    block: int = BLOCK

    def __post_init__(self):
        super().__post_init__()
        known(self.implementation)

    def start(self, batch: int, width: int, dtype: Any, length: int) -> Cache:
        """Return the memory of nothing, for up to `length` inputs of that width and dtype."""
        return empty_cache(batch, length, self.heads, width // self.heads, dtype)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        index: Int[Array, "B N"] | None = None,
        valid: Bool[Array, "B N"] | None = None,
        *,
        train: bool = False,
        memory: Cache | None = None,
    ) -> Any:
        """Mix tokens; those not `valid` are not attended to. `index` is not used.

        Args:
          x: [B, N, D].
          index: ignored.
          valid: False on padding.
          train: ignored.
          memory: of the tokens before x, for a causal mixer; the result is then (y, memory of x too).

        Returns:
          y [B, N, D].

        Raises:
          ValueError: heads that do not divide the width; memory for a mixer that is not causal, or
            together with padding.
        """
        del index, train
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not divisible by {self.heads} attention heads.")
        if memory is not None and not self.causal:
            raise ValueError("attention: got memory, which only goes with causal=True.")
        if memory is not None and valid is not None:
            raise ValueError("attention: got memory and padding; decode without padding.")
        qkv = nn.Dense(3 * width, use_bias=self.bias, dtype=x.dtype, kernel_init=INIT, name="qkv")(
            x
        )
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, self.heads, -1), 2, 0)
        q, start = q * q.shape[-1] ** -0.5, 0
        if memory is not None:
            start, memory = memory.length, memory.write(k, v)
            k, v = memory.k, memory.v
        mixed = attend(
            *(q, k, v),
            valid=valid,
            causal=self.causal,
            start=start,
            implementation=self.implementation,
            block=self.block,
        )
        mixed = mixed.reshape(x.shape)
        if self.gate:
            gate = nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="gate")(x)
            mixed = nn.sigmoid(gate) * mixed
        y = nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="out")(mixed)
        return y if memory is None else (y, memory)


class _Terms(NamedTuple):
    """What changes the scores; bias and mask may have axes of 1, and lack leading ones."""

    bias: Any  # [*B, H, N, M]
    gate: Any  # [*B, H, N]
    mask: Any  # [*B, H, N, M], True where a query may see a key
    first: Any  # position of the first query among the keys; None: not causal


def _terms(bias, gate, valid, pairs, first) -> _Terms:
    if gate is not None and bias is None:
        raise ValueError("attention: got a gate without a bias; the gate multiplies the bias.")
    mask = None if valid is None else valid[..., None, None, :]
    if pairs is not None:
        mask = pairs if mask is None else _ranked(pairs, mask.ndim) & mask
    return _Terms(bias, gate, mask, first)


def _turned(x):
    """[*B, N, H, W] <-> [*B, H, N, W]."""
    return jnp.swapaxes(x, -3, -2)


def _ranked(x, rank):
    """Put axes of 1 first."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def _added(terms, rank):
    """Return what is added to the scores, [*B, H, N, M]."""
    bias = _ranked(terms.bias, rank).astype(jnp.float32)
    return bias if terms.gate is None else terms.gate[..., None] * bias


def _visible(terms, count, keys, rank) -> Any:
    """Return which keys the queries may see, [*B, H, N, M], or None: all of them."""
    mask = None if terms.mask is None else _ranked(terms.mask, rank)
    if terms.first is None:
        return mask
    past = jnp.arange(keys)[None] <= terms.first + jnp.arange(count)[:, None]
    past = _ranked(past, rank)
    return past if mask is None else mask & past


def _weights(q, k, terms):
    """[*B, H, N, W], [*B, H, M, W] -> [*B, H, N, M]."""
    scores = jnp.einsum("...nd,...md->...nm", q, k).astype(jnp.float32)
    if terms.bias is not None:
        scores = scores + _added(terms, scores.ndim)
    visible = _visible(terms, *scores.shape[-2:], scores.ndim)
    if visible is None:
        return nn.softmax(scores)
    found = nn.softmax(jnp.where(visible, scores, MASKED))
    if terms.mask is None:  # a causal query sees itself
        return found
    return jnp.where(jnp.any(visible, -1, keepdims=True), found, 0)


def _mixed(q, k, v, terms):
    """[*B, H, N, W], [*B, H, M, W] twice -> [*B, H, N, W]."""
    return jnp.einsum("...nm,...md->...nd", _weights(q, k, terms).astype(q.dtype), v)


def _blockwise(q, k, v, terms, block):
    """Return what `_mixed` returns, for `block` queries at a time."""
    length = q.shape[-2]
    count = -(-length // block)

    def cut(x, axis):
        """Cut the axis of the queries in blocks, which come first."""
        axis += x.ndim
        x = jnp.pad(x, [(0, count * block - length if a == axis else 0) for a in range(x.ndim)])
        x = x.reshape(*x.shape[:axis], count, block, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    parts = {}
    for name, axis in (("bias", -2), ("gate", -1), ("mask", -2)):
        term = getattr(terms, name)
        if term is not None and term.ndim >= -axis and term.shape[axis] > 1:
            parts[name] = cut(term, axis)
    if terms.first is not None:
        parts["first"] = terms.first + block * jnp.arange(count)
    body = jax.checkpoint(lambda part: _mixed(part[0], k, v, terms._replace(**part[1])))
    mixed = jnp.moveaxis(lax.map(body, (cut(q, -2), parts)), 0, -3)
    return mixed.reshape(*q.shape[:-2], count * block, -1)[..., :length, :]


def _cudnn(q, k, v, terms):
    """Return what `attend` returns by cuDNN's fused kernel."""
    if q.dtype not in SHORT:
        raise ValueError(
            f"attention: got implementation 'cudnn' for {q.dtype}; wanted bfloat16 or float16. "
            "Try 'auto', or dtype='bfloat16' for the stack."
        )
    *lead, count, _, _ = q.shape
    keys, rank = k.shape[-3], q.ndim

    def flat(x):
        """[*B, H, N, M] -> [B or 1, H or 1, N, M]: the kernel wants all pairs written out."""
        alike = all(n == 1 for n in x.shape[:-3])
        x = jnp.broadcast_to(x, (*(x.shape[:-3] if alike else lead), x.shape[-3], count, keys))
        return x.reshape(-1, *x.shape[-3:])

    # The backward pass is refused for odd numbers of tokens, such as 512 and a special one: one more
    # then stands at the end, beyond the lengths that the kernel is told.
    lengths = {}
    if count % 2 or keys % 2:
        full = functools.partial(jnp.full, math.prod(lead), dtype=jnp.int32)
        lengths = dict(query_seq_lengths=full(count), key_value_seq_lengths=full(keys))

    def even(x, *axes):
        return jnp.pad(x, [(0, x.shape[a] % 2 if a in axes else 0) for a in range(x.ndim)])

    visible = _visible(terms, count, keys, rank)
    ordered = isinstance(terms.first, int) and terms.first == 0  # the kernel skips what comes later
    mask = terms.mask if ordered else visible
    mixed = jax.nn.dot_product_attention(
        *(even(x.reshape(-1, *x.shape[-3:]), 1) for x in (q, k, v)),
        bias=None if terms.bias is None else even(flat(_added(terms, rank)), 2, 3).astype(q.dtype),
        mask=None if mask is None else even(flat(_ranked(mask, rank)), 2, 3),
        scale=1.0,
        is_causal=ordered,
        implementation="cudnn",
        **lengths,
    )
    mixed = mixed[:, :count].reshape(q.shape)
    if terms.mask is None:
        return mixed
    return jnp.where(jnp.swapaxes(jnp.any(visible, -1), -1, -2)[..., None], mixed, 0)


def _choose(q: Array, k: Array, v: Array, terms: _Terms) -> str:
    otherwise = "blockwise" if q.shape[-3] >= LONG else "plain"
    if jax.default_backend() != "gpu" or q.dtype not in SHORT:
        return otherwise
    try:  # cuDNN's limits depend on its version, the GPU and the shapes: ask, gradients included
        jax.eval_shape(jax.grad(lambda q, k, v: jnp.sum(_cudnn(q, k, v, terms))), q, k, v)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        _say(str(error))
        return otherwise
    return "cudnn"


@functools.cache
def _say(reason: str) -> None:
    log.warning("attention: not using cuDNN: %s", reason)
