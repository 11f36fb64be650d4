"""The parts of T5's encoder (Raffel et al. 2020, arXiv:1910.10683) that other encoders do not have.

Its config subtree is `t5`; the bias by distance is `relative.py`'s.
"""

import flax.linen as nn

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.attention import BLOCK, attend, known
from ssl_audio.layers.dense import INIT

ACTIVATIONS = ("relu", "gated-gelu", "gelu")


class T5Attention(nn.Module):
    """Softmax attention without scale and biases, its heads of any size, with a bias on pairs.

    Attributes:
      heads: H.
      size: width of a head.
      implementation, block: see `attention.attend`.
    """

    heads: int
    size: int = 64
    implementation: str = "auto"
    block: int = BLOCK

    def __post_init__(self):
        super().__post_init__()
        known(self.implementation)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        index: Int[Array, "B N"] | None = None,
        valid: Bool[Array, "B N"] | None = None,
        *,
        train: bool = False,
        pair_bias: Float[Array, "H N N"],
    ) -> Float[Array, "B N D"]:
        """Mix tokens; those not `valid` are not attended to. `index` is not used."""
        del index, train
        inner = self.heads * self.size

        def heads(name: str) -> Array:
            y = nn.Dense(inner, use_bias=False, dtype=x.dtype, kernel_init=INIT, name=name)(x)
            return y.reshape(*x.shape[:2], self.heads, self.size)

        mixed = attend(
            *(heads(name) for name in ("q", "k", "v")),
            bias=pair_bias,
            valid=valid,
            implementation=self.implementation,
            block=self.block,
        ).reshape(*x.shape[:2], inner)
        return nn.Dense(x.shape[-1], use_bias=False, dtype=x.dtype, kernel_init=INIT, name="out")(
            mixed
        )


class T5Mlp(nn.Module):
    """Two-layer perceptron without biases: ReLU (T5), GELU (VATT), or GELU times another half (T5 1.1, Flan).

    Attributes:
      hidden: width between.
      activation: "relu"; "gated-gelu", whose GELU is the tanh approximation; "gelu", exact (VATT).
    """

    hidden: int
    activation: str = "gated-gelu"

    def __post_init__(self):
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation '{self.activation}': wanted one of {ACTIVATIONS}.")

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Map every token by itself."""

        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, use_bias=False, dtype=x.dtype, kernel_init=INIT, name=name)

        hidden = dense(self.hidden, "up")(x)
        if self.activation == ACTIVATIONS[0]:
            hidden = nn.relu(hidden)
        elif self.activation == ACTIVATIONS[2]:
            hidden = nn.gelu(hidden, approximate=False)
        else:
            hidden = nn.gelu(hidden, approximate=True) * dense(self.hidden, "gate")(x)
        return dense(x.shape[-1], "down")(hidden)
