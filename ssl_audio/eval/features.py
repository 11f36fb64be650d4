"""What is probed: features of a source's clips from an encoder, and from a plain log-mel baseline.

Called by `evaluate.py`, once per model.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from ssl_audio.data.reading import reading
from ssl_audio.data.source import Source
from ssl_audio.frontend.fbank import Fbank
from ssl_audio.inference import probe
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.pooling import pooling
from ssl_audio.inference.probe import Extract


def matrix(
    source: Source, extract: Extract, *, desc: str = "", max_bad_share: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers [n] of the clips that could be read, and their features [n, K, p].

    Raises:
      ValueError: more than `max_bad_share` of the clips cannot be read, or all.
    """
    read, found = _read(source, extract, desc, max_bad_share)
    return read, np.stack(found)


def token_maps(
    source: Source,
    encoder: Encoder,
    layers: Sequence[int],
    *,
    desc: str = "",
    view: str = "tokens",
    max_bad_share: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers [n] of the clips that could be read, and all their tokens.

    Those are float16 [n, K, rows, columns, D], low frequencies first, of each of `layers`; NaN in the
    columns after a clip's end. In the view "all" they are [n, 1, rows + 1, columns, L, D].

    Raises:
      ValueError: as `matrix`; no such layer.
    """
    read, found = _read(source, probe.features(encoder, view, layers), desc, max_bad_share)
    columns = max(x.shape[2] for x in found)
    return read, np.stack([probe.filled(x, columns, axis=2) for x in found])


def _read(
    source: Source, extract: Extract, desc: str, max_bad_share: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    read: list[int] = []
    clips = reading(source, read, desc=desc, bad={}, max_bad_share=max_bad_share)
    found = dict(extract(clips))
    if not found:
        raise ValueError(f"{source.info.name}: no clip could be read.")
    return np.array(read), [found[k] for k in range(len(read))]


def encoded(encoder: Encoder, layers: Sequence[int], pool: str) -> Extract:
    """Return the extraction of an encoder's pooled features, of each of `layers`."""
    return probe.features(encoder, "pooled", layers, pool)


def untrained(encoder: Encoder, seed: int) -> Encoder:
    """Return the same architecture with fresh random parameters."""
    init = jax.jit(encoder.objective.init)
    params = init(jax.random.key(seed), encoder.blank())[0]
    return dataclasses.replace(encoder, params=jax.tree.map(np.asarray, params))


def log_mel(rate: int, bins: int = 128) -> Extract:
    """Return the extraction of mean and standard deviation over time of each log-mel band."""
    frontend = Fbank(rate=rate, bins=bins, hop=rate // 100, window=rate // 40)
    spectrogram = jax.jit(frontend.log_mel)

    def extract(clips):
        for number, audio in enumerate(clips):
            length = max(len(audio), frontend.window)
            padded = -(-length // rate) * rate  # whole seconds: few programs to compile
            audio = np.pad(audio, (0, padded - len(audio)))[None]
            spec = np.asarray(spectrogram(audio, np.array([length], np.int32)))[0]
            yield (
                number,
                pooling(spec[: 1 + (length - frontend.window) // frontend.hop], bins, "stats")[
                    None
                ],
            )

    return extract
