"""Resampling by soxr, in high quality: of arrays, and of files, any part with the bits of the whole.

`decode.py` calls it.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import soxr

# Files are resampled in stretches of SEGMENT s, begun MARGIN before and ended MARGIN after what is used of
# them, which is more than a filter's reach (0.1 s at 1000 Hz): so a sample has the same bits wherever
# decoding began. Both are whole numbers of samples at all rates. Files up to SEGMENT go in one.
SEGMENT, MARGIN = 60, 1


def resample(audio: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Return float32 audio [S] at `to_rate` Hz; at least one sample."""
    audio = np.asarray(audio, np.float32)
    if from_rate == to_rate:
        return audio
    resampled = soxr.resample(audio, from_rate, to_rate, quality="HQ")
    return resampled if resampled.size else audio[:1]


def resampled_length(samples: int, from_rate: float, to_rate: float) -> int:
    """Return how many samples `resample` makes of so many."""
    if from_rate == to_rate:
        return samples
    return (
        min(samples, 1)
        if samples * to_rate < 0.5 * from_rate
        else int(samples * to_rate / from_rate + 0.5)
    )


def first_needed(from_rate: int, to_rate: int, first: int) -> int:
    """Return from which sample of a file on `resampled` wants it, to give its own from `first` on."""
    if from_rate == to_rate:
        return first
    return _begin(first // (SEGMENT * to_rate)) * from_rate


def resampled(
    blocks: Iterator[np.ndarray], from_rate: int, to_rate: int, first: int
) -> Iterator[np.ndarray]:
    """Yield mono float32 at `to_rate` Hz from its sample `first` on.

    Args:
      blocks: mono float32 at `from_rate` Hz, beginning at sample `first_needed`.
      from_rate, to_rate: Hz.
      first: a sample of the result.
    """
    if from_rate == to_rate:
        yield from blocks
        return
    ahead: list[np.ndarray] = []  # comes before what `blocks` has left
    for number in itertools.count(first // (SEGMENT * to_rate)):
        begin, high = _begin(number), (number + 1) * SEGMENT
        stream = soxr.ResampleStream(from_rate, to_rate, 1, "float32", "HQ")
        at, stop = begin * from_rate, (high + MARGIN) * from_rate  # of the file
        made = begin * to_rate  # of the result
        low, kept, source = at, [], itertools.chain(ahead, blocks)
        ahead = []
        for block in source:
            block, rest = block[: stop - at], block[stop - at :]
            at += len(block)
            if (over := at - (high - MARGIN) * from_rate) > 0:
                kept.append(block[max(0, len(block) - over) :])
            out = stream.resample_chunk(block)
            yield from _between(out, made, max(first, number * SEGMENT * to_rate), high * to_rate)
            made += len(out)
            if len(rest):
                kept.append(rest)
            if at == stop:
                break
        out = stream.resample_chunk(np.zeros(0, np.float32), last=True)
        yield from _between(out, made, max(first, number * SEGMENT * to_rate), high * to_rate)
        if made + len(out) == 0 and at > low and not first:
            yield block[:1]  # less than half a sample: `resample` gives one
        if at <= high * from_rate:
            return
        ahead = kept


def _begin(number: int) -> int:
    """Return where a stretch begins, s."""
    return max(0, number * SEGMENT - MARGIN)


def _between(piece: np.ndarray, at: int, low: int, high: int) -> Iterator[np.ndarray]:
    """Yield what of a piece that begins at sample `at` lies in [low, high)."""
    cut = piece[max(0, low - at) : max(0, high - at)]
    if len(cut):
        yield cut
