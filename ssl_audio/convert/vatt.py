"""Checkpoints of VATT (Akbari et al. 2021, arXiv:2104.11178), as its authors train them in TensorFlow.

Read without TensorFlow (`tensor_bundle.py`): towers with Transformers of their own, or the shared one.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from ssl_audio.convert.base import Converted, State, build, need, unstacked
from ssl_audio.convert.options import Options
from ssl_audio.presets import vatt

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # ends the name of an array
SLOT = "/.OPTIMIZER_SLOT"  # in those of an optimizer's moments
# Ways to an object, as the published modules hold them → the short names that are used here.
PLACES = (
    (re.compile(r"^(?:.*/)?(aud|vid)_backbone/(?:_base/)?"), r"\1/"),
    (re.compile(r"^(?:.*/)?txt_backbone/"), "txt/"),
    (re.compile(r"^(?:.*/)?unified_transformer/"), "all/"),
    (re.compile(r"^(?:.*/)?_bridge_heads/\d+/"), "head/"),
    (re.compile(r"^(?:.*/)?_base/(?=wave_to_patch|pos_|tx/|agg_|mask_)"), "aud/"),  # fine-tuned
)
NAMES: Mapping[str, str] = MappingProxyType({"audio": "aud", "video": "vid", "text": "txt"})
AXES = ("vertical", "horizontal", "temporal")
RATE = 48_000
SCALE = "logit_scale"  # which is fixed there, and in no checkpoint


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a checkpoint: whichever towers and heads it has; the optimizer and mask tokens are left out.

    Options: num_heads of sound and video, num_heads_text (default: width / 64). `forward(audio=[B, S],
    video=[B, T, Y, X, 3], text=[B, W])`, whichever there are, gives features_pooled of each and, with
    heads, video_toaud, video_totxt, audio_tovid, text_tovid.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = short_names(state_dict), Options(options)
    shared = any(name.startswith("all/") for name in state)
    given = [name for name in NAMES if _first(name, shared) in state]
    if not given:
        need(state, *(_first(name, False) for name in NAMES))
    towers = {name: _tower(name, state, asked, shared) for name in given}
    headed = "head/vid_to_hid/kernel" in state and given == list(NAMES)
    if not headed:
        towers = {name: tower | dict(projector=None) for name, tower in towers.items()}
    asked.finish()
    agg = {}
    if "text" in towers and not shared:
        # It passes through the layer that words pass through: what comes out is its place among them.
        agg = {"txt/agg_token_embd": state["txt/agg_token_embd"]}
        x = agg["txt/agg_token_embd"] @ state["txt/pre_proj/kernel"]
        state["txt/agg_token_embd"] = (0.5 * x * (1 + erf(x / 2**0.5))).astype(np.float32)
    objective = dict(
        kind="contrastive",
        towers=towers,
        edges=vatt.EDGES if headed else (),
        compare=vatt.COMPARE if headed else {},
        temperature=0.07,
        shared=vatt.SHARED if shared else "",
    )
    config: dict[str, Any] = dict(objective=objective, data=dict(rate=RATE))
    if "audio" in towers:
        config["data"]["entries"] = dict(audio=_heard(towers))
    built, params, left = build(
        config,
        lambda p: to_state_dict(p, config),
        state | ({SCALE: np.full((2, 1), -np.log(0.07), np.float32)} if headed else {}),
        unused=("aud/mask_", "vid/mask_", "aud/post", "vid/post", "head/"),
        blank=_blank(towers),
    )

    def outputs(params, **inputs):
        found: dict[str, Any] = {}
        for name, tower in built.towers.items():
            if name in inputs:
                batch = {name: inputs[name], **_lengths(name, tower, inputs[name])}
                own = built.parameters(params, name)
                pooled = tower.pooled(own, tower.encode(own, batch, name))
                found[f"{name}_features_pooled"] = pooled
                if headed:
                    z = tower.project(own, pooled)
                    if name == "video":
                        found |= {"video_toaud": z["fine"], "video_totxt": z["coarse"]}
                    else:
                        found[f"{name}_tovid"] = z
        return found

    return Converted(config, params, outputs, left | agg)


def short_names(state_dict: State) -> dict[str, np.ndarray]:
    """Return the arrays of a model under short names, without those of its optimizer."""
    found = {}
    for name, array in state_dict.items():
        if SLOT in name:
            continue
        short = name.removesuffix(VALUE)
        for way, place in PLACES:
            if way.match(short):
                short = way.sub(place, short, count=1)
                break
        else:
            if not short.startswith(("aud/", "vid/", "txt/", "all/", "head/")):
                continue  # counters, rates
        found[short] = np.asarray(array)
    return found


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the short names of a checkpoint."""
    shared = bool(config["objective"].get("shared"))
    state: dict[str, np.ndarray] = {}
    for name, own in params.items():
        if name == "logit_scale":
            state[SCALE] = own
            continue
        state |= _unified(name, own) if shared else _separate(name, own)
        if "projector" in own:
            state |= _head(name, own["projector"])
    return state


def _first(name: str, shared: bool) -> str:
    """Return the array that tells that a tower is there."""
    if shared:
        kind = "embeddings" if name == "text" else "kernel"
        return f"all/raw_to_embeddings/{name}/{kind}"
    return {
        "audio": "aud/wave_to_patch/kernel",
        "video": "vid/voxel_to_patch/kernel",
        "text": "txt/embedding/embeddings",
    }[name]


def _tower(name: str, state: State, asked: Options, shared: bool) -> dict[str, Any]:
    """Return the config of a tower, its sizes those of the arrays."""
    at = "all" if shared else NAMES[name]
    (first,) = need(state, _first(name, shared))
    layers = f"{at}/base_lm/layers/" if name == "text" and not shared else f"{at}/tx/layers/"
    (hidden,) = need(state, f"{layers}0/feed_forward/mlp/wi/kernel")
    width = hidden.shape[0]
    option = "num_heads_text" if name == "text" and not shared else "num_heads"
    heads = asked.heads(option, width)
    depth = len({n[len(layers) :].partition("/")[0] for n in state if n.startswith(layers)})
    size = (depth, width, hidden.shape[1], heads)
    post = state[f"all/post_proj/{name}/kernel"].shape[1] if shared else 0
    fine, coarse = (
        state[at].shape[-1] if at in state else 1
        for at in ("head/aud_to_va/kernel", "head/txt_to_vat/kernel")
    )
    lookup = f"all/pos_embedding_lookup/{name}" if shared else f"{at}/pos_embedding_lookup"

    def places(axis: str) -> int:
        (table,) = need(state, f"{lookup}/{axis}_position_embeddings/embeddings")
        return len(table)

    if name == "audio":
        time = places("temporal")
        return vatt.sound(
            size, rate=RATE, patch=len(first), places=time, drop=0.5, fine=fine, post=post
        )
    if name == "video":
        steps = (places(AXES[0]), places(AXES[1]), places(AXES[2]))
        patch = (first.shape[0], first.shape[1], first.shape[2])
        return vatt.video(
            size, patch=patch, places=steps, drop=0.5, fine=fine, coarse=coarse, post=post
        )
    return vatt.words(
        size,
        vocab=len(first),
        inner=first.shape[1],
        coarse=coarse,
        places=places("temporal") if shared else 0,
        post=post,
    )


def _heard(towers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of clips as published: 3.2 s, and ten frames a second."""
    samples = 32 * RATE // 10
    if "video" not in towers:
        return dict(kind="entries:Audio", samples=samples)
    patch = towers["video"]["tokenizer"]
    side = patch.get("tokenizer", patch)["patch"][1]
    places = towers["video"]["encoder"]["positions"]["sizes"]
    picture = dict(kind="pictures:Image", size=side * places[0], mean=(0.0,) * 3, std=(1.0,) * 3)
    return dict(kind="video:AudioVideo", samples=samples, frames=32, fps=10.0, picture=picture)


def _blank(towers: Mapping[str, Any]) -> dict[str, np.ndarray]:
    blank: dict[str, np.ndarray] = {}
    for name, tower in towers.items():
        part = tower["tokenizer"]
        part = part.get("tokenizer", part)
        if name == "audio":
            blank |= {
                "audio": np.zeros((1, part["size"]), np.float32),
                "length": np.ones(1, np.int32),
            }
        elif name == "video":
            shape = (1, *part["patch"], 3)
            blank |= {"video": np.zeros(shape, np.float32), "video_length": np.ones(1, np.int32)}
        else:
            blank |= {"text": np.zeros((1, 1), np.int32), "text_length": np.ones(1, np.int32)}
    return blank


def _lengths(name: str, tower: Any, x: Any) -> dict[str, Any]:
    if name == "text":  # 0 is padding, as published
        return {tower.length: (x != 0).sum(axis=1)}
    return {tower.length: jnp.full(len(x), x.shape[1], jnp.int32)}


def _separate(name: str, own: Any) -> dict[str, np.ndarray]:
    at, encoder = NAMES[name], own["encoder"]
    if name == "text":
        state = {
            "txt/embedding/embeddings": own["tokenizer"]["word"],
            "txt/agg_token_embd": encoder["special"][0],
            **_dense("txt/pre_proj", own["tokenizer"]["dense"]),
            "txt/base_lm/final_layer_norm/weight": encoder["final_norm"]["scale"],
        }
        first = "txt/base_lm/layers/0/self_attention/attention/relative_attention_bias/embeddings"
        state[first] = encoder["pair_bias"]["table"]
        for i, layer in enumerate(unstacked(encoder["layers"])):
            here = f"txt/base_lm/layers/{i}"
            for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o")):
                way = f"{here}/self_attention/attention/{theirs}"
                state |= _dense(way, layer["mixer"][ours])
            state[f"{here}/self_attention/layer_norm/weight"] = layer["norm_mixer"]["scale"]
            state |= _norm(f"{here}/feed_forward/layer_norm", layer["norm_mlp"])
            state |= _dense(f"{here}/feed_forward/mlp/wi", layer["mlp"]["up"])
            state |= _dense(f"{here}/feed_forward/mlp/wo", layer["mlp"]["down"])
        return state
    state = _patches(
        name, f"{at}/{'wave' if name == 'audio' else 'voxel'}_to_patch", own["tokenizer"]
    )
    state |= _places(f"{at}/pos_embedding_lookup", encoder["positions"])
    state[f"{at}/agg_token_embd"] = encoder["special"][0]
    return state | _transformer(f"{at}/tx", encoder)


def _unified(name: str, own: Any) -> dict[str, np.ndarray]:
    encoder, tokenizer = own["encoder"], own["tokenizer"]
    raw = f"all/raw_to_embeddings/{name}"
    if name == "text":
        state = {f"{raw}/embeddings": tokenizer["word"]}
    else:
        state = _patches(name, raw, tokenizer["tokenizer"])
    state |= _dense(f"all/pre_proj/{name}", tokenizer["dense"])
    state |= _places(f"all/pos_embedding_lookup/{name}", encoder["positions"])
    state[f"all/agg_token/{name}"] = encoder["special"][0]
    state |= _dense(f"all/post_proj/{name}", own["pool"]["dense"])
    return state | (_transformer("all/tx", encoder) if "layers" in encoder else {})


def _transformer(at: str, encoder: Any) -> dict[str, np.ndarray]:
    state = _norm(f"{at}/final_layer_norm", encoder["final_norm"])
    for i, layer in enumerate(unstacked(encoder["layers"])):
        here, mixer = f"{at}/layers/{i}", layer["mixer"]
        thirds = zip(*(np.split(v, 3, axis=-1) for v in mixer["qkv"].values()), strict=True)
        for theirs, third in zip("qkv", thirds, strict=True):
            state |= _dense(f"{here}/mha/{theirs}", dict(zip(mixer["qkv"], third, strict=True)))
        state |= _dense(f"{here}/mha/o", mixer["out"])
        state |= _norm(f"{here}/layer_norm", layer["norm_mixer"])
        state |= _norm(f"{here}/feed_forward/layer_norm", layer["norm_mlp"])
        state |= _dense(f"{here}/feed_forward/mlp/wi", layer["mlp"]["up"])
        state |= _dense(f"{here}/feed_forward/mlp/wo", layer["mlp"]["down"])
    return state


def _head(name: str, own: Any) -> dict[str, np.ndarray]:
    if name == "audio":
        return _dense("head/aud_to_va", own["linear"]["dense"])
    if name == "text":
        return _dense("head/txt_to_vat", own["linear"]["dense"])
    return {
        **_dense("head/vid_to_hid", own["first"]["dense"]),
        **_batch_norm("head/hid_to_va/pre_bn", own["norm_0"]),
        **_dense("head/hid_to_va/dense", own["second"]["dense"]),
        **_batch_norm("head/hid_to_va/bn", own["norm_1"]),
        **_dense("head/va_to_vat/dense", own["third"]["dense"]),
        **_batch_norm("head/va_to_vat/bn", own["norm_2"]),
    }


def _patches(name: str, at: str, own: Any) -> dict[str, np.ndarray]:
    if name == "audio":
        return {f"{at}/kernel": own["dense"]["kernel"][:, None], f"{at}/bias": own["dense"]["bias"]}
    return {f"{at}/kernel": own["kernel"], f"{at}/bias": own["bias"]}


def _places(at: str, own: Any) -> dict[str, np.ndarray]:
    tables = [own[f"axis_{i}"] for i in range(len(own) - 1)]
    names = AXES[-len(tables) :]
    state = {
        f"{at}/{axis}_position_embeddings/embeddings": table
        for axis, table in zip(names, tables, strict=True)
    }
    return state | _norm(f"{at}/layernorm", own["norm"])


def _dense(at: str, own: Any) -> dict[str, np.ndarray]:
    return {f"{at}/{name}": value for name, value in own.items()}  # kernels are [in, out] in both


def _norm(at: str, own: Any) -> dict[str, np.ndarray]:
    return {f"{at}/gamma": own["scale"], f"{at}/beta": own["bias"]}


def _batch_norm(at: str, own: Any) -> dict[str, np.ndarray]:
    return _norm(at, own) | {f"{at}/moving_mean": own["mean"], f"{at}/moving_variance": own["var"]}
