"""The encoder: special tokens, positions, residual blocks scanned over layers, final norm.

Layers are always stacked [L, …] and this is the only file with lifted transforms (scan, remat).
A Transformer and a Mamba encoder differ in `block.mixer` alone.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ssl_audio.layers.dense import INIT
from ssl_audio.layers.lora import multiplied
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.layers.scan import fused_cpp
from ssl_audio.slots import Layer, Norm, Positions
from ssl_audio.structs import Encoded, Tokens
from ssl_audio.tokens.order import in_time


def _products(primitive: Any, *inputs: Any, **parameters: Any) -> bool:
    """Keep what matrix products give, and attention and scans where a fused kernel computes them.

    Not the products of two matrices, as of an adapter: they have no batch, and are cheap to make again.
    """
    if all(getattr(x, "ndim", 0) <= 2 for x in inputs):
        return False
    fused = primitive.name.startswith("dot_product_attention_fwd")
    fused = fused or parameters.get("target_name") in fused_cpp.KEPT
    return fused or jax.checkpoint_policies.dots_saveable(primitive, *inputs, **parameters)


REMAT = {
    "none": None,
    "dots": _products,
    "full": jax.checkpoint_policies.nothing_saveable,
}


SMALL = 2**16  # bytes; smaller slices are materialized before their layer begins


def materialized(params: Any) -> Any:
    """Return a layer's parameters, small matrices copied out of their stacked arrays on a CPU.

    XLA's CPU compiler fuses the slice that picks a layer's part of a stacked array into every loop that
    reads it: the index is then computed, and held to its bounds, for each element, and the loop is not
    turned into vectors. It fuses nothing across the border of a conditional.
    """
    if jax.default_backend() != "cpu":
        return params
    leaves, tree = jax.tree.flatten(params)
    # Not vectors, such as biases and norms: a loop reads them as they lie.
    small = [i for i, x in enumerate(leaves) if x.ndim > 1 and x.size * x.dtype.itemsize <= SMALL]
    if not small:
        return params
    for i, x in zip(small, _materialized([leaves[i] for i in small]), strict=True):
        leaves[i] = x
    return jax.tree.unflatten(tree, leaves)


@jax.custom_jvp
def _materialized(arrays: list[Any]) -> list[Any]:
    # Both branches change nothing, but JAX must not see so: it would drop the conditional.
    either = jnp.ravel(arrays[0])[0] < 0
    return lax.cond(either, lax.optimization_barrier, lambda same: same, arrays)


@_materialized.defjvp
def _materialized_jvp(primals: Any, tangents: Any) -> Any:
    return _materialized(*primals), tangents[0]  # gradients need no detour


def whole(params: Any) -> Any:
    """Return a layer's parameters as its modules want them."""
    return multiplied(materialized(params))


def over_layers(body: Any, count: int, remat: str) -> Any:
    """Return the scan of body(block, carry, x) → (carry, y) over layers whose parameters are stacked.

    Args:
      body: one layer.
      count: number of layers.
      remat: see `Stack`.
    """

    def layer(block: Any, carry: Any, x: Any) -> Any:
        if block.is_initializing():
            return body(block, carry, x)
        return nn.map_variables(body, "params", trans_in_fn=whole)(block, carry, x)

    if remat != "none":  # around it: the copies are made again, not kept
        layer = nn.remat(layer, policy=REMAT[remat], prevent_cse=False)
    return nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "drop_path": True},
        length=count,
    )


DEEPEST = 1024  # layers; a number beyond is a mistake, and building them would take for ever


def check_depth(where: str, *depths: int) -> None:
    """Raise ValueError unless these are numbers of layers."""
    for depth in depths:
        if not 1 <= depth <= DEEPEST:
            raise ValueError(f"{where} is {depth}; wanted 1 to {DEEPEST}.")


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
    block: Layer
    positions: Positions = None
    special: int = 0
    first_norm: Norm = None
    final_norm: Norm = LayerNorm()
    pair_bias: Layer = None
    time_major: bool = False
    drop_path: float = 0.0
    dtype: str = "float32"
    remat: str = "dots"

    def __post_init__(self):
        super().__post_init__()
        check_depth("stack: depth", self.depth)
        if self.width < 1:
            raise ValueError(f"stack: width is {self.width}; wanted 1 or more.")
        if self.depth % self.block.layers:
            raise ValueError(f"depth {self.depth} is not a multiple of {self.block.layers}.")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}; wanted 0 to 1, and less than 1.")
        if self.remat not in REMAT:
            raise ValueError(f"remat '{self.remat}': wanted one of {', '.join(REMAT)}.")

    @property
    def hides_padding(self) -> bool:
        """Whether tokens that are not valid change no others, however many there are."""
        return self.positions is None or getattr(self.positions, "hides_padding", False)

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
        specials = outputs[:, :, : self.special] if layers and self.special else None
        outputs = outputs[:, :, self.special : self.special + count] if layers else None
        if back is not None:
            x = jnp.take_along_axis(x, back[..., None], axis=1)
            if layers:
                outputs = jnp.take_along_axis(outputs, back[None, ..., None], axis=2)
        return Encoded(
            tokens=dataclasses.replace(given, x=x),
            special=special if self.special else None,
            layers=outputs,
            specials=specials,
        )

    def _scan(self, block, carry, index, valid, rates, train, layers, more):
        dtype = jnp.dtype(self.dtype)

        def body(block, carry, rates):
            carry = block(carry, index, valid, rates, dtype=dtype, train=train, **more)
            return carry, block.stream(carry) if layers else None

        return over_layers(body, self.depth // block.layers, self.remat)(block, carry, rates)
