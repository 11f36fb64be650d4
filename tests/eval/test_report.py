"""The page about a run: everything in one file, nothing fetched, numbers and sounds that belong."""

import dataclasses
import json
import re

import encoders
import numpy as np
import pytest

from ssl_audio.eval import report
from ssl_audio.eval.classify import Predictions
from ssl_audio.train import goodput

SOURCE = dict(kind="synthetic", size=24, seconds=0.2)


@pytest.fixture
def folds(tmp_path):
    """Return a workdir of two folds of a classifier that takes every sound for the first class."""
    objective = dict(kind="tagging")
    test = dict(kind="classify", source=SOURCE, samples=3200, classes=12)
    for fold in ("fold1", "fold2"):
        run = tmp_path / fold
        (run / "figures").mkdir(parents=True)
        (run / "config.json").write_text(
            json.dumps(dict(objective=objective, evals=dict(test=test)))
        )
        lines = [{"step": s, "loss": 1 / s} for s in (1, 2, 3)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        source = report.config.build(SOURCE, "data")
        mine = range(0, 12) if fold == "fold1" else range(12, 24)
        labels = np.eye(12)[[source.meta(i)["label"] for i in mine]]
        logits = np.tile(np.eye(12)[0] * 3, (12, 1)) - labels * np.arange(12)[:, None] / 10
        ids = np.array([source.meta(i)["id"] for i in mine])
        Predictions(ids, logits, labels).save(run / "predictions.npz")
    scores = {str(fold): {"last": {"accuracy": 0.25 * fold}} for fold in (1, 2)}
    (tmp_path / "folds.json").write_text(json.dumps(scores))
    return tmp_path


def test_folds(folds, monkeypatch):
    tested = report.config.build(SOURCE, "data")
    monkeypatch.setattr(report, "_tested", lambda runs: [tested] * len(runs))
    page = report.report(folds)
    assert not re.search(r'(src|href)="(?!data:)', page), "it must open offline"
    assert "<td>mean</td><td>0.375</td>" in page
    names = tested.info.labels
    right = sum(tested.meta(i)["label"] == 0 for i in range(24))
    assert f"24 clips: accuracy {right / 24:.3f}" in page
    assert (
        page.count("<audio") == report.ERRORS
        and page.count(f"<td>{names[0]}</td>") >= report.ERRORS
    )
    assert page.count("training curves") == 2 and page.count("confusion matrix") == 1


def test_a_run_with_a_map(tmp_path, monkeypatch):
    encoder = encoders.encoder(frames=24)
    monkeypatch.setattr("ssl_audio.inference.load.load", lambda path: encoder)
    options = {"objective": {"kind": "masked_spectrogram"}}
    (tmp_path / "config.json").write_text(json.dumps(options))
    (tmp_path / "evals").mkdir()
    common = dict(set="s", fold="mean", pool="rows")
    records = [
        common | dict(features=f, classifier="linear", accuracy=a)
        for f, a in (("encoder", 0.5), ("random", 0.25))
    ]
    (tmp_path / "evals/s.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    source = report.config.build(SOURCE | dict(size=36), "data")
    page = report.report(tmp_path, source)
    assert "s, pooling rows" in page and "<td>random</td><td>0.250</td>" in page
    assert page.count("<circle") == 36 and "Linear probe on held-out clips" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    marked = dataclasses.replace(source.info, labels=("<b>",) * 12)
    assert "<b>" not in report._scatter(
        np.zeros((1, 2)), np.zeros(1, int), np.array(["x"]), marked.labels
    )


def test_where_the_time_went(folds):
    path = folds / "fold1/metrics.jsonl"
    shares = dict.fromkeys(goodput.NAMES, 0.0) | {"goodput/step": 0.75, "goodput/compile": 0.25}
    more = {"step": 4, "loss": 0.2, **shares, "elapsed": 7200.0}
    path.write_text(path.read_text() + json.dumps(more) + "\n" + '{"step": 5, "loss": 0.1}\n')
    page = "".join(report._pictures(folds / "fold1", ""))
    assert "<td>2.00</td><td>75.0%</td><td>0.0%</td><td>25.0%</td>" in page
    assert page.count("<table>") == 1 and "<table>" not in "".join(
        report._pictures(folds / "fold2", "")
    )
    path.write_text(path.read_text() + json.dumps(more | {"elapsed": "long"}) + "\n")
    with pytest.raises(ValueError, match="metrics.jsonl"):
        list(report._pictures(folds / "fold1", ""))


def test_not_a_workdir(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither config.json nor fold1/config.json"):
        report.report(tmp_path)
