"""From several channels to one: average, first or loudest; and a warning where averaging loses the sound.

`decode.py` calls it.
"""

import argparse
import logging
import math
import numbers
import threading
from collections.abc import Iterable

import numpy as np

CHANNELS = ("average", "first", "loudest")
# dB; uncorrelated channels lose 3 (stereo) to 9 (eight), sound in one of six or eight 15.6 or 18, channels of
# opposite phase everything.
MOST_LOST = 15.0

log = logging.getLogger(__name__)
_lost: dict[str, float] = {}  # file → dB
_lock = threading.Lock()


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --channels of verbs that read files."""
    parser.add_argument(
        "--channels", choices=CHANNELS, default="average", help="how they become one"
    )


def check_channels(how: str | int, count: int | None = None) -> None:
    """Raise ValueError unless there is such a way; or such a number, from 0, among `count` channels."""
    if isinstance(how, str) and how in CHANNELS:
        return
    if isinstance(how, (str, bool)) or not isinstance(how, numbers.Integral):
        raise ValueError(f"channels: got {how!r}, wanted one of {', '.join(CHANNELS)}.")
    if how < 0 or (count is not None and how >= count):
        has = "counted from 0" if count is None else f"the file has {count}, counted from 0"
        raise ValueError(f"channels: got number {how}; {has}.")


class Mixer:
    """Makes blocks [n, channels] of one file mono, and notes what that loses.

    Args:
      how: "average", or the number of the channel to take.
    """

    def __init__(self, how: str | int):
        self._how = how
        self._loud, self._mixed = np.zeros(1), 0.0  # sums of squares

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Return a block as mono [n]."""
        if block.shape[1] == 1:
            return block[:, 0]
        if not isinstance(self._how, str):
            return block[:, self._how]
        mono = block.mean(axis=1, dtype=np.float32)
        self._loud = self._loud + np.einsum("nc,nc->c", block, block)
        self._mixed += float(np.dot(mono, mono))
        return mono

    def report(self, name: str) -> None:
        """Warn if averaging has lost much of the loudest channel: of the first file, the 10th, the 100th …"""
        loudest = float(self._loud.max())
        if loudest <= 0 or self._mixed > loudest * 10 ** (-MOST_LOST / 10):
            return
        lost = 10 * math.log10(loudest / self._mixed) if self._mixed else math.inf
        with _lock:
            known, count = name in _lost, len(_lost) + 1
            _lost[name] = lost
        if not known and count == 10 ** round(math.log10(count)):
            log.warning(
                "%s: averaging its channels loses %.0f dB of the loudest (they cancel, or the others are "
                "silent); channels='loudest' or 'first' keeps it. Files like this so far: %d",
                name, lost, count,
            )  # fmt: skip


def lost() -> int:
    """Return how many files of this process have lost much by averaging since `forget`."""
    return len(_lost)


def forget() -> None:
    """Begin to count anew, for a command that says how many there were."""
    with _lock:
        _lost.clear()


def loudest(blocks: Iterable[np.ndarray]) -> int:
    """Return the number of the channel with most power in blocks [n, channels]."""
    power: np.ndarray | float = 0.0
    for block in blocks:
        power = power + np.einsum("nc,nc->c", block, block, dtype=np.float64)
    return int(np.argmax(power))
