"""Config subtrees of encoders whose positions are convolutions: the wav2vec 2.0 family, and BEATs.

Called by configs.
"""

from typing import Any

# name: (width, depth, heads, channels of the waveform's convolutions)
SIZES = {
    "tiny": (192, 4, 3, 64),
    "base": (768, 12, 12, 512),
    "large": (1024, 24, 16, 512),
}
NORM = dict(kind="norms:LayerNorm", eps=1e-5)


def sized(size: str) -> tuple[int, int, int, int]:
    """Return width, depth, heads and channels.

    Raises:
      ValueError: no such size.
    """
    if size not in SIZES:
        raise ValueError(f"size '{size}': wanted one of {', '.join(SIZES)}.")
    return SIZES[size]


def waveform(size: str, *, gradient: float = 1.0, norm: str = "") -> dict[str, Any]:
    """Return the tokenizer of samples: 20 ms a token.

    Args:
      size: a key of SIZES.
      gradient: factor on the gradient of the convolutions.
      norm: "group" or "layer"; default: as published, "layer" for large models only.
    """
    width, _, _, channels = sized(size)
    large = size == "large"
    convolutions = dict(
        kind="waveform",
        widths=(channels,) * 7,
        bias=large,
        norm=norm or ("layer" if large else "group"),
        gradient=gradient,
    )
    return dict(kind="waveform:Projected", tokenizer=convolutions, width=width, eps=1e-5)


def speech_encoder(size: str, positions: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the Transformer of wav2vec 2.0 (Baevski et al. 2020, section 4.1).

    Large models have their norms before attention and perceptron, others after.
    """
    width, depth, heads, _ = sized(size)
    ahead = size == "large"
    taps, groups = (128, 16) if width >= 768 else (32, 4)
    return dict(
        kind="stack",
        width=width,
        depth=depth,
        positions=positions or dict(kind="convolutions:Convolution", size=taps, groups=groups),
        block=dict(
            kind="blocks:PreNorm" if ahead else "post_norm",
            mixer=dict(kind="attention", heads=heads),
            norm=NORM,
            mlp=4.0,
        ),
        first_norm=None if ahead else NORM,
        final_norm=NORM if ahead else None,
        drop_path=0.0,
    )


def beats_stack(width: int, depth: int, heads: int) -> dict[str, Any]:
    """Return layers with DeepNorm and gated relative positions (BEATs, arXiv:2212.09058, section 3.1)."""
    gain, alpha = (8 * depth) ** -0.25, (2 * depth) ** 0.25
    return dict(
        kind="stack",
        width=width,
        depth=depth,
        block=dict(
            kind="post_norm",
            mixer=dict(kind="relative:BiasedAttention", heads=heads, gate="query", gain=gain),
            norm=NORM,
            mlp=dict(kind="blocks:Mlp", ratio=4.0, gain=gain),
            alpha=alpha,
        ),
        pair_bias=dict(kind="relative:RelativeBias", heads=heads, buckets=320, distance=800),
        first_norm=NORM,
        final_norm=None,
        time_major=True,
        drop_path=0.0,
    )


def beats_encoder(size: str) -> dict[str, Any]:
    """Return the encoder of BEATs."""
    width, depth, heads, _ = sized(size)
    taps, groups = (128, 16) if width >= 768 else (32, 4)
    positions = dict(kind="convolutions:Convolution", size=taps, groups=groups)
    return beats_stack(width, depth, heads) | dict(positions=positions)


def beats_predictor(size: str) -> dict[str, Any]:
    """Return the predictor of masked codes: three layers and a norm after them."""
    width, _, heads, _ = sized(size)
    encoder = beats_stack(width, 3, heads) | dict(first_norm=None, final_norm=NORM)
    return dict(kind="restore:Restored", encoder=encoder)
