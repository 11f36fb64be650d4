"""Heads on a frozen encoder: attentive pooling, prototypes of classes, a perceptron."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.heads.readout import mean_tokens
from ssl_audio.layers.attention import attend
from ssl_audio.layers.dense import Linear
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.layers.pooling import greatest
from ssl_audio.structs import Encoded

EPSILON = 1e-4  # added to squared lengths
MARGIN = 1.01  # the cosine is divided by it


class AttentivePool(nn.Module):
    """Average the values of the patch tokens as one learned query attends to them.

    Keys and values are linear maps without bias; there is neither a query nor an output map
    (Bird-MAE, Rauch et al. 2025, arXiv:2504.12880). Special tokens take no part.

    Attributes:
      heads: each attends on its own, with D / heads values.
    """

    heads: int = 8

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return the pooled values; invalid tokens do not count.

        Raises:
          ValueError: the width is not divisible by the number of heads.
        """
        x, valid = encoded.tokens.x, encoded.tokens.valid
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(
                f"AttentivePool: width {width} is not divisible by {self.heads} heads."
            )
        size = width // self.heads
        query = self.param("query", nn.initializers.normal(0.02), (self.heads, size), jnp.float32)
        # Fan in D, and D outputs in all: the initial range of a D x D matrix.
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 2)
        )
        key, value = (
            jnp.einsum("bnd,dhe->bnhe", x, self.param(n, init, (width, *query.shape), jnp.float32))
            for n in ("key", "value")
        )
        query = jnp.broadcast_to(query * size**-0.5, (x.shape[0], 1, self.heads, size))
        return attend(query, key, value, valid=valid).reshape(x.shape[0], width)


class Attentive(nn.Module):
    """Attentive pooling, then LayerNorm → Linear to class logits (Bird-MAE's attentive probe).

    Attributes:
      classes: C.
      heads: of the pooling.
    """

    classes: int
    heads: int = 8

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B C"]:
        """Return logits."""
        x = AttentivePool(self.heads, name="pool")(encoded)
        return Linear(self.classes, name="linear")(LayerNorm(1e-6, name="norm")(x))


class Mlp(nn.Module):
    """Mean of the tokens, then dense layers with ReLU and dropout to class logits.

    Attributes:
      classes: C.
      hidden: widths of the layers before the last.
      dropout: share of the values that training sets to 0 after each; where no rng "dropout" is given, none.
    """

    classes: int
    hidden: tuple[int, ...] = (2048, 2048)
    dropout: float = 0.5

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B C"]:
        """Return logits."""
        x = mean_tokens(encoded)
        for i, width in enumerate(self.hidden):
            x = nn.relu(Linear(width, name=f"hidden{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        return Linear(self.classes, name="linear")(x)


class Prototypical(nn.Module):
    """Compare every place of the feature map with prototypes of each class (Bird-MAE's probe).

    logit_c = b_c + sum_j max(w_cj, 0) max over places of the cosine to prototype cj, if positive.
    With a cls token in the encoder, places are compared by how they differ from it. The published
    loss is `losses.asymmetric` + `losses.orthogonality` of the `directions`.
    Rauch et al. 2025 (arXiv:2504.12880) section 4; after AudioProtoPNet (arXiv:2404.10420).

    Attributes:
      classes: C.
      prototypes: J, of each class.
      upsample: how many times finer the map is made by bilinear interpolation; 1: as it is.
    """

    classes: int
    prototypes: int = 20
    upsample: int = 2

    def __post_init__(self):
        super().__post_init__()
        for name in ("classes", "prototypes", "upsample"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Prototypical: {name} is {getattr(self, name)}, wanted 1 or more."
                )

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B C"]:
        """Return logits. The tokens must be the full grid, in order."""
        x, valid = focal_map(encoded, self.upsample)
        shape = self.classes, self.prototypes
        vectors = self.param(
            "prototypes", nn.initializers.uniform(1.0), (*shape, x.shape[-1]), jnp.float32
        )
        weights = self.param("weights", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.constant(-2.0), shape[:1], jnp.float32)
        found = strongest(x, vectors, valid)
        return jnp.einsum("bcj,cj->bc", found, jnp.maximum(weights, 0)) + bias[None]


def focal_map(
    encoded: Encoded, upsample: int = 1
) -> tuple[Float[Array, "B rows columns D"], Bool[Array, "B rows columns"] | None]:
    """Return the tokens on their grid, less the cls token if there is one, and which are valid.

    An interpolated place is valid if all tokens that it is made of are.
    """
    x, valid = encoded.tokens.x, encoded.tokens.valid
    if encoded.special is not None:
        x = x - encoded.special[:, :1]
    x = x.reshape(x.shape[0], *encoded.tokens.grid, -1)
    if valid is not None:
        valid = valid.reshape(x.shape[:3])
        x = jnp.where(valid[..., None], x, 0)
    if upsample > 1:
        b, rows, columns, d = x.shape
        size = b, upsample * rows, upsample * columns
        x = jax.image.resize(x, (*size, d), "bilinear")
        if valid is not None:
            valid = jax.image.resize(valid.astype(jnp.float32), size, "bilinear") > 1 - 1e-5
    return x, valid


def strongest(
    x: Float[Array, "B rows columns D"],
    prototypes: Float[Array, "C J D"],
    valid: Bool[Array, "B rows columns"] | None = None,
) -> Float[Array, "B C J"]:
    """Return each prototype's greatest cosine, or 0 if all are negative, over the places of a map."""
    length = jnp.sqrt(jnp.sum(x**2, -1) + EPSILON)
    dot = jnp.einsum("bhwd,cjd->bhwcj", x, directions(prototypes))
    cosine = nn.relu(dot / (MARGIN * length[..., None, None]))
    if valid is not None:
        cosine = jnp.where(valid[..., None, None], cosine, 0)
    return greatest(cosine.reshape(len(cosine), -1, *cosine.shape[3:]))


def directions(prototypes: Float[Array, "C J D"]) -> Float[Array, "C J D"]:
    """Return prototypes of about unit length, for `strongest` and `losses.orthogonality`."""
    length = jnp.sqrt(jnp.sum(prototypes**2, -1, keepdims=True) + EPSILON)
    return prototypes / (length + EPSILON)
