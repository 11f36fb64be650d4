"""Heads of self-distillation: class scores of clips and patches, and pixels of patches (ASiT)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.heads.readout import special_tokens
from ssl_audio.layers.dense import INIT
from ssl_audio.structs import Encoded


class Prototypes(nn.Module):
    """Cosines with learned unit vectors, each times a gain that training leaves as it is."""

    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B C"]:
        """Return x times the unit vectors."""
        kernel = self.param("kernel", INIT, (x.shape[-1], self.out), jnp.float32)
        gain = self.param("gain", nn.initializers.ones, (self.out,), jnp.float32)
        length = jnp.linalg.norm(kernel, axis=0, keepdims=True)
        return x @ (kernel * jax.lax.stop_gradient(gain)[None] / length)


class DistillHead(nn.Module):
    """A shared perceptron, then prototypes of clips and of patches.

    Atito et al. 2022, ASiT (arXiv:2211.13189); after DINO (arXiv:2104.14294).

    Attributes:
      clip, patch: number of prototypes of each.
      hidden: width of the perceptron.
      bottleneck: values that are compared with the prototypes.
    """

    clip: int = 8192
    patch: int = 1024
    hidden: int = 2048
    bottleneck: int = 256

    @nn.compact
    def __call__(self, encoded: Encoded):
        """Return scores of the clips [B, clip] and of their patches [B, N, patch]."""
        both = jnp.concatenate([special_tokens(encoded)[:, None], encoded.tokens.x], axis=1)
        x = perceptron((self.hidden, self.hidden, self.bottleneck), both, last=False)
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        clip = Prototypes(self.clip, name="clip_prototypes")(x[:, 0])
        return clip, Prototypes(self.patch, name="patch_prototypes")(x[:, 1:])


class PixelHead(nn.Module):
    """A perceptron with a GELU after every layer, then a linear map to the pixels of each patch.

    The map has one bias for all pixels, as a transposed convolution to one channel has.

    Attributes:
      hidden, bottleneck: widths of the layers.
    """

    hidden: int = 768
    bottleneck: int = 128

    @nn.compact
    def __call__(self, encoded: Encoded, values: int) -> Float[Array, "B N G"]:
        """Return G = `values` pixels of each token's patch."""
        x = perceptron((self.hidden, self.hidden, self.bottleneck), encoded.tokens.x, last=True)
        kernel = self.param("kernel", INIT, (self.bottleneck, values), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (1,), jnp.float32)
        return x @ kernel + bias[None, None]


def perceptron(sizes: tuple[int, ...], x: Array, *, last: bool) -> Array:
    """Apply linear layers with GELU in between, and after the last one if requested."""
    for number, size in enumerate(sizes):
        x = nn.Dense(size, kernel_init=INIT, name=f"layer_{number}")(x)
        if last or number + 1 < len(sizes):
            x = nn.gelu(x, approximate=False)
    return x
