"""Predictions of every clip once, whatever the batch; scores and the report per class."""

import csv
import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.distributed import sharding
from ssl_audio.eval import classify
from ssl_audio.eval.classify import Predictions
from ssl_audio.structs import TrainState

SAMPLES = 4000


class Loudness:
    """An objective that classifies by how much of a clip is sound, and by how loud it is."""

    def predictors(self):
        return {"logits": self.logits}

    def logits(self, params, extra, batch):
        power = jax.numpy.mean(batch["audio"] ** 2, axis=1)
        return params["scale"] * jax.numpy.stack([power, batch["length"] * 1e-5], axis=1)


def evaluator(**options):
    source = dict(kind="synthetic", size=21, seconds=0.2)
    settings = dict(kind="classify", source=source, samples=SAMPLES, classes=12, batch_size=8)
    return config.build(settings | options, "eval")


def predict(found, objective):
    mesh = sharding.Sharding().mesh()
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
        return found.predict(objective, {"scale": np.float32(2)}, {}, mesh)


def test_every_clip_once():
    objective = Loudness()
    found = evaluator()
    made = predict(found, objective)
    source = found.source
    assert list(made.ids) == [source.meta(i)["id"] for i in range(21)]
    assert made.labels.shape == (21, 12) and made.logits.shape == (21, 2)
    for i in (0, 20):
        audio = np.zeros(SAMPLES, np.float32)
        heard = source[i]["audio"][:SAMPLES]
        audio[: len(heard)] = heard
        want = 2 * np.array([np.mean(audio**2), len(heard) * 1e-5])
        np.testing.assert_allclose(made.logits[i], want, rtol=1e-5)
        assert made.labels[i].argmax() == source.meta(i)["label"]
    for size in (16, 3):  # also where eight devices cannot share it evenly
        again = predict(evaluator(batch_size=size), objective)
        assert list(again.ids) == list(made.ids)
        np.testing.assert_allclose(again.logits, made.logits, rtol=1e-6)


def test_views_spread_over_a_clip_and_are_averaged():
    found = evaluator(samples=1600, views=3)
    made = predict(found, Loudness())
    audio = found.source[3]["audio"]
    assert len(audio) == 3200
    powers = [np.mean(audio[start : start + 1600] ** 2) for start in (0, 800, 1600)]
    np.testing.assert_allclose(made.logits[3, 0], 2 * np.mean(powers), rtol=1e-5)


def test_clips_that_cannot_be_read_are_left_out(tmp_path):
    import soundfile

    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.full(3000, 0.1), 16_000)
    (tmp_path / "b.wav").write_text("not sound")
    lines = ["path,label", "a.wav,x", "b.wav,y", "c.wav,y"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    source = dict(kind="source:Manifest", path=str(tmp_path / "list.csv"))
    made = predict(evaluator(source=source, classes=2), Loudness())
    assert list(made.ids) == ["a.wav", "c.wav"] and made.labels.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="max_bad_share=0"):
        predict(evaluator(source=source, classes=2, max_bad_share=0.0), Loudness())
    state = TrainState(np.int32(0), {"scale": np.float32(1)}, {}, {}, jax.random.key(0))
    found = evaluator(source=source, classes=2).run(Loudness(), state, sharding.Sharding().mesh())
    assert set(found) == {"accuracy", "balanced_accuracy", "classes"}


def test_mistakes_are_named():
    mute = type("Mute", (), {"predictors": lambda self: {}})()
    with pytest.raises(ValueError, match="Mute has no predictor 'logits'"):
        predict(evaluator(), mute)


def test_report(tmp_path):
    labels = np.eye(3)[[0, 0, 1, 1, 2]]
    logits = np.eye(3)[[0, 1, 1, 1, 0]]
    made = Predictions(np.array(list("abcde")), logits, labels)
    classify.report(made, ("cat", "dog", "owl"), tmp_path, multilabel=False)
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["cat", "dog", "owl"]
    assert [float(row["precision"]) for row in rows] == pytest.approx([0.5, 2 / 3, 0], abs=1e-4)
    assert [float(row["recall"]) for row in rows] == [0.5, 1.0, 0.0]
    assert (tmp_path / "confusion.png").stat().st_size > 5000
    scores = classify.scores(logits, labels, multilabel=False)
    assert scores == {"accuracy": 0.6, "balanced_accuracy": 0.5, "classes": 3}
    assert classify.scores(logits[:4], labels[:4], multilabel=False)["classes"] == 2

    made.save(tmp_path / "p.npz")
    for name, value in vars(Predictions.load(tmp_path / "p.npz")).items():
        np.testing.assert_array_equal(value, getattr(made, name))
    several = dataclasses.replace(made, labels=np.array([[1, 1, 0]] * 3 + [[0, 1, 0]] * 2))
    classify.report(several, ("cat", "dog", "owl"), tmp_path, multilabel=True)
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert [row["average precision"] for row in rows][1:] == ["1.0000", ""]
