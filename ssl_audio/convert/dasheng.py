"""Dasheng (Dinkel et al. 2024, arXiv:2406.06992): the encoder of whole spectra."""

from typing import Any

import numpy as np

from ssl_audio.convert import vit
from ssl_audio.convert.base import Converted, State, build, need, norm, plain_names, stored_norm
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips

RATE, HOP, WINDOW = 16_000, 160, 512
# Not parameters: the window and the bands of the spectrogram, and how many batches the norm has seen.
KEPT = ("front_end.", "init_bn.1.num_batches_tracked")


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of the encoder, alone or under `encoder.`.

    Options, as of the `config` of a released file: num_heads (default: width / 64), top_db (120), n_mels,
    n_fft, win_size, hop_size, f_min (0), f_max (8000), center (True), pooling ("mean"), eval_avg;
    embed_dim, depth, mlp_ratio, patch_size, patch_stride, target_length are held against the arrays.

    `forward(spec=[B, T, F])` takes the spectrogram in dB, and gives `encoded`, [B, T / 4, D].

    Of a batch, the released code cuts what lies 120 dB below the loudest sound of the whole batch; here it
    is the loudest of each clip, as there with batches of one.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    prefix = "encoder." if "encoder.patch_embed.proj.weight" in state else ""
    if prefix:
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    place = "patch_embed.proj.weight"
    kernel, times, frequencies, bands = need(
        state, place, "time_pos_embed", "freq_pos_embed", "init_bn.1.weight"
    )
    where = f"{place} {kernel.shape}"
    patch = asked.found("patch_size", tuple(kernel.shape[2:]), where)
    asked.only("patch_stride", patch)
    asked.only("pooling", "mean")
    asked.only("center", True)
    asked.only("hop_size", HOP)
    asked.only("win_size", WINDOW)
    asked.only("n_fft", WINDOW)
    bins = asked.found("n_mels", len(bands), f"init_bn.1.weight {bands.shape}")
    grid = (frequencies.shape[2], times.shape[3])
    frames = asked.found("target_length", grid[1] * patch[1], f"time_pos_embed {times.shape}")
    if grid[0] * patch[0] != bins:
        raise ValueError(
            f"freq_pos_embed {frequencies.shape}: {grid[0]} rows of {patch[0]} bins; wanted {bins} bins in "
            "all."
        )
    encoder = vit.blocks(state, asked, "blocks", heads="num_heads", eps=1e-6)
    width = asked.found("embed_dim", encoder["width"], where)
    asked.found("depth", encoder["depth"], "blocks.*")
    asked.found("mlp_ratio", encoder["block"]["mlp"], "blocks.0.mlp.fc1.weight")
    for name in ("eval_avg", "group_masking", "time_patch_out", "freq_patch_out"):
        asked.get(name)  # of training, and of how a clip's vector is made
    objective: dict[str, Any] = dict(
        kind="features",
        frontend=dict(
            kind="mel",
            rate=RATE,
            bins=bins,
            hop=HOP,
            window=WINDOW,
            low=float(asked.get("f_min", 0)),
            high=float(asked.get("f_max", 8000)),
            scale="htk",
            area=False,
            floor=1e-10,
            top_db=float(asked.get("top_db", 120)),
        ),
        tokenizer=dict(
            kind="normed",
            tokenizer=dict(kind="patchify", width=width, patch=patch, stride=patch),
            norm=dict(kind="norms:FrozenBatchNorm", eps=1e-5),
        ),
        encoder=encoder | dict(positions=dict(kind="positions:Separate", grid=grid)),
    )
    asked.finish()
    config = dict(
        objective=objective,
        data=clips((frames - 1) * HOP, rate=RATE),
        inference=dict(pad="none"),
        reference=dict(prefix=prefix),
    )
    built, params, left = build(config, lambda p: _named(p, config), state, unused=KEPT)
    left = {f"{prefix}{name}": value for name, value in left.items()}

    def outputs(params, spec):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec)
        encoded: Any = built.encoder.apply({"params": params["encoder"]}, tokens)
        return {"encoded": encoded.tokens.x}

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under Dasheng's names."""
    prefix = config.get("reference", {}).get("prefix", "")
    return {f"{prefix}{name}": value for name, value in _named(params, config).items()}


def _named(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    patchify, encoder = params["tokenizer"]["tokenizer"], params["encoder"]
    patch = config["objective"]["tokenizer"]["tokenizer"]["patch"]
    positions = encoder["positions"]
    state = {
        "time_pos_embed": positions["time"].T[None, :, None],
        "freq_pos_embed": positions["freq"].T[None, :, :, None],
        "patch_embed.proj.weight": patchify["kernel"].T.reshape(-1, 1, *patch),
        "patch_embed.proj.bias": patchify["bias"],
    }
    state |= stored_norm("init_bn.1", params["tokenizer"]["norm"])
    state |= norm("norm", encoder["final_norm"])
    return state | vit.layers("blocks", encoder["layers"])
