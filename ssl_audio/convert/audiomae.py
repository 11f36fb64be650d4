"""Audio-MAE (Huang et al. 2022, arXiv:2207.06405), pretrained with either decoder, or fine-tuned."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio.convert import vit
from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    clips,
    dense,
    need,
    norm,
    plain_names,
    unstacked,
)
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import join, streams
from ssl_audio.frontend.fbank import STATS, Fbank
from ssl_audio.tokens.patchify import grid as grid_of
from ssl_audio.tokens.patchify import patches

WINDOW = ("still", "shifted")  # the layers of a pair
UNUSED = ("head_dist.",)


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of Audio-MAE.

    Options: num_heads, decoder_num_heads (default: width / 64), img_size (frames, mel bins; default: as
    many frames as fit, of 128 bins), mask_ratio (0.8), mask_2d, mask_t_prob, mask_f_prob, norm_pix_loss
    (True), ln_eps (1e-6), mean, std, or anything of our `frontend`; patch_size, embed_dim, depth,
    mlp_ratio, decoder_embed_dim, decoder_mode are held against the arrays.

    `forward(spec=[B, 1, T, F], ids_keep=[B, K], mask=[B, N])` gives `latent`, `pred`, both losses, the
    patches and the encoding of the whole input; the noise that the mask was drawn from may be given,
    too. A model without decoder takes `spec` alone.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    kernel, table = need(state, "patch_embed.proj.weight", "pos_embed")
    where = f"patch_embed.proj.weight {kernel.shape}"
    size = asked.found("patch_size", kernel.shape[3], where)
    patch = (size, kernel.shape[2])
    frames, bins = asked.get("img_size", (None, 128))
    if frames is None:
        frames = (table.shape[1] - 1) // (bins // patch[0]) * patch[1]
    grid = grid_of(frames, bins, patch, patch)
    if grid[0] * grid[1] + 1 != table.shape[1]:
        raise ValueError(
            f"pos_embed has {table.shape[1]} rows; {frames} frames x {bins} bins mean {grid[0]} x "
            f"{grid[1]} patches and a cls token. Give the option img_size (frames, bins)."
        )
    order = vit.TimeMajor(grid, patch)
    eps = asked.get("ln_eps", 1e-6)
    positions = dict(kind="positions:Learned", grid=grid, start="sincos")
    encoder = vit.blocks(state, asked, "blocks", heads="num_heads", eps=eps)
    encoder |= dict(special=1, positions=positions)
    width = asked.found("embed_dim", encoder["width"], where)
    asked.found("depth", encoder["depth"], "blocks.*")
    asked.found("mlp_ratio", encoder["block"]["mlp"], "blocks.0.mlp.fc1.weight")
    objective: dict[str, Any] = dict(
        frontend=dict(
            kind="fbank",
            bins=bins,
            frames=frames,
            mean=asked.get("mean", STATS["audioset"]["mean"]),
            std=asked.get("std", STATS["audioset"]["std"]),
        )
        | asked.get("frontend", {}),
        tokenizer=dict(kind="patchify", width=width, patch=patch, stride=patch),
        encoder=encoder,
    )
    unused = UNUSED
    if "norm.weight" not in state:  # a fine-tuned model normalises after the mean
        encoder["final_norm"] = None
        unused += () if "head.weight" in state else ("fc_norm.",)
    if "decoder_pred.weight" in state:
        objective |= dict(
            kind="mae",
            decoder=_decoder(state, asked, positions, grid[0], eps),
            masking=_masking(asked),
            standardise=asked.get("norm_pix_loss", True),
        )
    elif "head.weight" in state:
        (linear,) = need(state, "head.weight")
        head = dict(kind="classify:Classifier", classes=len(linear), pool="mean", eps=eps)
        objective |= dict(kind="tagging", head=head, criterion="sigmoid")
    else:
        objective |= dict(kind="features")
    asked.finish()

    front = objective["frontend"]
    length = front.get("window", Fbank.window) + (frames - 1) * front.get("hop", Fbank.hop)
    data = clips(length, rate=front.get("rate", Fbank.rate))
    config = dict(objective=objective, data=data)
    kept = {}
    if "decoder" in objective and not objective["decoder"]["special"]:
        # Windows take no cls token, so nothing reads its row; it is kept for the way back.
        (kept["decoder_pos_embed"],) = need(state, "decoder_pos_embed")
        state["decoder_pos_embed"] = kept["decoder_pos_embed"][:, 1:]
    built, params, left = build(config, lambda p: to_state_dict(p, config), state, unused=unused)
    left |= kept

    def contextual(params, spec):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec)
        found, _ = streams(built.encoder, params["encoder"], tokens)
        last = built.encoder.final_norm
        normed = [last.apply({"params": params["encoder"]["final_norm"]}, x) for x in found[1:]]
        return order.joined(jnp.mean(jnp.stack(normed), 0))

    def pretraining(params, spec, ids_keep, mask, **drawn):
        del drawn
        spec, shown = spec[:, 0], order.places(ids_keep)
        hidden = order.places(jnp.argsort(mask, stable=True)[:, shown.shape[1] :])
        encoded = built.visible(params, spec, shown)
        target = patches(spec, patch, patch)
        found = {
            "latent": join(encoded),
            "pred": order.tokens(order.pixels(built.predict(params, encoded))),
            "patchified": order.tokens(order.pixels(target)),
            "contextual_mean_all_layers_normed": contextual(params, spec),
        }
        for name, scaled in (("loss_normpix", True), ("loss_raw", False)):
            one = dataclasses.replace(built, standardise=scaled)
            found[name] = jnp.mean(one.errors(params, spec, shown, hidden))
        return found

    def embedded(params, spec):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec[:, 0])
        encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
        found = {"tokens": order.joined(join(encoded))}
        if "head" in params:
            found["logits"] = built.head.apply({"params": params["head"]}, encoded)
        return found

    outputs = pretraining if "decoder" in params else embedded
    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under Audio-MAE's names.

    Raises:
      ValueError: the encoder is not of this kind (one special token, attention).
    """
    encoder, objective = params["encoder"], config["objective"]
    order = vit.TimeMajor(
        tuple(objective["encoder"]["positions"]["grid"]), tuple(objective["tokenizer"]["patch"])
    )
    state = {
        "cls_token": encoder["special"][None],
        "pos_embed": vit.class_table(encoder["positions"], order),
        "patch_embed.proj.weight": order.kernel(params["tokenizer"]["kernel"]),
        "patch_embed.proj.bias": params["tokenizer"]["bias"],
    }
    state |= vit.layers("blocks", encoder["layers"])
    if "final_norm" in encoder:
        state |= norm("norm", encoder["final_norm"])
    if "head" in params:
        state |= norm("fc_norm", params["head"]["norm"])
        state |= dense("head", params["head"]["linear"]["dense"])
    if "decoder" in params:
        state |= _decoder_state(params["decoder"], order)
    return state


def _decoder_state(params: Any, order: vit.TimeMajor) -> dict[str, np.ndarray]:
    trunk, last, places = params["trunk"], params["predict"], params["positions"]
    first = places.get("special")
    if first is None:  # without cls token in the decoder there is no row of positions for it
        first = np.zeros((0, places["table"].shape[1]), places["table"].dtype)
    state = {
        "mask_token": params["mask_token"][None, None],
        "decoder_pos_embed": vit.class_table(dict(places, special=first), order),
        "decoder_pred.weight": order.pixels(last["kernel"]).T,
        "decoder_pred.bias": order.pixels(last["bias"]),
    }
    state |= dense("decoder_embed", params["embed"])
    state |= norm("decoder_norm", trunk["final_norm"])
    if "mixer" in trunk["layers"]:
        return state | vit.layers("decoder_blocks", trunk["layers"])
    for pair, layer in enumerate(unstacked(trunk["layers"])):
        for number, name in enumerate(WINDOW):
            at, mixer = f"decoder_blocks.{2 * pair + number}", layer[f"mixer_{name}"]
            state |= vit.attention(f"{at}.attn", mixer)
            state[f"{at}.attn.tau"] = mixer["temperature"]
            state |= dense(f"{at}.attn.meta_mlp.fc1", mixer["distance_up"])
            state |= dense(f"{at}.attn.meta_mlp.fc2", mixer["distance_down"])
            state |= norm(f"{at}.norm1", layer[f"norm_mixer_{name}"])
            state |= vit.mlp(f"{at}.mlp", layer[f"mlp_{name}"])
            state |= norm(f"{at}.norm2", layer[f"norm_mlp_{name}"])
    return state


def _decoder(
    state: State, asked: Options, positions: dict[str, Any], rows: int, eps: float
) -> dict[str, Any]:
    """Return the config of the decoder: global attention, or shifted windows."""
    local = "decoder_blocks.0.attn.tau" in state
    asked.found("decoder_mode", int(local), "decoder_blocks.0.attn.tau")
    first = "decoder_blocks.0"
    if local:  # which has its own number of heads and layers, whatever the options say
        heads, hidden = need(state, f"{first}.attn.tau", f"{first}.attn.meta_mlp.fc1.weight")
        _ = asked.get("decoder_num_heads"), asked.get("decoder_depth")
        fixed = Options({"heads": len(heads)})
        trunk = vit.blocks(state, fixed, "decoder_blocks", heads="heads", eps=eps)
        mixer = dict(
            kind="windows:WindowAttention", heads=len(heads), rows=rows, hidden=len(hidden)
        )
        trunk["block"] |= dict(kind="windows:ShiftedPair", mixer=mixer)
    else:
        trunk = vit.blocks(state, asked, "decoder_blocks", heads="decoder_num_heads", eps=eps)
        asked.found("decoder_depth", trunk["depth"], "decoder_blocks.*")
    asked.found("decoder_embed_dim", trunk["width"], "decoder_blocks.0.attn.qkv.weight")
    return dict(
        kind="decoders:Decoder", trunk=trunk, positions=positions, special=0 if local else 1
    )


def _masking(asked: Options) -> dict[str, Any]:
    """Return the config of the masking in pretraining."""
    share, time, freq = (
        asked.get(name, default)
        for name, default in (("mask_ratio", 0.8), ("mask_t_prob", 0.6), ("mask_f_prob", 0.5))
    )
    if asked.get("mask_2d", False):
        return dict(kind="masking:TimeFrequency", time=time, freq=freq)
    return dict(kind="masking:Random", count=share)
