"""A codec: the config subtree of its objective, and of one that is trained, for what works with its codes."""

import math
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


def dac(
    *,
    rate,
    strides,
    channels,
    decoder_channels,
    books,
    codes,
    inner,
    spectra,
    periods,
    windows,
    widths,
    filters,
    edges=(0.1, 0.25, 0.5, 0.75),
) -> dict[str, Any]:  # fmt: skip
    """Return the objective of DAC (arXiv:2306.06546, sections 3.1 to 3.5); its losses are not balanced.

    Args:
      rate: sampling rate, Hz.
      strides, channels: of the encoder, which doubles its channels at each stride.
      decoder_channels: of the decoder's last stride.
      books, codes, inner: of the quantizer.
      spectra: windows and bands of the log-mels.
      periods, widths: of the discriminator of periods.
      windows, filters, edges: of that of complex spectra in bands. Neither periods nor windows: no
        discriminator.
    """
    doubled = tuple(2 ** (i + 1) for i in range(len(strides)))
    same = dict(activation=dict(kind="oobleck:Snake"))
    width = channels * doubled[-1]
    made = dict(
        kind="codec",
        frontend=dict(kind="raw", rate=rate, standardise=False),
        tokenizer=dict(
            kind="oobleck", width=width, channels=channels, multiples=doubled, strides=strides,
            filled=True, **same,
        ),
        encoder=dict(kind="identity"),
        quantizer=dict(
            kind="factorised", books=books, codes=codes, width=width, inner=inner, drop=0.5
        ),
        decoder=dict(
            kind="oobleck", sounds=1, channels=decoder_channels, multiples=(*doubled[::-1], 1),
            strides=strides[::-1], bias=True, tanh=True, **same,
        ),
        spectra=[
            mel(rate, window, bands) | dict(scale="slaney", area=True) for window, bands in spectra
        ],
        spectral="logs",
        balance=None,
        # As published: all but those of transposed convolutions. Constants in place of sound would give all
        # vectors one direction, so that books begin with one code in use.
        zeroed="^(tokenizer|quantizer|decoder)/(?!up_).*bias$",
        wave=0.0,
        # Published: 15 times the sum over scales, of base 10.
        mel=15.0 * len(spectra) / math.log(10),
    )  # fmt: skip
    if not periods and not windows:
        return made
    parts = [
        dict(kind="discriminators:Periods", periods=periods, channels=widths),
        dict(
            kind="discriminators:Spectra", windows=windows, channels=filters, dilations=(1, 1, 1),
            slope=0.1, edges=edges,
        ),
    ]  # fmt: skip
    # Published: 1 and 2 times sums, over the parts and over their inner layers.
    layers = len(periods) * len(widths) + len(windows) * (len(edges) + 1) * 5
    return made | dict(
        discriminator=dict(kind="discriminators:Several", parts=parts),
        gan="least_squares",
        adversarial=float(len(periods) + len(windows)),
        matching=2.0 * layers,
    )


def mel(rate, window, bins) -> dict[str, Any]:
    """Return a log-mel of magnitudes above 1e-5."""
    return dict(
        kind="mel", rate=rate, bins=bins, hop=window // 4, window=window, low=0.0, high=0.0, scale="htk",
        area=False, floor=1e-10,
    )  # fmt: skip


def laptop(made: dict[str, Any], place: str, *, steps: int, optim: Any) -> Any:
    """Return a run of an objective on clips of half a second, for two cores."""
    from ssl_audio.presets import (
        runs,  # imports JAX, which --help of verbs that call this file must not
    )

    for spectrum in made["spectra"]:
        spectrum["floor"] = 1e-6  # else silence, which is exact, outweighs the sound
    config: Any = runs.short(
        objective=made, places=place, samples=4000, batch=16, steps=steps, optim=optim
    )
    config.data.entries.audio.fill = "zeros"  # what comes after a clip is to sound like nothing
    return config


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
