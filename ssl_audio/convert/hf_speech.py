"""Speech encoders of Hugging Face transformers: wav2vec 2.0, HuBERT, WavLM and data2vec audio.

They differ in the positions, the bias of attention and where the norms are; the names tell which.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
from ssl_audio.convert import published
from ssl_audio.convert.base import (
    WEIGHT_NORM,
    Converted,
    State,
    attention,
    build,
    check_groups,
    conv,
    count,
    dense,
    need,
    norm,
    plain_names,
    position_conv,
    unstacked,
    weight_norm,
)
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import entry
from ssl_audio.data.entries import clips
from ssl_audio.quantizers.codebooks import perplexity

PREFIXES = ("wav2vec2.", "hubert.", "wavlm.", "data2vec_audio.")  # of models with a head
# Beginnings of options that nothing here asks for, though some look much like those that are asked for.
OTHERS = ("mask_", "num_ctc", "num_adapter", "num_feat", "adapter_", "tdnn_", "ctc_", "feat_")
CONV = "feature_extractor.conv_layers."
POSITIONS = "encoder.pos_conv_embed."
SECONDS = 30  # of a clip that is heard whole
NAMES = {f"attention.{n}_proj": n for n in "qkv"} | {"attention.out_proj": "out"}


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert Wav2Vec2Model, Wav2Vec2ForPreTraining, HubertModel, WavLMModel or Data2VecAudioModel.

    Options are those of the model's config.json: num_attention_heads (default: width / 64),
    conv_stride (default: the published), conv_dim, conv_kernel, conv_bias, hidden_size,
    num_hidden_layers, intermediate_size, layer_norm_eps (1e-5), do_stable_layer_norm and
    feat_extract_norm (default: of both, what the names tell), num_conv_pos_embeddings,
    num_conv_pos_embedding_groups (16), num_buckets, max_bucket_distance (800); for pretraining:
    num_codevector_groups, num_codevectors_per_group, codevector_dim, proj_codevector_dim,
    contrastive_logits_temperature, num_negatives, diversity_loss_weight; of
    preprocessor_config.json: do_normalize, sampling_rate. Clips up to 30 s are heard whole, and
    padding, where clips have any, does not change them. `forward(input_values=[B, S])` takes audio as
    the feature extractor gives it; `attention_mask` [B, S] adds last_hidden_state_attnmask; with
    mask_time_indices [B, N] and sampled_negative_indices a pretraining model gives its losses.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    prefix = next((p for p in PREFIXES if any(n.startswith(p) for n in state)), "")
    inner = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    config = dict(
        objective=_encoder(inner, asked),
        reference=dict(prefix=prefix, weight_norm=weight_norm(inner, f"{POSITIONS}conv")),
    )
    if kind := asked.get("model_type"):
        config["reference"]["model_type"] = kind
    objective = config["objective"]
    contrast = "quantizer.codevectors" in state
    objective |= _contrast(state, asked) if contrast else dict(kind="features")
    for name in [name for name in asked.given if name.startswith(OTHERS)]:
        asked.get(name)
    asked.finish()
    # Trained on crops of some 15 s and used on whole utterances.
    config["data"] = clips(SECONDS * objective["frontend"]["rate"])
    unused = () if contrast else (f"{prefix}masked_spec_embed",)
    built, params, left = build(config, lambda p: to_state_dict(p, config), state, unused=unused)

    def outputs(params, input_values, attention_mask=None, **masks):
        spec = input_values[:, :, None]
        tokenizer, weights = built.tokenizer, {"params": params["tokenizer"]}
        tokens, features, x = tokenizer.apply(weights, spec, method="parts")
        tokens = tokens.replace(x=x)
        encoder = {"params": params["encoder"]}
        encoded = built.encoder.apply(encoder, tokens, layers=True)
        found = {"extract_features": features} if contrast else {}
        hidden = [entry(built.encoder, params["encoder"], tokens), *encoded.layers]
        found |= {f"hidden_{i}": x for i, x in enumerate(hidden)}
        found["last_hidden_state"] = encoded.tokens.x
        if attention_mask is not None:
            lengths = jnp.sum(attention_mask, axis=1)
            valid = tokenizer.tokenizer.valid(lengths, tokens.x.shape[1])
            published = built.encoder
            if getattr(published.positions, "masked", False):
                published = published.clone(positions=published.positions.clone(masked=False))
            masked = published.apply(encoder, tokens.replace(valid=valid))
            found["last_hidden_state_attnmask"] = masked.tokens.x
        if masks:
            found |= _losses(built, params, tokens, features, **masks)
        return found

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of transformers."""
    known = config.get("reference", {})
    tokenizer, encoder = params["tokenizer"], params["encoder"]
    state = norm("feature_projection.layer_norm", tokenizer["norm"])
    state |= dense("feature_projection.projection", tokenizer["project"])
    inner = tokenizer["tokenizer"]
    for name, part in inner.items():
        at = f"{CONV}{name.rpartition('_')[2]}"
        is_conv = name.startswith("conv_")
        state |= conv(f"{at}.conv", part) if is_conv else norm(f"{at}.layer_norm", part)
    positions = encoder["positions"]
    if "gain" in positions:
        named = known.get("weight_norm", "new")
        state |= position_conv(f"{POSITIONS}conv", positions, named)
    else:
        for name, part in positions.items():
            state |= conv(f"{POSITIONS}layers.{name.removeprefix('conv_')}.conv", part)
    first = encoder.get("first_norm") or encoder["final_norm"]
    state |= norm("encoder.layer_norm", first)
    for i, layer in enumerate(unstacked(encoder["layers"])):
        at, mixer = f"encoder.layers.{i}", layer["mixer"]
        state |= attention({v: f"{at}.{k}" for k, v in NAMES.items()}, mixer)
        if "gate" in mixer:
            state |= dense(f"{at}.attention.gru_rel_pos_linear", mixer["gate"])
            state[f"{at}.attention.gru_rel_pos_const"] = mixer["gate_scale"][None, :, None, None]
        state |= norm(f"{at}.layer_norm", layer["norm_mixer"])
        state |= norm(f"{at}.final_layer_norm", layer["norm_mlp"])
        state |= dense(f"{at}.feed_forward.intermediate_dense", layer["mlp"]["up"])
        state |= dense(f"{at}.feed_forward.output_dense", layer["mlp"]["down"])
    if "pair_bias" in encoder:
        table = encoder["pair_bias"]["table"]
        state["encoder.layers.0.attention.rel_attn_embed.weight"] = table
    if "mask_token" in params:
        state["masked_spec_embed"] = params["mask_token"]
    state = {f"{known.get('prefix', '')}{name}": value for name, value in state.items()}
    if "quantizer" in params:
        quantizer = params["quantizer"]
        books = quantizer["book"]
        state["quantizer.codevectors"] = books.reshape(1, -1, books.shape[-1])
        state |= dense("quantizer.weight_proj", quantizer["choose"])
        state |= dense("project_q", params["target"]["dense"])
        state |= dense("project_hid", params["predict"]["dense"])
    return state


def reference_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json holds beside such a state dict."""
    return published.speech(config)


def extractor_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what preprocessor_config.json holds beside such a state dict."""
    return published.speech_extractor(config)


def _encoder(state: State, asked: Options) -> dict[str, Any]:
    """Return the config of frontend, tokenizer and encoder."""
    first = "encoder.layers.0"
    layers = count(state, CONV)
    kernels = need(state, *(f"{CONV}{i}.conv.weight" for i in range(layers)))
    widths = asked.found("conv_dim", tuple(len(k) for k in kernels), f"{CONV}*")
    sizes = asked.found("conv_kernel", tuple(k.shape[2] for k in kernels), f"{CONV}*")
    bias = asked.found("conv_bias", f"{CONV}0.conv.bias" in state, f"{CONV}0.conv.bias")
    every = f"{CONV}{layers - 1}.layer_norm.weight" in state and layers > 1
    conv_norm = asked.found("feat_extract_norm", "layer" if every else "group", f"{CONV}*")
    strides = asked.get("conv_stride", (5, 2, 2, 2, 2, 2, 2))
    if len(strides) != layers:
        raise ValueError(
            f"the state dict has {layers} convolutions, conv_stride {len(strides)} values: give "
            "the option conv_stride (or the model's folder, with its config.json)."
        )
    project, hidden = need(
        state,
        "feature_projection.projection.weight",
        f"{first}.feed_forward.intermediate_dense.bias",
    )
    asked.only("feat_proj_layer_norm", True)
    asked.only("conv_pos_batch_norm", False)
    asked.only("add_adapter", False)
    asked.only("adapter_attn_dim", None)
    asked.only("feature_size", 1)
    asked.get("padding_value")  # between clips of a batch, where ours hear nothing
    asked.only("hidden_act", "gelu")
    asked.only("feat_extract_activation", "gelu")
    width = asked.found("hidden_size", len(project), f"projection.weight {project.shape}")
    depth = asked.found("num_hidden_layers", count(state, "encoder.layers."), "encoder.layers.*")
    asked.found("intermediate_size", len(hidden), f"{first}.feed_forward.*")
    heads = asked.heads("num_attention_heads", width)
    eps = asked.get("layer_norm_eps", 1e-5)
    layer_norm = dict(kind="norms:LayerNorm", eps=eps)
    stable = asked.get("do_stable_layer_norm", conv_norm == "layer" and _single(state))
    block = dict(
        kind="blocks:PreNorm" if stable else "post_norm",
        mixer=dict(kind="attention", heads=heads),
        norm=layer_norm,
        mlp=len(hidden) / width,
    )
    encoder = dict(
        kind="stack",
        width=width,
        depth=depth,
        positions=_positions(state, asked),
        block=block,
        first_norm=None if stable else layer_norm,
        final_norm=layer_norm if stable else None,
    )
    table = f"{first}.attention.rel_attn_embed.weight"
    if table in state:
        buckets = asked.found("num_buckets", len(state[table]), f"{table} {state[table].shape}")
        distance = asked.get("max_bucket_distance", 800)
        encoder["pair_bias"] = dict(
            kind="relative:RelativeBias", heads=heads, buckets=buckets, distance=distance
        )
        block["mixer"] = dict(kind="relative:BiasedAttention", heads=heads, gate="input")
    convolutions = dict(
        kind="waveform", widths=widths, kernels=sizes, strides=strides, bias=bias, norm=conv_norm
    )
    return dict(
        frontend=dict(
            kind="raw",
            rate=asked.get("sampling_rate", 16_000),
            standardise=asked.get("do_normalize", True),
        ),
        tokenizer=dict(kind="waveform:Projected", tokenizer=convolutions, width=width, eps=eps),
        encoder=encoder,
    )


def _contrast(state: State, asked: Options) -> dict[str, Any]:
    """Return the rest of a pretraining objective's config."""
    books, choose, project = need(
        state, "quantizer.codevectors", "quantizer.weight_proj.weight", "project_q.weight"
    )
    where = "quantizer.codevectors"
    groups = asked.get("num_codevector_groups", 2)
    if len(choose) % groups:
        raise ValueError(
            f"option num_codevector_groups={groups}: it does not divide the state dict's "
            f"{len(choose)} codes."
        )
    codes = asked.found("num_codevectors_per_group", len(choose) // groups, where)
    width = asked.found("codevector_dim", books.shape[-1] * groups, where)
    length = asked.get("mask_time_length", 10)
    # So many spans, were they not to overlap; the share that random ones cover.
    share = 1 - math.exp(-asked.get("mask_time_prob", 0.65))
    return dict(
        kind="latent_contrast",
        masking=dict(kind="masking:Spans", count=max(0.001, round(share, 3)), length=length),
        quantizer=dict(kind="codebooks:Gumbel", groups=groups, codes=codes, width=width),
        width=asked.found("proj_codevector_dim", len(project), f"project_q.weight {project.shape}"),
        negatives=asked.get("num_negatives", 100),
        temperature=asked.get("contrastive_logits_temperature", 0.1),
        diversity=asked.get("diversity_loss_weight", 0.1),
    )


def _losses(
    built: Any,
    params: Any,
    tokens: Any,
    features: Any,
    mask_time_indices: Any,
    sampled_negative_indices: Any,
) -> dict[str, Any]:
    """Return what a pretraining model makes of given masks, summed over masked tokens."""
    mask = mask_time_indices.astype(bool)
    hidden = jnp.where(mask[..., None], params["mask_token"][None, None], tokens.x)
    encoded = built.encoder.apply({"params": params["encoder"]}, tokens.replace(x=hidden))
    predicted = built.predicted(params, encoded.tokens.x)
    target, probable = built.targets(params, features)
    negative = target.reshape(-1, target.shape[-1])[sampled_negative_indices]
    weight = mask.astype(jnp.float32)
    nce, _ = losses.latent_nce(predicted, target, negative, built.temperature)
    nce = jnp.sum(nce * weight)
    share = jnp.sum(probable * weight[..., None, None], (0, 1)) / jnp.sum(weight)
    used = jnp.sum(perplexity(share))
    diversity = (1 - used / share.size) * jnp.sum(weight)
    return {
        "loss": nce + built.diversity * diversity,
        "loss_contrastive": nce,
        "loss_diversity": diversity,
        "projected_states": predicted,
        "projected_quantized_states": target,
        "codevector_perplexity": used,
    }


def _single(state: State) -> bool:
    return not any(name.startswith(f"{POSITIONS}layers.") for name in state)


def _positions(state: State, asked: Options) -> dict[str, Any]:
    groups = asked.get("num_conv_pos_embedding_groups", 16)
    if _single(state):
        name = f"{POSITIONS}conv.{WEIGHT_NORM[weight_norm(state, f'{POSITIONS}conv')][1]}"
        (kernel,) = need(state, name)
        size = asked.found("num_conv_pos_embeddings", kernel.shape[2], f"{name} {kernel.shape}")
        check_groups("num_conv_pos_embedding_groups", groups, kernel, name)
        return dict(kind="convolutions:Convolution", size=size, groups=groups)
    name = f"{POSITIONS}layers.0.conv.weight"
    (kernel,) = need(state, name)
    depth = count(state, f"{POSITIONS}layers.")
    asked.found("num_conv_pos_embeddings", depth, f"{POSITIONS}layers.*")
    size = asked.found("conv_pos_kernel_size", kernel.shape[2], f"{name} {kernel.shape}")
    check_groups("num_conv_pos_embedding_groups", groups, kernel, name)
    return dict(kind="convolutions", depth=depth, size=size, groups=groups, masked=True)
