"""What sits on top of an encoder: patch predictors, pooling, classifiers."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.backbones.mamba import uniform
from ssl_audio.backbones.norms import LayerNorm
from ssl_audio.letters import Array, Float
from ssl_audio.structs import Encoded

XAVIER = nn.initializers.xavier_uniform()


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
    """Pool the tokens, then LayerNorm → Linear to class logits (the fine-tuning head of SSAST).

    Attributes:
      classes: C.
      pool: "mean" of the patch tokens, "special" (cls and distillation), "grouped", or "stats" (mean and
        deviation of each frequency row over time).
      groups: number of groups when pool is "grouped"; the result is then [B, groups, C].
      eps: of the LayerNorm; None: there is none, so that a mean of tokens gives the mean of their
        logits (BEATs).
    """

    classes: int
    pool: str = "mean"
    groups: int = 0
    eps: float | None = 1e-5

    def __post_init__(self):
        super().__post_init__()
        if self.pool not in ("grouped", *POOLS):
            raise ValueError(f"pool '{self.pool}': wanted grouped or {', '.join(POOLS)}.")

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "*B C"]:
        """Return logits."""
        if self.pool == "grouped":
            x = grouped_tokens(encoded, self.groups)
        else:
            x = POOLS[self.pool](encoded)
        x = x if self.eps is None else LayerNorm(self.eps, name="norm")(x)
        return Linear(self.classes, name="linear")(x)


class Pooled(nn.Module):
    """One vector per clip, then one dense layer to class logits (with `pools.MaxMean`: PANNs).

    Attributes:
      classes: C.
      pool: of `pools`.
    """

    classes: int
    pool: nn.Module

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B C"]:
        """Return logits."""
        x = self.pool(encoded)
        return nn.Dense(self.classes, kernel_init=XAVIER, name="linear")(x)


class Segments(nn.Module):
    """Logits of each stretch of time, of which a clip's are the greatest (Cnn14-DecisionLevelMax).

    Kong et al. 2020 (arXiv:1912.10211): the mean over frequency is smoothed over three stretches, by the
    sum of their maximum and their mean, which takes nothing beyond the ends for zeros.

    Attributes:
      classes: C.
      width: of the ReLU layer before the last.
    """

    classes: int
    width: int

    @nn.compact
    def __call__(self, encoded: Encoded, *, along: bool = False) -> Float[Array, "*B C"]:
        """Return logits of the clips; `along`: of their stretches, [B, M, C]."""
        x = over_frequency(encoded)
        x = jnp.max(_neighbours(x, -jnp.inf), 0) + jnp.mean(_neighbours(x, 0.0), 0)
        x = nn.relu(nn.Dense(self.width, kernel_init=XAVIER, name="dense")(x))
        logits = nn.Dense(self.classes, kernel_init=XAVIER, name="linear")(x)
        return logits if along else jnp.max(logits, axis=1)


class LayerMix(nn.Module):
    """Softmax-weighted sum of all layers, projected and averaged over time (SUPERB's downstream).

    Yang et al. 2021 (arXiv:2105.01051) section 3: layers → `hidden` → mean over time → classes.
    """

    classes: int
    hidden: int = 256

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B C"]:
        """Return logits; the encoder must have been asked for its layers."""
        layers = [frame_tokens(_with(encoded, x)) for x in encoded.layers]
        weights = nn.softmax(
            self.param("weights", nn.initializers.zeros, (len(layers),), jnp.float32)
        )
        x = jnp.einsum("lbmd,l->bmd", jnp.stack(layers), weights)
        x = jnp.mean(Linear(self.hidden, name="project")(x), axis=1)
        return Linear(self.classes, name="linear")(x)


def mean_tokens(encoded: Encoded) -> Float[Array, "B D"]:
    """Average the patch tokens (those that are valid)."""
    tokens = encoded.tokens
    if tokens.valid is None:
        return jnp.mean(tokens.x, axis=1)
    weight = tokens.valid[..., None].astype(tokens.x.dtype)
    return jnp.sum(tokens.x * weight, 1) / jnp.maximum(jnp.sum(weight, 1), 1)


def over_frequency(encoded: Encoded) -> Float[Array, "B M D"]:
    """Average the tokens of each time column."""
    tokens = encoded.tokens
    return jnp.mean(tokens.x.reshape(tokens.x.shape[0], *tokens.grid, -1), axis=1)


def special_tokens(encoded: Encoded) -> Float[Array, "B D"]:
    """Average the special tokens (cls, and distillation when there is one)."""
    if encoded.special is None:
        raise ValueError("pooling 'special': this encoder has no special tokens; use 'mean'.")
    return jnp.mean(encoded.special, axis=1)


def row_statistics(encoded: Encoded) -> Float[Array, "B D"]:
    """Mean and deviation of each frequency row's (valid) tokens over time: D' = 2 * rows * D."""
    tokens = encoded.tokens
    x = tokens.x.reshape(tokens.x.shape[0], *tokens.grid, -1)
    weight = jnp.ones(x.shape[:3]) if tokens.valid is None else tokens.valid.reshape(x.shape[:3])
    weight = (weight / jnp.maximum(weight.sum(2, keepdims=True), 1))[..., None].astype(x.dtype)
    mean = jnp.sum(weight * x, axis=2, keepdims=True)
    # A constant has deviation 1e-3 and a gradient.
    deviation = jnp.sqrt(jnp.sum(weight * (x - mean) ** 2, axis=2) + 1e-6)
    return jnp.concatenate([mean[:, :, 0], deviation], axis=-1).reshape(x.shape[0], -1)


def grouped_tokens(encoded: Encoded, groups: int) -> Float[Array, "B M D"]:
    """Average runs of consecutive tokens, specials included, the remainder dropped.

    This is the published SSAMBA's "one second" pooling. Tokens are frequency-major, so a group is not a
    slice of time; `frame_tokens` is.
    """
    x = jnp.concatenate([encoded.special, encoded.tokens.x], axis=1)
    size = x.shape[1] // groups
    return jnp.mean(x[:, : size * groups].reshape(x.shape[0], groups, size, -1), axis=2)


POOLS = {"mean": mean_tokens, "special": special_tokens, "stats": row_statistics}


def frame_tokens(encoded: Encoded) -> Float[Array, "B M D"]:
    """Regroup the full grid's tokens by time column, [B, columns, rows * D] (SUPERB's convention)."""
    rows, columns = encoded.tokens.grid
    x = encoded.tokens.x.reshape(-1, rows, columns, encoded.tokens.x.shape[-1])
    return jnp.moveaxis(x, 1, 2).reshape(x.shape[0], columns, -1)


def _neighbours(x: Array, end: float) -> Array:
    """Return the stretches before, here and after [3, B, M, D]; beyond the ends lies `end`."""
    wide = jnp.pad(x, ((0, 0), (1, 1), (0, 0)), constant_values=end)
    return jnp.stack([wide[:, i : i + x.shape[1]] for i in range(3)])


def _with(encoded: Encoded, x: Array) -> Encoded:
    return dataclasses.replace(encoded, tokens=dataclasses.replace(encoded.tokens, x=x))
