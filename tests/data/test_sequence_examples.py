"""VATT's layout: records are written here byte by byte, as TensorFlow's protocol buffers define them."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from ssl_audio.data.decode import DecodeError
from ssl_audio.data.pictures import Image as Picture
from ssl_audio.data.sequence_examples import SequenceExamples
from ssl_audio.data.video import AudioVideo


def varint(n):
    found = b""
    while n > 127:
        found, n = found + bytes([n & 127 | 128]), n >> 7
    return found + bytes([n])


def block(number, content):
    return varint(number * 8 + 2) + varint(len(content)) + content


def feature(value):
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return block(2, block(1, value.astype("<f4").tobytes()))
    if isinstance(value, np.ndarray):
        return block(3, block(1, b"".join(map(varint, value.tolist()))))
    return block(1, b"".join(block(1, one) for one in value))


def entry(name, content):
    return block(1, block(1, name.encode()) + block(2, content))


def record(context, lists):
    content = block(1, b"".join(entry(n, feature(v)) for n, v in context.items()))
    content += block(
        2, b"".join(entry(n, b"".join(block(1, feature(s)) for s in v)) for n, v in lists.items())
    )
    return struct.pack("<Q", len(content)) + b"\0" * 4 + content + b"\0" * 4


def jpeg(level):
    out = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), level, np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    wave = np.linspace(0, 0.5, 1600)
    frames = [[jpeg(40 * k)] for k in range(4)]
    both = record(
        {"caption/string": [b"a dog", b"it barks"], "label/index": np.array([300])},
        {"image/encoded": frames, "WAVEFORM/feature/floats": [wave[:900], wave[900:]]},
    )
    silent = record({}, {"image/encoded": frames})
    (tmp_path / "train.tfrecord-00000-of-00001").write_bytes(both + silent)
    return tmp_path


def test_a_record_has_frames_sound_and_captions(folder):
    source = SequenceExamples(str(folder), rate=800)
    assert len(source) == 2
    example = source[0]
    assert np.allclose(example["audio"], np.linspace(0, 0.5, 1600), atol=1e-6)
    assert (example["text"], example["label"]) == (("a dog", "it barks"), 300)
    assert source.meta(0) == {k: v for k, v in example.items() if k not in ("audio", "video")}
    picture = Picture(size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    made = AudioVideo(
        samples=800, frames=2, fps=2.0, picture=picture, column="video", listed=2.0, crop="random"
    )
    drawn = made.draw({**example, "more": dict}, np.random.default_rng(0))
    begin = float(drawn["audio"][0]) / 0.5 * 1599 / 800  # s, as the sound says
    expected = [40 * int((begin + k / 2) * 2 + 1e-6) for k in range(2)]
    assert np.allclose(drawn["video"][:, 0, 0, 0] * 255, expected, atol=3)


def test_what_is_missing_or_damaged_says_so(folder, tmp_path_factory):
    with pytest.raises(DecodeError, match="no sound"):
        SequenceExamples(str(folder))[1]
    file = folder / "train.tfrecord-00000-of-00001"
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="does not end"):
        len(SequenceExamples(str(folder)))
    broken = bytearray(content)
    broken[12:20] = b"\xff" * 8
    file.write_bytes(bytes(broken))
    with pytest.raises(DecodeError, match="damaged"):
        SequenceExamples(str(folder))[0]
    with pytest.raises(ValueError, match="no TFRecords"):
        len(SequenceExamples(str(tmp_path_factory.mktemp("empty"))))
