"""Published encoder sizes, and the config subtrees of the published encoders made from them."""

import re
from typing import Any

# name: (width, Transformer depth, heads, SSAMBA depth)
SIZES = {
    "mini": (128, 4, 4, 8),
    "tiny": (192, 12, 3, 24),
    "small": (384, 12, 6, 24),
    "base": (768, 12, 12, 24),
    "large": (1024, 24, 16, 48),
    "huge": (1280, 32, 16, 64),
}


def shape(text: str, option: str) -> tuple[int, int]:
    """Return the (frequency, time) of a patch or stride from "16x16".

    Raises:
      ValueError: it does not look like that; with the name of the option.
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise ValueError(f"{option} '{text}': wanted ROWSxCOLUMNS, as 16x16.")
    rows, columns = map(int, text.split("x"))
    return rows, columns


def encoder(
    name: str, size: str, grid: tuple[int, int], depth: int | None = None
) -> dict[str, Any]:
    """Return the config of an encoder: everything that differs between published ones.

    Args:
      name: "ssast" (Transformer with two special tokens), "vit" (with one), "eat" (with one, post-norm),
        "bat" (that with gated attention), "ssamba" (as published: mirrored pairs, LayerNorm) or "ssamba_rms"
        (a plain sequence of RMSNorm layers, the class defaults of its code).
      size: a key of SIZES.
      grid: (frequency rows, time columns) of the position table.
      depth: number of layers, if not the published one.
    """
    if size not in SIZES:
        raise ValueError(f"size '{size}': wanted one of {', '.join(SIZES)}.")
    if name not in ENCODERS:
        raise ValueError(f"encoder '{name}': wanted one of {', '.join(ENCODERS)}.")
    width, blocks, heads, mambas = SIZES[size]
    sized = (width, depth or blocks, heads, depth or mambas)
    positions = dict(kind="positions:Learned", grid=grid)
    return dict(kind="stack", width=width, positions=positions) | ENCODERS[name](*sized)


def _ssast(width, depth, heads, _):
    del width
    norm = dict(kind="norms:LayerNorm", eps=1e-6)
    mixer = dict(kind="attention", heads=heads)
    block = dict(kind="blocks:PreNorm", mixer=mixer, norm=norm, mlp=4.0)
    return dict(depth=depth, special=2, block=block, final_norm=norm, drop_path=0.0)


def _vit(width, depth, heads, _):
    return _ssast(width, depth, heads, _) | dict(special=1)


def _eat(width, depth, heads, _):
    parts: dict[str, Any] = _vit(width, depth, heads, _)
    block = parts["block"] | dict(kind="post_norm")
    return parts | dict(block=block, first_norm=parts["final_norm"], final_norm=None)


def _bat(width, depth, heads, _):
    parts: dict[str, Any] = _eat(width, depth, heads, _)
    return parts | dict(
        block=parts["block"] | dict(mixer=parts["block"]["mixer"] | dict(gate=True))
    )


def _ssamba(width, _, heads, depth, kind="blocks:MirroredPair", norm="norms:LayerNorm", **options):
    del width, heads
    norm = dict(kind=norm, eps=1e-5)
    mixer = dict(kind="mamba", layers=depth)
    block = dict(kind=kind, mixer=mixer, norm=norm, **options)
    final = dict(kind="norms:Twice", norm=norm)
    return dict(depth=depth, special=1, block=block, final_norm=final, drop_path=0.1)


def _ssamba_rms(*size):
    return _ssamba(*size, kind="blocks:PreNorm", norm="norms:RMSNorm", mlp=0.0)


ENCODERS = {
    "ssast": _ssast,
    "vit": _vit,
    "eat": _eat,
    "bat": _bat,
    "ssamba": _ssamba,
    "ssamba_rms": _ssamba_rms,
}
