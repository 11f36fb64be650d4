"""What goes on inside an encoder, block by block: for comparisons with a reference."""

from typing import Any

import jax.numpy as jnp

from ssl_audio.convert.base import unstacked
from ssl_audio.structs import Tokens
from ssl_audio.tokens.order import in_time


def join(encoded: Any) -> Any:
    """Return the special tokens and the patch tokens as one sequence [B, P + N, D]."""
    return jnp.concatenate([encoded.special, encoded.tokens.x], axis=1)


def streams(encoder: Any, params: Any, tokens: Tokens) -> tuple[list[Any], list[dict[str, Any]]]:
    """Run an encoder without its final norm, one block at a time.

    Returns:
      The residual stream before the first block and after each one, [B, P + N, D]; and for each
      block what its submodules returned, by name.
    """
    x = entry(encoder, params, tokens)
    index = jnp.pad(tokens.index, ((0, 0), (encoder.special, 0)), constant_values=-1)
    carry = encoder.block.start(x)
    found, inside = [x], []
    for layer in unstacked(params["layers"]):
        carry, captured = encoder.block.apply(
            {"params": layer},
            *(carry, index, None, None),
            dtype=jnp.float32,
            train=False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        found.append(encoder.block.stream(carry))
        named = captured["intermediates"].items()
        inside.append({name: v["__call__"][0] for name, v in named if "__call__" in v})
    return found, inside


def entry(encoder: Any, params: Any, tokens: Tokens) -> Any:
    """Return what enters an encoder's first layer, [B, P + N, D], in the order of the tokens given."""
    back = None
    if encoder.time_major:
        tokens, back = in_time(tokens)
    place, special_place = encoder.positions.apply(
        {"params": params["positions"]}, tokens, encoder.special
    )
    x = tokens.x + place
    if encoder.special:
        special = params["special"] + special_place
        special = jnp.broadcast_to(special, (x.shape[0], *special.shape))
        x = jnp.concatenate([special, x], axis=1)
    if encoder.first_norm:
        x = encoder.first_norm.apply({"params": params["first_norm"]}, x)
    return x if back is None else jnp.take_along_axis(x, back[..., None], axis=1)
