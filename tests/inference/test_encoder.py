import json
import subprocess
import sys

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssl_audio
from ssl_audio.inference.encoder import _program
from ssl_audio.inference.load import load
from ssl_audio.inference.pooling import pooling

RATE = 16_000


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    return encoders.encoder()


@pytest.fixture(scope="module")
def run(encoder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    encoders.save(encoder, workdir, 3, 10)
    return workdir


def test_package_import_brings_no_jax():
    code = "import sys, ssl_audio; assert 'jax' not in sys.modules and 'numpy' not in sys.modules; "
    code += "print(ssl_audio.load.__module__, ssl_audio.Encoder.__name__, 'jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["ssl_audio.inference.load", "Encoder", "True"]
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = ssl_audio.lod


def test_load_gives_the_saved_encoder(encoder, run):
    newest, older = load(run), load(run, step=3)
    audio = noise(9000)
    assert np.array_equal(older.embed(audio, RATE), encoder.embed(audio, RATE))
    assert not np.array_equal(newest.embed(audio, RATE), encoder.embed(audio, RATE))
    assert (newest.rate, newest.width, newest.num_layers, newest.rows) == (RATE, 32, 2, 2)
    assert newest.window == pytest.approx(0.64)


def test_load_says_what_is_missing(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint yet. Leave --step out"):
        load(run, step="best")
    with pytest.raises(FileNotFoundError, match=r"step 4; there are \[3, 10\]"):
        load(run, step=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.update(colour="red"), "no option 'colour'"),
        (lambda o: o.update(kind="other_method"), "no 'other_method' here"),
        (lambda o: o["encoder"].update(depth=4), "checkpoint of another model"),
    ],
)
def test_load_refuses_another_config(run, tmp_path, change, message):
    config = json.loads((run / "config.json").read_text())
    change(config["objective"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("mixer", ["attention", "mamba"])
def test_bits_depend_on_the_clip_alone(mixer):
    encoder = encoders.encoder(mixer=mixer, frames=24)
    lengths = [30, 399, 2000, 2100, 4000, 5050, 9000] * 2 + [2000] * 17
    clips = [noise(n, seed) for seed, n in enumerate(lengths)]
    together = encoder.embed(clips, RATE)
    order = np.random.default_rng(0).permutation(len(clips))
    shuffled = encoder.embed([clips[i] for i in order], RATE)
    assert np.array_equal(shuffled, together[order])
    for i in (0, 3, 6, 20, 30):
        assert np.array_equal(encoder.embed(clips[i], RATE), together[i])
    assert len({row.tobytes() for row in together}) == len(clips)


def test_one_program_per_number_of_columns(caplog):
    _program.cache_clear()
    caplog.set_level("INFO", "ssl_audio")
    small = encoders.encoder(frames=24)
    small.embed([noise(n) for n in range(1000, 30_000, 700)], RATE)
    assert _program.cache_info().currsize == 3
    assert _program(small._sized(3), (-1,))._cache_size() == 1
    small.embed(noise(1000), RATE)
    logged = [r.getMessage() for r in caplog.records if r.name == "ssl_audio.inference.encoder"]
    assert sorted(text.split(": ")[1] for text in logged) == [
        f"{n} of at most 3" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("columns", [1, 3, 4, 5, 6, 7, 17])
def test_a_clip_in_pieces_has_the_bits_of_the_whole(columns):
    encoder = encoders.encoder(frames=24)
    audio = noise(columns * 8 * 160 + 333)

    def cut(size):
        return (audio[i : i + size] for i in range(0, len(audio), size))

    clips = [cut(100), audio, cut(1280), cut(9999)]
    first, *others = (found for _, found in sorted(encoder.stream(clips)))
    assert first.shape == (1, encoder._columns(len(audio)), 64)
    assert all(np.array_equal(first, other) for other in others)


def test_no_more_than_64_programs_and_their_padding_is_dropped():
    encoder = encoders.encoder(patch=(32, 1), frames=130)  # 130 columns: padded to multiples of 3
    assert [next(encoder._cut(noise(n)))[0] for n in (400, 560, 1040, 28_000)] == [3, 3, 6, 130]
    assert encoder.frames(noise(560), RATE)[0].shape[0] == 2


def direct(encoder, audio, columns):
    """Call the objective's own predictor on a grid of so many columns."""
    batch = {"audio": jnp.asarray(audio[None]), "length": jnp.array([len(audio)])}
    encoded = jax.jit(encoder._sized(columns).predictors()["encode"])(encoder.params, {}, batch)
    return np.asarray(encoded.tokens.x)[0], np.asarray(encoded.layers)[:, 0]


def test_short_audio_is_padded_in_the_spectrogram(encoder):
    """A clip is encoded as the objective encodes it on a grid of just its columns."""
    audio = noise(3 * 8 * 160 + 900)  # 29 whole frames: 4 columns
    tokens, _ = direct(encoder, audio, 4)
    assert tokens.shape == (2 * 4, 32)
    np.testing.assert_allclose(encoder.embed(audio, RATE), tokens.mean(0), atol=1e-5)
    features, times = encoder.frames(audio, RATE)
    np.testing.assert_allclose(features[1], tokens[[1, 5]].ravel(), atol=1e-5)
    # The first column: frames 0 to 7, centred at 0.0125 s to 0.0825 s.
    np.testing.assert_allclose(times, 47.5 + 80 * np.arange(4))


def test_layers_are_the_residual_stream(encoder):
    audio = noise(8000)
    _, layers = direct(encoder, audio, 6)
    for layer in (0, 1):
        found = encoder.embed(audio, RATE, layer=layer)
        np.testing.assert_allclose(found, layers[layer].mean(0), atol=1e-5)
    for layer in (2, -2, "best"):
        with pytest.raises(ValueError, match="wanted 0 to 1, or -1"):
            encoder.embed(audio, RATE, layer=layer)


def test_statistics_pool_each_row_over_time(encoder):
    audio = noise(8000)
    features, _ = encoder.frames(audio, RATE)
    pooled = encoder.embed(audio, RATE, pool="stats")
    rows = encoder.embed(audio, RATE, pool="rows")
    np.testing.assert_array_equal(rows, pooled[: rows.size])
    np.testing.assert_allclose(
        pooled, np.concatenate([features.mean(0), features.std(0)]), atol=1e-5
    )
    np.testing.assert_allclose(
        encoder.embed(audio, RATE), features.reshape(-1, 2, 32).mean((0, 1)), atol=1e-5
    )
    assert pooling(np.ones((3, 5, 64)), 2, "mean").shape == (3, 32)
    with pytest.raises(ValueError, match="wanted one of mean, rows, stats"):
        encoder.embed(audio, RATE, pool="max")


def test_long_audio_is_the_mean_of_its_windows(encoder):
    step = 8 * 160  # samples per column
    audio = noise(14 * step + 240)  # 14 columns, windows from 0, 4 and 6
    window = 7 * step + 7 * 160 + 400
    parts = {c: encoder.frames(audio[c * step :][:window], RATE)[0] for c in (0, 4, 6)}
    sums, count = np.zeros((14, 64)), np.zeros((14, 1))
    for column, part in parts.items():
        sums[column : column + 8] += part
        count[column : column + 8] += 1
    assert count.max() == 3 and count.min() == 1
    features, times = encoder.frames(audio, RATE)
    np.testing.assert_allclose(features, sums / count, atol=1e-5)
    assert len(times) == 14
    np.testing.assert_allclose(
        encoder.embed(audio, RATE), (sums / count).reshape(14, 2, 32).mean((0, 1)), atol=1e-5
    )


def test_any_rate_and_int16(encoder):
    t = np.arange(int(0.5 * 48_000)) / 48_000
    tone = (0.3 * np.sin(2 * np.pi * 440 * t) * np.hanning(len(t))).astype(np.float32)
    native = encoder.embed(tone[::3], RATE)
    other = encoder.embed(noise(8000), RATE)

    def near(x):
        return np.linalg.norm(x - native) < 0.1 * np.linalg.norm(other - native)

    assert near(encoder.embed(tone, 48_000))
    assert not near(encoder.embed(tone, RATE))
    whole = np.round(tone[::3] * 32768).astype(np.int16)
    assert np.array_equal(
        encoder.embed(whole, RATE), encoder.embed(whole.astype(np.float64) / 32768, RATE)
    )


@pytest.mark.parametrize(
    "audio", [np.zeros(1), np.zeros(20_000), np.ones(7), np.zeros(5000, np.int16)]
)
def test_silence_and_specks_are_finite(encoder, audio):
    assert np.isfinite(encoder.embed(audio, RATE)).all()
    features, times = encoder.frames(audio, RATE)
    assert len(features) == len(times) >= 1


def test_clips_shorter_than_a_frame_still_differ(encoder):
    assert not np.array_equal(encoder.embed(noise(160), RATE), encoder.embed(noise(160, 1), RATE))


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(0), RATE, "waveform: empty"),
        ([], RATE, "no clips"),
        (np.zeros((0, 9)), RATE, "no clips"),
        ([noise(9), noise(0)], RATE, "waveform 1: empty"),
        (np.full(9, np.nan), RATE, "NaN or infinite"),
        (np.array([1.0, np.inf]), RATE, "NaN or infinite"),
        (np.array([1e300]), RATE, "NaN or infinite"),
        (np.zeros(9, np.int32), RATE, "got int32, wanted floating point"),
        (np.array(["a"]), RATE, "wanted floating point"),
        (np.zeros((2, 3, 4)), RATE, r"got shape \(2, 3, 4\), wanted mono"),
        (np.float32(0), RATE, r"got shape \(\)"),
        ([np.zeros((2, 3))], RATE, "average the channels"),
        ([0.1, 0.2], RATE, r"waveform 0: got shape \(\)"),
        (np.zeros((800, 2)), RATE, r"800 clips of 2 samples.*channels come last.*waveform\.T"),
        (np.zeros((20, 9), np.int16), RATE, "20 clips of 9 samples"),
        (np.zeros((900, 1)), RATE, "900 clips of 1 samples"),
        (noise(9), 0, "sample_rate: got 0"),
        (noise(9), "16k", "sample_rate: got '16k'"),
        (noise(9), float("nan"), "sample_rate: got nan"),
    ],
)
def test_unusable_audio_is_refused(encoder, audio, rate, message):
    with pytest.raises(ValueError, match=message):
        encoder.embed(audio, rate)


def test_frames_takes_one_clip(encoder):
    with pytest.raises(ValueError, match="mono audio"):
        encoder.frames(np.zeros((2, 800)), RATE)


def test_a_batch_is_still_a_batch(encoder, caplog):
    caplog.set_level("DEBUG")
    assert encoder.embed(np.zeros((2, 800), np.float32), RATE).shape == (2, encoder.width)
    assert "taken as two clips" in caplog.text


def test_a_model_shows_itself_in_a_line(encoder, run):
    for model in (encoder, load(run)):
        assert len(repr(model)) < 300
        assert "MaskedSpectrogram" in repr(model) and "parameters" in repr(model)
        assert "rate 16000 Hz, window 0.64 s, width 32" in repr(model)
    assert f"from {run}" in repr(load(run)) and "step 3" in repr(load(run, 3))
