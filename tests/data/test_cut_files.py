"""Files that end before what their own header states are refused, whichever library would read them."""

import io

import numpy as np
import pytest
import soundfile

from ssl_audio.data.containers import mpeg_parts
from ssl_audio.data.decode import DecodeError, decode

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)


def written(kind, subtype):
    file = io.BytesIO()
    soundfile.write(file, NOISE, RATE, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("NIST", "PCM_16"),
        ("VOC", "PCM_16"),
        ("RF64", "PCM_16"),
        ("SVX", "PCM_16"),
        ("CAF", "PCM_16"),
        ("CAF", "ALAC_16"),
        ("OGG", "OPUS"),
        ("FLAC", "PCM_16"),
        ("WAV", "PCM_16"),
    ],
)
def test_a_cut_file_is_refused_and_a_whole_one_is_not(tmp_path, kind, subtype):
    path, content = tmp_path / "sound", written(kind, subtype)
    path.write_bytes(content)
    assert len(decode(path, RATE)) == len(NOISE)
    path.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(DecodeError, match="sound: "):
        decode(path, RATE)


@pytest.mark.parametrize(("ending", "codec"), [(".ogg", "flac"), (".avi", "pcm_s16le")])
def test_a_cut_file_that_pyav_reads_is_refused(tmp_path, ending, codec):
    av = pytest.importorskip("av")
    path = tmp_path / f"sound{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono", format="s16")
        for start in range(0, len(NOISE), 4096):
            samples = (NOISE[None, start : start + 4096] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert abs(len(decode(path, RATE)) - len(NOISE)) < 1000
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(DecodeError, match="truncated"):
        decode(path, RATE)


def test_the_header_of_a_fraunhofer_encoder_is_no_sound():
    content = written("MP3", "MPEG_LAYER_III")
    first, second = (frame_at(content, n) for n in (0, 1))
    frames = content[second:]  # without the header of libsndfile's encoder
    head = bytearray(content[first:second])
    head[36:] = b"VBRI".ljust(len(head) - 36, b"\0")
    assert np.array_equal(decode(bytes(head) + frames, RATE), decode(frames, RATE))
    [part] = mpeg_parts(bytes(head) + frames)
    assert part.start == len(head)


def frame_at(content, number):
    """Return where a frame of an MP3 begins."""
    from ssl_audio.data import containers

    at = content.index(b"\xff")
    for _ in range(number):
        frame = containers._frame(content, at)
        assert frame is not None
        at += frame.size
    return at


def test_text_that_is_named_like_an_mp3_is_not_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_audio.data.pyav.installed", lambda: False)
    path = tmp_path / "notes.mp3"
    path.write_text("hello\n" * 100)
    with pytest.raises(DecodeError, match=r"notes\.mp3: unreadable: Format not recognised"):
        decode(path, RATE)
