"""BAT (2026, arXiv:2602.16305): the encoder, as released or out of a checkpoint of its pretraining code."""

from typing import Any

import numpy as np

from ssl_audio.convert import vit
from ssl_audio.convert.base import Converted, State, build, need, norm, plain_names
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import join
from ssl_audio.data.entries import clips

RELEASED = (
    "student.encoder."  # what BAT's own loader looks for; it passes over everything else in silence
)
PREFIXES = (RELEASED, "encoder.", "")
KEPT = ("decoder.", "ema_encoder.")  # beside "encoder." in what the pretraining code writes


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the encoder of BAT; names in the state dict may begin with `student.encoder.` or `encoder.`.

    Options: heads (default: width / 64), rate (16000 Hz), n_fft (1024: also the window), hop_length (160),
    n_mels (128), target_length (frames; default: 1024), top_db (80), ln_eps (1e-6); dim, depth, mlp_ratio are
    held against the arrays.

    `forward(spec=[B, 1, T, F])` gives the special and the patch tokens after the last block, `tokens`, and
    after each, `block_0`, …

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    place = "patch_embed.proj.weight"
    prefix = next((p for p in PREFIXES if f"{p}{place}" in state), RELEASED)
    kernel, table = need(state, f"{prefix}{place}", f"{prefix}pos_embed")
    patch = (kernel.shape[3], kernel.shape[2])
    frames, bins = asked.get("target_length", 1024), asked.get("n_mels", 128)
    rows, columns = bins // patch[0], frames // patch[1]
    if table.shape[1] % rows or table.shape[1] < rows * columns:
        raise ValueError(
            f"{prefix}pos_embed: a table of {table.shape[1]} rows; target_length={frames} and n_mels={bins} "
            f"mean {rows} x {columns} patches, of at most {table.shape[1] // rows} columns."
        )
    eps = asked.get("ln_eps", 1e-6)
    blocks = f"{prefix}blocks"
    encoder = vit.blocks(state, asked, blocks, heads="heads", eps=eps, kind="post_norm")
    width = asked.found("dim", encoder["width"], f"{prefix}{place} {kernel.shape}")
    asked.found("depth", encoder["depth"], f"{blocks}.*")
    asked.found("mlp_ratio", encoder["block"]["mlp"], f"{blocks}.0.mlp.fc1.weight")
    grid = (rows, table.shape[1] // rows)
    encoder |= dict(
        special=1,
        # As it lies: the published table was made for another order of tokens than it is added to.
        positions=dict(
            kind="positions:Learned", grid=grid, start="sincos", cut="start", special=False
        ),
        first_norm=encoder["final_norm"],
        final_norm=None,
    )
    rate, hop = asked.get("rate", 16_000), asked.get("hop_length", 160)
    objective = dict(
        kind="features",
        frontend=dict(
            kind="mel",
            rate=rate,
            bins=bins,
            hop=hop,
            window=asked.get("n_fft", 1024),
            low=0.0,
            high=rate / 2,
            scale="htk",
            area=False,
            top_db=float(asked.get("top_db", 80)),
            per_clip=True,
            frames=frames,
        ),
        tokenizer=dict(kind="patchify", width=width, patch=patch, stride=patch),
        encoder=encoder,
    )
    asked.finish()
    config = dict(
        objective=objective,
        data=clips(hop * (frames - 1), rate=rate),
        reference=dict(prefix=prefix),
    )
    unused = KEPT if prefix == "encoder." else ()
    built, params, left = build(config, lambda p: to_state_dict(p, config), state, unused=unused)
    order = vit.TimeMajor((rows, columns), patch)

    def encoding(params, spec):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec[:, 0])
        found: Any = built.encoder.apply({"params": params["encoder"]}, tokens, layers=True)
        each = [
            found.replace(tokens=found.tokens.replace(x=x), special=special)
            for x, special in zip(found.layers, found.specials, strict=True)
        ]
        layers = {f"block_{i}": order.joined(join(one)) for i, one in enumerate(each)}
        return layers | {"tokens": order.joined(join(found))}

    return Converted(config, params, encoding, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under BAT's names, with the prefix that its loader wants, or as they came."""
    encoder, objective = params["encoder"], config["objective"]
    prefix = config.get("reference", {}).get("prefix", RELEASED)
    grid = tuple(objective["encoder"]["positions"]["grid"])
    order = vit.TimeMajor(grid, tuple(objective["tokenizer"]["patch"]))
    state = {
        f"{prefix}cls_token": encoder["special"][None],
        f"{prefix}pos_embed": order.table(encoder["positions"]["table"])[None],
        f"{prefix}patch_embed.proj.weight": order.kernel(params["tokenizer"]["kernel"]),
        f"{prefix}patch_embed.proj.bias": params["tokenizer"]["bias"],
    }
    state |= norm(f"{prefix}pre_norm", encoder["first_norm"])
    return state | vit.layers(f"{prefix}blocks", encoder["layers"])
