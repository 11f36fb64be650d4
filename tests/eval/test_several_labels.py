"""Probes of clips that may have several labels: mAP in place of accuracy, a classifier of yes and no."""

import dataclasses

import encoders
import numpy as np
import pytest

import ssl_audio
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import base, evaluate, metrics
from ssl_audio.eval.knn import Knn
from ssl_audio.eval.probe import Probe
from ssl_audio.eval.trained import Trained
from ssl_audio.heads.probes import Mlp

CLASSES = 4
MLP = Trained(
    "pooled", lambda n: Mlp(n, hidden=(16,), dropout=0.1), choices=(1e-2,), epochs=40, batch_size=16
)


class Several(Synthetic):
    """Sounds that are of a class of three sounds each, the first clip of all, and some of class 3 too."""

    @property
    def info(self):
        return dataclasses.replace(
            super().info, labels=("low", "mid", "high", "odd"), multilabel=True
        )

    def meta(self, i):
        found = super().meta(i)
        label = (found["label"] // 4, *((3,) if found["label"] % 4 == 0 else ()))
        return found | {"label": label}


@pytest.fixture(scope="module")
def source():
    return Several(size=60, seconds=0.3, folds=(1, 2, 3))


def blobs(seed=0, n=80):
    rng = np.random.default_rng(seed)
    hot = (rng.random((n, CLASSES)) < 0.4).astype(np.float32)
    return (hot @ rng.normal(size=(CLASSES, 12)) + 0.5 * rng.normal(size=(n, 12))).astype(
        np.float32
    ), hot


def test_each_class_is_a_regression_of_its_own():
    linear = pytest.importorskip("sklearn.linear_model").LogisticRegression
    x, hot = blobs()
    train = np.arange(80) < 60
    found = Probe(choices=(10.0,)).predict(x, hot, train)[0]
    z = base.standardise(x, train) / np.float32(np.sqrt(12))
    for c in range(CLASSES):
        model = linear(C=10.0, tol=1e-8, max_iter=1000).fit(z[train], hot[train, c])
        shares = 1 / (1 + np.exp(-found[:, c]))
        np.testing.assert_allclose(shares, model.predict_proba(z)[:, 1], atol=0.03)
    kept = Probe(choices=(10.0,)).fit(x, hot, train, 0)
    dense = kept.params["head"]["linear"]["dense"]
    logits = (x - kept.params["centre"]) * kept.params["gain"] @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(logits, found, atol=1e-4)


def test_options_are_chosen_by_map_within_training_clips():
    x, hot = blobs()
    folds = np.arange(80) % 4
    split = base.Split({"0": folds == 0}, folds)

    @dataclasses.dataclass(frozen=True)
    class Scaled:
        """The truth, more and more of it, but for test clips, where it is the opposite."""

        choices: tuple = (-1.0, 0.0, 1.0)

        def predict(self, x, y, train):
            sign = np.where(split.tests["0"], -1, 1)[:, None]
            return np.stack([c * sign * hot for c in self.choices])

    (score,) = base.nested(Scaled(), x[:, None], hot, split)
    assert score.choice == 1.0
    assert score.scores["mAP"] == metrics.mean_average_precision(-hot[::4], hot[::4]) < 0.6
    assert score.scores["classes"] == score.scores["AUC_classes"] == 4


def test_evaluate_and_the_saved_probe(source, tmp_path):
    encoder = encoders.encoder(frames=24)
    linear = {"linear": Probe(choices=(10.0, 100.0))}
    records = evaluate.evaluate(
        encoder, source, "folds", kinds=["encoder", "logmel"], pool="stats", classifiers=linear,
        save=tmp_path / "probe",
    )  # fmt: skip
    means = {r["features"]: r for r in records if r["fold"] == "mean"}
    assert "accuracy" not in means["logmel"] and means["logmel"]["classes"] == 4
    assert means["logmel"]["mAP"] > 0.5 and means["encoder"]["mAP"] > 0.4
    assert "logmel" in evaluate.table(records)
    found = ssl_audio.load(tmp_path / "probe")
    assert found.several and found.labels == ("low", "mid", "high", "odd")
    audio = [source[i]["audio"] for i in range(12)]
    values = np.stack([found.scores(clip, 16_000).values[0] for clip in audio])
    hot = base.truth(source, [source.meta(i) for i in range(12)])
    assert metrics.mean_average_precision(values, hot) > 0.5 and (values.sum(1) > 1.01).any()


def test_a_trained_head_of_several_labels():
    x, hot = blobs()
    train = np.arange(80) < 60
    logits = MLP.predict(x, hot, train)
    assert logits.shape == (1, 80, CLASSES)
    assert metrics.mean_average_precision(logits[0, ~train], hot[~train]) > 0.8


def test_what_does_not_fit_is_refused(source):
    encoder = encoders.encoder(frames=24)
    with pytest.raises(ValueError, match="'knn' tells one label per clip"):
        evaluate.evaluate(encoder, source, "folds", classifiers={"knn": Knn()})
    with pytest.raises(ValueError, match="shots: wanted clips with one label each"):
        evaluate.evaluate(encoder, source, "folds", shots=1)
    metas = [source.meta(i) for i in range(len(source))]
    with pytest.raises(ValueError, match="a probe needs one label per clip"):
        base.split(metas, "folds")
    metas[3]["label"] = None
    with pytest.raises(ValueError, match="have no labels"):
        base.split(metas, "folds", several=True)
    parts = ["eval"] * 9 + ["train"] * (len(metas) - 9)
    metas = [m | dict(split=part, label=(0,)) for m, part in zip(metas, parts, strict=True)]
    split = base.split(metas, "split", several=True)
    assert list(split.tests) == ["test"] and split.tests["test"].sum() == 9
    hot = np.eye(4)[[0, 1, 1, 2]]
    test = np.array([False, False, True, True])
    assert base.untaught(hot, base.Split({"a": test}, np.arange(4))) == {"a": [2]}
