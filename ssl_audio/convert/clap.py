"""CLAP with HTSAT and a RoBERTa: `ClapModel` of transformers, and LAION's own checkpoints.

Wu et al. 2023 (arXiv:2211.06687). LAION's names are turned into those of transformers first, and back.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
from ssl_audio.convert import published
from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    count,
    dense,
    need,
    norm,
    plain_names,
    stored_norm,
)
from ssl_audio.convert.clap_names import AUDIO, TEXT, to_laion, to_transformers
from ssl_audio.convert.minilm import QKV, bert_parts, bert_state, text_config, trace
from ssl_audio.convert.options import PREPROCESSOR, Options
from ssl_audio.data.entries import clips
from ssl_audio.tokens.folded import fold

log = logging.getLogger(__name__)

# What a model does without: tables that are counted anew, heads that CLAP never asks, and the front end
# of LAION's files, which is `frontend/mel.py`.
UNUSED = re.compile(
    r"(relative_position_index|attn_mask|position_ids|token_type_ids|num_batches_tracked)$"
    r"|^(audio|text)_transform\.|\.(tscam_conv|head|spectrogram_extractor|logmel_extractor)\."
)
FILLS = {"repeatpad": "repeatpad", "repeat": "repeat", "pad": "zeros"}  # theirs → ours
NAMED = dict(names="transformers", bare=False)  # `reference` of what transformers reads
FUSION = {"near": ("local_att", 0), "far": ("global_att", 1)}  # ours → theirs and its first layer


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of ClapModel, or of LAION's `.pt` files (HTSAT and RoBERTa).

    Also ClapAudioModelWithProjection, ClapTextModelWithProjection and ClapAudioModel: one tower.

    Options are those of ClapConfig: audio_config and text_config (or audio and text), projection_dim,
    also in a mapping `top`; of preprocessor_config.json: sampling_rate, hop_length, fft_window_size,
    nb_frequency_bins, feature_size, frequency_min, frequency_max, max_length_s, nb_max_samples,
    truncation, padding. Short clips are never marked as longer ones, as by LAION; transformers marks
    one of a batch, at random, if none is longer. Needed only where the arrays do not tell: spec_size
    (256), and the text tower's heads (width / 64). `forward(input_features=[B, C, T, F], input_ids=[B, W],
    attention_mask=, is_longer=[B, 1])` gives both embeddings, logits and all on the way; "aff_out" has
    the longer clips first.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state = plain_names(state_dict)
    kept = {name: value for name, value in state.items() if UNUSED.search(name)}
    state = {name: value for name, value in state.items() if name not in kept}
    style = "laion" if any(name.startswith("audio_branch.") for name in state) else "transformers"
    if style == "laion":
        state = to_transformers(state)
    bare = any(name.startswith("audio_encoder.") for name in state)
    if bare:
        state = {
            f"audio_model.{n}" if n.startswith("audio_encoder.") else n: v for n, v in state.items()
        }
    audio, text, top = _options(options)
    there = [n for n in ("audio", "text") if any(k.startswith(f"{n}_model.") for k in state)]
    if not there:
        need(state, "audio_projection.linear2.weight")
    config: dict[str, Any] = dict(
        objective=dict(kind="contrastive", towers={}, per_direction=True),
        data=dict(entries={}),
        reference=dict(names=style) | (dict(bare=True) if bare else {}),
    )
    towers, samples = config["objective"]["towers"], 1
    if len(there) == 1:
        config["objective"]["edges"] = ()
    for name, asked in (("audio", audio), ("text", text)):
        asked.only("projection_hidden_act", "relu")
        asked.get("projection_dim")
        projector = None
        if name in there and not (bare and f"{name}_projection.linear2.weight" not in state):
            (shared,) = need(state, f"{name}_projection.linear2.weight")
            out = top.found("projection_dim", len(shared), f"{name}_projection {shared.shape}")
            projector = dict(kind="projectors:Laion", out=out)
        if name in there:
            towers[name] = dict(kind="towers:Tower", projector=projector)
    if "audio" in there:
        parts, samples, fill = htsat_parts(state, audio, top, laion=style == "laion")
        towers["audio"] |= parts
        config["data"] = clips(samples, rate=parts["frontend"]["rate"], fill=fill)
    if "text" in there:
        words = bert_parts(state, text, TEXT, pooler=True)
        towers["text"] |= dict(words, length="text_length")
        most = words["tokenizer"]["length"] - words["tokenizer"]["first"]
        if found := text_config(top, min(77, most)):
            config["data"]["entries"]["text"] = found
    for asked in (audio, text, top):
        asked.finish()
    hidden = dict(config, reference=config["reference"] | dict(names="transformers", bare=False))
    blank = {
        "audio": jax.ShapeDtypeStruct((1, samples), np.float32),
        "text": jax.ShapeDtypeStruct((1, 1), np.int32),
    }
    built, params, left = build(config, lambda p: to_state_dict(p, hidden), state, blank=blank)
    towers = built.towers

    def outputs(
        params,
        input_features=None,
        input_ids=None,
        attention_mask=None,
        is_longer=None,
        text_position_ids=None,
    ):
        del text_position_ids  # counted from the mask
        longer = None if is_longer is None else jnp.asarray(is_longer)[:, 0] > 0
        found, vectors = {}, {}
        if "audio" in towers:
            found |= _trace_audio(towers["audio"], params["audio"], input_features, longer)
            vectors["audio"] = found["audio/pooler_output"]
        if "text" in towers:
            words = trace(towers["text"], params["text"], input_ids, attention_mask)
            found |= {f"text/{n.removeprefix('inter_')}": v for n, v in words.items()}
            vectors["text"] = found["text/pooler"] = found.pop("text/pooled")
        z = {}
        for name, vector in vectors.items():
            plain = towers[name].project(params[name], vector)
            found[f"{name}/projection_unnormalized"] = plain
            z[name] = found[f"{name}_embeds"] = losses.unit(plain)
        if len(z) == 2 and len(z["audio"]) == len(z["text"]):
            scores, scale = z["audio"] @ z["text"].T, jnp.exp(params["logit_scale"][0])
            found["logits_per_audio"] = scale[0] * scores
            found["logits_per_text"] = scale[1] * scores.T
            both = losses.info_nce(scale[0] * scores) + losses.info_nce(scale[0] * scores.T)
            found["loss_symmetric_scale_a"] = jnp.mean(both) / 2
            found["loss_hf_text_to_audio_only"] = (
                jnp.mean(
                    losses.info_nce(scale[0] * scores.T) + losses.info_nce(scale[1] * scores.T)
                )
                / 2
            )
        return found

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of transformers, or of LAION if they came so."""
    known = config.get("reference", {})
    state = htsat_state(params["audio"]) if "audio" in params else {}
    if known.get("bare"):
        state = {name.removeprefix("audio_model."): value for name, value in state.items()}
    if "text" in params:
        state |= bert_state(params["text"], TEXT)
    for name in {"audio", "text"} & params.keys():
        for ours, theirs in (("first", "linear1"), ("second", "linear2")):
            if "projector" in params[name]:
                part = params[name]["projector"][ours]["dense"]
                state |= dense(f"{name}_projection.{theirs}", part)
    if "logit_scale" in params:
        a, t = params["logit_scale"][0]
        state |= {"logit_scale_a": a.reshape(()), "logit_scale_t": t.reshape(())}
    return to_laion(state) if known.get("names") == "laion" else state


def reference_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json holds beside such a state dict."""
    return published.clap(config)


def extractor_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what preprocessor_config.json holds beside such a state dict."""
    return published.clap_extractor(config)


def htsat_parts(
    state: State, audio: Options, top: Options, *, laion: bool = True
) -> tuple[dict[str, Any], int, str]:
    """Return the parts of the audio tower, the samples of a clip, and how shorter ones are filled.

    Args:
      state: under the names of transformers.
      audio: options of the audio model.
      top: all others, those of the feature extractor among them.
      laion: it is LAION's own, heard as LAION's code hears.
    """
    patch, bins, inner, table = need(
        state,
        f"{AUDIO}patch_embed.proj.weight",
        f"{AUDIO}batch_norm.weight",
        f"{AUDIO}layers.0.blocks.0.intermediate.dense.bias",
        f"{AUDIO}layers.0.blocks.0.attention.self.relative_position_bias_table",
    )
    width, side = patch.shape[0], patch.shape[-1]
    where = f"patch_embed.proj {patch.shape}"
    audio.found("patch_embeds_hidden_size", width, where)
    audio.found("patch_size", side, where)
    mels = audio.found("num_mel_bins", len(bins), f"batch_norm {bins.shape}")
    stages = range(count(state, f"{AUDIO}layers."))
    depths = tuple(count(state, f"{AUDIO}layers.{s}.blocks.") for s in stages)
    tables = (f"{AUDIO}layers.{s}.blocks.0.attention.self." for s in stages)
    heads = tuple(state[f"{t}relative_position_bias_table"].shape[1] for t in tables)
    audio.found("depths", depths, "layers.*.blocks.*")
    audio.found("num_attention_heads", heads, "relative_position_bias_table")
    audio.found("num_hidden_layers", len(depths), "layers.*")
    audio.found("hidden_size", width * 2 ** (len(depths) - 1), "layers.*")
    window = audio.found("window_size", (round(len(table) ** 0.5) + 1) // 2, f"{table.shape}")
    mlp = len(inner) / width
    audio.found("mlp_ratio", mlp, f"intermediate.dense {inner.shape}")
    audio.only("hidden_act", "gelu")
    stride = audio.get("patch_stride", (side, side))
    size = audio.get("spec_size", 256)
    down = f"{AUDIO}patch_embed.fusion_model.local_att.0.weight"
    fused = audio.found("enable_fusion", down in state, "patch_embed.fusion_model.*")
    fusion = None
    if fused:
        audio.only("fusion_type", "aff_2d")
        fusion = dict(kind="folded:AttentionalFusion", reduction=width // len(state[down]))
        audio.found("aff_block_r", fusion["reduction"], f"{down} {state[down].shape}")
    fusing = top.get("truncation", "fusion" if fused else "rand_trunc") == "fusion"
    top.only("truncation", "fusion", "rand_trunc")
    if fusing and not fused:
        log.warning(
            "truncation='fusion' for a model without fusion, which transformers cannot run: taken "
            "as 'rand_trunc'."
        )
        fusing = False
    hop = top.get("hop_length", 480)
    rate = top.get("sampling_rate", 48_000)
    lines = top.get("fft_window_size", 1024) // 2 + 1
    top.found("nb_frequency_bins", lines, "fft_window_size")
    top.found("feature_size", mels, f"batch_norm {bins.shape}")
    top.only("padding_value", 0.0)
    top.only("top_db", None)
    top.only("padding", "repeatpad", *FILLS)
    frontend = dict(
        kind="mel",
        rate=rate,
        bins=mels,
        hop=hop,
        window=top.get("fft_window_size", 1024),
        low=float(top.get("frequency_min", 50)),
        high=float(top.get("frequency_max", 14_000)),
        # Clips that are to be fused are heard in mel bands of another kind.
        scale="htk" if fusing else "slaney",
        area=not fusing,
        # LAION's code rounds to 16 bits first, transformers does not.
        sixteen_bit=laion,
    )
    tokenizer = dict(
        kind="folded", width=width, size=size, patch=side, stride=stride[0], fusion=fusion
    )
    encoder = dict(
        kind="htsat",
        width=width,
        depths=depths,
        heads=heads,
        window=window,
        mlp=mlp,
        folds=size // mels,
        bias=audio.get("qkv_bias", True),
        eps=audio.get("layer_norm_eps", 1e-5),
    )
    most = top.get("nb_max_samples", top.get("max_length_s", 10) * rate)
    samples = min(most, (size * (size // mels) - 1) * hop)
    parts = dict(
        frontend=frontend, tokenizer=tokenizer, encoder=encoder, pool=dict(kind="pools:Mean")
    )
    return parts, samples, FILLS[top.get("padding", "repeatpad")]


def htsat_state(params: Any) -> dict[str, np.ndarray]:
    """Return the audio tower's parameters under the names of transformers."""
    cut, stages = params["tokenizer"], params["encoder"]
    at = f"{AUDIO}patch_embed."
    state = stored_norm(f"{AUDIO}batch_norm", cut["mel_norm"]) | norm(f"{at}norm", cut["norm"])
    state |= _conv(f"{at}proj", cut["patch"])
    if "fusion" in cut:
        state |= _conv(f"{at}mel_conv2d", cut["part_patch"])
        for ours, (theirs, first) in FUSION.items():
            for part, layer in (("down", first), ("up", first + 3)):
                place = f"{at}fusion_model.{theirs}.{layer}"
                linear = cut["fusion"][f"{ours}_{part}"]
                state[f"{place}.weight"] = linear["kernel"].T[:, :, None, None]
                state[f"{place}.bias"] = linear["bias"]
                place = f"{at}fusion_model.{theirs}.{layer + 1}"
                state |= stored_norm(place, cut["fusion"][f"{ours}_{part}_norm"])
    for name, part in stages.items():
        place = re.fullmatch(r"stage(\d+)_(?:block(\d+)|merge)", name)
        if place is None:
            state |= norm(f"{AUDIO}norm", part)
        elif place[2] is None:
            at = f"{AUDIO}layers.{place[1]}.downsample"
            state |= norm(f"{at}.norm", part["norm"]) | dense(f"{at}.reduction", part["dense"])
        else:
            state |= _block(f"{AUDIO}layers.{place[1]}.blocks.{place[2]}", part)
    return state


def _block(at: str, block: Any) -> dict[str, np.ndarray]:
    mixer = block["mixer"]
    state = {f"{at}.attention.self.relative_position_bias_table": mixer["offsets"]}
    thirds = zip(*(np.split(v, 3, axis=-1) for v in mixer["qkv"].values()), strict=True)
    for name, third in zip(QKV, thirds, strict=True):
        state |= dense(f"{at}.attention.self.{name}", dict(zip(mixer["qkv"], third, strict=True)))
    state |= dense(f"{at}.attention.output.dense", mixer["out"])
    state |= norm(f"{at}.layernorm_before", block["norm_mixer"])
    state |= norm(f"{at}.layernorm_after", block["norm_mlp"])
    state |= dense(f"{at}.intermediate.dense", block["mlp"]["up"])
    return state | dense(f"{at}.output.dense", block["mlp"]["down"])


def _conv(name: str, params: Any) -> dict[str, np.ndarray]:
    return {
        f"{name}.weight": params["kernel"].transpose(3, 2, 0, 1),
        f"{name}.bias": params["bias"],
    }


def _trace_audio(tower: Any, params: Any, features: Any, longer: Any) -> dict[str, Any]:
    """Run the audio tower on log-mel: its vector, and what comes after each part of it."""
    spec = features if tower.tokenizer.fusion is not None else features[:, 0]
    kept = dict(capture_intermediates=True, mutable=["intermediates"])
    tokens, seen = tower.tokenizer.apply({"params": params["tokenizer"]}, spec, longer, **kept)
    seen = {n: v["__call__"][0] for n, v in seen["intermediates"].items() if "__call__" in v}
    encoded, blocks = tower.encoder.apply({"params": params["encoder"]}, tokens, **kept)
    blocks = {n: v["__call__"][0] for n, v in blocks["intermediates"].items() if "__call__" in v}
    tokens_last = encoded.tokens
    maps = tokens_last.x.reshape(len(tokens_last.x), *tokens_last.grid, -1)
    found = {
        "after_batch_norm_BFTC": seen["mel_norm"].transpose(0, 3, 2, 1),
        "mel_image": fold(seen["mel_norm"], tower.tokenizer.size),
        "patch_embed": tokens.x,
        "last_hidden_state": jnp.moveaxis(maps, -1, 1),
        "pooler_output": tower.pooled(params, encoded),
        "final_norm": _flat(blocks["final_norm"]),
    }
    if "fusion" in seen and longer is not None:
        first = jnp.argsort(~longer, stable=True)
        found["aff_out"] = jnp.moveaxis(seen["fusion"], -1, 1)[first]
    for stage, depth in enumerate(tower.encoder.depths):
        names = [f"stage{stage}_block{number}" for number in range(depth)]
        found |= {name: _flat(blocks[name]) for name in names}
        found[f"stage{stage}_out"] = _flat(blocks.get(f"stage{stage}_merge", blocks[names[-1]]))
    return {f"audio/{name}": value for name, value in found.items()}


def _flat(x: Any) -> Any:
    return x.reshape(len(x), -1, x.shape[-1])


def _options(options: Mapping[str, Any]) -> tuple[Options, Options, Options]:
    """Return the options of the audio model, of the text model, and all others."""
    options = dict(options) | dict(options.get("config") or {})
    top = dict(options.get("top") or {})
    extractor = {PREPROCESSOR: options.pop(PREPROCESSOR, None)}
    alone = {f"clap_{name}_model": name for name in ("audio", "text")}.get(
        str(options.get("model_type"))
    )
    if alone:  # the config of one tower, as of ClapAudioModelWithProjection
        shared = {k: options[k] for k in ("projection_dim", "tokenizer") if k in options}
        inner = {k: v for k, v in options.items() if k not in shared}
        return (
            Options(inner if alone == "audio" else {}),
            Options(inner if alone == "text" else {}),
            Options(top | shared | extractor),
        )
    audio, text = (
        Options(dict(options.get(f"{name}_config") or options.get(name) or {}))
        for name in ("audio", "text")
    )
    return audio, text, Options(top | _scalars(options) | extractor)


def _scalars(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if isinstance(v, (int, float, str))}
