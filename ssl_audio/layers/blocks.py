"""Residual blocks and their parts: one layer of a stack, or a pair."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.dense import xavier
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.slots import Layer, Norm


def drop_path(
    x: Float[Array, "B N D"], rate: Float[Array, ""] | float, key: Array | None
) -> Float[Array, "B N D"]:
    """Zero whole examples with probability `rate`, scale the rest by 1/(1-rate). No key: no change."""
    if key is None:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1))
    return x * keep / (1 - rate)


class Mlp(nn.Module):
    """Two-layer perceptron with exact (erf) GELU.

    Attributes:
      ratio: of the hidden width to D.
      gain: of a Xavier-normal start; None: a normal one of deviation 0.02.
    """

    ratio: float
    gain: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *N D"]) -> Float[Array, "B *N D"]:
        """Map every token by itself."""
        init = xavier(self.gain)
        hidden = nn.Dense(
            round(self.ratio * x.shape[-1]), dtype=x.dtype, kernel_init=init, name="up"
        )(x)
        hidden = nn.gelu(hidden, approximate=False)
        return nn.Dense(x.shape[-1], dtype=x.dtype, kernel_init=init, name="down")(hidden)


def perceptron(given: Any) -> nn.Module:
    """Return a layer's perceptron: the given module, or an `Mlp` of that ratio; named "mlp"."""
    return given if isinstance(given, nn.Module) else Mlp(given, name="mlp")


def mixed(mixer: nn.Module, y, index, valid, train: bool, pair_bias) -> Any:
    """Call a mixer, with a bias on pairs of tokens if it takes one."""
    more = {} if pair_bias is None else {"pair_bias": pair_bias}
    return mixer(y, index, valid, train=train, **more)


class PreNorm(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)) unless `mlp` is 0. One layer.

    Attributes:
      mixer, norm: templates.
      mlp: template, or the ratio of an `Mlp`.
      second_norm: of the perceptron's input; None: `norm` for both.
      tap: report, as the stream after each block, what its last branch gives before it is added: the
        perceptron, or where there is none the mixer. It is for reading layers as targets: the stack's own
        output then means nothing.
    """

    mixer: Layer
    norm: Norm = LayerNorm()
    mlp: Layer = 4.0
    tap: bool = False
    second_norm: Norm = None

    layers = 1

    def start(self, x: Float[Array, "B N D"]):
        """Return what the layers carry: the residual stream; and the last branch's output, if tapped."""
        return (x, jnp.zeros_like(x)) if self.tap else x

    def stream(self, carry, rate=0.0, key=None) -> Float[Array, "B N D"]:
        """Return what is reported of the carry."""
        del rate, key
        return carry[1] if self.tap else carry

    def rates(self, rate: float, depth: int):
        """Return the drop-path rates of all layers, [L, 1]."""
        return jnp.linspace(0, rate, depth)[:, None]

    @nn.compact
    def __call__(self, carry, index, valid, rates, *, dtype, train: bool, pair_bias=None):
        """Apply the layer to the stream x [B, N, D]; `rates` [1] is its drop-path rate."""
        x = carry[0] if self.tap else carry

        def branch(inner, name):
            norm = self.second_norm if name == "mlp" and self.second_norm else self.norm
            y = inner(norm.copy(name=f"norm_{name}")(x).astype(dtype)).astype(x.dtype)
            key = self.make_rng("drop_path") if rates is not None else None
            return x + drop_path(y, 0.0 if rates is None else rates[0], key), y

        x, y = branch(lambda y: mixed(self.mixer, y, index, valid, train, pair_bias), "mixer")
        if self.mlp:
            x, y = branch(perceptron(self.mlp), "mlp")
        x = nn.with_logical_constraint(x, ("batch", "tokens", "width"))
        return (x, y) if self.tap else x


class MirroredPair(nn.Module):
    """Two layers, the second on the reversed sequence, summed: SSAMBA as published (no MLP).

    The carry is (stream, branch): `branch` is the last mixers' output, which the *next* layer drops
    and adds. Both layers add it to the same stream and their sums are added, so the stream doubles.
    """

    mixer: Layer
    norm: Norm = LayerNorm(1e-5)

    layers = 2

    def start(self, x: Float[Array, "B N D"]):
        """Return what the layers carry: an empty stream and a pending branch."""
        return jnp.zeros_like(x), x

    def stream(self, carry, rate=0.0, key=None) -> Float[Array, "B N D"]:
        """Return the residual stream held in the carry, the pending branch added."""
        stream, branch = carry
        return stream + drop_path(branch, rate, key)

    def rates(self, rate: float, depth: int):
        """Return the drop-path rates of the branch coming into each layer, [L/2, 2]."""
        return jnp.concatenate([jnp.zeros(1), jnp.linspace(0, rate, depth)[:-1]]).reshape(-1, 2)

    @nn.compact
    def __call__(self, carry, index, valid, rates, *, dtype, train: bool):
        """Apply both layers; `rates` [2] are their drop-path rates of the incoming branch."""
        stream, branch = carry

        def layer(name, rate, flip):
            key = self.make_rng("drop_path") if rates is not None else None
            residual = stream + drop_path(branch, rate, key)
            y = self.norm.copy(name=f"norm_{name}")(residual).astype(dtype)
            mixer = self.mixer.copy(name=f"mixer_{name}")
            y = flip(mixer(flip(y), flip(index), flip(valid), train=train))
            return residual, y.astype(stream.dtype)

        first, second = (0.0, 0.0) if rates is None else rates
        r1, y1 = layer("ahead", first, lambda a: a)
        r2, y2 = layer("mirrored", second, lambda a: None if a is None else a[:, ::-1])
        return jax.tree.map(
            lambda a: nn.with_logical_constraint(a, ("batch", "tokens", "width")),
            (r1 + r2, y1 + y2),
        )
