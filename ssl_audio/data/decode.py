"""From a file or its bytes to float32 mono at a wanted rate: the one decoder and resampler.

Called by every reader in `source.py` and `sets/`, and by `embed`. Files are read through `libsndfile.py`
and, where that cannot, `pyav.py`.
"""

import contextlib
import functools
import logging
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from ssl_audio.data import open_files, pyav
from ssl_audio.data.channels import Mixer, check_channels, loudest
from ssl_audio.data.containers import DecodeError
from ssl_audio.data.libsndfile import Short, SndfileReader, Unsupported
from ssl_audio.data.long_audio import LongAudio
from ssl_audio.data.resampling import SEGMENT, first_needed, resample, resampled, resampled_length

__all__ = [
    "DecodeError", "blocks", "decode", "fault", "printable", "rate_fault", "read", "resample",
    "stated_channels", "stated_rate", "stated_seconds",
]  # fmt: skip

RATES = (1000, 1_500_000)  # Hz; beyond, a header is wrong, or kHz were meant
PEAK = 16.0  # 24 dB above full scale; beyond, samples are not in [-1, 1]

_UNSTATED = (
    1 << 21
)  # bytes of a file without a stated length that is decoded whole without counting first

Content = str | os.PathLike | bytes

log = logging.getLogger(__name__)


def decode(
    source: Content,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    *,
    channels: str | int = "average",
) -> np.ndarray:
    """Return audio as float32 mono [S] at `rate` Hz, nominally in [-1, 1]; see `blocks`."""
    with _named(source):
        return _decoded(source, rate, *_samples(rate, start, end), channels)


def blocks(
    source: Content,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    *,
    seconds: float | None = None,
    channels: str | int = "average",
) -> Iterator[np.ndarray]:
    """Yield audio as float32 mono [S] at `rate` Hz, nominally in [-1, 1], piece by piece.

    An excerpt has the bits of that part of the whole file decoded and resampled, and the pieces, put
    together, those of the whole, however long they are. Of files that can be sought exactly (PCM, FLAC,
    Vorbis, Opus) only the wanted part is decoded, of others what is before it too.

    Args:
      source: a path, or the content of a file.
      rate: Hz of the result.
      start: first second wanted.
      end: last second wanted; None or past the end: all there is.
      seconds: length of a piece; None: all in one.
      channels: "average", "first", "loudest": the one of most power in the whole file; or its number, from 0.

    Raises:
      DecodeError: missing, empty, truncated, not audio, of an impossible rate, or with samples that are
        NaN, infinite or far outside [-1, 1]. It names the file. Silence and single samples are fine.
    """
    size = None if seconds is None else max(1, round(seconds * rate))
    first, last = _samples(rate, start, end)
    with _named(source):
        yield from _pieces(source, rate, first, last, channels, size)


def read(
    source: str | os.PathLike,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    *,
    channels: str | int = "average",
) -> np.ndarray | LongAudio:
    """Return what `decode` does; what is longer than a minute as `LongAudio`, which decodes slices of it.

    Raises:
      DecodeError: as `blocks`; of long audio, when a slice is asked for.
    """
    first, last = _samples(rate, start, end)
    with _named(source):
        opened = _open(source)
        total = opened.stated / opened.rate * rate
        if not opened.stated and os.path.getsize(source) > _UNSTATED:
            total = math.inf
        if (total if last is None else min(last, total)) - first <= SEGMENT * rate:
            return _decoded(source, rate, first, last, channels, opened)
        if not opened.seeks:
            _warn_of_seeking(opened.kind)
        frames = (
            _frames(os.fspath(source), _version(source)) if opened.frames is None else opened.frames
        )
        stop = resampled_length(frames, opened.rate, rate)
        stop = (stop if last is None else min(stop, last)) - first

    def excerpt(a: int, b: int) -> np.ndarray:
        with _named(source):
            found = _decoded(source, rate, first + a, first + b, channels)
            if len(found) < b - a:
                raise DecodeError(
                    f"truncated: no samples after {(first + a + len(found)) / rate:.3f} s"
                )
            return found

    return LongAudio(max(0, stop), excerpt)


def stated_seconds(source: str | os.PathLike) -> float:
    """Return how long a file is, s; where its header cannot tell, by decoding it.

    Raises:
      DecodeError: as `blocks`.
    """
    with _named(source):
        opened = _open(source)
        frames = opened.frames
        if frames is None:
            frames = _frames(os.fspath(source), _version(source))
        return frames / opened.rate


def stated_rate(source: str | os.PathLike) -> float:
    """Return the sampling rate of a file, Hz.

    Raises:
      DecodeError: as `blocks`.
    """
    with _named(source):
        return _open(source).rate


def stated_channels(source: str | os.PathLike) -> int:
    """Return how many channels a file has; DecodeError as `blocks`."""
    with _named(source):
        return _open(source).channels


def fault(audio: np.ndarray) -> str:
    """Return why floating-point samples cannot be sound in [-1, 1]; "" if they can."""
    low, high = audio.min(initial=0), audio.max(initial=0)
    if -PEAK <= low and high <= PEAK:  # not so for NaN
        return ""
    if not np.isfinite(audio).all():
        return "NaN or infinite samples"
    peak = max(-low, high)
    bits = next((bits for bits in (16, 24, 32) if peak <= 1.1 * 2 ** (bits - 1)), None)
    cause = f"in the range of int{bits}? Then divide by {2 ** (bits - 1)}" if bits else "damaged?"
    return f"samples reach {peak:.4g}, wanted floating point in [-1, 1]: {cause}"


def rate_fault(rate: float) -> str:
    """Return why a sampling rate cannot be one of sound; "" if it can."""
    low, high = RATES
    if low <= rate <= high:
        return ""
    hint = f"; did you mean {1000 * rate:g}?" if low <= 1000 * rate <= high and rate >= 4 else ""
    return f"a sampling rate of {rate:g} Hz, wanted {low} to {high} Hz{hint}"


def printable(name: str | bytes | os.PathLike) -> str:
    r"""Return a file's name as text that can be written anywhere; a byte that is not UTF-8 as \xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def _named(source: Content) -> Iterator[None]:
    """Turn whatever goes wrong with a file into a DecodeError that begins with its name."""
    name = f"<{len(source)} bytes>" if isinstance(source, bytes) else printable(source)
    try:
        yield
    except DecodeError as error:
        raise DecodeError(f"{name}: {error}") from error
    except FileNotFoundError:
        raise DecodeError(f"{name}: no such file") from None
    except MemoryError as error:
        raise DecodeError(f"{name}: unreadable: it asks for more memory than there is") from error
    except (OSError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        open_files.check(error, name)
        raise DecodeError(f"{name}: unreadable: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    cause = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
    if "File does not exist or is not a regular file" in str(cause):  # of text that is named .mp3
        return "Format not recognised."
    return str(cause).strip()


def _samples(rate: int, start: float, end: float | None) -> tuple[int, int | None]:
    return round(start * rate), None if end is None else round(end * rate)


def _open(source: Content) -> Any:
    """Return a reader of a file: libsndfile's, or PyAV's where only that knows the format."""
    if not (len(source) if isinstance(source, bytes) else os.path.getsize(source)):
        raise DecodeError("empty file")
    ending = "" if isinstance(source, bytes) else os.path.splitext(os.fspath(source))[1].lower()
    kinds: list[Any] = [SndfileReader]
    if pyav.installed():
        kinds.insert(0 if ending in pyav.ENDINGS else 1, pyav.AvReader)
    causes = []
    for kind in kinds:
        try:
            opened = kind(source)
        except (soundfile.LibsndfileError, Unsupported, pyav.Unknown) as error:
            causes.append(_cause(error))
            continue
        if cause := rate_fault(opened.rate):
            raise DecodeError(cause)
        return opened
    hint = "" if pyav.installed() else f" Perhaps PyAV knows the format: {pyav.INSTALL}"
    raise DecodeError(f"unreadable: {' '.join(causes)}{hint}")


def _decoded(
    source: Content,
    rate: int,
    first: int,
    last: int | None,
    channels: str | int,
    opened: Any = None,
) -> np.ndarray:
    return np.concatenate(list(_pieces(source, rate, first, last, channels, None, opened)))


def _pieces(
    source: Content,
    rate: int,
    first: int,
    last: int | None,
    channels: str | int,
    size: int | None,
    opened: Any = None,
) -> Iterator[np.ndarray]:
    """Yield samples [first, last) in pieces of `size`: by another reader if the first gives too little."""

    def by(reader: Any) -> Iterator[np.ndarray]:
        return _regrouped(_span(reader, source, rate, first, last, channels), size)

    opened, begun = opened or _open(source), False
    try:
        for piece in by(opened):
            yield piece
            begun = True
    except Short as error:
        if begun:
            if error.nearly:
                return
            raise
        try:
            found = list(by(pyav.AvReader(source, error.wanted)))
        except DecodeError:
            if not error.nearly:
                raise
            opened.lenient = True
            found = by(opened)
        yield from found


def _span(
    opened: Any, source: Content, rate: int, first: int, last: int | None, channels: str | int
) -> Iterator[np.ndarray]:
    """Yield samples [first, last) of a file at `rate` Hz, mono."""
    check_channels(channels, opened.channels)
    how: str | int = channels
    if channels == "first" or opened.channels == 1:
        how = 0
    elif channels == "loudest":
        how = (
            loudest(_whole(opened, source, 0))
            if isinstance(source, bytes)
            else _loudest(os.fspath(source), _version(source))
        )
    mixer = Mixer(how)
    given, wanted = 0, None if last is None else last - first
    if wanted is None or wanted > 0:
        whole = _whole(opened, source, first_needed(opened.rate, rate, first))
        for piece in resampled(map(mixer, _checked(whole)), opened.rate, rate, first):
            if not np.isfinite(piece).all():
                raise DecodeError("NaN or infinite samples after resampling")
            piece = piece[: None if wanted is None else wanted - given]
            if len(piece):
                yield piece
            given += len(piece)
            if given == wanted:
                break
    if not given:
        span = f" from {first / rate:g} s" + (f" to {last / rate:g} s" if last is not None else "")
        span = span if first or last is not None else ""
        raise DecodeError(f"no samples{span} (the file has {opened.stated / opened.rate:.3f} s)")
    mixer.report("bytes" if isinstance(source, bytes) else printable(source))


def _whole(opened: Any, source: Content, first: int) -> Iterator[np.ndarray]:
    """Yield blocks [n, channels] from sample `first` on; what libsndfile does not give, from PyAV.

    Raises:
      Short: PyAV must read all of it.
    """
    at, block = first, None
    try:
        for block in opened.read(first):
            at += len(block)
            yield block
    except Short as error:
        if not pyav.installed():
            if error.nearly:
                return
            raise DecodeError(f"{error}. Perhaps PyAV reads it: {pyav.INSTALL}") from error
        try:
            other = pyav.AvReader(source, error.wanted)
            if block is None or (other.rate, other.channels) != (opened.rate, opened.channels):
                raise error
            for piece in other.read(at - len(block)):
                same = min(len(piece), len(block))
                if not np.allclose(piece[:same], block[:same], atol=1e-3):
                    raise error  # what libsndfile left out is not at the end
                block = block[same:]
                if same < len(piece):
                    yield piece[same:]
        except DecodeError as cause:
            if cause is error or not error.nearly:
                raise


def _checked(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for piece in pieces:
        if cause := fault(piece):
            raise DecodeError(cause)
        yield piece


def _regrouped(pieces: Iterator[np.ndarray], size: int | None) -> Iterator[np.ndarray]:
    """Yield the same samples in pieces of `size`, the last one shorter; None: all in one."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if size is not None and count >= size:
            joined = np.concatenate(held)
            whole = count - count % size
            yield from np.split(joined[:whole], whole // size)
            held, count = ([joined[whole:]], count - whole) if count > whole else ([], 0)
    if held:
        yield np.concatenate(held)


def _version(source: str | os.PathLike) -> tuple[int, int]:
    about = os.stat(source)
    return about.st_size, about.st_mtime_ns


@functools.lru_cache(1 << 16)
def _frames(path: str, version: tuple[int, int]) -> int:
    """Return how many samples per channel decoding gives of a file whose header cannot tell."""
    del version
    return sum(map(len, _whole(_open(path), path, 0)))


@functools.lru_cache(1 << 16)
def _loudest(path: str, version: tuple[int, int]) -> int:
    del version
    return loudest(_whole(_open(path), path, 0))


@functools.cache
def _warn_of_seeking(kind: str) -> None:
    """Say once per format what clips cost out of long files that are decoded from the start."""
    log.warning(
        "%s cannot be sought exactly: each clip cut out of a long file takes decoding it from its start. "
        "Cut such files once and for all: ssl-audio prepare --seconds 30",
        kind,
    )
