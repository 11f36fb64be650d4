"""Stretch, pitch, and transforms of audiomentations, on the host: what they do, and that they repeat."""

import random
import sys
import types
from typing import Any

import numpy as np
import pytest

from ssl_audio.config import build
from ssl_audio.data.altered import Altered, Audiomentations, Pitch, Stretch
from ssl_audio.data.entries import Audio
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.synthetic import Synthetic

# librosa 1.0 warns of what its own time_stretch and pitch_shift do.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The `(hop_length|n_fft)` parameter is deprecated as of 1.0:FutureWarning"
)

RATE = 8000
TONE = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
CHANGES = (Stretch(chance=0.5), Pitch(chance=0.5))


def rng(seed=0):
    return np.random.default_rng(seed)


def loudest(audio):
    """Return the frequency of the strongest line, Hz."""
    window = np.hanning(len(audio))
    return np.argmax(np.abs(np.fft.rfft(audio * window))) * RATE / len(audio)


def test_stretch_changes_the_length_and_pitch_the_frequency_alone():
    for speed in (0.7, 1.3):
        made = Stretch(speed, speed)(TONE, RATE, rng())
        assert made.dtype == np.float32 and abs(len(made) - RATE / speed) <= 1
        assert abs(loudest(made) - 440) < 5
    for steps in (-4.0, 4.0):
        made = Pitch(steps, steps)(TONE, RATE, rng())
        assert made.dtype == np.float32 and len(made) == len(TONE)
        assert abs(loudest(made) - 440 * 2 ** (steps / 12)) < 5


def test_scale_is_kept_and_what_is_too_short_stays():
    # A phase vocoder makes noise softer, since its lines do not add up as before, and a tone after a faint
    # pause by up to 14 dB.
    noise = rng().normal(0, 0.1, 4 * RATE).astype(np.float32)
    sounds = [TONE, noise, 1e-6 * noise, np.concatenate([noise[:RATE] / 100, TONE])]
    for change in (Stretch(0.7, 0.7), Stretch(1.25, 1.25), Pitch(-4.0, -4.0), Pitch(4.0, 4.0)):
        for sound in sounds:
            made = change(sound, RATE, rng())
            assert made.dtype == np.float32
            assert abs(20 * np.log10(np.sqrt((made**2).mean() / (sound**2).mean()))) < 0.01
        for samples in (1, 63):
            assert np.array_equal(change(TONE[:samples], RATE, rng()), TONE[:samples])
        for samples in (64, 1000):  # shorter than librosa's window: no warning, no failure
            assert np.isfinite(change(TONE[:samples], RATE, rng())).all()
        assert not change(np.zeros(RATE, np.float32), RATE, rng()).any()


def test_a_change_draws_the_same_number_of_times_whether_it_acts_or_not():
    after = set()
    for chance in (0.0, 1.0):
        for kind in (Stretch, Pitch):
            own = rng()
            kind(chance=chance)(TONE[:100], RATE, own)
            after.add(own.random())
    assert len(after) == 1


def entry(**more):
    return Altered(samples=RATE, crop="first", changes=CHANGES, **more)


def drawn(made, audio, seed=0):
    return made.draw({"audio": audio, "rate": RATE, "id": "x", "more": None}, rng(seed))


def test_two_views_differ_and_keep_the_length_of_a_clip():
    made = entry(views=2)
    assert made.spec().keys() == {"audio", "length", "audio_second", "length_second"}
    views = [drawn(made, TONE, seed) for seed in range(4)]
    for view in views:
        assert {name: (np.shape(x), np.asarray(x).dtype) for name, x in view.items()} == made.spec()
        for end in ("", "_second"):
            length = view[f"length{end}"]
            assert 0 < length <= RATE and not view[f"audio{end}"][length:].any()
    assert any(not np.array_equal(v["audio"], v["audio_second"]) for v in views)
    for speed, length in ((1.25, RATE / 1.25), (0.5, RATE)):  # zeros at the end; cut at the end
        made = drawn(Altered(RATE, changes=(Stretch(speed, speed),)), TONE)
        assert made["length"] == length and not made["audio"][int(length) :].any()


def test_without_changes_it_is_the_plain_entry():
    plain, none = Audio(RATE), Altered(RATE)
    long = np.tile(TONE, 3)
    for one, other in zip(drawn(plain, long).values(), drawn(none, long).values(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("threads", [0, 4])
def test_a_run_that_goes_on_hears_the_same_to_the_bit(threads):
    made: Any = Pipeline(
        sources={"synthetic": Synthetic(size=12, seconds=0.5, rate=RATE)},
        batch_size=4,
        rate=RATE,
        entries={"audio": Altered(4000, changes=CHANGES, views=2)},
        threads=threads,
    )
    batches = made.batches()
    whole = [next(batches) for _ in range(3)]
    batches.close()
    later = made.batches(start_step=2)
    resumed = next(later)
    later.close()
    for name, array in whole[2].items():
        assert np.array_equal(resumed[name], array), name
    assert not np.array_equal(whole[0]["audio"], whole[0]["audio_second"])


def test_two_views_cannot_be_mixed_and_one_can():
    with pytest.raises(ValueError, match="Altered cannot be mixed"):
        Pipeline(
            sources={"synthetic": Synthetic(size=4)},
            batch_size=2,
            entries={"audio": Altered(100, views=2)},
            mixup=0.5,
        )
    Altered(100).check_mix()


class Fake:
    """The part of audiomentations that is used, with transforms that do what its own do in part."""

    class BaseWaveformTransform:
        def __init__(self, p=0.5, gain=1.0):
            if gain < 0:
                raise ValueError("gain must not be negative")
            self.p, self.gain = p, gain

        def made(self, x) -> Any:
            return x

        def __call__(self, samples, sample_rate):
            del sample_rate
            return self.made(samples * np.float32(self.gain))

    class Noisy(BaseWaveformTransform):
        def made(self, x):  # draws from both generators, as AddGaussianSNR does
            return x + np.float32(random.random()) * np.random.normal(size=x.shape).astype("f")  # noqa: NPY002

    class Double(BaseWaveformTransform):
        def made(self, x):
            return x.astype(np.float64)

    class Stereo(BaseWaveformTransform):
        def made(self, x):
            return np.stack([x, x])

    class Broken(BaseWaveformTransform):
        def made(self, x):
            return x * np.float32(np.nan)


@pytest.fixture
def library(monkeypatch):
    fake = types.ModuleType("audiomentations")
    vars(fake).update(vars(Fake) | {"__version__": "0"})
    monkeypatch.setitem(sys.modules, "audiomentations", fake)


def seed(number):
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002


def test_a_transform_of_audiomentations_can_be_repeated_and_leaves_the_generators_alone(library):
    change = Audiomentations("Noisy", {"gain": 0.5})
    seed(1)
    first = change(TONE, RATE, rng(3))
    after = random.random(), np.random.random()  # noqa: NPY002
    seed(1)
    assert after == (random.random(), np.random.random())  # noqa: NPY002
    assert np.array_equal(change(TONE, RATE, rng(3)), first)
    assert not np.array_equal(change(TONE, RATE, rng(4)), first)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("Double", {}, "Double: got float64 .*wanted finite float32"),
        ("Stereo", {}, r"Stereo: got float32 \(2, 8000\)"),
        ("Broken", {}, "Broken: got float32"),
        ("Compose", {}, "no transform of waveforms 'Compose'"),
        ("Noisy", {"gain": -1.0}, "gain must not be negative"),
        ("Noisy", {"loud": 1}, "loud"),
    ],
)
def test_what_is_no_sound_or_no_transform_is_named(library, name, options, words):
    with pytest.raises(ValueError, match=words):
        Audiomentations(name, options)(TONE, RATE, rng())


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "audiomentations", None)
    with pytest.raises(
        ValueError, match=r"Gain needs the library: pip install .*\[audiomentations\]"
    ):
        Audiomentations("Gain")(TONE, RATE, rng())


def test_the_real_library_where_it_is_installed():
    pytest.importorskip("audiomentations", reason="extra audiomentations is not installed")
    for name in ("PolarityInversion", "AddGaussianSNR", "HighPassFilter", "Normalize"):
        change = Audiomentations(name, {"p": 1.0})
        made = change(TONE, RATE, rng())
        assert np.array_equal(made, change(TONE, RATE, rng())) and not np.array_equal(made, TONE)


def test_all_of_it_can_be_written_in_a_config():
    options = dict(kind="altered:Audiomentations", transform="Gain", options=dict(p=0.3))
    changes = (dict(kind="altered:Stretch", low=1, high=1.2), options)
    made = build(dict(kind="altered:Altered", samples=10, changes=changes), "data")
    assert made.changes == (Stretch(1.0, 1.2), Audiomentations("Gain", {"p": 0.3}))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Stretch(0.05, 1.0), "Stretch: low=0.05"),
        (lambda: Pitch(4.0, -4.0), "Pitch: low=4, high=-4"),
        (lambda: Pitch(chance=2.0), "Pitch: chance is 2"),
        (lambda: Altered(10, views=3), "views: wanted 1 or 2"),
        (lambda: Audiomentations("os.system"), "transform is 'os.system'"),
    ],
)
def test_wrong_options_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
