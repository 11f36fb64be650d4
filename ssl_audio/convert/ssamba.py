"""Published SSAMBA checkpoints (Shams et al. 2024), pretrained or fine-tuned, to ours and back."""

import math
from typing import Any

import numpy as np

from ssl_audio.convert import patches
from ssl_audio.convert.base import Converted, State, count, need, norm, plain_names, unstacked
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import join
from ssl_audio.heads.readout import frame_tokens
from ssl_audio.presets import patch_encoders


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert an SSAMBA state dict.

    Options: if_bidirectional (every second layer runs on the mirrored sequence; default: as published,
    if the norms have a bias), rms_norm, norm_epsilon, embed_dim, depth, d_state, d_conv, d_inner,
    dt_rank; those of `patches.layout` and `patches.convert`. `forward(x=[B, T, F])` takes normalised
    log-mel.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    first = "v.layers.0.mixer"
    kernel, table, states, conv, ranks = need(
        state,
        "v.patch_embed.proj.weight",
        "v.pos_embed",
        f"{first}.A_log",
        f"{first}.conv1d.weight",
        f"{first}.dt_proj.weight",
    )
    asked.only("bimamba_type", "v2")
    asked.only("cls_token_position", "first")
    asked.only("if_divide_out", True)
    shape = patches.layout(state, asked, 1)
    width = asked.found("embed_dim", len(kernel), f"v.patch_embed.proj.weight {kernel.shape}")
    depth = asked.found("depth", count(state, "v.layers."), "v.layers.*")
    inner, state_size = states.shape
    asked.found("d_inner", inner, f"{first}.A_log {states.shape}")
    rank = asked.found("dt_rank", ranks.shape[1], f"{first}.dt_proj.weight {ranks.shape}")
    if inner % width or rank != math.ceil(width / 16):
        raise ValueError(
            f"state dict: inner width {inner} and time-step rank {rank} at width {width}; wanted a "
            f"multiple of {width}, and {math.ceil(width / 16)}."
        )
    rms = asked.found("rms_norm", "v.norm_f.bias" not in state, "v.norm_f.bias")
    paired = asked.get("if_bidirectional", not rms)
    if paired and depth % 2:
        raise ValueError(
            f"state dict: {depth} layers cannot run in pairs; a plain sequence has the option "
            "if_bidirectional=false."
        )
    encoder = patch_encoders.encoder(
        "ssamba" if paired else "ssamba_rms", "tiny", shape.table, depth
    )
    encoder |= dict(width=width)
    once = dict(kind=f"norms:{'RMSNorm' if rms else 'LayerNorm'}")
    once["eps"] = asked.get("norm_epsilon", 1e-5)
    encoder["block"]["norm"] = encoder["final_norm"]["norm"] = once
    encoder["block"]["mixer"] |= dict(
        expand=inner // width,
        state=asked.found("d_state", state_size, f"{first}.A_log {states.shape}"),
        conv=asked.found("d_conv", conv.shape[2], f"{first}.conv1d.weight {conv.shape}"),
    )

    def finetuned(encoder, params, tokens):
        single = encoder.copy(final_norm=encoder.final_norm.norm)
        weights = params | {"final_norm": params["final_norm"]["norm"]}
        first = single.apply({"params": weights}, tokens)
        tokens = encoder.apply({"params": params}, tokens)
        found = {"hidden_state": frame_tokens(first), "final_tokens": join(tokens)}
        # The reference's fused RMSNorm never shows the first.
        return found if rms else found | {"norm_f_first": join(first)}

    def insides(encoder, params, found, inside):
        names = _paired(found, inside) if paired else _sequence(found, inside)
        if rms:
            return {name: value for name, value in names.items() if not name.endswith("_norm")}
        single = {"params": params["final_norm"]["norm"]}
        return names | {"norm_f_call0": encoder.final_norm.norm.apply(single, found[-1])}

    return patches.convert(
        state,
        asked,
        encoder=encoder,
        shape=shape,
        encoder_state=_encoder,
        insides=insides,
        finetuned=finetuned,
    )


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the published names, without `module.`."""
    return patches.to_state_dict(params, config, _encoder)


def _encoder(params: Any) -> dict[str, np.ndarray]:
    state = norm("v.norm_f", params["final_norm"]["norm"])
    number = 0
    for block in unstacked(params["layers"]):
        suffixes = ("_ahead", "_mirrored") if "mixer_ahead" in block else ("",)
        for suffix in suffixes:
            name = f"v.layers.{number}"
            state |= norm(f"{name}.norm", block[f"norm{suffix or '_mixer'}"])
            state |= mixer(f"{name}.mixer", block[f"mixer{suffix}"])
            number += 1
    return state


def mixer(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return a bidirectional mixer under Vim's names."""
    state = {
        f"{name}.in_proj.weight": params["in_proj"].T,
        f"{name}.out_proj.weight": params["out_proj"].T,
    }
    for direction, suffix in (("forward", ""), ("backward", "_b")):
        one = params[direction]
        state |= {
            f"{name}.A{suffix}_log": one["a_log"],
            f"{name}.D{suffix}": one["skip"],
            f"{name}.conv1d{suffix}.weight": one["conv_kernel"].T[:, None],
            f"{name}.conv1d{suffix}.bias": one["conv_bias"],
            f"{name}.x_proj{suffix}.weight": one["x_proj"].T,
            f"{name}.dt_proj{suffix}.weight": one["dt_proj"].T,
            f"{name}.dt_proj{suffix}.bias": one["dt_bias"],
        }
    return state


def _sequence(streams: list[Any], inside: list[dict[str, Any]]) -> dict[str, Any]:
    """Name what the layers did: the stream that comes in, normalised, mixed."""
    found = {}
    for i, (stream, parts) in enumerate(zip(streams, inside, strict=False)):
        found[f"layer{i}_residual"] = stream
        found[f"layer{i}_norm"] = parts["norm_mixer"]
        found[f"layer{i}_hidden"] = parts["mixer"]
    return found


def _paired(streams: list[Any], inside: list[dict[str, Any]]) -> dict[str, Any]:
    """As `_sequence`; odd layers in the mirrored order in which they see the tokens."""
    found = {}
    for i, (stream, parts) in enumerate(zip(streams, inside, strict=False)):
        ahead, mirrored = f"layer{2 * i}", f"layer{2 * i + 1}"
        found[f"{ahead}_residual"], found[f"{mirrored}_residual"] = stream, stream[:, ::-1]
        found[f"{ahead}_norm"] = parts["norm_ahead"]
        found[f"{mirrored}_norm"] = parts["norm_mirrored"][:, ::-1]
        found[f"{ahead}_hidden"] = parts["mixer_ahead"]
        found[f"{mirrored}_hidden"] = parts["mixer_mirrored"]
    return found
