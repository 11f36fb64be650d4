"""A probe that is kept decides as the probe that was evaluated, and is a classifier like any other."""

import dataclasses
import json
from typing import Any

import encoders
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import ssl_audio
from ssl_audio import config as configs
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import base, evaluate, features, save_probe
from ssl_audio.eval.calibrate import quality
from ssl_audio.eval.knn import Knn
from ssl_audio.eval.learner import Learner
from ssl_audio.eval.probe import Probe
from ssl_audio.eval.trained import classifiers
from ssl_audio.inference import kinds, segments
from ssl_audio.inference import probe as probing
from ssl_audio.inference.calibration import Calibration
from ssl_audio.inference.event_scores import usual_windows
from ssl_audio.inference.probe import ProbeClassifier, filled

RATE = 16_000
SIZE = 36


@pytest.fixture(scope="module")
def encoder():
    """Return an encoder of 0.24 s clips: the sounds are longer, of several lengths."""
    return encoders.encoder(frames=24)


@dataclasses.dataclass(frozen=True)
class Lengths(Synthetic):
    """Sounds of three lengths."""

    def __getitem__(self, i):
        found = super().__getitem__(i)
        return found | dict(audio=found["audio"][: RATE * (3 + i % 3) // 10])


SOURCE = Lengths(size=SIZE, seconds=0.5)
LABELS = np.array([SOURCE.meta(i)["label"] for i in range(SIZE)])


def learned(encoder, name, how):
    """Return features [n, ...] and the classifier that `evaluate` would make of them."""
    if name == "linear":
        x = features.matrix(SOURCE, features.encoded(encoder, [how["layer"]], how["pool"]))[1]
        return x[:, 0], Probe(choices=(10.0, 100.0))
    model = dataclasses.replace(classifiers()[name], epochs=2, batch_size=16, choices=(1e-2,))
    if model.view in ("tokens", "all"):
        found = features.token_maps(SOURCE, encoder, [how["layer"]], view=model.view)[1]
        return found[:, 0], model
    return evaluate._features(SOURCE, encoder, "encoder", "layers", [], "", 0)[1][:, 0], model


CASES = {
    "linear": dict(view="pooled", layer=0, pool="stats"),
    "attentive": dict(view="tokens", layer=-1),
    "prototypical": dict(view="tokens", layer=1),
    "convex": dict(view="all", layer=-1),
    "weighted": dict(view="layers", layer=-1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_saved_probe_gives_the_logits_it_was_trained_to_give(name, encoder, tmp_path):
    how = dict(CASES[name])
    x, classifier = learned(encoder, name, how)
    train = np.arange(SIZE) % 4 > 0
    best = len(classifier.choices) - 1
    fitted = classifier.fit(x, LABELS, train, best)
    if how["view"] in ("tokens", "all"):
        how["columns"] = x.shape[2]
    save_probe.write(
        tmp_path / "probe", encoder, fitted, SOURCE.info.labels, how, dict(accuracy=0.5)
    )

    model = ssl_audio.load(tmp_path / "probe")
    assert isinstance(model, ssl_audio.Classifier) and not model.several
    assert model.labels == tuple(SOURCE.info.labels[y] for y in fitted.labels)
    assert isinstance(model, ProbeClassifier)
    found = np.stack([model.decide(some) for some in x])
    clips = [SOURCE[i]["audio"] for i in range(SIZE)]
    rows = dict(model.rows_of(clips))
    heard = np.stack([rows[i].logits for i in range(SIZE)])
    np.testing.assert_allclose(heard, found, atol=1e-5)
    said = classifier.predict(x, LABELS, train)[best]
    assert np.array_equal(fitted.labels[np.argmax(heard, 1)], said)
    if name == "linear":
        head = fitted.params["head"]["linear"]["dense"]
        z = base.standardise(x, train)
        np.testing.assert_allclose(z @ head["kernel"] + head["bias"][None], heard, atol=1e-5)
    # It is self-contained: an encoder, a head, and no pretraining task.
    config = json.loads((tmp_path / "probe/config.json").read_text())
    assert config["objective"]["base"]["kind"] == "features" and config["probe"]["accuracy"] == 0.5
    assert set(model.params["base"]) == {"tokenizer", "encoder"}


@pytest.fixture(scope="module")
def probe(encoder, tmp_path_factory):
    """Return a linear probe on the mean of the last layer."""
    x, classifier = learned(encoder, "linear", dict(layer=-1, pool="mean"))
    fitted = classifier.fit(x, LABELS, np.ones(SIZE, bool), 0)
    folder = tmp_path_factory.mktemp("kept") / "probe"
    save_probe.write(folder, encoder, fitted, SOURCE.info.labels, dict(pool="mean"), {})
    return ssl_audio.load(folder)


def test_it_is_the_encoder_too(probe, encoder):
    clip = SOURCE[2]["audio"]
    assert np.array_equal(
        probe.embed(clip, RATE, pool="stats"), encoder.embed(clip, RATE, pool="stats")
    )
    assert np.array_equal(probe.frames(clip, RATE)[1], encoder.frames(clip, RATE)[1])
    assert (probe.rate, probe.window, probe.rows) == (RATE, encoder.window, encoder.rows)
    assert "ProbeClassifier" in repr(probe)


def test_scores_of_windows_are_those_of_the_windows_as_clips(probe):
    clip = np.concatenate([SOURCE[i]["audio"] for i in range(4)])
    whole = probe.scores(clip, RATE)
    assert whole.values.shape == (1, len(probe.labels)) and whole.ends[0] == len(clip) / RATE
    found = probe.scores(clip, RATE, window=0.4, hop=0.3)
    assert found.starts[1] == pytest.approx(0.3) and found.ends[-1] == len(clip) / RATE
    for start, end, values in zip(*found, strict=True):
        alone = probe.scores(clip[round(start * RATE) : round(end * RATE)], RATE)
        np.testing.assert_allclose(alone.values[0], values, atol=1e-6)
    # In pieces, and several clips at once.
    pieces = iter(np.split(clip, [1000, 9000]))
    rows = list(probe.rows_of([SOURCE[0]["audio"], pieces]))
    assert sorted(n for n, _ in rows) == [0, 1]
    last = dict(rows)[1]
    assert last.end == len(clip) / RATE and last.last
    np.testing.assert_allclose(probe.probabilities(last.logits), whole.values[0], atol=1e-6)
    with pytest.raises(ValueError, match="trained on clips that end so"):
        probe.scores(clip, RATE, pad="training")


def test_the_predictor_logits_agrees_on_clips_of_the_training_length(probe, encoder):
    clip = SOURCE[1]["audio"][: encoder._samples(encoder._most)]
    ((_, row),) = probe.rows_of([clip])
    np.testing.assert_allclose(probe.predict("logits", clip, RATE), row.logits, atol=1e-4)


def test_the_view_all_holds_every_layer_and_its_special_token(encoder):
    clip = SOURCE[2]["audio"]  # longer than a training clip
    ((_, found),) = probing.features(encoder, "all")([clip])
    rows, layers = encoder.rows, encoder.num_layers
    assert found.dtype == np.float16 and found.shape[1] == rows + 1 and found.shape[3] == layers
    for layer in range(layers):
        ((_, alone),) = probing.features(encoder, "tokens", [layer])([clip])
        np.testing.assert_array_equal(found[0, :rows, :, layer], alone[0])
    short = SOURCE[0]["audio"][: encoder._samples(encoder._most)]
    ((_, found),) = probing.features(encoder, "all")([short])
    batch = dict(audio=jnp.asarray(short)[None], length=jnp.array([len(short)]))
    specials = encoder.objective.encode(encoder.params, {}, batch).specials
    assert specials.shape == (layers, 1, 1, encoder.width)
    for column in range(found.shape[2]):
        np.testing.assert_allclose(found[0, rows, column], specials[:, 0, 0], atol=2e-3, rtol=2e-3)


def test_tokens_are_filled_up_with_nothing():
    x = np.ones((2, 3, 4), np.float16)
    assert filled(x, 2) is x
    assert filled(x, 5).shape == (2, 5, 4) and np.isnan(filled(x, 5)[:, 3:]).all()
    assert filled(x, 5, axis=0).shape == (5, 3, 4) and np.isnan(filled(x, 5, axis=0)[2:]).all()


def test_what_cannot_be_kept_is_refused_before_the_work(tmp_path):
    good: Any = dict(kinds=["encoder"], classifiers={"linear": Probe()}, shots=0)
    for wrong, said in (
        (dict(shots=3), "not with shots"),
        (dict(kinds=["random"]), "'encoder' or 'statistics' is saved"),
        (dict(classifiers={}), "got none"),
        (dict(classifiers={"knn": Knn()}), "keeps its training clips"),
    ):
        with pytest.raises(ValueError, match=said):
            save_probe.check(tmp_path / "probe", **{**good, **wrong})
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="workdir of a training run"):
        save_probe.check(tmp_path / "run", **good)
    save_probe.check(tmp_path / "probe", **good)


def test_evaluate_saves_the_probe_of_the_chosen_options(encoder, tmp_path):
    encoders.save(encoder, tmp_path / "run", 1)
    rng, kept = np.random.default_rng(0), tmp_path / "kept"
    for i in range(16):
        tone = np.sin(2 * np.pi * (300 if i % 2 else 2500) * np.arange(3200) / RATE)
        path = tmp_path / "sounds" / ("low" if i % 2 else "high") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * tone + 0.01 * rng.standard_normal(3200), RATE)
    records = evaluate.main(
        [
            "--checkpoint",
            str(tmp_path / "run"),
            "--set",
            "folder",
            "--root",
            str(tmp_path / "sounds"),
        ]
        + ["--features", "encoder", "--layer", "best", "--pool", "rows", "--save", str(kept)]
    )
    assert [r["classifier"] for r in records] == ["linear"] * 6
    config = json.loads((kept / "config.json").read_text())
    about, options = config["probe"], config["objective"]
    assert about["accuracy"] == records[-1]["accuracy"] == 1.0 and about["set"] == "sounds"
    assert about["clips"] == 16 and about["choice"] in Probe().choices
    assert options["pool"] == "rows" and options["layer"] in (0, 1, -1)
    model = ssl_audio.load(kept)
    assert model.labels == ("high", "low")
    found = model.scores(np.sin(2 * np.pi * 300 * np.arange(3200) / RATE) * 0.3, RATE)
    assert found.values[0, 1] > 0.5


def test_a_saved_probe_of_a_tower_without_patches(tmp_path):
    """What the tower pools of a window is the feature; the whole model is kept."""
    model = ssl_audio.load(encoders.audio_text(tmp_path / "joint", "cnn"))
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(9000).astype(np.float32) for _ in range(6)]
    x = model.encoder.embed(clips, model.rate)
    y = np.arange(6) % 2
    fitted = Probe(choices=(10.0,)).fit(x, y, np.ones(6, bool), 0)
    how = save_probe.reading(model.encoder, "pooled", -1, "mean", x)
    save_probe.write(tmp_path / "probe", model, fitted, ["a", "b"], how, {})
    found = ssl_audio.load(tmp_path / "probe")
    for i, (_, row) in enumerate(sorted(found.rows_of(clips), key=lambda r: r[0])):
        np.testing.assert_allclose(row.logits, found.decide(x[i]), atol=1e-5)

    vectors = model.embed_audio(clips, model.rate)
    learner = Learner(vectors)
    for i in range(6):
        learner.set(i, "ab"[y[i]])
    learner.save(tmp_path / "words", model, dict(pool=None, layer=None, window=None))
    words = ssl_audio.load(tmp_path / "words")
    scores = np.concatenate([words.scores(clip, model.rate).values for clip in clips])
    np.testing.assert_allclose(scores, learner.scores(), atol=1e-5)
    with pytest.raises(ValueError, match="wanted a model of sound and words .* got a classifier"):
        kinds.check(words, "sound and words")
    indexed = segments.of(words)
    assert not indexed.words and len(list(indexed.spans(clips[:1]))) == 1


def test_a_probe_does_not_speak_for_the_classes_of_the_model_under_it():
    """That one scores its own classes in time, the probe's classes have windows."""
    options = encoders.options()
    base = options["objective"]
    del base["masking"]
    base |= dict(kind="frame_tagging", head=dict(kind="classify:Frames", classes=3))
    head = dict(kind="classify:Classifier", classes=2)
    objective = configs.build(dict(kind="probe", base=base, head=head), "objectives")
    model = ProbeClassifier(objective, dict(base={}), options | dict(objective=dict(base=base)))
    assert sorted(model.offers) == ["encode", "logits"]
    windows = usual_windows(model)
    assert windows is not None and windows.window == model.window


@pytest.mark.parametrize("several", [False, True])
def test_a_calibration_is_fitted_to_clips_that_were_left_out(several, tmp_path, encoder):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(120) % 3)
    x = np.eye(3)[y] + rng.normal(0, 1.2, (120, 3))
    x = np.concatenate([x, rng.normal(size=(120, 40))], axis=1).astype(np.float32)
    train, groups = np.arange(120) < 90, np.arange(120) % 5
    truth = np.eye(3, dtype=np.float32)[y]
    label = truth if several else y
    classifier = Probe(choices=(1e4,))  # as sure as can be
    found = save_probe.calibrated(classifier, x, label, train, groups, 0, "pooled")
    assert found is not None and found.clips == 90 and found.scale < 0.9
    fitted = classifier.fit(x, label, train, 0)
    logits = save_probe._logits(fitted, x[~train], "pooled")
    before, after = (quality(z, truth[~train], several) for z in (logits, found(logits)))
    assert after["log loss"] < before["log loss"]
    # A class that one group alone has is in no head that is trained without it.
    lone = np.where(groups == 0, 0, 1 + np.arange(120) % 2)
    assert save_probe.calibrated(classifier, x, lone, train, groups, 0, "pooled").clips == 72
    assert (
        save_probe.calibrated(classifier, x, label, train & (groups < 1), groups, 0, "pooled")
        is None
    )

    how = dict(view="pooled", layer=-1)
    x, linear = learned(encoder, "linear", how | dict(pool="mean"))
    fitted = linear.fit(x, LABELS, np.ones(SIZE, bool), 0)
    names = SOURCE.info.labels
    save_probe.write(tmp_path, encoder, fitted, names, how, {}, Calibration(0.5))
    assert ssl_audio.load(tmp_path).calibration == Calibration(0.5)
    save_probe.write(tmp_path, encoder, fitted, names, how, {})
    assert ssl_audio.load(tmp_path).calibration is None
