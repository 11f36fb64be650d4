"""Files whose container and content disagree, several streams in one file, headers that lie."""

import io
import os
import struct

import numpy as np
import pytest
import soundfile

from ssl_audio.data import containers, pyav
from ssl_audio.data import decode as module
from ssl_audio.data.decode import DecodeError, decode

RATE = 16_000


def sound(seconds=2.0, rate=RATE, channels=1):
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.3, 0.3, (round(seconds * rate), channels)).cumsum(0) / 20
    return (noise - noise.mean(0)).clip(-0.9, 0.9).astype(np.float32)


def encoded(audio, kind, subtype=None, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.fixture
def no_pyav(monkeypatch):
    monkeypatch.setattr(pyav, "installed", lambda: False)


def crc(content):
    """Return the checksum of an Ogg page (RFC 3533)."""
    found = 0
    for byte in content:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1) ^ (0x04C11DB7 if found & 0x80000000 else 0)
            found &= 0xFFFFFFFF
    return found


def with_page(content, number, change):
    """Return an Ogg file with one page's header changed, its checksum right."""
    page = list(containers._pages(content))[number]
    changed = bytearray(content[page.start : page.stop])
    change(changed)
    changed[22:26] = bytes(4)
    changed[22:26] = struct.pack("<I", crc(changed))
    return content[: page.start] + bytes(changed) + content[page.stop :]


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_a_chained_ogg_is_read_to_its_last_link(kind):
    one = encoded(sound(), "OGG", kind)
    whole = decode(one, RATE)
    twice = decode(one + one, RATE)
    assert len(twice) == 2 * len(whole) == 64_000
    np.testing.assert_array_equal(twice, np.tile(whole, 2))
    np.testing.assert_array_equal(decode(one + one, RATE, 1.5, 2.5), twice[24_000:40_000])


def test_links_of_different_rates_are_refused_by_name(tmp_path):
    path = tmp_path / "radio.ogg"
    path.write_bytes(encoded(sound(), "OGG", "VORBIS") + encoded(sound(), "OGG", "VORBIS", 8000))
    with pytest.raises(DecodeError, match=r"radio\.ogg: several streams.*16000 Hz.*8000 Hz"):
        decode(path, RATE)


def test_two_mp3s_one_after_the_other_are_both_read():
    one = encoded(sound(), "MP3")
    whole = decode(one, RATE)
    assert len(whole) == 32_000
    joined = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + one + one
    np.testing.assert_array_equal(decode(joined, RATE), np.tile(whole, 2))


def test_files_that_macos_leaves_beside_an_mp3_do_not_hide_it(tmp_path, monkeypatch):
    """libsndfile 1.2.2 takes "._NAME" for a resource fork, and "._" for that of what is in memory."""
    content = encoded(sound(), "MP3")
    wanted, part = decode(content, RATE), decode(content, RATE, 0.5, 1.0)
    path = tmp_path / "a.mp3"
    path.write_bytes(content)
    for name in ("._a.mp3", "._", ".AppleDouble/a.mp3"):  # the last is how file servers keep them
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(soundfile.LibsndfileError):  # or all of this can go
        soundfile.SoundFile(path)
    for source in (path, content):
        np.testing.assert_array_equal(decode(source, RATE), wanted)
        np.testing.assert_array_equal(decode(source, RATE, 0.5, 1.0), part)
    np.testing.assert_array_equal(decode(content + content, RATE), np.tile(wanted, 2))


def test_a_short_mp3_without_a_xing_header_is_whole():
    file = encoded(sound(0.3), "MP3")
    first = file.index(b"\xff\xf3")  # MPEG 2, layer III
    frame = containers._frame(file, first)
    assert frame is not None and containers._xing(file, first, frame)
    bare = file[first + frame.size :]
    (part,) = containers.mpeg_parts(bare)
    audio = decode(bare, RATE)
    assert len(audio) == part.samples and part.samples % 576 == 0
    assert len(audio) >= len(sound(0.3))  # with the encoder's delay, which nothing states now


def test_an_ogg_that_libsndfile_leaves_early_is_read_by_pyav(monkeypatch):
    """A page in the middle that is marked as the last one; the true length is on the last page."""
    pytest.importorskip("av", reason="pip install av: the second reader is NOT tested")
    file = encoded(sound(20.0, 44_100), "OGG", "VORBIS", 44_100)
    pages = len(list(containers._pages(file)))
    assert pages > 6

    def mark(page):
        page[5] |= 4

    marked = with_page(file, pages // 2, mark)
    whole = decode(file, RATE)
    np.testing.assert_allclose(decode(marked, RATE), whole, atol=1e-5)
    pieces = list(module.blocks(marked, RATE, seconds=1.0))
    assert [len(piece) for piece in pieces] == [16_000] * 20
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)
    monkeypatch.setattr(pyav, "installed", lambda: False)
    with pytest.raises(
        DecodeError, match=r"libsndfile gives \d+ of 882000 samples.*ssl_audio\[av\]"
    ):
        decode(marked, RATE)


@pytest.mark.usefixtures("no_pyav")
def test_a_streamed_flac_without_a_length_is_whole():
    audio = sound(9.0)
    file = bytearray(encoded(audio, "FLAC", "PCM_16"))
    assert file[:4] == b"fLaC" and file[4] & 127 == 0
    file[21] &= 0xF0  # the length: 36 bits of STREAMINFO
    file[22:26] = bytes(4)
    found = decode(bytes(file), RATE)
    np.testing.assert_array_equal(found, decode(encoded(audio, "FLAC", "PCM_16"), RATE))
    np.testing.assert_array_equal(decode(bytes(file), RATE, 8.5, 8.75), found[136_000:140_000])


def test_a_voc_of_several_blocks_is_not_misread(monkeypatch):
    """FFmpeg writes continuation blocks, whose headers libsndfile takes for samples."""
    file = bytearray(encoded(sound(1.0), "VOC", "PCM_16"))
    assert containers.voc_blocks(bytes(file)) == 1
    body = file[26 + 16 :][: 2 * RATE]
    half = len(body) // 2

    def block(kind, content):
        return bytes([kind]) + len(content).to_bytes(3, "little") + bytes(content)

    split = file[:26] + block(9, file[30:42] + body[:half]) + block(2, body[half:]) + b"\0"
    assert containers.voc_blocks(bytes(split)) == 2
    if pyav.installed():
        expected = decode(bytes(file), RATE)
        np.testing.assert_array_equal(decode(bytes(split), RATE), expected[: len(body) // 2])
    monkeypatch.setattr(pyav, "installed", lambda: False)
    with pytest.raises(DecodeError, match=r"2 blocks in a VOC.*ssl_audio\[av\]"):
        decode(bytes(split), RATE)


@pytest.mark.parametrize(("rate", "hint"), [(1, ""), (44, "did you mean 44000"), (2_000_000, "")])
def test_impossible_rates_are_refused(tmp_path, rate, hint):
    path = tmp_path / "a.wav"
    file = bytearray(encoded(sound(), "WAV", "PCM_16"))
    file[24:28] = struct.pack("<I", rate)
    path.write_bytes(file)
    with pytest.raises(DecodeError, match=rf"a\.wav: a sampling rate of .* Hz.*{hint}"):
        decode(path, RATE)


def test_frames_that_a_header_promises_are_not_allocated():
    """A header that asks for terabytes costs what the file holds."""
    file = bytearray(encoded(sound(), "AU", "PCM_16"))
    file[8:12] = b"\xff\xff\xff\xfe"
    try:
        assert len(decode(bytes(file), RATE)) == 32_000
    except DecodeError:
        pass  # and nothing but this


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (1e30, "damaged"),
        (12_345.0, "int16.*32768"),
        (1e9, "int32"),
        (np.nan, "NaN"),
        (-np.inf, "infinite"),
    ],
)
def test_samples_far_outside_their_range_are_refused(tmp_path, value, cause):
    audio = sound()
    audio[100] = value
    soundfile.write(tmp_path / "a.wav", audio, 44_100, subtype="FLOAT")
    with pytest.raises(DecodeError, match=rf"a\.wav: .*{cause}"):
        decode(tmp_path / "a.wav", RATE)


def test_loud_floating_point_is_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", 8 * sound(), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode(tmp_path / "a.wav", RATE), 8 * sound()[:, 0])


def test_what_resampling_makes_infinite_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PEAK", np.inf)
    soundfile.write(tmp_path / "a.wav", np.tile([3e38, -3e38], 4000), 44_100, subtype="FLOAT")
    with pytest.raises(DecodeError, match=r"a\.wav: NaN or infinite samples after resampling"):
        decode(tmp_path / "a.wav", 48_000)


@pytest.mark.parametrize(
    "error", [MemoryError(), ValueError("array is too big"), RuntimeError("x")]
)
def test_any_failure_inside_a_reader_names_the_file(tmp_path, monkeypatch, error):
    soundfile.write(tmp_path / "a.wav", sound(), RATE)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    with pytest.raises(DecodeError, match=r"a\.wav: unreadable: ."):
        decode(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize(
    ("kind", "subtype", "rate"),
    [
        ("OGG", "VORBIS", 44_100),
        ("OGG", "VORBIS", 8000),
        ("OGG", "OPUS", 48_000),
        ("MP3", None, 16_000),
        ("FLAC", None, 44_100),
        ("WAV", "MS_ADPCM", 22_050),
        ("CAF", "ALAC_16", 11_025),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_excerpts_have_the_bits_of_the_whole(tmp_path, kind, subtype, rate, channels):
    path = tmp_path / "a"
    soundfile.write(path, sound(6.0, rate, channels), rate, format=kind, subtype=subtype)
    for wanted in (rate, RATE):
        whole = decode(path, wanted)
        # In the last page of an Ogg, in the middle, across the end.
        for start, end in [(5.9, 6.0), (5.2, 5.6), (2.345, 2.5), (5.999, 9.0), (0.0, 0.1)]:
            first, last = round(start * wanted), round(end * wanted)
            np.testing.assert_array_equal(
                decode(path, wanted, start, end), whole[first:last], err_msg=f"{wanted} {start}"
            )


def test_a_name_that_is_not_utf8(tmp_path):
    path = bytes(tmp_path) + b"/caf\xe9.wav"
    with open(path, "wb") as file:
        file.write(encoded(sound(), "WAV"))
    assert len(decode(os.fsdecode(path), RATE)) == 32_000
    with open(path, "wb") as file:
        file.write(b"RIFFRIFF")
    with pytest.raises(DecodeError, match=r"caf\\xe9\.wav: unreadable") as error:
        decode(os.fsdecode(path), RATE)
    str(error.value).encode()
