"""The encoder: special tokens, positions, residual blocks scanned over layers, final norm.

Layers are always stacked [L, …] and this is the only file with lifted transforms (scan, remat).
A Transformer and a Mamba encoder differ in `block.mixer` alone.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.backbones.attention import INIT
from ssl_audio.backbones.norms import LayerNorm
from ssl_audio.letters import Array, Float
from ssl_audio.structs import Encoded, Tokens
from ssl_audio.tokens.order import in_time

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def drop_path(
    x: Float[Array, "B N D"], rate: Float[Array, ""] | float, key: Array | None
) -> Float[Array, "B N D"]:
    """Zero whole examples with probability `rate`, scale the rest by 1/(1-rate). No key: no change."""
    if key is None:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1))
    return x * keep / (1 - rate)


def over_layers(body: Any, count: int, remat: str) -> Any:
    """Return the scan of body(block, carry, x) → (carry, y) over layers whose parameters are stacked.

    Args:
      body: one layer.
      count: number of layers.
      remat: see `Stack`.
    """
    if remat != "none":
        body = nn.remat(body, policy=REMAT[remat], prevent_cse=False)
    return nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True, "drop_path": True},
        length=count,
    )


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


def xavier(gain: float | None) -> Any:
    """Return a Xavier-normal initialiser times a gain; None: a normal one of deviation 0.02."""
    if gain is None:
        return INIT
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "normal")


def perceptron(given: Any) -> nn.Module:
    """Return a layer's perceptron: the given module, or an `Mlp` of that ratio; named "mlp"."""
    return given if isinstance(given, nn.Module) else Mlp(given, name="mlp")


def mixed(mixer: nn.Module, y, index, valid, train: bool, pair_bias) -> Any:
    """Call a mixer; only one that knows about it is given a bias on pairs of tokens."""
    more = {} if pair_bias is None else {"pair_bias": pair_bias}
    return mixer(y, index, valid, train=train, **more)


class PreNorm(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)) unless `mlp` is 0. One layer.

    Attributes:
      mixer, norm: templates.
      mlp: template, or the ratio of an `Mlp`.
    """

    mixer: nn.Module
    norm: nn.Module = LayerNorm()
    mlp: Any = 4.0

    layers = 1

    def start(self, x: Float[Array, "B N D"]):
        """Return what the layers carry: the residual stream."""
        return x

    def stream(self, carry, rate=0.0, key=None) -> Float[Array, "B N D"]:
        """Return the residual stream held in the carry."""
        del rate, key
        return carry

    def rates(self, rate: float, depth: int):
        """Return the drop-path rates of all layers, [L, 1]."""
        return jnp.linspace(0, rate, depth)[:, None]

    @nn.compact
    def __call__(self, x, index, valid, rates, *, dtype, train: bool, pair_bias=None):
        """Apply the layer to the stream x [B, N, D]; `rates` [1] is its drop-path rate."""

        def branch(inner, name):
            y = inner(self.norm.copy(name=f"norm_{name}")(x).astype(dtype))
            key = self.make_rng("drop_path") if rates is not None else None
            return x + drop_path(y.astype(x.dtype), 0.0 if rates is None else rates[0], key)

        x = branch(lambda y: mixed(self.mixer, y, index, valid, train, pair_bias), "mixer")
        if self.mlp:
            x = branch(perceptron(self.mlp), "mlp")
        return nn.with_logical_constraint(x, ("batch", "tokens", "width"))


class MirroredPair(nn.Module):
    """Two layers, the second on the reversed sequence, summed: SSAMBA as published (no MLP).

    The carry is (stream, branch): `branch` is the last mixers' output, which the *next* layer drops
    and adds. Both layers add it to the same stream and their sums are added, so the stream doubles.
    """

    mixer: nn.Module
    norm: nn.Module = LayerNorm(1e-5)

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


class Stack(nn.Module):
    """A patch encoder: [specials, patches] + positions → depth layers → final norm.

    Attributes:
      width, depth: D and the number of layers.
      block: template of a residual block; its layers must divide depth.
      positions: template of an absolute position embedding, or None.
      special: learned tokens put first (1: cls; 2: cls and distillation).
      first_norm: applied to the stream before the first layer, as post-norm blocks want it; None: as it is.
      final_norm: applied to the stream after the last layer; None: post-norm blocks have done so.
      pair_bias: template of a bias on pairs of tokens, one for all layers: for mixers that take it.
      time_major: the layers see the tokens column by column, not row by row. It matters to whatever
        asks for neighbours or distances in the sequence. Results are in the order of the input.
      drop_path: stochastic-depth rate of the last layer; it rises linearly from 0.
      dtype: of the mixers and MLPs. The residual stream, the norms and the SSM state stay float32.
      remat: "dots" keeps matrix products for the backward pass, "full" keeps nothing, "none" all.
    """

    width: int
    depth: int
    block: nn.Module
    positions: nn.Module | None = None
    special: int = 0
    first_norm: nn.Module | None = None
    final_norm: nn.Module | None = LayerNorm()
    pair_bias: nn.Module | None = None
    time_major: bool = False
    drop_path: float = 0.0
    dtype: str = "float32"
    remat: str = "dots"

    def __post_init__(self):
        super().__post_init__()
        if self.depth % self.block.layers:
            raise ValueError(f"depth {self.depth} is not a multiple of {self.block.layers}.")
        if self.remat not in REMAT:
            raise ValueError(f"remat '{self.remat}': wanted one of {', '.join(REMAT)}.")

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode patch tokens; `layers` also returns the stream after every block."""
        given, back = tokens, None
        if self.time_major:
            tokens, back = in_time(tokens)
        tokens = dataclasses.replace(tokens, x=tokens.x.astype(jnp.float32))
        if tokens.valid is not None:  # what reaches over to neighbours must not meet padding
            tokens = dataclasses.replace(tokens, x=jnp.where(tokens.valid[..., None], tokens.x, 0))
        x, index, valid = tokens.x, tokens.index, tokens.valid
        batch, count = x.shape[:2]
        place, special_place = 0.0, 0.0
        if self.positions:
            place, special_place = self.positions(tokens, self.special)
        x = x + place
        if self.special:
            special = self.param("special", INIT, (self.special, self.width), jnp.float32)
            special = jnp.broadcast_to(special + special_place, (batch, *special.shape))
            x = jnp.concatenate([special, x], axis=1)
            index = jnp.pad(index, ((0, 0), (self.special, 0)), constant_values=-1)
            if valid is not None:
                valid = jnp.pad(valid, ((0, 0), (self.special, 0)), constant_values=True)
        if self.first_norm:
            x = self.first_norm(x)
        x = nn.with_logical_constraint(x, ("batch", "tokens", "width"))
        more = {"pair_bias": self.pair_bias(x.shape[1])} if self.pair_bias else {}

        block = self.block.copy(name="layers")
        rate = self.drop_path if train else 0.0
        rates = block.rates(rate, self.depth) if rate else None
        outputs: Any
        x, outputs = self._scan(block, block.start(x), index, valid, rates, train, layers, more)
        key = self.make_rng("drop_path") if rate else None
        x = block.stream(x, rate, key)
        x = self.final_norm(x) if self.final_norm else x
        special, x = x[:, : self.special], x[:, self.special :]
        outputs = outputs[:, :, self.special : self.special + count] if layers else None
        if back is not None:
            x = jnp.take_along_axis(x, back[..., None], axis=1)
            if layers:
                outputs = jnp.take_along_axis(outputs, back[None, ..., None], axis=2)
        return Encoded(
            tokens=dataclasses.replace(given, x=x),
            special=special if self.special else None,
            layers=outputs,
        )

    def _scan(self, block, carry, index, valid, rates, train, layers, more):
        dtype = jnp.dtype(self.dtype)

        def body(block, carry, rates):
            carry = block(carry, index, valid, rates, dtype=dtype, train=train, **more)
            return carry, block.stream(carry) if layers else None

        return over_layers(body, self.depth // block.layers, self.remat)(block, carry, rates)
