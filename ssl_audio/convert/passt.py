"""PaSST (Koutini et al. 2022, arXiv:2110.05069): taggers, with their HEAR embeddings."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio.convert import vit
from ssl_audio.convert.base import Converted, State, build, clips, dense, need, norm, plain_names
from ssl_audio.convert.options import Options
from ssl_audio.heads.readout import special_tokens
from ssl_audio.inference.windows import centred
from ssl_audio.structs import Tokens

UNUSED = ("head_dist.", "mel.", "pre_norm.")
NET = dict(patch="patch_size", classes="num_classes", dim="embed_dim", heads="num_heads")


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of PaSST, with or without distillation token.

    Options: num_heads (default: width / 64), stride (10), img_size (mel bins, frames; default: what the
    position tables cover), u_patchout, s_patchout_t, s_patchout_f (0); patch_size, num_classes,
    embed_dim, depth, mlp_ratio, distilled are held against the arrays. Of the frontend: sr, n_mels, win,
    hop, n_fft, fmin, fmax. Of the HEAR wrapper: `net` (the options above), max_model_window_ms (10000),
    scene_hop_ms (2500), timestamp_window_ms (160), timestamp_hop_ms (50), scene_short_samples (14000).

    `forward(spec=[B, 1, F, T], spec_short, keep_time, keep_freq, keep_unstructured, time_offset)` gives
    logits and features of both, and those of `spec_short` with a patchout; all but `spec` may be left
    out. `forward(wave=[B, S])` gives log-mel and HEAR's embeddings, `scene_short` of the first
    scene_short_samples in one piece.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    net: dict[str, Any] = options.pop("net", {})
    options |= {NET.get(name, name): value for name, value in net.items()}
    state = {n.removeprefix("net."): v for n, v in plain_names(state_dict).items()}
    asked = Options(options)
    kernel, freq, time, place = need(
        state,
        "patch_embed.proj.weight",
        "freq_new_pos_embed",
        "time_new_pos_embed",
        "new_pos_embed",
    )
    where = f"patch_embed.proj.weight {kernel.shape}"
    patch = tuple(kernel.shape[2:])
    sides = _pair(asked.get("patch_size", patch[0]))
    if sides != patch:
        raise ValueError(f"option patch_size={sides}: the state dict says {patch} ({where}).")
    stride = _pair(asked.get("stride", 10))
    grid = (freq.shape[2], time.shape[3])
    covered = tuple((g - 1) * s + p for g, s, p in zip(grid, stride, patch, strict=True))
    bins, frames = asked.get("img_size", covered)
    encoder = vit.blocks(state, asked, "blocks", heads="num_heads", eps=1e-6)
    width = asked.found("embed_dim", encoder["width"], where)
    asked.found("depth", encoder["depth"], "blocks.*")
    asked.found("mlp_ratio", encoder["block"]["mlp"], "blocks.0.mlp.fc1.weight")
    two = asked.found("distilled", place.shape[1] == 2, f"new_pos_embed {place.shape}")
    encoder |= dict(special=1 + two, positions=dict(kind="positions:Separate", grid=grid))
    (linear,) = need(state, "head.1.weight")
    classes = asked.found("num_classes", len(linear), f"head.1.weight {linear.shape}")
    rate, hop = asked.get("sr", 32_000), asked.get("hop", 320)
    objective: dict[str, Any] = dict(
        kind="tagging",
        frontend=dict(
            kind="stft",
            rate=rate,
            bins=asked.get("n_mels", bins),
            hop=hop,
            taper=asked.get("win", 800),
            size=asked.get("n_fft", 1024),
            low=float(asked.get("fmin", 0.0)),
            high=float(asked.get("fmax", 15_000.0)),
            frames=frames,
        ),
        tokenizer=dict(kind="patchify", width=width, patch=patch, stride=stride),
        encoder=encoder,
        head=dict(kind="classify:Classifier", classes=classes, pool="special", eps=1e-5),
        criterion="sigmoid",
    )
    parts = {"time": "s_patchout_t", "freq": "s_patchout_f", "single": "u_patchout"}
    out = {ours: asked.get(theirs, 0) for ours, theirs in parts.items()}
    if any(out.values()):
        objective["masking"] = dict(kind="masking:TimeFrequency", shared=True, **out)
    spans = {
        name: asked.get(name, default) * rate // 1000
        for name, default in (
            ("max_model_window_ms", 10_000),
            ("scene_hop_ms", 2_500),
            ("timestamp_window_ms", 160),
            ("timestamp_hop_ms", 50),
        )
    }
    short = asked.get("scene_short_samples", 14_000)
    asked.finish()
    config = dict(objective=objective, data=clips(frames * hop, rate=rate))
    built, params, left = build(config, lambda p: to_state_dict(p, config), state, unused=UNUSED)
    anywhere = dataclasses.replace(built.frontend, frames=None)

    def embed(params, tokens):
        encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
        logits = built.head.apply({"params": params["head"]}, encoded)
        return {"logits": logits, "features": special_tokens(encoded)}

    def tokens_of(params, spec):
        return built.tokenizer.apply({"params": params["tokenizer"]}, spec)

    def tagged(params, spec, spec_short=None, time_offset=0, **keep):
        tokens = tokens_of(params, spec[:, 0].swapaxes(1, 2))
        found = embed(params, tokens)
        map_of = tokens.x.reshape(len(spec), *tokens.grid, -1)
        found["patch_embed"] = jnp.moveaxis(map_of, -1, 1)
        if spec_short is None:
            return found
        tokens = tokens_of(params, spec_short[:, 0].swapaxes(1, 2))
        found |= {f"{name}_short": value for name, value in embed(params, tokens).items()}
        kept = embed(params, _patchout(tokens, grid, time_offset, **keep))
        return found | {f"{name}_train_patchout": value for name, value in kept.items()}

    def hear_vectors(params, wave):
        def vectors(audio):
            """Return logits and features [n, k, C + D] of windows [n, k, S]."""
            flat = audio.reshape(-1, audio.shape[-1])
            found = embed(params, tokens_of(params, anywhere(flat)))
            both = jnp.concatenate([found["logits"], found["features"]], axis=-1)
            return both.reshape(*audio.shape[:2], -1)

        size = spans["max_model_window_ms"]
        stamped = vectors(centred(wave, spans["timestamp_window_ms"], spans["timestamp_hop_ms"]))
        times = jnp.arange(stamped.shape[1]) * (spans["timestamp_hop_ms"] * 1000 / rate)
        return {
            "mel": anywhere(wave).swapaxes(1, 2),
            "scene_long": jnp.mean(vectors(centred(wave, size, spans["scene_hop_ms"])), axis=1),
            "scene_short": vectors(wave[:, None, :short])[:, 0],
            "timestamp_emb": stamped,
            "timestamps_ms": jnp.broadcast_to(times[None], stamped.shape[:2]),
        }

    def outputs(params, wave=None, **inputs):
        return tagged(params, **inputs) if wave is None else hear_vectors(params, wave)

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under PaSST's names.

    Raises:
      ValueError: the encoder is not of this kind (separate positions, attention).
    """
    encoder, patch = params["encoder"], config["objective"]["tokenizer"]["patch"]
    places = encoder["positions"]
    state = {
        "new_pos_embed": places["special"][None],
        "freq_new_pos_embed": places["freq"].T[None, :, :, None],
        "time_new_pos_embed": places["time"].T[None, :, None],
        "patch_embed.proj.weight": params["tokenizer"]["kernel"].T.reshape(-1, 1, *patch),
        "patch_embed.proj.bias": params["tokenizer"]["bias"],
    }
    for name, row in zip(("cls_token", "dist_token"), encoder["special"], strict=False):
        state[name] = row[None, None]
    state |= vit.layers("blocks", encoder["layers"])
    state |= norm("norm", encoder["final_norm"])
    state |= norm("head.0", params["head"]["norm"])
    return state | dense("head.1", params["head"]["linear"]["dense"])


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _patchout(
    tokens: Tokens,
    table: tuple[int, int],
    offset: Any,
    keep_time: Any = None,
    keep_freq: Any = None,
    keep_unstructured: Any = None,
) -> Tokens:
    """Return the tokens of columns, rows, then places that are kept, placed `offset` columns later."""
    rows, columns = tokens.grid
    row = jnp.arange(rows) if keep_freq is None else jnp.asarray(keep_freq)
    column = jnp.arange(columns) if keep_time is None else jnp.asarray(keep_time)
    kept = (row[:, None] * columns + column[None]).reshape(-1)
    if keep_unstructured is not None:
        kept = kept[jnp.asarray(keep_unstructured)]
    moved = kept // columns * table[1] + kept % columns + offset
    index = jnp.broadcast_to(moved.astype(jnp.int32)[None], (len(tokens.x), len(kept)))
    return Tokens(x=tokens.x[:, kept], index=index, grid=table)
