import logging

import numpy as np
import pytest
import soundfile

from ssl_audio.data import channels as module
from ssl_audio.data.decode import DecodeError, blocks, decode
from ssl_audio.data.source import Folder

RATE = 16_000


@pytest.fixture(autouse=True)
def nothing_lost(monkeypatch):
    monkeypatch.setattr(module, "_lost", {})


def tone(level=0.5):
    return level * np.sin(np.arange(8000) / 7)


def written(path, *tracks):
    soundfile.write(path, np.stack(tracks, 1), RATE, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("tracks", "lost"),
    [
        ((tone(), -tone()), True),
        ((tone(), *[np.zeros(8000)] * 5), True),  # 15.6 dB
        ((tone(), *[np.zeros(8000)] * 7), True),  # 18 dB
        ((tone(), np.zeros(8000)), False),  # 6 dB
        ((tone(), tone(0.1)), False),
        ((np.zeros(8000), np.zeros(8000)), False),
        ((tone(),), False),
    ],
)
def test_a_warning_where_the_average_loses_the_sound(tmp_path, caplog, tracks, lost):
    path = written(tmp_path / "a.wav", *tracks)
    with caplog.at_level(logging.WARNING):
        audio = decode(path, RATE)
    np.testing.assert_allclose(audio, np.mean(tracks, 0), atol=1e-6)
    assert ("a.wav: averaging its channels loses" in caplog.text) == lost
    assert module.lost() == lost


def test_the_warning_does_not_come_for_each_file(tmp_path, caplog):
    for i in range(12):
        decode(written(tmp_path / f"{i}.wav", tone(), -tone()), RATE)
    assert [record.args[-1] for record in caplog.records] == [1, 10] and module.lost() == 12


def test_first_and_loudest(tmp_path):
    path = written(tmp_path / "a.wav", tone(0.1), tone(0.3), tone(0.2))
    np.testing.assert_allclose(decode(path, RATE, channels="first"), tone(0.1), atol=1e-6)
    np.testing.assert_allclose(decode(path, RATE, channels="loudest"), tone(0.3), atol=1e-6)
    content = path.read_bytes()
    np.testing.assert_allclose(decode(content, RATE, channels="loudest"), tone(0.3), atol=1e-6)
    with pytest.raises(DecodeError, match="channels: got 'left', wanted one of average, first"):
        decode(path, RATE, channels="left")


def test_the_loudest_channel_is_that_of_the_whole_file(tmp_path):
    quiet, loud = np.r_[tone(0.4), np.zeros(8000)], np.r_[np.zeros(8000), tone(0.8)]
    path = written(tmp_path / "a.wav", quiet, loud)
    assert not decode(path, RATE, 0.0, 0.4, channels="loudest").any()
    pieces = list(blocks(path, RATE, seconds=0.1, channels="loudest"))
    np.testing.assert_allclose(np.concatenate(pieces), loud, atol=1e-6)


def test_sources_take_the_option(tmp_path):
    written(tmp_path / "a.wav", tone(0.1), tone(0.3))
    audio = Folder(str(tmp_path), channels="loudest")[0]["audio"]
    np.testing.assert_allclose(audio, tone(0.3), atol=1e-6)


@pytest.mark.parametrize("number", [3, -1, True, 1.0, "1"])
def test_a_number_of_no_channel_is_refused_by_name(tmp_path, number):
    tracks = np.random.default_rng(0).uniform(-0.1, 0.1, (500, 3)).astype(np.float32)
    soundfile.write(tmp_path / "three.wav", tracks, 1000, "FLOAT")
    for given in (0, 2):
        np.testing.assert_array_equal(
            decode(tmp_path / "three.wav", 1000, channels=given), tracks[:, given]
        )
    with pytest.raises(DecodeError, match=r"three\.wav.* channels: got"):
        decode(tmp_path / "three.wav", 1000, channels=number)
    soundfile.write(tmp_path / "one.wav", tracks[:, 0], 1000, "FLOAT")
    with pytest.raises(DecodeError, match="got number 1; the file has 1, counted from 0"):
        decode(tmp_path / "one.wav", 1000, channels=1)
