"""Files longer than a minute: clips are cut out of them without decoding them whole."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from ssl_audio.data import decode as module
from ssl_audio.data import libsndfile, transforms
from ssl_audio.data.decode import DecodeError, blocks, decode, read
from ssl_audio.data.entries import Audio
from ssl_audio.data.long_audio import LongAudio
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.resampling import resample
from ssl_audio.data.source import Folder

RATE = 8000
LONG = 130.3  # s: two seams between the stretches that are resampled one by one


def write(path, seconds=LONG, rate=11_025, channels=2, **options):
    rng = np.random.default_rng(len(path.name))
    with soundfile.SoundFile(path, "w", rate, channels, **options) as file:
        for _ in range(round(seconds * 10)):  # libsndfile cannot take minutes of Vorbis at once
            file.write(rng.uniform(-0.3, 0.3, (rate // 10, channels)))
    return path


FORMATS = [
    ("wav", {}),
    ("flac", {}),
    ("ogg", {}),
    ("mp3", {}),
    ("opus", {"rate": 8000, "channels": 1}),
]


@pytest.mark.parametrize(("ending", "options"), FORMATS)
def test_slices_have_the_bits_of_the_whole(tmp_path, ending, options):
    more = dict(format="OGG", subtype="OPUS") if ending == "opus" else {}
    path = write(tmp_path / f"a.{ending}", **options, **more)
    whole, long = decode(path, RATE), read(path, RATE)
    assert isinstance(long, LongAudio) and len(long) == len(whole) and long.shape == whole.shape
    marks = [0, 59.5, 60, 60.001, 61, 119.9, 120, 125, LONG - 0.5]
    for first in (round(mark * RATE) for mark in marks):
        for samples in (1, 5000):
            found = long[first : first + samples]
            np.testing.assert_array_equal(found, whole[first : first + samples], f"{first}")
    np.testing.assert_array_equal(np.asarray(long), whole)
    np.testing.assert_array_equal(np.concatenate(list(blocks(path, RATE, seconds=7.7))), whole)


def test_stretches_join_without_a_seam(tmp_path):
    path = write(tmp_path / "a.wav", channels=1)
    native = decode(path, 11_025)
    np.testing.assert_allclose(decode(path, RATE), resample(native, 11_025, RATE), atol=1e-6)


def test_a_clip_does_not_read_the_file_before_it(tmp_path, monkeypatch):
    long = read(write(tmp_path / "a.wav"), RATE)
    frames = []
    original = libsndfile._File.read

    def counted(self, count, **more):
        frames.append(count)
        return original(self, count, **more)

    monkeypatch.setattr(libsndfile._File, "read", counted)
    long[round(121 * RATE) : round(122 * RATE)]
    assert sum(frames) < 12 * 11_025  # from 119 s on, in pieces


def test_where_seeking_is_not_exact_it_is_said_once(tmp_path, caplog):
    module._warn_of_seeking.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("a.mp3", "b.mp3", "c.flac"):
            read(write(tmp_path / name, 70), RATE)
    (record,) = caplog.records
    assert "MP3 MPEG_LAYER_III cannot be sought exactly" in record.message
    assert "prepare --seconds" in record.message


def pipeline(root, **options):
    return Pipeline({"all": Folder(str(root), rate=RATE)}, 4, rate=RATE, **options)


@pytest.mark.parametrize("more", [{}, {"gain": 6.0}, {"fill": "join"}, {"crop": "first"}])
def test_the_clips_of_a_run_are_those_of_the_decoded_whole(tmp_path, monkeypatch, more):
    for i in range(3):
        write(tmp_path / f"{i}.wav", 0.3 + i / 10)
    write(tmp_path / "long.wav")
    entries = {"audio": Audio(4000, **more)}
    found = pipeline(tmp_path, entries=entries).batches()
    batches = [next(found) for _ in range(6)]
    found.close()
    monkeypatch.delattr(Folder.__mro__[1], "open")  # as it was: every clip decoded whole
    for batch, other in zip(batches, pipeline(tmp_path, entries=entries).batches(), strict=False):
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name], name)


def test_speed_of_long_audio_is_that_of_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.uniform(-0.5, 0.5, 400_000).astype(np.float32)
    long = LongAudio(len(whole), lambda first, stop: whole[first:stop])
    for factor in (0.91, 1.037, 1.1):
        expected, found = transforms.speed(whole, factor), transforms.speed(long, factor)
        assert len(found) == len(expected)
        for first in (0, 1000, 200_000, len(expected) - 4000):
            cut = slice(first, first + 4000)
            np.testing.assert_allclose(found[cut], expected[cut], atol=5e-4)


def test_long_audio_stands_for_an_array():
    whole = np.arange(10, dtype=np.float32)
    long = LongAudio(10, lambda first, stop: whole[first:stop])
    assert (
        long[3] == 3 and long[-1] == 9 and long[7:99].tolist() == [7, 8, 9] and not len(long[5:2])
    )
    np.testing.assert_array_equal(2 * long + 1, 2 * whole + 1)
    np.testing.assert_array_equal(np.concatenate([long, long]), np.tile(whole, 2))
    np.testing.assert_array_equal(long[::2], whole[::2])


def test_a_long_clip_that_breaks_where_it_is_cut_is_named_and_replaced(tmp_path):
    write(tmp_path / "short.wav", 1.0)
    path = write(tmp_path / "long.wav", subtype="FLOAT")
    content = bytearray(path.read_bytes())
    content[-4 * 2 * 11_025 * 100 :] = b"\xff" * (4 * 2 * 11_025 * 100)  # NaN from second 30 on
    path.write_bytes(content)
    data = pipeline(tmp_path, entries={"audio": Audio(4000)}, max_bad_share=1.0)
    batches = data.batches()
    for _ in range(10):
        assert np.isfinite(next(batches)["audio"]).all()
    batches.close()
    assert list(data.bad) == ["all:long.wav"] and "NaN" in data.bad["all:long.wav"]


def test_a_file_that_is_shorter_than_it_says_breaks_with_its_name(tmp_path):
    path = write(tmp_path / "a.flac")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    long = read(path, RATE)
    with pytest.raises(DecodeError, match=r"a\.flac: "):
        long[len(long) - 4000 :]


MEMORY = """
import resource, sys
from ssl_audio.data.entries import Audio
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.source import Folder
data = Pipeline({"all": Folder(sys.argv[1])}, 8, {"audio": Audio(16_000)})
batches = data.batches()
for _ in range(4):
    next(batches)
batches.close()
assert not data.bad
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_peak_memory_does_not_grow_with_the_length_of_files(tmp_path):
    """Five minutes of stereo at 48 kHz are 115 MB of float32; eight threads cut clips out of them."""
    peaks = []
    for name, seconds in (("short", 2), ("long", 300)):
        (tmp_path / name).mkdir()
        with soundfile.SoundFile(tmp_path / name / "a.wav", "w", 48_000, 2) as file:
            for _ in range(seconds):
                file.write(np.full((48_000, 2), 0.1))
        command = [sys.executable, "-c", MEMORY, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 100, peaks  # MB
