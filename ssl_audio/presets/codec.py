"""A codec: the config subtree of its objective, and of one that is trained, for what works with its codes."""

from collections.abc import Mapping
from typing import Any

from ssl_audio.storage import written

# Where a model keeps a codec, and which of the codec's parameters it takes; see `warm_start`.
TAKEN = "^(tokenizer|encoder|quantizer|decoder)/"
LEARNING = ("spectra", "discriminator")  # what only its own training needs


def objective(
    *, rate, strides, channels, width, books, codes, recurrent, windows, bins, judged, filters
) -> dict[str, Any]:
    """Return the objective; windows are those of the spectra and, `judged`, of the discriminator."""
    same = dict(
        channels=channels, recurrent=recurrent, causal=False, pad="constant", shortcut=False
    )
    made = dict(
        kind="codec",
        frontend=dict(kind="raw", rate=rate, standardise=False),
        tokenizer=dict(kind="seanet", width=width, strides=strides, **same),
        encoder=dict(kind="identity"),
        quantizer=dict(kind="residual", books=books, codes=codes, width=width),
        decoder=dict(kind="seanet", strides=strides[::-1], **same),
        spectra=[mel(rate, window, min(bins, window // 4)) for window in windows],
    )
    if judged:
        made["discriminator"] = dict(
            kind="discriminators:Spectra", windows=judged, channels=filters
        )
    return made


def mel(rate, window, bins) -> dict[str, Any]:
    """Return a log-mel of magnitudes above 1e-5."""
    return dict(
        kind="mel", rate=rate, bins=bins, hop=window // 4, window=window, low=0.0, high=0.0, scale="htk",
        area=False, floor=1e-10,
    )  # fmt: skip


def trained(path: str) -> dict[str, Any]:
    """Return the objective of a codec's run or converted folder, without what only its training needs.

    Raises:
      ValueError: it is no codec, or one of several channels or of chunks.
    """
    found = written.trained(path)
    if not is_codec(found):
        raise ValueError(f"codec={path}: got a {found.get('kind')}, wanted a codec.")
    if found.get("chunk") or found.get("normalise") or found["decoder"].get("sounds", 1) > 1:
        raise ValueError(
            f"codec={path}: got one with chunks, normalised sound or several channels; wanted one without."
        )
    return without_training(found)


def is_codec(objective: Mapping[str, Any]) -> bool:
    """Return whether an objective turns sound to codes and back."""
    return {"quantizer", "decoder"} <= set(objective)


def without_training(objective: dict[str, Any]) -> dict[str, Any]:
    """Return an objective without losses' parts."""
    return {name: value for name, value in objective.items() if name not in LEARNING}
