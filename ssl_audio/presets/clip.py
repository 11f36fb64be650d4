"""CLIP's towers (Radford et al. 2021, arXiv:2103.00020), and the tower of sound that VIP-ANT makes of one."""

from typing import Any

from ssl_audio.tokens.patchify import grid as grid_of

# Of each channel of its pictures, from 0 to 1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
VIT_B32: dict[str, Any] = dict(width=768, depth=12, heads=12, patch=32, grid=(7, 7), out=512)
TEXT_B32: dict[str, Any] = dict(vocab=49_408, width=512, depth=12, heads=8, length=77, out=512)
# The statistics of VIP-ANT's log-mel (arXiv:2112.08995); our front end divides by twice `std`.
SOUND: dict[str, Any] = dict(
    kind="fbank", bins=128, hop=160, frames=1000, mean=-4.93839311, std=5.75751113 / 2
)


def vit(
    *,
    width: int,
    depth: int,
    heads: int,
    patch: int,
    grid: tuple[int, int],
    out: int,
    ratio: float = 4.0,
    quick: bool = True,
    eps: float = 1e-5,
) -> dict[str, Any]:
    """Return the tower of pictures.

    Args:
      width, depth, heads: of the encoder.
      patch: pixels of a side.
      grid: rows and columns of patches.
      out: width of the common space; 0: no projection.
      ratio: of the perceptrons' hidden width.
      quick: the GELU is x sigmoid(1.702 x); else the exact one.
      eps: of the norms.
    """
    norm = dict(kind="norms:LayerNorm", eps=eps)
    return dict(
        kind="towers:Tower",
        tokenizer=dict(kind="pixels:ImagePatches", width=width, patch=patch),
        encoder=dict(
            kind="stack",
            width=width,
            depth=depth,
            special=1,
            positions=dict(kind="positions:Learned", grid=tuple(grid)),
            first_norm=norm,
            block=_block(heads, norm, ratio, quick),
            final_norm=norm,
        ),
        pool=dict(kind="pools:Special"),
        projector=_projector(out),
        length="image_length",
        frozen=False,
    )


def text(
    *,
    vocab: int,
    width: int,
    depth: int,
    heads: int,
    length: int,
    out: int,
    ratio: float = 4.0,
    quick: bool = True,
    eps: float = 1e-5,
) -> dict[str, Any]:
    """Return the tower of words: its vector is that of the last one; see `vit`.

    Args:
      vocab, length: rows of the tables of words and of places.
      width, depth, heads, out, ratio, quick, eps: as of pictures.
    """
    norm = dict(kind="norms:LayerNorm", eps=eps)
    return dict(
        kind="towers:Tower",
        tokenizer=dict(kind="words:WordsPlaced", width=width, vocab=vocab, length=length),
        encoder=dict(
            kind="stack",
            width=width,
            depth=depth,
            block=_block(heads, norm, ratio, quick, causal=True),
            final_norm=norm,
        ),
        pool=dict(kind="pools:Last"),
        projector=_projector(out),
        length="text_length",
        frozen=False,
    )


def sound(
    image: dict[str, Any],
    frontend: dict[str, Any],
    patch: tuple[int, int],
    stride: tuple[int, int],
) -> dict[str, Any]:
    """Return the tower of sound that has a tower of pictures for its encoder.

    Args:
      image: as `vit` returns it.
      frontend: waveform → log-mel of `frames` frames.
      patch, stride: mel bins and frames.
    """
    grid = grid_of(frontend["frames"], frontend["bins"], patch, stride)
    width = image["encoder"]["width"]
    positions = dict(kind="positions:Learned", grid=grid, cut="start")
    return image | dict(
        frontend=frontend,
        tokenizer=dict(kind="patchify", width=width, patch=patch, stride=stride, bias=False),
        encoder=image["encoder"] | dict(positions=positions),
        spec_augment=dict(kind="augment:SpecAugment", freq=32, time=200),
        length="length",
        frozen=False,
    )


def _block(
    heads: int, norm: dict[str, Any], ratio: float, quick: bool, **mixer: Any
) -> dict[str, Any]:
    return dict(
        kind="blocks:PreNorm",
        mixer=dict(kind="attention", heads=heads, **mixer),
        norm=norm,
        mlp=dict(kind="quick_mlp:QuickMlp", ratio=ratio) if quick else ratio,
    )


def _projector(out: int) -> dict[str, Any] | None:
    return dict(kind="projectors:OneLayer", out=out, bias=False) if out else None
