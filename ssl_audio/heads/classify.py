"""What sits on top of an encoder: patch predictors, pooling, classifiers."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.heads.readout import POOLS, frame_tokens, grouped_tokens, over_frequency
from ssl_audio.layers.dense import XAVIER, Linear
from ssl_audio.layers.gru import Gru
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.layers.pooling import greatest
from ssl_audio.slots import Pool
from ssl_audio.structs import Encoded

OVER_COLUMNS = ("max", "attention")


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
    pool: Pool

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B C"]:
        """Return logits."""
        x = self.pool(encoded)
        return nn.Dense(self.classes, kernel_init=XAVIER, name="linear")(x)


class Segments(nn.Module):
    """Logits of each time segment; a clip's are their maximum (Cnn14-DecisionLevelMax).

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
        x = greatest(_neighbours(x, -jnp.inf), 0) + jnp.mean(_neighbours(x, 0.0), 0)
        x = nn.relu(nn.Dense(self.width, kernel_init=XAVIER, name="dense")(x))
        logits = nn.Dense(self.classes, kernel_init=XAVIER, name="linear")(x)
        return logits if along else _highest(logits, _columns(encoded))


class Frames(nn.Module):
    """LayerNorm → Linear on each time column; a clip's logits are the maximum over its columns, or a mean.

    Columns of padding (`encoded.tokens.valid`) count in no clip.

    Attributes:
      classes: C.
      rows: what becomes of a column's tokens: "joined" one behind the other, or their "mean".
      eps: of the LayerNorm.
      recurrent: width of a gated recurrent unit in each direction over the columns, before the linear layer
        (the head of a CRNN, Cakir et al. 2017, arXiv:1702.06286); 0: none.
      pool: "max", or "attention": the mean of the columns' probabilities by learned weights, for each class
        (Kong et al. 2018, arXiv:1711.00927), to learn from labels of clips.
    """

    classes: int
    rows: str = "joined"
    eps: float = 1e-5
    recurrent: int = 0
    pool: str = "max"

    def __post_init__(self):
        super().__post_init__()
        if self.rows not in ("joined", "mean"):
            raise ValueError(f"rows '{self.rows}': wanted joined or mean.")
        if self.pool not in OVER_COLUMNS:
            raise ValueError(f"pool '{self.pool}': wanted {' or '.join(OVER_COLUMNS)}.")

    @nn.compact
    def __call__(self, encoded: Encoded, *, along: bool = False) -> Float[Array, "*B C"]:
        """Return logits of the clips; `along`: of their columns, [B, M, C]."""
        x = frame_tokens(encoded) if self.rows == "joined" else over_frequency(encoded)
        x, valid = LayerNorm(self.eps, name="norm")(x), _columns(encoded)
        if self.recurrent:
            x = x if valid is None else x * valid[..., None]
            ways = [
                Gru(self.recurrent, name="ahead"),
                Gru(self.recurrent, reverse=True, name="back"),
            ]
            x = jnp.concatenate([gru(x) for gru in ways], axis=-1)
        logits = Linear(self.classes, name="linear")(x)
        if self.pool == "max":
            return logits if along else _highest(logits, valid)
        weights = Linear(self.classes, name="attention")(x)
        return logits if along else _attended(logits, weights, valid)


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


def _columns(encoded: Encoded) -> Array | None:
    """Return which time columns are no padding [B, M]; None: all."""
    tokens = encoded.tokens
    if tokens.valid is None:
        return None
    return jnp.any(tokens.valid.reshape(-1, *tokens.grid), axis=1)


def _highest(logits: Array, valid: Array | None) -> Array:
    return greatest(logits if valid is None else jnp.where(valid[..., None], logits, -jnp.inf))


def _attended(logits: Array, weights: Array, valid: Array | None) -> Array:
    """Return the logits of the columns' mean probabilities, weighted by a softmax over time."""
    if valid is not None:
        weights = jnp.where(valid[..., None], weights, -1e9)
    weights = nn.log_softmax(weights, axis=1)
    sides = [nn.logsumexp(weights + nn.log_sigmoid(side), axis=1) for side in (logits, -logits)]
    return sides[0] - sides[1]


def _neighbours(x: Array, end: float) -> Array:
    """Return the stretches before, here and after [3, B, M, D]; beyond the ends lies `end`."""
    wide = jnp.pad(x, ((0, 0), (1, 1), (0, 0)), constant_values=end)
    return jnp.stack([wide[:, i : i + x.shape[1]] for i in range(3)])


def _with(encoded: Encoded, x: Array) -> Encoded:
    return dataclasses.replace(encoded, tokens=dataclasses.replace(encoded.tokens, x=x))
