"""From a file or its bytes to float32 mono at a wanted rate: the one decoder and resampler.

Called by every reader in `source.py` and `sets/`, and by `embed`.
"""

import io
import os
import re
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

# Sizes that streaming writers leave in a header they could not go back to.
_STREAMED = 0x7FFF_0000
_SHORTER = re.compile(r"(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)")


class DecodeError(ValueError):
    """A file that cannot be used as audio; readers of many files skip it and say so."""


def decode(
    source: str | os.PathLike | bytes, rate: int, start: float = 0.0, end: float | None = None
) -> np.ndarray:
    """Return audio as float32 mono [S] at `rate` Hz, nominally in [-1, 1]; see `blocks`."""
    return np.concatenate(list(blocks(source, rate, start, end)))


def blocks(
    source: str | os.PathLike | bytes,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    *,
    seconds: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield audio as float32 mono [S] at `rate` Hz, nominally in [-1, 1], piece by piece.

    Channels are averaged. Only the wanted part of the file is read. The pieces, put together, have
    the same bits however long they are: the resampler's state goes on from one to the next.

    Args:
      source: a path, or the content of a file.
      rate: Hz of the result.
      start: first second wanted.
      end: last second wanted; None or past the end: all there is.
      seconds: length of a piece; None: all in one.

    Raises:
      DecodeError: missing, empty, truncated, not audio, or NaN or infinite samples. It names the
        file. Silence, single samples and any channel count or rate are fine.
    """
    name = f"<{len(source)} bytes>" if isinstance(source, bytes) else os.fspath(source)
    try:
        size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
        if not size:
            raise DecodeError(f"{name}: empty file")
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else name) as file:
            if file.format == "OGG" and not _ogg_ends(source):
                raise DecodeError(f"{name}: truncated: the Ogg stream has no last page")
            resampled = 0
            stream = None
            if file.samplerate != rate:
                stream = soxr.ResampleStream(file.samplerate, rate, 1, "float32", "HQ")
            for audio, last in _read(file, name, start, end, seconds):
                if not np.isfinite(audio).all():
                    raise DecodeError(f"{name}: NaN or infinite samples")
                piece = stream.resample_chunk(audio, last=last) if stream else audio
                resampled += len(piece)
                yield piece if resampled or not last else audio[:1]
    except FileNotFoundError:
        raise DecodeError(f"{name}: no such file") from None
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        cause = getattr(error, "error_string", None) or str(error)
        raise DecodeError(f"{name}: unreadable: {cause.strip()}") from error


def resample(audio: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Return float32 audio [S] at `to_rate` Hz (soxr, high quality); at least one sample."""
    audio = np.asarray(audio, np.float32)
    if from_rate == to_rate:
        return audio
    resampled = soxr.resample(audio, from_rate, to_rate, quality="HQ")
    return resampled if resampled.size else audio[:1]


def _read(
    file: soundfile.SoundFile, name: str, start: float, end: float | None, seconds: float | None
) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield mono pieces of the wanted part of a file, and whether each is the last."""
    first = round(start * file.samplerate)
    last = file.frames if end is None else min(round(end * file.samplerate), file.frames)
    if last <= first:
        raise DecodeError(
            f"{name}: no samples"
            + (f" from {start} s to {end} s" if start or end is not None else "")
            + f" (the file has {file.frames / file.samplerate:.3f} s)"
        )
    for stated, found in _SHORTER.findall(file.extra_info):
        if int(found) < 0.99 * int(stated) < 0.99 * _STREAMED:
            raise DecodeError(f"{name}: truncated: {found} of {stated} bytes")
    if first:
        file.seek(first)
    position, ended = first, False
    while not ended:
        wanted = last - position
        if seconds is not None:
            wanted = min(wanted, max(1, round(seconds * file.samplerate)))
        audio = file.read(wanted, dtype="float32", always_2d=True)
        position += len(audio)
        ended = position == last or len(audio) < wanted
        if ended and position - first < 0.99 * (last - first):
            raise DecodeError(f"{name}: truncated: {position - first} of {last - first} samples")
        mono = audio[:, 0] if audio.shape[1] == 1 else audio.mean(axis=1, dtype=np.float32)
        yield mono, ended


def _ogg_ends(source: str | os.PathLike | bytes) -> bool:
    """Return whether the last Ogg page is whole and marked as the end of its stream.

    libsndfile reads a cut Ogg file as a shorter one without a word.
    """
    if isinstance(source, bytes):
        tail = source[-(1 << 17) :]
    else:
        with open(source, "rb") as file:
            file.seek(max(0, os.path.getsize(source) - (1 << 17)))
            tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
