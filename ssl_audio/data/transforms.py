"""Pure functions on waveforms, each given its own random generator; `pipeline.py` calls them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ssl_audio.data.long_audio import LongAudio
from ssl_audio.data.resampling import resample, resampled_length

CROPS = ("random", "first")
_REACH = 2000  # samples beside a slice that a resampler looks at
FILLS = ("zeros", "repeat", "repeatpad", "join")


def crop(
    audio: np.ndarray, samples: int, mode: str, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Cut or zero-pad audio [S] to `samples`; return it and the number of samples that are sound.

    Args:
      audio: waveform [S].
      samples: wanted length.
      mode: where a longer clip is cut: "random" or "first".
      rng: used for "random" only.
    """
    start = crop_start(len(audio), samples, mode, rng)
    audio = audio[start : start + samples]
    return np.pad(audio, (0, samples - len(audio))), len(audio)


def crop_start(length: int, samples: int, mode: str, rng: np.random.Generator) -> int:
    """Return the sample at which `crop` cuts a clip of this length."""
    if mode not in CROPS:
        raise ValueError(f"crop: got {mode!r}, wanted one of {', '.join(CROPS)}")
    spare = length - samples
    return int(rng.integers(spare + 1)) if spare > 0 and mode == "random" else 0


def fill(audio: np.ndarray, samples: int, mode: str, more: Callable[[], np.ndarray]) -> np.ndarray:
    """Lengthen a clip [S] that is shorter than `samples`.

    Args:
      audio: waveform [S].
      samples: wanted length; the result may be longer, and shorter if `mode` is "zeros" or "repeatpad".
      mode: "zeros" leaves it to `crop`, "repeat" says it again, "repeatpad" as often as it fits
        whole (CLAP), "join" puts other clips behind it.
      more: gives another clip each time, for "join".
    """
    if mode not in FILLS:
        raise ValueError(f"fill: got {mode!r}, wanted one of {', '.join(FILLS)}")
    if mode == "zeros" or len(audio) >= samples:
        return audio
    if mode == "repeatpad":
        return np.tile(audio, samples // len(audio))
    if mode == "repeat":
        return np.tile(audio, -(-samples // len(audio)))[:samples]
    parts = [audio]
    while sum(map(len, parts)) < samples:
        parts.append(more()[: samples - sum(map(len, parts))])
    return np.concatenate(parts)


def gain(audio: Any, db: float) -> Any:
    """Return audio, an array or `LongAudio`, louder by `db` dB."""
    if isinstance(audio, LongAudio):
        return LongAudio(len(audio), lambda first, stop: gain(audio[first:stop], db))
    return (audio * 10 ** (db / 20)).astype(np.float32)


def speed(audio: Any, factor: float) -> Any:
    """Return audio played `factor` times faster, its pitch with it (Ko et al., Interspeech 2015).

    Of `LongAudio`, slices begin up to 1e-4 samples beside those of the whole.
    """
    if isinstance(audio, LongAudio):
        length = resampled_length(len(audio), factor, 1.0)
        return LongAudio(length, lambda first, stop: _played(audio, factor, first, stop))
    return resample(audio, factor, 1.0)


def _played(audio: LongAudio, factor: float, first: int, stop: int) -> np.ndarray:
    """Return samples [first, stop) of audio played faster, from the part of it that they come from."""
    # A resampler begins at a whole sample: at the one nearest to a sample of the result.
    starts = np.arange(max(0, first - _REACH - 20_000), max(1, first - _REACH + 1))
    begin = int(starts[np.argmin(np.abs(starts * factor - np.rint(starts * factor)))])
    low, high = round(begin * factor), math.ceil((stop + _REACH) * factor)
    return resample(audio[low:high], factor, 1.0)[first - begin : stop - begin]


def mixup(audio: np.ndarray, partner: np.ndarray, share: float) -> np.ndarray:
    """Return `share` of a clip [S] plus the rest of its partner (SSAST's waveform mixup).

    Each is made zero-mean before and the sum after; the partner is cut or zero-padded to S.
    """
    partner = partner - partner.mean()
    fitted = np.zeros(len(audio), np.float32)
    fitted[: len(partner)] = partner[: len(audio)]
    mixed = share * (audio - audio.mean()) + (1 - share) * fitted
    return (mixed - mixed.mean()).astype(np.float32)
