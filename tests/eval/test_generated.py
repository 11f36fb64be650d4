"""Measures of generated sound: known values, a second library, what they must and must not notice."""

import json

import numpy as np
import pytest
import scipy.linalg
import soundfile

from ssl_audio.eval import generated, judge

RATE = 8000


def vectors(seed, n, shift=0.0):
    """Return correlated vectors [n, 6]."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)) @ np.random.default_rng(9).normal(size=(6, 6)) + shift


def test_frechet_is_that_of_a_matrix_root():
    x, y = vectors(0, 60), vectors(1, 50, shift=0.3)
    s, t = (np.cov(a, rowvar=False) for a in (x, y))
    root = np.real(np.asarray(scipy.linalg.sqrtm(s @ t)))
    wanted = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t - 2 * root)
    assert generated.frechet(x, y) == pytest.approx(wanted, rel=1e-9)
    assert generated.frechet(y, x) == pytest.approx(wanted, rel=1e-9)
    assert generated.frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert generated.frechet(x, x + 2) == pytest.approx(6 * 4, rel=1e-9)  # only the mean moved


def test_frechet_of_one_channel_and_of_fewer_vectors_than_channels():
    x = np.array([[0.0], [2.0], [4.0]])
    assert generated.frechet(x, 3 * x) == pytest.approx((6 - 2) ** 2 + (6 - 2) ** 2)  # (s - t)²
    few = vectors(2, 4)
    assert generated.frechet(few, few) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least two"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "NaN"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "widths 3 and 4"),
    ],
)
def test_frechet_refuses(x, y, said):
    with pytest.raises(ValueError, match=said):
        generated.frechet(x, y)


def test_each_clip_has_a_distance_and_the_strange_one_the_largest():
    clips = [vectors(i, 30) for i in range(4)] + [vectors(5, 30, shift=3.0), vectors(6, 1)]
    found = generated.each_frechet(clips, vectors(7, 500))
    assert np.argmax(found[:5]) == 4 and found[4] > 3 * np.max(found[:4])
    assert np.isnan(found[5])


def test_divergence_is_that_of_probabilities_and_has_a_direction():
    p, q = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    wanted = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert generated.divergence(p, q) == pytest.approx(wanted, rel=1e-5)
    assert generated.divergence(q, p) == pytest.approx(
        0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5), rel=1e-5
    )
    assert generated.divergence(p, p) == 0
    assert np.isfinite(generated.divergence(np.eye(2), np.eye(2)[::-1]))
    with pytest.raises(ValueError, match="probabilities"):
        generated.divergence(p, q + 1)
    with pytest.raises(ValueError, match="pairs"):
        generated.divergence(p, q[:, :1])


def test_agreement_is_a_mean_cosine_of_clips_and_their_own_texts():
    audio = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert generated.agreement(audio, np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="a text for each clip"):
        generated.agreement(audio, audio[:1])


def test_code_usage_counts_each_book_by_itself():
    codes = np.array([[0, 3], [1, 3], [0, 3], [1, 3]])
    first, second = generated.code_usage(codes, 4)
    assert first == pytest.approx({"share": 0.5, "perplexity": 2.0})
    assert second == pytest.approx({"share": 0.25, "perplexity": 1.0})
    with pytest.raises(ValueError, match="wanted 0 to 2"):
        generated.code_usage(codes, 3)


def test_log_mel_distance_of_a_level_is_its_logarithm():
    sound = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    assert generated.log_mel_distance(sound, sound[:-300], RATE) == 0
    apart = generated.log_mel_distance(2 * sound, sound, RATE)
    assert apart == pytest.approx(np.log(2), rel=1e-4)
    assert np.isfinite(generated.log_mel_distance(sound[:20], sound[:20] * 0, RATE))


def folder(path, seed, level=0.1, pitch=300):
    """Write six clips of two classes; return the folder."""
    rng = np.random.default_rng(seed)
    for i in range(6):
        tone = np.sin(2 * np.pi * pitch * (1 + i % 2) * np.arange(RATE // 2) / RATE)
        place = path / ("low", "high")[i % 2] / f"{i}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, level * (tone + 0.3 * rng.normal(size=RATE // 2)), RATE)
    return path


def test_the_verb_tells_near_from_far(tmp_path):
    real = folder(tmp_path / "real", 0)
    near, far = folder(tmp_path / "near", 1), folder(tmp_path / "far", 2, level=0.02, pitch=900)
    found = {}
    for made in (near, far):
        output = tmp_path / f"{made.name}.json"
        judge.main(f"--generated {made} --recorded {real} --rate {RATE} --output {output}".split())
        found[made.name] = json.loads(output.read_text())
    assert found["near"]["generated"] == found["near"]["pairs"] == 6
    for name in ("frechet", "log-mel distance"):
        assert 2 * found["near"][name] < found["far"][name]


class Tagger:
    """Hears a tone's pitch."""

    rate, labels = RATE, ("high", "low")

    def scores(self, sound, rate):
        """Return probabilities of one window."""
        assert rate == RATE
        high = np.argmax(np.abs(np.fft.rfft(sound))) * rate / len(sound) > 450
        return type("Scores", (), {"values": np.array([[0.9, 0.1] if high else [0.1, 0.9]])})


def test_classes_are_compared_by_name_and_by_pair(tmp_path):
    real, made = folder(tmp_path / "real", 0), folder(tmp_path / "made", 1)
    found = judge.judge(str(made), str(real), rate=RATE, classifier=Tagger())
    assert found["heard"] == 1 and found["divergence"] == 0
    for before, after in (("low", "x"), ("high", "low"), ("x", "high")):
        (made / before).rename(made / after)
    found = judge.judge(str(made), str(real), rate=RATE, classifier=Tagger())
    assert found["heard"] == 0 and "divergence" not in found  # no clip has its own name now
    (made / "high").rename(made / "loud")
    with pytest.raises(ValueError, match="'loud' is none of the classifier's: high, low"):
        judge.judge(str(made), str(real), rate=RATE, classifier=Tagger())


def test_texts_that_are_asked_for_must_be_there(tmp_path):
    real = folder(tmp_path / "real", 0)
    words = type("Words", (), {"rate": RATE})()
    with pytest.raises(ValueError, match="has no text; wanted a table"):
        judge.judge(str(real), str(real), rate=RATE, words=words)


def test_what_cannot_be_judged_is_named(tmp_path, monkeypatch):
    from ssl_audio.inference import load

    real, one = folder(tmp_path / "real", 0), tmp_path / "one"
    one.mkdir()
    soundfile.write(one / "0.wav", np.zeros(800), RATE)
    asked = f"--recorded {real} --rate {RATE} --output {tmp_path / 'o.json'} --generated".split()
    with pytest.raises(ValueError, match="one: 1 clips; wanted at least two"):
        judge.main([*asked, str(one)])
    monkeypatch.setattr(load, "load", lambda *_, **__: Tagger())
    for flag, wanted in (("--words", "a model of sound and words"), ("--codec", "a codec")):
        with pytest.raises(ValueError, match=f"{flag} RUN: wanted {wanted} .*got a Tagger"):
            judge.main([*asked, str(real), flag, "RUN"])
    judge.main([*asked, str(real), "--classifier", "RUN"])
