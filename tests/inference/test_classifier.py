import dataclasses

import encoders
import jax
import numpy as np
import pytest

from ssl_audio import config as configs
from ssl_audio.inference.calibration import Calibration
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.load import load

RATE = 16_000
NAMES = ("cat", "dog", "rain")


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def make(criterion="softmax", names=NAMES, frames: int | None = encoders.FRAMES, **more):
    options = encoders.options()
    objective = options["objective"]
    del objective["masking"]
    objective |= dict(
        kind="tagging", criterion=criterion, head=dict(kind="classify:Classifier", classes=3)
    )
    objective["frontend"]["frames"] = frames
    label = dict(kind="entries:Labels", classes=3, names=names)
    options["data"]["entries"]["label"] = label
    options |= dict(steps=10) | more
    built = configs.build(objective, "objectives")
    params = encoders.drawn(built, Classifier(built, {}, options).blank())
    return Classifier(built, params, options)


@pytest.fixture(scope="module")
def classifier():
    return make()


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    encoders.save(classifier, workdir, 3)
    return workdir


def softmax(logits):
    return np.asarray(jax.nn.softmax(np.asarray(logits), -1))


def test_a_run_with_logits_loads_as_a_classifier(classifier, folder):
    found = load(folder)
    assert type(found) is Classifier
    assert (found.labels, found.several, found.classes) == (NAMES, False, 3)
    audio = noise(9000)
    assert np.array_equal(found.scores(audio, RATE).values, classifier.scores(audio, RATE).values)
    assert found.embed(audio, RATE).shape == (32,)


@pytest.mark.parametrize("samples", [100, 5000, 10_480])
def test_scores_are_those_of_the_evaluator(classifier, samples):
    audio = noise(samples)
    found = classifier.scores(audio, RATE)
    batch = {"audio": np.pad(audio, (0, 10_480 - samples))[None]}
    batch["length"] = np.array([max(samples, 400)], np.int32)  # at least a frame is heard
    logits = jax.jit(classifier.objective.logits)(classifier.params, {}, batch)
    np.testing.assert_allclose(found.values, softmax(logits), atol=2e-6)
    np.testing.assert_allclose((found.starts, found.ends), ([0], [samples / RATE]))


def test_a_long_clip_is_the_mean_of_windows(classifier):
    audio = noise(40_000)
    at = [int(n) for n in classifier._cut(audio, "training") for n in [n[1].start]]
    assert len(at) > 3
    pieces = [audio[start : start + 10_480] for start in at]
    logits = [np.log(classifier.scores(piece, RATE).values[0]) for piece in pieces]
    whole = classifier.scores(audio, RATE)
    assert whole.values.shape == (1, 3) and whole.ends == [2.5]
    # Softmax forgets what all logits have in common, so their means may be compared as these.
    np.testing.assert_allclose(whole.values[0], softmax(np.mean(logits, 0)), atol=1e-5)


def test_windows_are_clips_of_their_own(classifier):
    audio = noise(16_000)
    found = classifier.scores(audio, RATE, window=0.4, hop=0.25)
    np.testing.assert_allclose(found.starts, [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(found.ends, [0.4, 0.65, 0.9, 1.0])
    for start, end, values in zip(*found, strict=True):
        alone = classifier.scores(audio[round(start * RATE) : round(end * RATE)], RATE).values[0]
        assert np.array_equal(values, alone)
    assert len(classifier.scores(audio, RATE, window=0.5).starts) == 2
    assert len(classifier.scores(audio, RATE, window=0.1, hop=0.9).starts) == 2
    assert len(classifier.scores(audio, RATE, window=2, hop=1).starts) == 1
    wide = classifier.scores(noise(40_000), RATE, window=2, hop=1)
    assert wide.values[0] == pytest.approx(
        classifier.scores(noise(40_000)[:32_000], RATE).values[0]
    )


@pytest.mark.parametrize("window", [None, 0.4])
def test_pieces_and_batch_mates_change_nothing(classifier, window):
    one, two = noise(30_000), noise(7000, 1)
    alone = {0: classifier.scores(one, RATE, window=window, hop=window and 0.3)}
    alone[1] = classifier.scores(two, RATE, window=window, hop=window and 0.3)
    pieces = iter(np.split(one, [1000, 9000, 9100, 29_999]))
    rows = list(classifier.rows_of([pieces, two, one], window=window, hop=window and 0.3))
    alone[2] = alone[0]
    for number, scores in alone.items():
        mine = [row for i, row in rows if i == number]
        values = classifier.probabilities(np.stack([row.logits for row in mine]))
        assert np.array_equal(values, scores.values)
        assert [row.start for row in mine] == scores.starts.tolist()
        assert [row.last for row in mine] == [False] * (len(mine) - 1) + [True]


def test_clips_of_any_length_get_no_padding_where_none_was_trained():
    model = make(frames=None)
    free = dataclasses.replace(
        model, config={k: v for k, v in model.config.items() if k != "steps"}
    )
    audio = noise(5680)  # 34 frames, 4 columns and some of a fifth
    padded, heard = model.scores(audio, RATE).values, free.scores(audio, RATE).values
    assert np.array_equal(heard, model.scores(audio, RATE, pad="columns").values)
    assert np.abs(padded - heard).max() > 1e-4


def test_several_labels_have_probabilities_of_their_own():
    model = make("sigmoid")
    assert model.several
    values = model.scores(noise(5000), RATE).values
    logits = model.predict("logits", np.pad(noise(5000), (0, 5480)), RATE)
    assert values.shape == (1, 3) and not np.isclose(values.sum(), 1)
    assert logits.shape == (3,)


def test_names_that_are_not_known_are_numbers(caplog):
    model = make(names=())
    assert model.labels == ("0", "1", "2")
    assert "are called 0 to 2" in caplog.text
    with pytest.raises(ValueError, match="got 2 names, wanted one for each of the model's 3"):
        _ = make(names=("a", "b")).labels


def test_a_calibration_lies_beside_the_config(classifier, folder):
    calibration = Calibration(0.5, (0.1, 0.0, -0.2), (), 40)
    calibration.write(folder)
    try:
        found = load(folder)
        assert found.calibration == calibration
        audio = noise(9000)
        logits = np.log(classifier.scores(audio, RATE).values.astype(np.float64))
        wanted = softmax(logits * 0.5 + np.array([[0.1, 0, -0.2]]))
        np.testing.assert_allclose(found.scores(audio, RATE).values, wanted, atol=1e-6)
        Calibration(1.0, (0.0,) * 4).write(folder)
        with pytest.raises(ValueError, match=r"calibration.json: bias: got 4 values.* 3 classes"):
            load(folder)
        (folder / "calibration.json").write_text(
            '{"scale": -1, "clips": 3, "bias": [], "thresholds": []}'
        )
        with pytest.raises(ValueError, match=r"calibration.json: scale: got -1"):
            load(folder)
    finally:
        (folder / "calibration.json").unlink()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(hop=1.0), "hop: got 1.0 without a window"),
        (dict(window=0.0), "window: got 0.0"),
        (dict(window=1.0, hop=float("nan")), "hop: got nan"),
        (dict(pad="odd"), "pad: got 'odd'"),
    ],
)
def test_options_that_mean_nothing_are_refused(classifier, given, message):
    with pytest.raises(ValueError, match=message):
        classifier.scores(noise(5000), RATE, **given)


def test_probabilities_are_averaged_where_the_evaluation_did_so():
    found = make("sigmoid", inference=dict(average="sigmoid"))
    audio = noise(40_000)
    audio[20_000:] = 0.5 * np.sin(0.3 * np.arange(20_000))  # windows that sound quite different
    at = [window.start for _, window in found._cut(audio, "training")]
    pieces = [found.scores(audio[start : start + 10_480], RATE).values[0] for start in at]
    whole = found.scores(audio, RATE).values[0]
    np.testing.assert_allclose(whole, np.mean(pieces, axis=0), rtol=1e-4)
    other = dataclasses.replace(found, config={**found.config, "inference": {}})
    assert np.abs(other.scores(audio, RATE).values[0] - whole).max() > 1e-5


def test_a_short_clip_is_said_again_where_the_training_did_so():
    found, short = make(), noise(3000)
    audio = {**found.config["data"]["entries"]["audio"], "fill": "repeat"}
    entries = {**found.config["data"]["entries"], "audio": audio}
    data = {**found.config["data"], "entries": entries}
    again = dataclasses.replace(found, config={**found.config, "data": data})
    whole = found.scores(np.tile(short, 4)[:10_480], RATE).values
    assert np.array_equal(again.scores(short, RATE).values, whole)
    assert not np.array_equal(found.scores(short, RATE).values, whole)
    rows = again.scores(np.tile(short, 2), RATE, window=3000 / RATE).values
    np.testing.assert_allclose(rows, np.concatenate([whole, whole]), atol=1e-6)
    columns = again.scores(short, RATE, pad="columns").values
    assert np.array_equal(columns, found.scores(short, RATE, pad="columns").values)
