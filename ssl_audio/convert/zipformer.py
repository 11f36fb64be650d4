"""SPEAR's Zipformer (Yang et al. 2025, arXiv:2510.25955) as on Hugging Face and in icefall."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    conv,
    count,
    dense,
    need,
    plain_names,
    unstacked,
)
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips
from ssl_audio.frontend.base import before

STACKS = "encoder.encoders."
SECONDS = 30  # of a clip that is heard whole: trained on speech and sound of up to that length
LAYER = {  # ours → theirs, of a layer's linear maps
    "weights": "self_attn_weights.in_proj",
    "places": "self_attn_weights.linear_pos",
    "gated_in": "nonlin_attention.in_proj",
    "gated_out": "nonlin_attention.out_proj",
} | {
    f"{ours}_{i}_{end}": f"{theirs}{i + 1}.{end}_proj"
    for ours, theirs, number in (
        ("mlp", "feed_forward", 3),
        ("attend", "self_attn", 2),
        ("conv", "conv_module", 2),
    )
    for i in range(number)
    for end in ("in", "out")
}
BYPASS = {"bypass": "bypass", "bypass_middle": "bypass_mid"}


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a Zipformer with its subsampling front end.

    Options are those of the model's config.json, lists as text with commas or as lists:
    query_head_dim (32), pos_head_dim (4), num_mel_bins (128),
    output_downsampling_factor (1); downsampling_factor, num_encoder_layers, encoder_dim, feedforward_dim,
    cnn_module_kernel, num_heads, value_head_dim and pos_dim are held against the arrays.
    `forward(fbank=[B, T, F], fbank_lens=[B])` takes log-mel. `middle_i` is the i-th layer's output.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    asked.given = {k: _numbers(v) for k, v in asked.given.items()}
    encoder = _encoder(state, asked)
    (embed,) = need(state, "encoder_embed.out.bias")
    bins = asked.get("num_mel_bins", 128)
    channels = tuple(len(state[f"encoder_embed.conv.{i}.bias"]) for i in (0, 4, 7))
    config = dict(
        objective=dict(
            kind="features",
            # As the recipe's: povey window, a floor of 1e-10, and no normalisation.
            frontend=dict(
                kind="fbank",
                bins=bins,
                taper=0.85,
                remove_mean=False,
                high=-400.0,
                mean=0.0,
                std=0.5,
            ),
            tokenizer=dict(kind="subsample", width=len(embed), channels=channels),
            encoder=encoder | dict(masked=True),
        ),
        data=clips(SECONDS * 16_000),
    )
    for name in ("encoder_unmasked_dim", "swoosh", "causal", "chunk_size", "left_context_frames"):
        asked.get(name)
    asked.finish()
    spare = [name for name in state if re.search(r"layers\.\d+\.bypass_scale$", name)]
    built, params, left = build(
        config, lambda p: to_state_dict(p, config), state, unused=("mask_emb", *spare)
    )

    def outputs(params, fbank, fbank_lens):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, fbank)
        lengths = (fbank_lens - 7) // 2
        valid = before(lengths, tokens.x.shape[1])
        published = built.encoder.clone(masked=False)
        encoded = published.apply(
            {"params": params["encoder"]}, tokens.replace(valid=valid), layers=True
        )
        found = {"embed": tokens.x, "embed_lens": lengths, "encoder_out": encoded.tokens.x}
        rate = built.encoder.output_rate
        found["encoder_out_lens"] = (lengths + rate - 1) // rate
        stacks = zip(built.encoder.widths, built.encoder.depths, strict=True)
        each = [width for width, depth in stacks for _ in range(depth)]
        for i, size in enumerate(each):
            found[f"middle_{i}"] = encoded.layers[i][..., :size]
        return found

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the reference's names."""
    tokenizer, encoder = params["tokenizer"], params["encoder"]
    at = "encoder_embed"
    state = {}
    for i, name in enumerate(("conv.0", "conv.4", "conv.7")):
        state |= _conv2d(f"{at}.{name}", tokenizer[f"conv_{i}"])
    state |= _conv2d(f"{at}.convnext.depthwise_conv", tokenizer["depthwise"])
    for i, name in enumerate(("wide", "narrow")):
        linear = dense(f"{at}.convnext.pointwise_conv{i + 1}", tokenizer[name])
        state |= {k: v[..., None, None] if v.ndim == 2 else v for k, v in linear.items()}
    state |= dense(f"{at}.out", tokenizer["out"]) | _norm(f"{at}.out_norm", tokenizer["norm"])
    for i, rate in enumerate(config["objective"]["encoder"]["rates"]):
        stack = f"{STACKS}{i}"
        if rate > 1:
            state[f"{stack}.downsample.bias"] = encoder[f"down_{i}"]["bias"]
            state[f"{stack}.out_combiner.bypass_scale"] = encoder[f"combine_{i}"]["share"]
        for j, layer in enumerate(unstacked(encoder[f"stack_{i}"])):
            name = f"{stack}{'.encoder' if rate > 1 else ''}.layers.{j}"
            for ours, theirs in LAYER.items():
                state |= dense(f"{name}.{theirs}", layer[ours])
            for number in (0, 1):
                theirs = f"{name}.conv_module{number + 1}.depthwise_conv"
                state |= conv(theirs, layer[f"conv_{number}_taps"])
            state |= _norm(f"{name}.norm", layer["norm"])
            for ours, theirs in BYPASS.items():
                state[f"{name}.{theirs}.bypass_scale"] = layer[ours]["share"]
    if "down_output" in encoder:
        state["encoder.downsample_output.bias"] = encoder["down_output"]["bias"]
    return state


def _encoder(state: State, asked: Options) -> dict[str, Any]:
    stacks = count(state, STACKS)
    places = [
        f"{STACKS}{i}.encoder" if f"{STACKS}{i}.downsample.bias" in state else f"{STACKS}{i}"
        for i in range(stacks)
    ]
    rates = [len(state.get(f"{STACKS}{i}.downsample.bias", (0,))) for i in range(stacks)]
    first = [f"{place}.layers.0" for place in places]

    def shapes(name, axis):
        return tuple(need(state, f"{at}.{name}")[0].shape[axis] for at in first)

    query, place = asked.get("query_head_dim", 32), asked.get("pos_head_dim", 4)
    heads = tuple(n // place for n in shapes("self_attn_weights.linear_pos.weight", 0))
    values = shapes("self_attn1.in_proj.weight", 0)
    both = shapes("self_attn_weights.in_proj.weight", 0)
    for i, (h, n) in enumerate(zip(heads, both, strict=True)):
        if n != h * (2 * query + place):
            raise ValueError(
                f"options query_head_dim={query}, pos_head_dim={place}: the state dict has {n} rows "
                f"of queries, keys and positions in stack {i}, which does not fit {h} heads."
            )
    (size,) = {n // h for n, h in zip(values, heads, strict=True)}
    (positions,) = set(shapes("self_attn_weights.linear_pos.weight", 1))

    def found(name, value):
        given = asked.get(name, value)
        if ((given,) * stacks if isinstance(given, int) else given) != value:
            raise ValueError(f"option {name}={given}: the state dict says {value}.")
        return value

    return dict(
        kind="zipformer",
        widths=found("encoder_dim", shapes("norm.bias", 0)),
        depths=found("num_encoder_layers", tuple(count(state, f"{p}.layers.") for p in places)),
        hidden=found("feedforward_dim", shapes("feed_forward2.in_proj.weight", 0)),
        kernels=found("cnn_module_kernel", shapes("conv_module1.depthwise_conv.weight", 2)),
        heads=found("num_heads", heads),
        rates=found("downsampling_factor", tuple(rates)),
        query=query,
        value=asked.found("value_head_dim", size, "self_attn1.in_proj"),
        place=place,
        positions=asked.found("pos_dim", positions, "self_attn_weights.linear_pos"),
        output_rate=asked.found(
            "output_downsampling_factor",
            len(state.get("encoder.downsample_output.bias", (0,))),
            "encoder.downsample_output.bias",
        ),
    )


def _norm(name: str, params: Any) -> dict[str, np.ndarray]:
    return {f"{name}.log_scale": params["log_scale"], f"{name}.bias": params["bias"]}


def _conv2d(name: str, params: Any) -> dict[str, np.ndarray]:
    kernel = params["kernel"].transpose(3, 2, 0, 1)
    return {f"{name}.weight": kernel, f"{name}.bias": params["bias"]}


def _numbers(value: Any) -> Any:
    """Return the numbers of a text like "1,2,4", one number alone, or what else was given."""
    if isinstance(value, str) and re.fullmatch(r"\d+(,\s*\d+)*", value):
        value = tuple(int(n) for n in value.split(","))
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value
