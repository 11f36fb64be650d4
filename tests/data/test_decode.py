import io

import numpy as np
import pytest
import soundfile

from ssl_audio.data.decode import DecodeError, blocks, decode, resample


def tone(rate, seconds=1.0, channels=1):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    return np.stack([wave] * channels, axis=1).astype(np.float32)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
def test_every_format_gives_the_same_tone(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, tone(44_100), 44_100)
    audio = decode(path, 16_000)
    assert audio.dtype == np.float32 and audio.shape == (16_000,)
    spectrum = np.abs(np.fft.rfft(audio))
    assert spectrum.argmax() == 440
    assert np.sqrt((audio**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_bytes_and_excerpts_read_the_same_samples(tmp_path):
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(path, noise, 16_000, subtype="PCM_16")
    whole = decode(path, 16_000)
    np.testing.assert_array_equal(decode(path.read_bytes(), 16_000), whole)
    np.testing.assert_array_equal(decode(path, 16_000, 0.25, 0.5), whole[4000:8000])
    np.testing.assert_array_equal(decode(path, 16_000, 0.75, 9.0), whole[12_000:])


@pytest.mark.parametrize(("rate", "extension"), [(16_000, "flac"), (44_100, "wav"), (8000, "ogg")])
def test_pieces_have_the_bits_of_the_whole(tmp_path, rate, extension):
    path = tmp_path / f"a.{extension}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * rate + 7, 2))
    soundfile.write(path, noise, rate)
    whole = decode(path, 16_000)
    mono = soundfile.read(path, dtype="float32")[0].mean(1, dtype=np.float32)
    np.testing.assert_array_equal(whole, resample(mono, rate, 16_000))
    for seconds in (0.31, 1.0, 99.0):
        pieces = list(blocks(path, 16_000, seconds=seconds))
        assert len(pieces) == -(-len(mono) // round(seconds * rate))
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_fault_late_in_a_file_is_found_when_it_is_reached(tmp_path):
    path = tmp_path / "a.wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 320_000)
    noise[-1] = np.inf
    soundfile.write(path, noise, 16_000, subtype="FLOAT")
    pieces = blocks(path, 16_000, seconds=1.0)
    assert len(next(pieces)) == 16_000
    with pytest.raises(DecodeError, match="a.wav: NaN or infinite"):
        list(pieces)


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "a.wav"
    left, right = np.full(100, 0.5), np.full(100, -0.25)
    soundfile.write(path, np.stack([left, right], 1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(decode(path, 16_000), 0.125)


@pytest.mark.parametrize(
    ("samples", "channels", "rate"), [(1, 1, 16_000), (1, 1, 192_000), (441, 1, 44_100)]
)
def test_tiny_clips_work(tmp_path, samples, channels, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full((samples, channels), 0.5), rate)
    assert decode(path, 16_000).size == max(1, round(samples * 16_000 / rate))


@pytest.mark.parametrize("rate", [96_000, 192_000])
def test_eight_channels_at_high_rates_work(tmp_path, rate):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(rate, 0.5, channels=8), rate)
    audio = decode(path, 16_000)
    assert audio.shape == (8000,)
    assert np.sqrt((audio**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_silence_works(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(800), 8000)
    assert not decode(path, 16_000).any()


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_named(tmp_path, extension, share):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 44_100), 44_100)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DecodeError, match=rf"a\.{extension}: (truncated|unreadable)"):
        decode(path, 16_000)


def test_other_faults_are_named(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not sound\n" * 50)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    nan = np.array([0.0, np.nan, 0.5], np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "inf.wav", np.full(9, np.inf), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", np.zeros(1600), 16_000)
    for name, cause in {
        "empty": "empty file",
        "text": "unreadable",
        "none": "no samples",
        "nan": "NaN",
        "inf": "infinite",
        "missing": "no such file",
    }.items():
        with pytest.raises(DecodeError, match=rf"{name}\.wav: .*{cause}"):
            decode(tmp_path / f"{name}.wav", 16_000)
    with pytest.raises(DecodeError, match=r"short\.wav: no samples from 0\.5 s"):
        decode(tmp_path / "short.wav", 16_000, 0.5, 0.6)
    with pytest.raises(DecodeError, match="<4 bytes>"):
        decode(b"RIFF", 16_000)


def test_a_streamed_wav_without_its_length_is_whole():
    file = io.BytesIO()
    soundfile.write(file, np.full(1000, 0.25), 16_000, format="WAV", subtype="PCM_16")
    content = bytearray(file.getvalue())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"  # what a pipe leaves
    assert decode(bytes(content), 16_000).shape == (1000,)


def test_resampling_keeps_a_tone_and_its_level():
    audio = resample(tone(48_000)[:, 0], 48_000, 16_000)
    np.testing.assert_allclose(audio[1000:-1000], tone(16_000)[1000:-1000, 0], atol=1e-3)


def test_real_recordings(shared_data):
    path = sorted((shared_data / "esc10" / "audio").glob("*.ogg"))[0]
    assert decode(path, 16_000).shape[0] == pytest.approx(soundfile.info(path).duration * 16_000, 2)
