"""CLIP with vision transformers (Radford et al. 2021, arXiv:2103.00020): OpenAI's files and transformers'.

With the option `sound` also the tower of sound that VIP-ANT (arXiv:2112.08995) begins from.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
from ssl_audio.convert.base import (
    Converted,
    State,
    attention,
    build,
    count,
    dense,
    need,
    norm,
    plain_names,
    unstacked,
)
from ssl_audio.convert.options import Options
from ssl_audio.presets import clip
from ssl_audio.tokens.pixels import sound_kernel, sound_positions

# Our part → its name in a layer, by who wrote the file.
LAYERS = {
    "transformers": dict(
        q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj", out="self_attn.out_proj",
        norm_mixer="layer_norm1", norm_mlp="layer_norm2", up="mlp.fc1", down="mlp.fc2",
    ),
    "openai": dict(
        qkv="attn.in_proj", out="attn.out_proj", norm_mixer="ln_1", norm_mlp="ln_2", up="mlp.c_fc",
        down="mlp.c_proj",
    ),
}  # fmt: skip
PLACES: dict[str, dict[str, dict[str, str]]] = {
    "transformers": dict(
        image=dict(
            special="vision_model.embeddings.class_embedding",
            patch="vision_model.embeddings.patch_embedding.weight",
            positions="vision_model.embeddings.position_embedding.weight",
            first="vision_model.pre_layrnorm", layers="vision_model.encoder.layers",
            last="vision_model.post_layernorm", projector="visual_projection.weight",
        ),
        text=dict(
            words="text_model.embeddings.token_embedding.weight",
            positions="text_model.embeddings.position_embedding.weight",
            layers="text_model.encoder.layers", last="text_model.final_layer_norm",
            projector="text_projection.weight",
        ),
    ),
    "openai": dict(
        image=dict(
            special="visual.class_embedding", patch="visual.conv1.weight",
            positions="visual.positional_embedding", first="visual.ln_pre",
            layers="visual.transformer.resblocks", last="visual.ln_post", projector="visual.proj",
        ),
        text=dict(
            words="token_embedding.weight", positions="positional_embedding",
            layers="transformer.resblocks", last="ln_final", projector="text_projection",
        ),
    ),
}  # fmt: skip
# Counted anew, or said by the arrays' shapes.
UNUSED = ("input_resolution", "context_length", "vocab_size")
IDS = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the state dict of OpenAI's CLIP, or of CLIPModel, CLIPVisionModel(WithProjection) or its text.

    Options are those of config.json: vision_config and text_config (or, of one tower, by themselves) with
    num_attention_heads (width / 64), hidden_act ("quick_gelu" or "gelu"), layer_norm_eps (1e-5); of the
    preprocessor image_mean, image_std. tokenizer: the file to cut text with. sound=true adds the
    tower "audio", with the weights of the pictures' tower: channels="mean" (or "sum"), patch (32, 32),
    stride (24, 16), bins (128) and frames (1000) of its log-mel.

    `forward(pixel_values=[B, 3, Y, X], input_ids=[B, W], attention_mask=)` gives vectors and the last
    layer of each tower.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`; residual networks of pictures.
    """
    state = plain_names(state_dict)
    kept = {n: v for n, v in state.items() if n in UNUSED or n in IDS}
    state = {n: v for n, v in state.items() if n not in kept}
    bare = _bare(state)
    if bare:
        state = {f"{bare}{name}": value for name, value in state.items()}
    style = (
        "openai" if any(n.startswith(("visual.", "ln_final.")) for n in state) else "transformers"
    )
    if "visual.attnpool.positional_embedding" in state:
        raise ValueError("state dict: CLIP with a residual network; wanted a vision transformer.")
    places = PLACES[style]
    there = [n for n, place in places.items() if place["positions"] in state]
    if not there:
        need(state, places["image"]["patch"])
    vision, words, top = _options(options, there)
    towers: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    if "image" in there:
        towers["image"], side = _image(state, places["image"], LAYERS[style], vision)
        entries["image"] = _entry(top, side)
    if "text" in there:
        towers["text"] = _text(state, places["text"], LAYERS[style], words)
        if file := top.get("tokenizer"):
            cut = dict(kind="text:Pretrained", file=file)
            entries["text"] = dict(
                kind="text", words=cut, length=towers["text"]["tokenizer"]["length"]
            )
    wanted = _sound_options(top)
    top.get("projection_dim"), top.get("logit_scale_init_value")
    for asked in {id(a): a for a in (vision, words, top)}.values():
        asked.finish()
    config: dict[str, Any] = dict(
        objective=dict(
            kind="contrastive",
            towers=towers,
            edges=(("image", "text", 1.0),) if len(there) == 2 else (),
            max_scale=100.0,
        ),
        data=dict(entries=entries),
        reference=dict(names=style, bare=bare),
    )
    blank: dict[str, Any] = {"text": jax.ShapeDtypeStruct((1, 1), np.int32)}
    if "image" in entries:
        blank["image"] = jax.ShapeDtypeStruct((1, *[entries["image"]["size"]] * 2, 3), np.float32)
    full = config | dict(reference=dict(names=style))
    built, params, left = build(config, lambda p: to_state_dict(p, full), state, blank=blank)
    if wanted:
        if "image" not in there:
            need(state, places["image"]["patch"])
        with_sound(config, params, **wanted)

    def outputs(params, pixel_values=None, input_ids=None, attention_mask=None):
        given = {}
        if pixel_values is not None:
            given["image"] = (jnp.transpose(pixel_values, (0, 2, 3, 1)),)
        if input_ids is not None:
            mask = attention_mask
            given["text"] = (input_ids, None if mask is None else jnp.asarray(mask) > 0)
        found = {}
        for name, inputs in given.items():
            tower, weights = built.towers[name], params[name]
            encoded = tower.encode_inputs(weights, *inputs)
            found[f"{name}_pooled"] = pooled = tower.pooled(weights, encoded)
            found[f"{name}_tokens"] = encoded.tokens.x
            found[f"{name}_embeds"] = losses.unit(tower.project(weights, pooled))
        if len(found) == 6:
            scale = jnp.exp(params["logit_scale"][0, 0])
            found["logits_per_image"] = scale * found["image_embeds"] @ found["text_embeds"].T
        return found

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the towers of pictures and words under the names they came with: by default OpenAI's.

    A tower of sound has no place there, and is left out.
    """
    known = config.get("reference", {})
    style, state = known.get("names", "openai"), {}
    for name in sorted({"image", "text"} & params.keys()):
        tower, place = params[name], PLACES[style][name]
        encoder, table = tower["encoder"], tower["encoder"].get("positions")
        if name == "image":
            state[place["special"]] = encoder["special"][0]
            state[place["patch"]] = tower["tokenizer"]["kernel"].transpose(3, 2, 0, 1)
            state[place["positions"]] = np.concatenate([table["special"], table["table"]])
            state |= norm(place["first"], encoder["first_norm"])
        else:
            state[place["words"]] = tower["tokenizer"]["word"]
            state[place["positions"]] = tower["tokenizer"]["position"]
        for i, layer in enumerate(unstacked(encoder["layers"])):
            state |= _layer(f"{place['layers']}.{i}", layer, LAYERS[style])
        state |= norm(place["last"], encoder["final_norm"])
        if "projector" in tower:
            kernel = tower["projector"]["linear"]["dense"]["kernel"]
            state[place["projector"]] = kernel if style == "openai" else kernel.T
    if "logit_scale" in params:
        state["logit_scale"] = params["logit_scale"].reshape(())
    bare = known.get("bare", "")
    return {name.removeprefix(bare): value for name, value in state.items()}


def with_sound(
    config: dict[str, Any],
    params: dict[str, Any],
    *,
    frontend: Mapping[str, Any],
    patch: tuple[int, int],
    stride: tuple[int, int],
    channels: str = "mean",
) -> None:
    """Add the tower "audio" to a model with a tower "image": its weights, for log-mel.

    Args:
      config: of the model; changed, as are `params`.
      params: of all towers.
      frontend: waveform → log-mel, as a config.
      patch, stride: of the log-mel, mel bins and frames.
      channels: see `tokens.pixels.sound_kernel`.
    """
    image, weights = config["objective"]["towers"]["image"], params["image"]
    tower = clip.sound(dict(image), dict(frontend), patch, stride)
    table, old = weights["encoder"]["positions"], image["encoder"]["positions"]["grid"]
    grid = tower["encoder"]["positions"]["grid"]
    rows = np.asarray(sound_positions(table["table"], tuple(old), grid))
    kernel = np.asarray(sound_kernel(weights["tokenizer"]["kernel"], patch, channels))
    params["audio"] = {
        **weights,
        "tokenizer": {"kernel": kernel},
        "encoder": {**weights["encoder"], "positions": {**table, "table": rows}},
    }
    config["objective"]["towers"]["audio"] = tower
    frames, hop = frontend["frames"], frontend.get("hop", 160)
    samples = frontend.get("window", 400) + (frames - 1) * hop
    config["data"]["entries"]["audio"] = dict(kind="entries:Audio", samples=samples)


def _bare(state: State) -> str:
    """Return what the names of one tower of transformers lack before them; "": nothing."""
    if "embeddings.patch_embedding.weight" in state:
        return "vision_model."
    return "text_model." if "embeddings.token_embedding.weight" in state else ""


def _options(options: Mapping[str, Any], there: list[str]) -> tuple[Options, Options, Options]:
    """Return the options of pictures, of words, and the rest."""
    given = dict(options)
    vision, words = given.pop("vision_config", None), given.pop("text_config", None)
    top = Options(given)
    if vision is None and words is None and len(there) == 1 and "hidden_size" in given:
        return top, top, top  # the config.json of one tower
    return Options(vision or {}), Options(words or {}), top


def _image(
    state: State, place: Mapping[str, str], layers: Mapping[str, str], asked: Options
) -> tuple[dict[str, Any], int]:
    patch, table, hidden = need(
        state, place["patch"], place["positions"], f"{place['layers']}.0.{layers['up']}.bias"
    )
    width, size, rows = patch.shape[0], patch.shape[-1], round((len(table) - 1) ** 0.5)
    if rows * rows + 1 != len(table):
        raise ValueError(
            f"{place['positions']} {table.shape}: wanted a square of patches and one more."
        )
    where = f"{place['patch']} {patch.shape}"
    asked.found("hidden_size", width, where)
    asked.found("patch_size", size, where)
    asked.found("image_size", rows * size, f"{place['positions']} {table.shape}")
    tower = clip.vit(
        patch=size,
        grid=(rows, rows),
        out=_out(state, place, width),
        **_sizes(state, place, asked, width, hidden),
    )
    return tower, rows * size


def _text(
    state: State, place: Mapping[str, str], layers: Mapping[str, str], asked: Options
) -> dict[str, Any]:
    words, places, hidden = need(
        state, place["words"], place["positions"], f"{place['layers']}.0.{layers['up']}.bias"
    )
    width = asked.found("hidden_size", words.shape[1], f"{place['words']} {words.shape}")
    asked.found("vocab_size", len(words), f"{place['words']} {words.shape}")
    asked.found("max_position_embeddings", len(places), f"{place['positions']} {places.shape}")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        asked.get(name)
    return clip.text(
        vocab=len(words),
        length=len(places),
        out=_out(state, place, width),
        **_sizes(state, place, asked, width, hidden),
    )


def _sizes(
    state: State, place: Mapping[str, str], asked: Options, width: int, hidden: np.ndarray
) -> dict[str, Any]:
    depth = count(state, f"{place['layers']}.")
    asked.only("hidden_act", "quick_gelu", "gelu")
    asked.found("intermediate_size", len(hidden), f"{hidden.shape}")
    asked.get("projection_dim")
    return dict(
        width=width,
        depth=asked.found("num_hidden_layers", depth, f"{place['layers']}.*"),
        heads=asked.heads("num_attention_heads", width),
        ratio=len(hidden) / width,
        quick=asked.get("hidden_act", "quick_gelu") == "quick_gelu",
        eps=asked.get("layer_norm_eps", 1e-5),
    )


def _out(state: State, place: Mapping[str, str], width: int) -> int:
    """Return the width of the common space; 0: there is no projection."""
    found = state.get(place["projector"])
    if found is None:
        return 0
    # OpenAI's are [width, out], transformers' [out, width].
    return (
        found.shape[0 if place["projector"].endswith(".weight") else 1]
        if found.ndim == 2
        else width
    )


def _entry(top: Options, side: int) -> dict[str, Any]:
    """Return the config of a batch's pictures, as the preprocessor says."""
    for name in STEPS:
        top.only(name, True)
    for name in ("size", "crop_size"):
        given = top.get(name, side)
        sides = set(given.values()) if isinstance(given, Mapping) else {given}
        if sides != {side}:
            raise ValueError(f"option {name}={given}: the state dict says {side} pixels.")
    top.only("resample", 3)  # bicubic
    if abs(top.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise ValueError(f"option rescale_factor={top.get('rescale_factor')}: wanted 1/255.")
    mean, std = top.get("image_mean", clip.MEAN), top.get("image_std", clip.STD)
    return dict(kind="pictures:Image", size=side, mean=tuple(mean), std=tuple(std))


def _sound_options(top: Options) -> dict[str, Any]:
    """Return the arguments of `with_sound`; none: it is not wanted."""
    frontend = dict(clip.SOUND, bins=top.get("bins", 128), frames=top.get("frames", 1000))
    found = dict(
        frontend=frontend,
        patch=tuple(top.get("patch", (32, 32))),
        stride=tuple(top.get("stride", (24, 16))),
        channels=top.get("channels", "mean"),
    )
    return found if top.get("sound", False) else {}


def _layer(at: str, layer: Any, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    mixer, mlp = layer["mixer"], layer["mlp"]
    state = norm(f"{at}.{names['norm_mixer']}", layer["norm_mixer"])
    state |= norm(f"{at}.{names['norm_mlp']}", layer["norm_mlp"])
    state |= dense(f"{at}.{names['up']}", mlp["up"]) | dense(f"{at}.{names['down']}", mlp["down"])
    if "q" in names:
        return state | attention({n: f"{at}.{names[n]}" for n in ("q", "k", "v", "out")}, mixer)
    state |= dense(f"{at}.{names['out']}", mixer["out"])
    return state | {
        f"{at}.{names['qkv']}_weight": mixer["qkv"]["kernel"].T,
        f"{at}.{names['qkv']}_bias": mixer["qkv"]["bias"],
    }
