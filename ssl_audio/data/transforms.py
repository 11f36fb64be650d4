"""Pure functions on waveforms, each given its own random generator; `pipeline.py` calls them."""

from collections.abc import Callable

import numpy as np

from ssl_audio.data import decode

CROPS = ("random", "first")
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
    if mode not in CROPS:
        raise ValueError(f"crop: got {mode!r}, wanted one of {', '.join(CROPS)}")
    spare = len(audio) - samples
    if spare > 0:
        start = int(rng.integers(spare + 1)) if mode == "random" else 0
        return audio[start : start + samples], samples
    return np.pad(audio, (0, -spare)), len(audio)


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
        parts.append(more())
    return np.concatenate(parts)[:samples]


def gain(audio: np.ndarray, db: float) -> np.ndarray:
    """Return audio louder by `db` dB."""
    return (audio * 10 ** (db / 20)).astype(np.float32)


def speed(audio: np.ndarray, factor: float) -> np.ndarray:
    """Return audio played `factor` times faster, its pitch with it (Ko et al., Interspeech 2015)."""
    return decode.resample(audio, factor, 1.0)


def mixup(audio: np.ndarray, partner: np.ndarray, share: float) -> np.ndarray:
    """Return `share` of a clip [S] plus the rest of its partner (SSAST's waveform mixup).

    Each is made zero-mean before and the sum after; the partner is cut or zero-padded to S.
    """
    partner = partner - partner.mean()
    fitted = np.zeros(len(audio), np.float32)
    fitted[: len(partner)] = partner[: len(audio)]
    mixed = share * (audio - audio.mean()) + (1 - share) * fitted
    return (mixed - mixed.mean()).astype(np.float32)
