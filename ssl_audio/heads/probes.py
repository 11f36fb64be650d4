"""Heads on a frozen encoder: attentive pooling, prototypes, of classes or shared, a perceptron."""

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


class Convex(nn.Module):
    """Compare tokens, mixed from all layers, with prototypes that the classes share (BAT's probe, CGP).

    Each layer's tokens are brought to length 1 and averaged with weights that are a softmax. What counts of a
    prototype is its dot product, at length 1, with the token least like it, with the special token, and with
    the token most like it; without special tokens the mean over the tokens stands for the second. Then
    dropout → Linear. arXiv:2602.16305.

    A network at random initialisation scores high with it, too: look at that before at anything else.

    Attributes:
      classes: C.
      prototypes: P.
      dropout: share of the 3 P values that training sets to 0; where no rng "dropout" is given, none.
    """

    classes: int
    prototypes: int = 10_000
    dropout: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        for name in ("classes", "prototypes"):
            if getattr(self, name) < 1:
                raise ValueError(f"Convex: {name} is {getattr(self, name)}, wanted 1 or more.")

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B C"]:
        """Return logits; the encoder must have been asked for its layers, which are alike in size."""
        layers, valid = encoded.layers, encoded.tokens.valid
        assert layers is not None, "asked for"
        start = nn.initializers.normal(0.02)
        vectors = self.param("prototypes", start, (self.prototypes, layers.shape[-1]), jnp.float32)
        share = nn.softmax(self.param("mix", nn.initializers.ones, layers.shape[:1], jnp.float32))

        def mixed(x):
            return jnp.einsum("lbnd,l->bnd", _unit(x), share)

        def alike(x):
            return x @ _unit(vectors).T

        x = mixed(layers)
        near = alike(x)
        there = jnp.ones(x.shape[:2], bool) if valid is None else valid
        low, high = (
            sign * greatest(jnp.where(there[..., None], sign * near, -jnp.inf)) for sign in (-1, 1)
        )
        weight = there / jnp.maximum(jnp.sum(there, 1, keepdims=True), 1)
        middle = alike(jnp.einsum("bnd,bn->bd", x, weight))
        if encoded.specials is not None:
            special = jnp.mean(encoded.specials, axis=2, keepdims=True)
            missing = jnp.isnan(special)  # features that were kept of an encoder that has none
            of_special = alike(mixed(jnp.where(missing, 0, special))[:, 0])
            middle = jnp.where(jnp.any(missing, axis=(0, 2, 3))[:, None], middle, of_special)
        found = jnp.concatenate([low, middle, high], axis=-1)
        found = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(found)
        return Linear(self.classes, name="linear")(found)


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
    return greatest(cosine.reshape(cosine.shape[0], -1, *cosine.shape[3:]))


def directions(prototypes: Float[Array, "C J D"]) -> Float[Array, "C J D"]:
    """Return prototypes of about unit length, for `strongest` and `losses.orthogonality`."""
    length = jnp.sqrt(jnp.sum(prototypes**2, -1, keepdims=True) + EPSILON)
    return prototypes / (length + EPSILON)


def _unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Return vectors of length 1; those that are 0 stay so, and get no gradient from their length."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), 1e-24))
