"""Multi-head self-attention: one of the two mixers a residual block can hold (the other: mamba.py)."""

import functools
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.dense import INIT

LONG = 1024  # tokens from which "auto" takes the blockwise form
SHORT = (jnp.bfloat16, jnp.float16)  # what cuDNN's fused attention computes in

log = logging.getLogger(__name__)


def plain(
    q: Float[Array, "B N H W"],
    k: Float[Array, "B M H W"],
    v: Float[Array, "B M H W"],
    valid: Bool[Array, "B M"] | None,
) -> Float[Array, "B N H W"]:
    """Return softmax attention; queries come scaled. All scores are held at once, [B, H, N, M]."""
    return _turned(_mixed(_turned(q), _turned(k), _turned(v), valid))


def _mixed(q, k, v, valid):
    """[B, H, N, W], [B, H, M, W] twice -> [B, H, N, W]."""
    scores = jnp.einsum("bhnd,bhmd->bhnm", q, k).astype(jnp.float32)
    if valid is not None:
        scores = jnp.where(valid[:, None, None, :], scores, -jnp.inf)
    return jnp.einsum("bhnm,bhmd->bhnd", nn.softmax(scores).astype(q.dtype), v)


def _turned(x):
    """[B, N, H, W] <-> [B, H, N, W]."""
    return jnp.swapaxes(x, 1, 2)


def blockwise(
    q: Float[Array, "B N H W"],
    k: Float[Array, "B M H W"],
    v: Float[Array, "B M H W"],
    valid: Bool[Array, "B M"] | None,
    block: int,
) -> Float[Array, "B N H W"]:
    """Return what `plain` returns, for `block` queries at a time: scores of [B, H, block, M] only.

    The softmax of a row is taken whole, so the result is exact; the backward pass computes the scores
    of each block again (Rabe and Staats 2021, arXiv:2112.05682, without the split over keys).
    """
    length = q.shape[1]
    # Turned once, not for every block.
    q, k, v = _turned(q), _turned(k), _turned(v)
    count = -(-length // block)
    padded = jnp.pad(q, ((0, 0), (0, 0), (0, count * block - length), (0, 0)))
    blocks = jnp.moveaxis(padded.reshape(*q.shape[:2], count, block, -1), 2, 0)
    mixed = lax.map(jax.checkpoint(lambda part: _mixed(part, k, v, valid)), blocks)
    return _turned(jnp.moveaxis(mixed, 0, 2).reshape(padded.shape)[:, :, :length])


def cudnn(
    q: Float[Array, "B N H W"],
    k: Float[Array, "B M H W"],
    v: Float[Array, "B M H W"],
    valid: Bool[Array, "B M"] | None,
) -> Float[Array, "B N H W"]:
    """Return what `plain` returns by cuDNN's fused kernel: NVIDIA GPUs, bfloat16 or float16 only."""
    if q.dtype not in SHORT:
        raise ValueError(
            f"attention: got implementation 'cudnn' for {q.dtype}; wanted bfloat16 or float16. "
            "Try 'auto', or dtype='bfloat16' for the stack."
        )
    mask = None if valid is None else valid[:, None, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, scale=1.0, implementation="cudnn")


IMPLEMENTATIONS = ("auto", "plain", "blockwise", "cudnn")


class Attention(nn.Module):
    """Softmax attention over all tokens, as in ViT: fused qkv, scale head_dim^-0.5.

    Attributes:
      heads: H.
      bias: of qkv.
      implementation: "plain"; "blockwise", whose memory grows with N, not N^2, on any device; "cudnn",
        jax.nn.dot_product_attention on an NVIDIA GPU, 16-bit only. "auto": cudnn where it can run,
        else plain below 1024 tokens and blockwise from there on.
      block: queries at a time in the blockwise form.
    """

    heads: int
    bias: bool = True
    implementation: str = "auto"
    block: int = 128

    def __post_init__(self):
        super().__post_init__()
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"attention: got implementation '{self.implementation}'; "
                f"wanted one of {', '.join(IMPLEMENTATIONS)}."
            )

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        index: Int[Array, "B N"] | None = None,
        valid: Bool[Array, "B N"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """Mix tokens; those not `valid` are not attended to. `index` is not used."""
        del index, train
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not divisible by {self.heads} attention heads.")
        qkv = nn.Dense(3 * width, use_bias=self.bias, dtype=x.dtype, kernel_init=INIT, name="qkv")(
            x
        )
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, self.heads, -1), 2, 0)
        q = q * q.shape[-1] ** -0.5
        chosen = _choose(q, k, v, valid) if self.implementation == "auto" else self.implementation
        if chosen == "blockwise":
            mixed = blockwise(q, k, v, valid, self.block)
        else:
            mixed = {"plain": plain, "cudnn": cudnn}[chosen](q, k, v, valid)
        return nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="out")(mixed.reshape(x.shape))


def _choose(q: Array, k: Array, v: Array, valid: Array | None) -> str:
    otherwise = "blockwise" if q.shape[1] >= LONG else "plain"
    if jax.default_backend() != "gpu" or q.dtype not in SHORT:
        return otherwise
    try:  # cuDNN's limits depend on its version, the GPU and the shapes: ask, gradients included
        jax.eval_shape(jax.grad(lambda q, k, v: jnp.sum(cudnn(q, k, v, valid))), q, k, v)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        _say(str(error))
        return otherwise
    return "cudnn"


@functools.cache
def _say(reason: str) -> None:
    log.warning("attention: not using cuDNN: %s", reason)
