"""VATT's towers (Akbari et al. 2021, arXiv:2104.11178): each with its own Transformer, or all with one."""

from typing import Any

# Layers, width, hidden width, heads; of words with a Transformer of its own: those of "small".
SIZES: dict[str, tuple[int, int, int, int]] = {
    "small": (6, 512, 2048, 8),
    "base": (12, 768, 3072, 12),
    "medium": (12, 1024, 4096, 16),
    "large": (24, 1024, 4096, 16),
}
NORM: dict[str, Any] = dict(kind="norms:LayerNorm", eps=1e-6)
# One softmax over both directions; a batch's rows without words do not count.
COMPARE: dict[str, Any] = {
    "audio-video/fine": dict(kind="pair_losses:OneSoftmax"),
    "video/coarse-text": dict(kind="pair_losses:OneSoftmax", there="text_length"),
}
EDGES = (("audio", "video/fine", 1.0), ("video/coarse", "text", 1.0))
SHARED = "^encoder/(layers|final_norm)/"


def stack(
    size: tuple[int, int, int, int], axes: tuple[int, ...] = (), **more: Any
) -> dict[str, Any]:
    """Return a Transformer with an aggregating token; `axes`: steps of its tables of positions, time last."""
    depth, width, hidden, heads = size
    positions = dict(kind="positions:Axes", sizes=axes, norm=NORM) if axes else None
    return (
        dict(
            kind="stack",
            width=width,
            depth=depth,
            special=1,
            positions=positions,
            block=dict(
                kind="blocks:PreNorm",
                mixer=dict(kind="attention", heads=heads),
                norm=NORM,
                mlp=hidden / width,
            ),
            final_norm=NORM,
        )
        | more
    )


def sound(
    size: tuple[int, int, int, int],
    *,
    rate: int,
    patch: int,
    places: int,
    drop: float,
    fine: int,
    post: int = 0,
    standardise: bool = False,
) -> dict[str, Any]:
    """Return the tower of sound.

    Args:
      size: layers, width, hidden width, heads.
      rate: Hz.
      patch: samples of a token.
      places: rows of the table of positions.
      drop: share of the tokens that training leaves out; 0: none.
      fine: width of the space with video.
      post: width of the layers around a Transformer that others share; 0: there are none.
      standardise: bring each clip to mean 0 and deviation 1; published: as it is.
    """
    return _tower(
        dict(kind="waveform:WavePatches", width=size[1], size=patch),
        stack(size, (places,)),
        dict(kind="projectors:OneLayer", out=fine),
        post,
        frontend=dict(kind="raw", rate=rate, standardise=standardise),
        drop=_dropped(drop),
    )


def video(
    size: tuple[int, int, int, int],
    *,
    patch: tuple[int, int, int],
    places: tuple[int, int, int],
    drop: float,
    fine: int,
    coarse: int,
    post: int = 0,
) -> dict[str, Any]:
    """Return the tower of video; see `sound`.

    Args:
      size, drop, fine, post: as of sound.
      patch: frames and pixels of a token.
      places: rows of the tables: height, width and time, in tokens.
      coarse: width of the space with words.
    """
    return _tower(
        dict(kind="voxels:VoxelPatches", width=size[1], patch=patch),
        stack(size, places),
        dict(kind="projectors:FineToCoarse", fine=fine, coarse=coarse),
        post,
        length="video_length",
        drop=_dropped(drop),
    )


def words(
    size: tuple[int, int, int, int],
    *,
    vocab: int,
    inner: int,
    coarse: int,
    places: int = 0,
    post: int = 0,
) -> dict[str, Any]:
    """Return the tower of words: T5's encoder, or with `post` one that shares its Transformer; see `sound`.

    Args:
      size, post: as of sound.
      vocab: rows of the table of words.
      inner: width of that table, which is frozen as published.
      coarse: width of the space with video.
      places: rows of the table of positions; 0: the Transformer knows distances (T5).
    """
    tokenizer = dict(
        kind="words:WordsProjected", width=size[1], vocab=vocab, inner=inner, bias=bool(post)
    )
    encoder = stack(size, (places,) if places else ())
    if not places:
        depth, width, hidden, heads = size
        encoder |= dict(
            block=dict(
                kind="blocks:PreNorm",
                mixer=dict(kind="t5:T5Attention", heads=heads, size=width // heads),
                norm=dict(kind="norms:RMSNorm", eps=1e-6),
                second_norm=NORM,
                mlp=dict(kind="t5:T5Mlp", hidden=hidden, activation="gelu"),
            ),
            pair_bias=dict(kind="relative:RelativeBias", heads=heads, buckets=32, distance=64),
            final_norm=dict(kind="norms:RMSNorm", eps=1e-6),
        )
    head = dict(kind="projectors:OneLayer", out=coarse)
    pool: dict[str, Any] = dict(kind="pools:Special")
    if post:
        pool = dict(kind="pools:DenseGelu", pool=pool, width=post)
    return dict(
        kind="towers:Tower",
        tokenizer=tokenizer,
        encoder=encoder,
        pool=pool,
        projector=head,
        length="text_length",
        frozen=False,
    )


def _tower(
    tokenizer: dict[str, Any], encoder: dict[str, Any], head: dict[str, Any], post: int, **more: Any
) -> dict[str, Any]:
    pool: dict[str, Any] = dict(kind="pools:Special")
    if post:
        tokenizer = dict(kind="dense:DenseGelu", tokenizer=tokenizer, width=tokenizer["width"])
        pool = dict(kind="pools:DenseGelu", pool=pool, width=post)
    found = dict(tokenizer=tokenizer, encoder=encoder, pool=pool, projector=head)
    return dict(kind="towers:Tower", length="length", frozen=False) | found | more


def _dropped(share: float) -> dict[str, Any] | None:
    return dict(kind="masking:Random", count=share) if share else None
