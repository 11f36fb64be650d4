"""A diffusion Transformer: noised latents, a time and conditions → what is to be predicted of them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.backbones.stack import check_depth, over_layers
from ssl_audio.layers.dit import DitBlock


class Dit(nn.Module):
    """Peebles & Xie 2023 (arXiv:2212.09748) as in Stable Audio Open (arXiv:2407.14358, section 3).

    Time and global condition are one token in front; every layer attends to the other condition.

    Attributes:
      width, depth, heads: D, the number of layers, H.
      given: width of the condition after its perceptron; 0: as it comes.
      ratio: of the perceptrons' inner width to D.
      waves: of the time.
      remat: see `Stack`.
    """

    width: int = 1536
    depth: int = 24
    heads: int = 24
    given: int = 0
    ratio: float = 4.0
    waves: int = 128
    remat: str = "none"

    def __post_init__(self):
        super().__post_init__()
        check_depth("dit: depth", self.depth)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N E"],
        time: Float[Array, " B"],
        condition: Float[Array, "B M C"],
        globally: Float[Array, "B G"] | None = None,
    ) -> Float[Array, "B N E"]:
        """Return predictions for latents.

        Args:
          x: noised latents.
          time: 0 (none) to 1 (noise alone).
          condition: such as encoded words; zeros: none.
          globally: one vector for the whole, such as begin and length; None: none.
        """
        width = x.shape[-1]

        def two(name: str, to: int, y: Array, *, bias: bool = False) -> Array:
            y = nn.Dense(to, use_bias=bias, name=f"{name}_in")(y)
            return nn.Dense(to, use_bias=bias, name=f"{name}_out")(jax.nn.silu(y))

        token = two("time", self.width, self.waved(time), bias=True)
        condition = two("condition", self.given or condition.shape[-1], condition)
        if globally is not None:
            token = token + two("globally", self.width, globally)
        x = x + nn.Dense(width, use_bias=False, name="before")(x)
        x = nn.Dense(self.width, use_bias=False, name="into")(x)
        x = jnp.concatenate([token[:, None], x], 1)
        block = DitBlock(self.heads, self.ratio, name="layers")

        def body(block, x, _):
            return block(x, condition), None

        x, _ = over_layers(body, self.depth, self.remat)(block, x, None)
        x = nn.Dense(width, use_bias=False, kernel_init=nn.initializers.zeros, name="outof")(
            x[:, 1:]
        )
        return x + nn.Dense(width, use_bias=False, name="after")(x)

    def waved(self, time: Float[Array, " B"]) -> Any:
        """Return cosines and sines of the time, of learned frequencies."""
        rate = self.param("rate", nn.initializers.normal(1.0), (self.waves,), jnp.float32)
        angle = 2 * jnp.pi * time[:, None] * rate[None]
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
