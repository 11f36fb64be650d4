"""Diffusion Transformers of stable-audio-tools: Stable Audio Open, Synthio (arXiv:2410.02056)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    count,
    dense,
    need,
    plain_names,
    unstacked,
)
from ssl_audio.convert.options import Options
from ssl_audio.layers.dit import TURNED
from ssl_audio.objectives.noise import guided

PREFIXES = ("model.model.", "model.", "")
BUFFERS = ("transformer.rotary_pos_emb.inv_freq",)
LAYER = "transformer.layers.{}."
LINEAR = {
    "qkv": "self_attn.to_qkv",
    "out": "self_attn.to_out",
    "q": "cross_attn.to_q",
    "kv": "cross_attn.to_kv",
    "cross_out": "cross_attn.to_out",
    "up": "ff.ff.0.proj",
    "down": "ff.ff.2",
}
NORMS = {"norm_self": "pre_norm", "norm_cross": "cross_attend_norm", "norm_mlp": "ff_norm"}
PAIRS = {"time": "to_timestep_embed", "condition": "to_cond_embed", "globally": "to_global_embed"}
AROUND = {"into": "transformer.project_in", "outof": "transformer.project_out"}
CONVS = {"before": "preprocess_conv", "after": "postprocess_conv"}


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the Transformer; arrays of the autoencoder and of conditioners are kept for the way back.

    Options: num_heads (the width / 64). Held against the arrays: io_channels, embed_dim, depth,
    cond_token_dim, project_cond_tokens, global_cond_dim.

    `forward(x=[B, E, N], t=[B], cross_attn_cond=[B, M, C], global_embed=[B, G])` gives v, timestep_embed,
    v_null_text, v_cfg3 (guidance 3) and v_cfg3_phi0p7 (rescaled by 0.7).

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    given, asked = plain_names(state_dict), Options(options)
    prefix = next(p for p in PREFIXES if f"{p}preprocess_conv.weight" in given or not p)
    state = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    kept = {n: v for n, v in given.items() if not n.startswith(prefix)}
    into, rate, hidden = need(
        state,
        "transformer.project_in.weight",
        "timestep_features.weight",
        f"{LAYER.format(0)}{LINEAR['down']}.weight",
    )
    text, first = need(state, "to_cond_embed.0.weight", "to_cond_embed.2.weight")
    width, io = into.shape
    depth, where = count(state, "transformer.layers."), f"project_in {into.shape}"
    whole = state.get("to_global_embed.0.weight")
    for name, value in (
        ("io_channels", io),
        ("embed_dim", width),
        ("depth", depth),
        ("cond_token_dim", text.shape[1]),
        ("project_cond_tokens", len(first) == width != text.shape[1]),
        ("global_cond_dim", 0 if whole is None else whole.shape[1]),
    ):
        if name != "project_cond_tokens" or len(first) != width:
            asked.found(name, value, where)
        else:  # of equal widths either way is the same
            asked.get(name)
    asked.only("transformer_type", "continuous_transformer")
    asked.only("global_cond_type", "prepend")
    heads = asked.heads("num_heads", width)
    asked.finish()
    kept |= {f"{prefix}{n}": state.pop(n) for n in list(state) if _buffer(n, state, width // heads)}
    objective = dict(
        kind="diffusion",
        model=dict(
            kind="dit", width=width, depth=depth, heads=heads, given=len(first),
            ratio=hidden.shape[1] / width, waves=len(rate),
        ),
    )  # fmt: skip
    config = dict(objective=objective, reference=dict(prefix=prefix))
    blank = {
        "latents": jax.ShapeDtypeStruct((1, 2, io), np.float32),
        "condition": jax.ShapeDtypeStruct((1, 2, text.shape[1]), np.float32),
    }
    if whole is not None:
        blank["globally"] = jax.ShapeDtypeStruct((1, whole.shape[1]), np.float32)
    built, params, left = build(config, _written, state, blank=blank)

    def outputs(params, x, t, cross_attn_cond, global_embed=None):
        weights, turned = {"params": params["model"]}, x.swapaxes(1, 2)

        def said(condition):
            return built.model.apply(weights, turned, t, condition, global_embed)

        found, free = said(cross_attn_cond), said(jnp.zeros_like(cross_attn_cond))
        found = {
            "v": found,
            "v_null_text": free,
            "v_cfg3": guided(found, free, 3.0),
            "v_cfg3_phi0p7": guided(found, free, 3.0, 0.7),
        }
        model = params["model"]
        angle = 2 * jnp.pi * t[:, None] * model["rate"][None]
        time = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
        time = jax.nn.silu(time @ model["time_in"]["kernel"] + model["time_in"]["bias"][None])
        time = time @ model["time_out"]["kernel"] + model["time_out"]["bias"][None]
        return {n: v.swapaxes(1, 2) for n, v in found.items()} | {"timestep_embed": time}

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters under the names of stable-audio-tools."""
    prefix = config.get("reference", {}).get("prefix", "")
    return {f"{prefix}{name}": value for name, value in _written(params).items()}


def _buffer(name: str, state: dict[str, np.ndarray], size: int) -> bool:
    """Tell whether an array is one that the model computes: shifts of norms that are 0, rates of positions.

    Raises:
      ValueError: it is, but is not what we compute.
    """
    value = state[name]
    if name in BUFFERS:
        turned = max(size // 2, TURNED)
        wanted = 10_000.0 ** (-np.arange(0, turned, 2) / turned)
    elif name.endswith(".beta"):
        wanted = np.zeros_like(value)
    else:
        return False
    if value.shape != wanted.shape or not np.allclose(value, wanted, rtol=1e-4, atol=0):
        raise ValueError(f"state dict: {name} differs from what it is computed as in this model.")
    return True


def _written(params: Any) -> dict[str, np.ndarray]:
    model = params["model"]
    state = {"timestep_features.weight": model["rate"][:, None]}
    for ours, theirs in PAIRS.items():
        for end, number in (("in", 0), ("out", 2)):
            if f"{ours}_{end}" in model:
                state |= dense(f"{theirs}.{number}", model[f"{ours}_{end}"])
    for ours, theirs in AROUND.items():
        state |= dense(theirs, model[ours])
    for ours, theirs in CONVS.items():
        state[f"{theirs}.weight"] = model[ours]["kernel"].T[..., None]
    for i, layer in enumerate(unstacked(model["layers"])):
        at = LAYER.format(i)
        for ours, theirs in LINEAR.items():
            state |= dense(at + theirs, layer[ours])
        for ours, theirs in NORMS.items():
            state[f"{at}{theirs}.gamma"] = layer[ours]["scale"]
    return state
