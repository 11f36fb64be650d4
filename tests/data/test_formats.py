"""Right lengths, first and last samples of every format: a known signal is encoded here and read back."""

import fractions
import io
import struct

import numpy as np
import pytest
import soundfile

from ssl_audio.data.decode import decode

RATE = 16_000
SAMPLES = 48_160  # 3.01 s: whole milliseconds, since some containers count those


def signal(samples=SAMPLES, rate=RATE):
    """A chirp with fades, and clicks at the very first and the very last sample."""
    t = np.arange(samples) / rate
    audio = 0.4 * np.sin(2 * np.pi * (200 * t + 150 * t**2))
    audio[: rate // 50] *= np.linspace(0, 1, rate // 50)
    audio[-rate // 50 :] *= np.linspace(1, 0, rate // 50)
    audio[0], audio[-1] = 0.75, -0.5
    return audio.astype(np.float32)


# Format, subtype, ending, exact to so many bits (None: lossy).
SNDFILE = [
    ("WAV", "PCM_16", ".wav", 16),
    ("WAV", "PCM_24", ".wav", 24),
    ("WAV", "PCM_U8", ".wav", 8),
    ("WAV", "FLOAT", ".wav", 24),
    ("WAV", "DOUBLE", ".wav", 24),
    ("WAVEX", "PCM_16", ".wav", 16),
    ("RF64", "PCM_16", ".rf64", 16),
    ("W64", "PCM_16", ".w64", 16),
    ("FLAC", "PCM_16", ".flac", 16),
    ("FLAC", "PCM_24", ".flac", 24),
    ("AIFF", "PCM_16", ".aiff", 16),
    ("AU", "PCM_16", ".au", 16),
    ("CAF", "PCM_16", ".caf", 16),
    ("CAF", "ALAC_16", ".caf", 16),
    ("NIST", "PCM_16", ".sph", 16),
    ("VOC", "PCM_16", ".voc", 16),
    ("PAF", "PCM_16", ".paf", 16),
    ("MAT4", "PCM_16", ".mat", 16),
    ("MAT5", "PCM_16", ".mat", 16),
    ("IRCAM", "PCM_16", ".sf", 16),
    ("AVR", "PCM_16", ".avr", 16),
    ("HTK", "PCM_16", ".htk", 16),
    ("PVF", "PCM_16", ".pvf", 16),
    ("SVX", "PCM_16", ".iff", 16),
    ("SDS", "PCM_16", ".sds", 16),
    ("MPC2K", "PCM_16", ".snd", 16),
    ("WAV", "ULAW", ".wav", None),
    ("AU", "ALAW", ".au", None),
    ("WAV", "MS_ADPCM", ".wav", None),  # its last block is filled up; the fact chunk says how far
    ("WAV", "GSM610", ".wav", None),
    ("OGG", "VORBIS", ".ogg", None),
    ("OGG", "OPUS", ".opus", None),
    ("MP3", "MPEG_LAYER_III", ".mp3", None),
]


def check(audio, expected, bits, samples=SAMPLES):
    assert audio.dtype == np.float32
    assert len(audio) == samples
    shared = min(samples, len(expected))
    if bits is not None:
        np.testing.assert_allclose(audio, expected, atol=1.01 * 2.0 ** (1 - bits), rtol=0)
        return
    # A shift by a sample costs more than this: the chirp ends at 1100 Hz.
    error = audio[:shared] - expected[:shared]
    inner = slice(3000, shared - 3000)  # clicks ring
    assert np.sqrt((error[inner] ** 2).mean()) < 0.03 * 0.4


@pytest.mark.parametrize(("kind", "subtype", "ending", "bits"), SNDFILE)
def test_what_libsndfile_reads_is_whole_and_in_place(tmp_path, kind, subtype, ending, bits):
    path = tmp_path / f"a{ending}"
    soundfile.write(path, signal(), RATE, format=kind, subtype=subtype)
    check(decode(path, RATE), signal(), bits)
    third = decode(path, RATE, 1.0, 2.0)
    np.testing.assert_array_equal(third, decode(path, RATE)[16_000:32_000])


def av_file(path, codec, rate=RATE, picture=False, container=None, audio=None, form=None):
    """Encode the signal with PyAV (FFmpeg); skip where this build lacks the encoder."""
    av = pytest.importorskip(
        "av", reason="pip install av: formats beyond libsndfile are NOT tested"
    )
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {codec}: its format is NOT tested")
    audio = signal(SAMPLES * rate // RATE, rate) if audio is None else audio
    with av.open(str(path), "w", format=container) as file:
        if picture:
            video = file.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream = file.add_stream(codec, rate=rate)
        stream.layout, stream.bit_rate = "mono", 96_000
        if form:
            stream.format = form
        stream.codec_context.open()
        form, size = stream.codec_context.format.name, stream.codec_context.frame_size or 1024
        if picture:
            for i in range(76):
                image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 3 * i, np.uint8), "rgb24")
                image.pts = i
                file.mux(video.encode(image))
            file.mux(video.encode(None))
        whole = audio if form[0] == "f" else np.clip(np.rint(audio * 2.0**15), -(2**15), 2**15 - 1)
        for at in range(0, len(whole), size):
            piece = whole[None, at : at + size].astype("f4" if form[0] == "f" else "i2")
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), form, "mono")
            frame.sample_rate, frame.pts = rate, at
            frame.time_base = fractions.Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


# Ending, codec, how it is encoded, exact to so many bits (None: lossy), samples at 16 kHz (None: whole
# frames), samples by which the sound comes later: the encoder's delay, where the container does not state it.
PYAV = [
    (".m4a", "aac", {}, None, SAMPLES, 0),
    (".m4a", "alac", {"form": "s16p"}, 16, SAMPLES, 0),
    (".mp4", "aac", {"picture": True}, None, SAMPLES, 0),
    (".mov", "aac", {"picture": True}, None, SAMPLES, 0),
    (".mkv", "aac", {"picture": True}, None, None, 0),
    (".avi", "pcm_s16le", {"picture": True}, 16, SAMPLES, 0),
    (".mka", "flac", {}, 16, SAMPLES, 0),
    (".wv", "wavpack", {"form": "s16p"}, 16, SAMPLES, 0),
    (".tta", "tta", {"form": "s16"}, 16, SAMPLES, 0),
    (".webm", "libopus", {"rate": 48_000}, None, SAMPLES, 0),
    (".opus", "libopus", {"rate": 48_000}, None, SAMPLES, 0),
    (".aac", "aac", {"container": "adts"}, None, None, 1024),
    (".wma", "wmav2", {"rate": 32_000}, None, 48_128, -1024),  # FFmpeg drops the begin
    (".ac3", "ac3", {"rate": 32_000}, None, None, 128),
]


@pytest.mark.parametrize(("ending", "codec", "more", "bits", "samples", "late"), PYAV)
def test_what_pyav_reads_is_whole_and_in_place(tmp_path, ending, codec, more, bits, samples, late):
    path = tmp_path / f"a{ending}"
    av_file(path, codec, **more)
    audio = decode(path, RATE)
    if samples is None:
        assert SAMPLES <= len(audio) < SAMPLES + late + 2048
        audio = audio[late:][:SAMPLES]
    expected = np.pad(signal()[max(0, -late) :], (0, max(0, -late)))[: len(audio)]
    check(audio, expected, bits, samples or len(audio))
    np.testing.assert_array_equal(decode(path, RATE, 1.0, 2.0), decode(path, RATE)[16_000:32_000])
    np.testing.assert_array_equal(decode(path.read_bytes(), RATE), decode(path, RATE))


def test_metadata_that_is_not_utf_8_keeps_nothing_from_being_read():
    pytest.importorskip("av", reason="the extra av is not installed")
    from ssl_audio.data import pyav

    sound, title = io.BytesIO(), b"caf\xe9 "  # Latin-1
    soundfile.write(sound, signal(1600), RATE, format="WAV")
    named = b"INFOINAM" + struct.pack("<I", len(title)) + title
    whole = sound.getvalue() + b"LIST" + struct.pack("<I", len(named)) + named
    whole = whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]
    with pyav.open_file(io.BytesIO(whole)) as opened:
        assert opened.metadata["title"].startswith("caf")
        assert sum(frame.samples for frame in opened.decode(audio=0)) == 1600
