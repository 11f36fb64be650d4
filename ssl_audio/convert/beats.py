"""BEATs and OpenBEATs encoders (Chen et al. 2023, arXiv:2212.09058; Bharadwaj et al. 2025, 2507.14129).

`beats_tokenizer` and `openbeats_predictor` convert what is trained beside them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.convert.base import (
    WEIGHT_NORM,
    Converted,
    State,
    attention,
    build,
    check_groups,
    count,
    dense,
    need,
    norm,
    plain_names,
    position_conv,
    samples,
    unstacked,
    weight_norm,
)
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import entry
from ssl_audio.data.entries import clips
from ssl_audio.layers.relative import bucket
from ssl_audio.structs import Encoded, Tokens
from ssl_audio.tokens.order import in_time

FRONTEND = dict(  # of the released models
    kind="fbank", taper=0.85, scale=32768.0, remove_mean=False, mean=15.41663, std=6.55582
)
FRAMES = 1024  # of a clip: they were trained on the 10 s of AudioSet
PATCH, PROJECT, PREDICTOR = "patch_embedding.weight", "post_extract_proj", "predictor"
POSITIONS = "encoder.pos_conv.0"
ATTENTION = {f"self_attn.{n}_proj": n for n in ("q", "k", "v", "out")}
BIAS = "self_attn.relative_attention_bias.weight"


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a BEATs encoder, pretrained or fine-tuned (`predictor`), or that of OpenBEATs.

    Options are those of the checkpoint's `cfg`: encoder_attention_heads (default: width / 64),
    conv_pos_groups (16), max_distance (1280), layer_norm_first (false), deep_norm (default: if norms
    come last), num_buckets, conv_pos, activation_fn, gru_rel_pos, input_patch_size, embed_dim,
    encoder_layers, encoder_embed_dim, encoder_ffn_embed_dim, predictor_class.
    `forward(fbank=[B, T, F])` takes normalised log-mel; frame_padding_mask [B, T], True on padding,
    adds features_padded. Tokens come out as the reference has them: time is the slow axis.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    objective: dict[str, Any] = dict(frontend=FRONTEND, **encoder(state, asked))
    kind = "features"
    if f"{PREDICTOR}.weight" in state:
        (linear,) = need(state, f"{PREDICTOR}.weight")
        where = f"{PREDICTOR}.weight {linear.shape}"
        classes = asked.found("predictor_class", len(linear), where)
        head = dict(kind="classify:Classifier", classes=classes, eps=None)
        kind, objective = "tagging", objective | dict(head=head, criterion="sigmoid")
    objective["kind"] = kind
    asked.finish()
    config = dict(
        objective=objective,
        data=clips(samples(FRAMES)),
        inference=dict(pad="none"),
        reference=style(state),
    )
    built, params, left = build(config, lambda p: to_state_dict(p, config), state)

    def outputs(params, fbank, frame_padding_mask=None):
        found = encoded(built, params, fbank, frame_padding_mask)
        if "head" in params:
            x = found["features"]
            tokens = Tokens(x, jnp.zeros(x.shape[:2], jnp.int32), (1, x.shape[1]))
            logits = built.head.apply({"params": params["head"]}, Encoded(tokens))
            found["probs"] = jax.nn.sigmoid(logits)
        return found

    return Converted(config, params, outputs, left)


def encoded(built: Any, params: Any, fbank: Any, padding: Any = None) -> dict[str, Any]:
    """Return what an encoder gives, under the reference's names and in its order."""
    weights = {"params": params["tokenizer"]}
    tokens = built.tokenizer.apply(weights, fbank)
    inner = built.tokenizer.tokenizer
    maps = inner.apply({"params": params["tokenizer"]["tokenizer"]}, fbank)
    rows, columns = tokens.grid
    found = {"patch_conv": maps.x.reshape(-1, rows, columns, maps.x.shape[-1])}
    found["patch_conv"] = found["patch_conv"].transpose(0, 3, 2, 1)
    tokens, _ = in_time(tokens)
    encoder, weights = built.encoder, {"params": params["encoder"]}
    result = encoder.apply(weights, tokens, layers=True)
    hidden = [entry(encoder, params["encoder"], tokens), *result.layers]
    found |= {f"hidden_{i}": x for i, x in enumerate(hidden)}
    found |= {"encoder_input": tokens.x, "features": result.tokens.x}
    if encoder.pair_bias:
        bias = encoder.pair_bias
        found["rel_bias_7x7"] = bias.apply({"params": params["encoder"]["pair_bias"]}, 7)
        distance = np.arange(-200, 201)
        found["rel_bucket_-200_200"] = jnp.asarray(bucket(distance, bias.buckets, bias.distance))
    if padding is not None:
        size = tokens.x.shape[1]
        frames = padding[:, : padding.shape[1] // size * size]
        found["patch_padding_mask"] = jnp.all(frames.reshape(len(frames), size, -1), axis=-1)
        masked = dataclasses.replace(tokens, valid=~found["patch_padding_mask"])
        found["features_padded"] = encoder.apply(weights, masked).tokens.x
    return found


def encoder(state: State, asked: Options) -> dict[str, Any]:
    """Return the configs of tokenizer and encoder."""
    kernel, first = need(state, PATCH, "encoder.layers.0.fc2.bias")
    size = asked.found("input_patch_size", kernel.shape[2], f"{PATCH} {kernel.shape}")
    inner = asked.found("embed_dim", len(kernel), f"{PATCH} {kernel.shape}")
    width = asked.found("encoder_embed_dim", len(first), f"encoder.layers.0.fc2 {first.shape}")
    if inner != width:  # else the published code has an identity
        need(state, f"{PROJECT}.weight")
    asked.found("encoder_layers", count(state, "encoder.layers."), "encoder.layers.*")
    asked.only("conv_bias", False)
    direction = f"{POSITIONS}.{WEIGHT_NORM[weight_norm(state, POSITIONS)][1]}"
    (position,) = need(state, direction)
    groups = asked.get("conv_pos_groups", 16)
    check_groups("conv_pos_groups", groups, position, direction)
    taps = asked.found("conv_pos", position.shape[2], f"{direction} {position.shape}")
    tokenizer = dict(kind="patchify", width=inner, patch=(size,) * 2, stride=(size,) * 2)
    return dict(
        tokenizer=dict(
            kind="waveform:Projected",
            tokenizer=tokenizer | dict(bias=False),
            width=width,
            linear=f"{PROJECT}.weight" in state,
        ),
        encoder=stack(state, asked, "encoder.layers.", width)
        | dict(positions=dict(kind="convolutions:Convolution", size=taps, groups=groups)),
    )


def stack(state: State, asked: Options, prefix: str, width: int) -> dict[str, Any]:
    """Return the config of a stack of layers with relative positions, its first or final norm on."""
    first, depth = f"{prefix}0", count(state, prefix)
    glu = f"{first}.fc1.linear.weight" in state
    (down,) = need(state, f"{first}.fc2.weight")
    asked.found("activation_fn", "glu" if glu else "gelu", f"{first}.fc1.*")
    hidden = asked.found("encoder_ffn_embed_dim", down.shape[1], f"{first}.fc2.weight")
    heads = asked.heads("encoder_attention_heads", width)
    gated = f"{first}.self_attn.grep_a" in state
    asked.found("gru_rel_pos", gated, f"{first}.self_attn.grep_a")
    ahead = asked.get("layer_norm_first", False)
    deep = asked.get("deep_norm", not ahead)
    layer_norm = dict(kind="norms:LayerNorm", eps=1e-5)
    gain = (8 * depth) ** -0.25 if deep else None
    block: dict[str, Any] = dict(
        kind="blocks:PreNorm" if ahead else "post_norm",
        mixer=dict(kind="attention", heads=heads),
        norm=layer_norm,
        mlp=dict(kind="glu:SwishGlu" if glu else "blocks:Mlp", ratio=hidden / width, gain=gain),
    )
    if not ahead:
        block["alpha"] = (2 * depth) ** 0.25 if deep else 1.0
    found: dict[str, Any] = dict(kind="stack", width=width, depth=depth, block=block)
    found |= dict(first_norm=None, final_norm=None, time_major=True)
    found["final_norm" if ahead else "first_norm"] = layer_norm
    relative = f"{first}.{BIAS}" in state
    asked.found("relative_position_embedding", relative, f"{first}.{BIAS}")
    if relative:
        table = state[f"{first}.{BIAS}"]
        buckets = asked.found("num_buckets", len(table), f"{first}.{BIAS} {table.shape}")
        distance = asked.get("max_distance", 1280)
        found["pair_bias"] = dict(
            kind="relative:RelativeBias", heads=heads, buckets=buckets, distance=distance
        )
        gate = "query" if gated else "none"
        block["mixer"] = dict(kind="relative:BiasedAttention", heads=heads, gate=gate, gain=gain)
    return found


def to_state_dict(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under BEATs' names."""
    known = config.get("reference", {})
    tokenizer, encoder = params["tokenizer"], params["encoder"]
    kernel = tokenizer["tokenizer"]["kernel"]
    size = config["objective"]["tokenizer"]["tokenizer"]["patch"]
    # Ours is flat with mel bins as the slow axis, theirs has frames as rows.
    state = {PATCH: kernel.T.reshape(-1, 1, *size).swapaxes(2, 3)}
    state |= norm("layer_norm", tokenizer["norm"])
    if "project" in tokenizer:
        state |= dense(PROJECT, tokenizer["project"])
    state |= position_conv(POSITIONS, encoder["positions"], known.get("weight_norm", "old"))
    state |= layers("encoder.layers.", encoder, known.get("tables", 1))
    state |= norm("encoder.layer_norm", encoder.get("first_norm") or encoder["final_norm"])
    if "head" in params:
        state |= dense(PREDICTOR, params["head"]["linear"]["dense"])
    return state


def layers(prefix: str, encoder: Any, tables: int) -> dict[str, np.ndarray]:
    """Return a stack's layers under their names; so many of them name the one table of the bias."""
    state = {}
    for i, layer in enumerate(unstacked(encoder["layers"])):
        at, mixer = f"{prefix}{i}", layer["mixer"]
        state |= attention({v: f"{at}.{k}" for k, v in ATTENTION.items()}, mixer)
        if "gate" in mixer:
            state |= dense(f"{at}.self_attn.grep_linear", mixer["gate"])
            state[f"{at}.self_attn.grep_a"] = mixer["gate_scale"][None, :, None, None]
        if "pair_bias" in encoder and i < tables:
            state[f"{at}.{BIAS}"] = encoder["pair_bias"]["table"]
        state |= norm(f"{at}.self_attn_layer_norm", layer["norm_mixer"])
        state |= norm(f"{at}.final_layer_norm", layer["norm_mlp"])
        up = layer["mlp"]["up"]
        glu = up["kernel"].shape[1] != layer["mlp"]["down"]["kernel"].shape[0]
        state |= dense(f"{at}.fc1{'.linear' if glu else ''}", up)
        state |= dense(f"{at}.fc2", layer["mlp"]["down"])
    return state


def style(state: State, prefix: str = "encoder.layers.") -> dict[str, Any]:
    """Return what is named in more than one way: needed to write a state dict as it was read."""
    tables = sum(name.startswith(prefix) and name.endswith(BIAS) for name in state)
    return dict(weight_norm=weight_norm(state, POSITIONS), tables=tables)
