"""Covering a clip with windows: where they begin, the samples in each, and batches of them.

`cover` takes a clip whole or in pieces and holds little of it; a rule says where windows begin. Used by
every interface that takes clips of any length, and by the evaluators.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.data import transforms

Clip = np.ndarray | Iterable[np.ndarray]  # float32 mono [S], or its pieces one after the other
Starts = Callable[
    [int], Sequence[int] | np.ndarray
]  # samples of a clip → first samples of its windows

PROGRAMS = 64  # most programs to compile, hence most different widths that clips are padded to
LONG = 10.24  # s; of longer windows an accelerator takes fewer together, of as many seconds in all
LITTLE = 50  # a window's length through this: sound at a clip's end that needs no window of its own
ALONE = 4.0  # s; on a CPU, longer windows are encoded one by one, shorter ones as many as fit in


class Window(NamedTuple):
    """A segment of a clip."""

    start: int  # its first sample
    audio: np.ndarray  # [window's samples]; fewer where the clip ends before
    samples: int | None  # of the clip, known with its last window; before: None


def cover(clip: Clip, size: int, starts: Starts, *, moving: bool = False) -> Iterator[Window]:
    """Yield the windows of a clip in order, each as soon as its place is certain.

    Of a clip in pieces no more is held than a piece and what follows the latest window's begin.

    Args:
      clip: [S], or its pieces.
      size: samples of a window.
      starts: where windows begin, at least one, in order. More audio must move none but the last.
      moving: more audio moves all of them: the clip is put together first.
    """
    if moving and not isinstance(clip, np.ndarray):
        clip = np.concatenate(list(clip))
    held, first, count = np.zeros(0, np.float32), 0, 0  # `held` begins at sample `first`
    for piece in [clip] if isinstance(clip, np.ndarray) else clip:
        held = np.concatenate([held, piece]) if len(held) else piece
        for start in map(int, starts(first + len(held))[count:-1]):
            held, first, count = held[start - first :], start, count + 1
            yield Window(start, held[:size], None)
    samples = first + len(held)
    last = int(starts(samples)[-1])
    yield Window(last, held[last - first :][:size], samples)


def every(hop: int, last: int) -> list[int]:
    """Return 0, hop, 2 hop, … and `last`, where the window begins that ends with the clip."""
    return [*range(0, last, hop), max(0, last)]


def but_little(samples: int, size: int) -> int:
    """Return up to where windows of `size` samples must reach: a clip's end, or a fiftieth of one before."""
    return max(1, samples - size // LITTLE)


def half_apart(samples: int, size: int) -> np.ndarray:
    """Return where windows begin that are spread evenly, at most half a window apart, to the clip's end.

    A clip that is hardly longer than a window has one.
    """
    last = samples - size if but_little(samples, size) > size else 0
    return np.linspace(0, last, 1 + -(-2 * last // size)).round().astype(int)


def spread(audio: np.ndarray, size: int, count: int) -> tuple[np.ndarray, int]:
    """Return `count` windows [count, size] spread from a clip's begin to its end, and their length.

    Those of a clip [S] that is not longer are all the same: the clip, zero-padded.
    """

    def starts(samples: int) -> np.ndarray:
        return np.linspace(0, max(0, samples - size), count).astype(int)

    return _padded(audio, size, starts)


def apart(audio: np.ndarray, size: int, hop: int) -> tuple[np.ndarray, int]:
    """Return windows [n, size], one every `hop` samples, and their length: the last ends with the clip.

    A clip [S] that is not longer than a window has one: the clip, zero-padded.
    """
    return _padded(audio, size, lambda samples: every(hop, samples - size))


def _padded(audio: np.ndarray, size: int, starts: Starts) -> tuple[np.ndarray, int]:
    found = cover(audio, size, starts, moving=True)
    cut = [np.pad(window.audio, (0, size - len(window.audio))) for window in found]
    return np.stack(cut), min(len(audio), size)


def centred(audio: Any, size: int, hop: int) -> Any:
    """Return the windows [n, k, size] of clips [n, S], centred on every `hop`-th sample from 0 on.

    Half a window is mirrored at both ends. Can be traced: all clips have one length.
    """
    half = size // 2
    audio = jnp.pad(audio, ((0, 0), (half, half)), mode="reflect")
    starts = np.arange(1 + (audio.shape[1] - size) // hop) * hop
    return audio[:, starts[:, None] + np.arange(size)[None]]


def batches(
    clips: Iterable[Clip],
    cut: Callable[[Clip], Iterable[tuple[int, Any]]],
    batch_size: int | Callable[[int], int],
) -> Iterator[tuple[int, list[tuple[int, Any]]]]:
    """Yield (key, [(number of the clip, window)]), as batches of one key fill up; at the end the others.

    A clip's windows of one key stay in order.

    Args:
      clips: read as they are needed.
      cut: a clip → its windows, each with a key: those of equal keys can be encoded together.
      batch_size: most windows of a batch, or a function of their key that says how many.
    """
    most = batch_size if callable(batch_size) else lambda key: batch_size
    waiting: dict[int, list[tuple[int, Any]]] = {}
    for number, clip in enumerate(clips):
        for key, window in cut(clip):
            waiting.setdefault(key, []).append((number, window))
            if len(waiting[key]) == most(key):
                yield key, waiting.pop(key)
    for key in sorted(waiting):
        yield key, waiting.pop(key)


def windows_per_call(most: int, seconds: float) -> int:
    """Return the batch size of the one program that encodes windows of so many seconds.

    It does not depend on how many windows there are, so a window's features have the same bits in every
    batch. On an accelerator it is `most`, and proportionally less for windows longer than 10.24 s. On a
    CPU more than four seconds of sound at once gain little, and lose where activations outgrow the caches.
    """
    longest = ALONE if jax.default_backend() == "cpu" else most * LONG
    return max(1, min(most, int(longest / seconds)))


def rung(count: int) -> int:
    """Return the smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that is not below `count`, which is 1 or more.

    Clips of any lengths that are padded so need few programs: two for every doubling of length.
    """
    power = 1 << (count - 1).bit_length()
    return 3 * power // 4 if power >= 4 and count <= 3 * power // 4 else power


def padded_count(count: int, most: int, *, hidden: bool) -> int:
    """Return the columns that a piece of `count` columns is padded to, so that few programs are compiled.

    Args:
      count: of the piece.
      most: columns of a window, and at most what is returned.
      hidden: the model sees no padding: it is padded to the next `rung`. Else padding that the model sees
        stays small: if `most` is above 64, it is padded to a multiple of its 64th part.
    """
    grain = -(-most // PROGRAMS)
    return min(most, rung(count) if hidden else -(-count // grain) * grain)


def vectors(
    clips: Iterable[Clip],
    size: int,
    fill: str,
    embed: Callable[[np.ndarray, np.ndarray], np.ndarray],
    batch_size: int,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (number, first samples [n], vectors [n, D]) of the windows that cover each clip.

    Args:
      clips: mono [S], or in pieces.
      size: samples of a window. They are at most half a window apart.
      fill: what becomes of a clip that is shorter, as in training: see `data.transforms.fill`; "join",
        which puts other clips behind it there, says it again.
      embed: (audio [B, size], samples of it that are sound [B]) → [B, D].
      batch_size: B, always; the last windows are repeated.
    """
    mode = "repeat" if fill == "join" else fill

    def cut(clip: Clip) -> Iterator[tuple[int, tuple[Window, np.ndarray, int]]]:
        for window in cover(clip, size, lambda samples: half_apart(samples, size), moving=True):
            yield 0, (window, *_filled(window.audio, size, mode))

    done: dict[int, tuple[list[int], list[np.ndarray]]] = {}
    for _, group in batches(clips, cut, batch_size):
        filled = group + group[-1:] * (batch_size - len(group))
        audio = np.stack([audio for _, (_, audio, _) in filled])
        lengths = np.array([length for _, (_, _, length) in filled], np.int32)
        found = embed(audio, lengths)
        for (number, (window, _, _)), vector in zip(group, found, strict=False):
            starts, clip_vectors = done.setdefault(number, ([], []))
            starts.append(window.start)
            clip_vectors.append(vector)
            if window.samples is not None:
                del done[number]
                yield number, np.array(starts), np.stack(clip_vectors)


def _filled(audio: np.ndarray, size: int, mode: str) -> tuple[np.ndarray, int]:
    """Return [size] and how many samples of it are sound."""
    audio = transforms.fill(audio, size, mode, lambda: audio)[:size]
    return np.pad(audio, (0, size - len(audio))), len(audio)
