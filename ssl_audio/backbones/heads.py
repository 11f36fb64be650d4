"""What sits on top of an encoder: patch predictors, pooling, classifiers."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.backbones.mamba import uniform
from ssl_audio.backbones.norms import LayerNorm
from ssl_audio.letters import Array, Float
from ssl_audio.structs import Encoded


class Linear(nn.Module):
    """Dense layer with PyTorch's default initial range, ±1/sqrt(fan in), for kernel and bias."""

    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """Map the last axis to `out` values."""
        init = uniform(x.shape[-1] ** -0.5)
        return nn.Dense(self.out, dtype=x.dtype, kernel_init=init, bias_init=init, name="dense")(x)


class PatchPredictor(nn.Module):
    """Linear → ReLU → Linear from a token to the values of its patch (SSAST section 3.2)."""

    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "B K D"]) -> Float[Array, "B K G"]:
        """Predict the G = `out` values of each token's patch."""
        return Linear(self.out, name="second")(nn.relu(Linear(x.shape[-1], name="first")(x)))


class Classifier(nn.Module):
    """LayerNorm → Linear from a pooled representation to class logits."""

    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B C"]:
        """Return logits."""
        return Linear(self.classes, name="linear")(LayerNorm(1e-5, name="norm")(x))


def mean_tokens(encoded: Encoded) -> Float[Array, "B D"]:
    """Average the patch tokens (those that are valid)."""
    tokens = encoded.tokens
    if tokens.valid is None:
        return jnp.mean(tokens.x, axis=1)
    weight = tokens.valid[..., None].astype(tokens.x.dtype)
    return jnp.sum(tokens.x * weight, 1) / jnp.maximum(jnp.sum(weight, 1), 1)


def special_tokens(encoded: Encoded) -> Float[Array, "B D"]:
    """Average the special tokens (cls, and distillation when there is one)."""
    if encoded.special is None:
        raise ValueError("pooling 'special': this encoder has no special tokens; use 'mean'.")
    return jnp.mean(encoded.special, axis=1)


def grouped_tokens(encoded: Encoded, groups: int) -> Float[Array, "B M D"]:
    """Average runs of consecutive tokens, specials included, the remainder dropped.

    This is the published SSAMBA's "one second" pooling. Tokens are frequency-major, so a group is not a
    slice of time; `frame_tokens` is.
    """
    x = jnp.concatenate([encoded.special, encoded.tokens.x], axis=1)
    size = x.shape[1] // groups
    return jnp.mean(x[:, : size * groups].reshape(x.shape[0], groups, size, -1), axis=2)


def frame_tokens(encoded: Encoded) -> Float[Array, "B M D"]:
    """Regroup the full grid's tokens by time column, [B, columns, rows * D] (SUPERB's convention)."""
    rows, columns = encoded.tokens.grid
    x = encoded.tokens.x.reshape(-1, rows, columns, encoded.tokens.x.shape[-1])
    return jnp.moveaxis(x, 1, 2).reshape(x.shape[0], columns, -1)


POOLING = {"mean": mean_tokens, "special": special_tokens}
