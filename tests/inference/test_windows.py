"""Where windows begin, what is in them, and that a clip in pieces has the windows of the whole."""

import numpy as np
import pytest

from ssl_audio.inference import windows
from ssl_audio.inference.classifier import segments
from ssl_audio.inference.windows import cover, every, half_apart, spread

CLIP = np.arange(25, dtype=np.float32)


def hops(samples):
    return every(3, samples - 10)


@pytest.mark.parametrize("samples", [1, 9, 10, 11, 13, 14, 25])
@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("moving", [False, True])
def test_pieces_have_the_windows_of_the_whole(samples, size, moving):
    clip = CLIP[:samples]
    starts = (lambda n: half_apart(n, 10)) if moving else hops
    want = list(cover(clip, 10, starts, moving=moving))
    pieces = (clip[i : i + size] for i in range(0, samples, size))
    found = list(cover(pieces, 10, starts, moving=moving))
    assert [w.start for w in found] == [w.start for w in want] == list(starts(samples))
    assert [w.samples for w in found] == [None] * (len(want) - 1) + [samples]
    for window, same in zip(found, want, strict=True):
        assert np.array_equal(window.audio, clip[window.start : window.start + 10])
        assert np.array_equal(window.audio, same.audio)


def test_a_window_comes_as_soon_as_its_place_is_certain():
    read = []

    def pieces():
        for start in range(0, 1000, 10):
            read.append(start)
            yield CLIP[:10]

    found = cover(pieces(), 10, hops)
    for number in range(5):
        assert next(found).start == 3 * number
        assert 10 * len(read) <= 3 * number + 30


def test_rules_say_where_windows_begin():
    assert every(4, 9) == [0, 4, 8, 9] and every(4, 8) == [0, 4, 8] and every(4, -3) == [0]
    assert half_apart(25, 10).tolist() == [0, 5, 10, 15] and half_apart(3, 10).tolist() == [0]
    assert half_apart(27, 10).tolist() == [0, 4, 8, 13, 17]
    cut, length = spread(CLIP, 10, 3)
    assert cut[:, 0].tolist() == [0, 7, 15] and length == 10
    cut, length = spread(CLIP[1:4], 5, 2)
    assert cut.tolist() == [[1, 2, 3, 0, 0]] * 2 and length == 3


def test_windows_are_centred_on_every_hop():
    clips = np.arange(1.0, 101.0)[None]
    found = np.asarray(windows.centred(clips, 20, 25))
    assert found.shape == (1, 5, 20)
    assert list(found[0, :4, 10]) == [1, 26, 51, 76]
    assert found[0, 0, 9] == 2  # mirrored


def test_batches_fill_up_by_key_and_the_rest_comes_last():
    def cut(clip):
        return ((len(clip), f"{len(clip)}{name}") for name in clip)

    found = list(windows.batches(["ab", "c", "de", "f"], cut, 3))
    assert found == [
        (2, [(0, "2a"), (0, "2b"), (2, "2d")]),
        (1, [(1, "1c"), (3, "1f")]),
        (2, [(2, "2e")]),
    ]


@pytest.mark.parametrize(
    ("fill", "audio", "length"),
    [
        ("zeros", [0, 1, 2, 0, 0, 0, 0, 0, 0, 0], 3),
        ("repeatpad", [0, 1, 2, 0, 1, 2, 0, 1, 2, 0], 9),
        ("repeat", [0, 1, 2, 0, 1, 2, 0, 1, 2, 0], 10),
        ("join", [0, 1, 2, 0, 1, 2, 0, 1, 2, 0], 10),
    ],
)
def test_vectors_of_windows_come_clip_by_clip(fill, audio, length):
    given = []

    def embed(batch, lengths):
        given.append((batch, lengths))
        return batch[:, :2]

    found = list(windows.vectors([CLIP[:3], CLIP, CLIP[:10]], 10, fill, embed, 4))
    assert [number for number, _, _ in found] == [0, 1, 2]
    assert [starts.tolist() for _, starts, _ in found] == [[0], [0, 5, 10, 15], [0]]
    assert found[1][2].tolist() == [[0, 1], [5, 6], [10, 11], [15, 16]]
    assert [len(batch) for batch, _ in given] == [4, 4]
    assert given[0][0][0].tolist() == audio and given[0][1].tolist() == [length, 10, 10, 10]


@pytest.mark.parametrize(
    "samples, rows, wide",
    [
        (80_000, 1, 1),
        (80_016, 1, 1),
        (81_600, 1, 1),
        (81_601, 2, 2),
        (160_016, 2, 4),
        (176_016, 3, 4),
    ],
)
def test_a_little_sound_at_the_end_is_no_window_of_its_own(samples, rows, wide):
    clip = np.zeros(samples, np.float32)
    found = list(segments(clip, 80_000, 80_000))
    assert len(found) == rows and found[-1].samples == samples
    pieces = (clip[i : i + 7000] for i in range(0, samples, 7000))
    assert [w.start for w in segments(pieces, 80_000, 80_000)] == [w.start for w in found]
    assert len(half_apart(samples, 80_000)) == wide
