"""From a tower's vector to the space that towers share."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.dense import Linear
from ssl_audio.layers.norms import BatchNorm, BatchOnlyNorm, LayerNorm
from ssl_audio.slots import Projector


class OneLayer(nn.Module):
    """One linear layer.

    Attributes:
      out: O.
      bias: whether it has one; CLIP's has none.
    """

    out: int = 128
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        """Project."""
        return Linear(self.out, bias=self.bias, name="linear")(x)


class Laion(nn.Module):
    """Linear → ReLU → Linear, both `out` wide (LAION-CLAP, arXiv:2211.06687)."""

    out: int = 512

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        """Project."""
        return Linear(self.out, name="second")(nn.relu(Linear(self.out, name="first")(x)))


class Msclap(nn.Module):
    """LayerNorm(Wx + V GELU(Wx)), without biases (Microsoft's CLAP, arXiv:2309.05767).

    The published dropout of one half, before the sum, is left out.
    """

    out: int = 1024

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B O"]:
        """Project."""
        first = nn.Dense(self.out, use_bias=False, name="first")(x)
        hidden = nn.gelu(first, approximate=False)
        second = nn.Dense(self.out, use_bias=False, name="second")(hidden)
        return LayerNorm(1e-5, name="norm")(first + second)


class Byol(nn.Module):
    """Linear → LayerNorm → ReLU → Linear; also the predictor of BYOL-like objectives.

    Attributes:
      out: O.
      hidden: width between.
      norm: where BYOL (arXiv:2006.07733) has batch normalisation, a LayerNorm, so that examples stay
        independent; False: none.
    """

    out: int = 512
    hidden: int = 4096
    norm: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B O"]:
        """Project."""
        hidden = Linear(self.hidden, name="first")(x)
        hidden = LayerNorm(1e-5, name="norm")(hidden) if self.norm else hidden
        return Linear(self.out, name="second")(nn.relu(hidden))


class Swav(nn.Module):
    """Linear → batch normalisation → ReLU → Linear (SwAV and DeepCluster-v2, arXiv:2006.09882).

    Attributes:
      out: O.
      hidden: width between.
    """

    out: int = 512
    hidden: int = 2048

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B O"]:
        """Project."""
        x = BatchNorm(name="norm")(Linear(self.hidden, name="first")(x))
        return Linear(self.out, name="second")(nn.relu(x))


class BarlowTwins(nn.Module):
    """Three linear layers without biases; batch normalisation and ReLU between them (arXiv:2103.03230).

    Attributes:
      out: O.
      hidden: width between; 0: `out`.
    """

    out: int = 8192
    hidden: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B O"]:
        """Project."""
        for number, width in enumerate((self.hidden or self.out,) * 2):
            x = Linear(width, bias=False, name=f"linear_{number}")(x)
            x = nn.relu(BatchNorm(name=f"norm_{number}")(x))
        return Linear(self.out, bias=False, name="linear_2")(x)


class FineToCoarse(nn.Module):
    """A vector of a fine space, and of it one of a coarse space (FAC of VATT, arXiv:2104.11178, section 3.3).

    Linear → batch norm → ReLU → Linear → batch norm; then ReLU → Linear → batch norm. The linear layers have
    no biases. Video meets sound in the fine space and text in the coarse one.

    Attributes:
      fine, coarse: widths of the spaces.
    """

    fine: int = 512
    coarse: int = 256

    branches: ClassVar[tuple[str, ...]] = ("coarse", "fine")

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> dict[str, Float[Array, "B O"]]:
        """Return the vectors by name."""
        x = BatchNorm(name="norm_0")(Linear(self.fine, bias=False, name="first")(x))
        x = Linear(self.fine, bias=False, name="second")(nn.relu(x))
        fine = BatchNorm(name="norm_1")(x)
        x = Linear(self.coarse, bias=False, name="third")(nn.relu(fine))
        return {"coarse": BatchNorm(name="norm_2")(x), "fine": fine}


class ReluNorm(nn.Module):
    """ReLU → Linear without bias → batch norm: VATT's head of one space for all (arXiv:2104.11178).

    Attributes:
      out: O.
    """

    out: int = 512

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B O"]:
        """Project."""
        return BatchNorm(name="norm")(Linear(self.out, bias=False, name="linear")(nn.relu(x)))


class Branches(nn.Module):
    """Several projections of one vector, for spaces that are learned by different losses.

    Attributes:
      branches: name → projector; their vectors are equally long.
    """

    branches: Mapping[str, Projector]

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B K O"]:
        """Project by each branch, in the order of their names."""
        return jnp.stack([m.copy(name=n)(x) for n, m in sorted(self.branches.items())], axis=1)


class AudioMosaic(nn.Module):
    """LayerNorm → Linear → batch norm → ReLU → Linear → batch norm without a shift (arXiv:2605.14231).

    The linear layers have no biases. Statistics are those of the batch, and are not kept: nothing of the
    projector is used after training.

    Attributes:
      out: O.
      hidden: width between.
    """

    out: int = 128
    hidden: int = 512

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B O"]:
        """Project."""
        x = LayerNorm(1e-6, name="norm")(x)
        x = Linear(self.hidden, bias=False, name="first")(x)
        x = nn.relu(BatchOnlyNorm(name="norm_first")(x))
        x = Linear(self.out, bias=False, name="second")(x)
        return BatchOnlyNorm(shift=False, name="norm_second")(x)
