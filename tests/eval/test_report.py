"""The page about a run: everything in one file, nothing fetched, numbers and sounds that belong."""

import dataclasses
import json
import re

import encoders
import jax
import numpy as np
import pytest
from reference import ROOT

from ssl_audio.eval import report, summary
from ssl_audio.eval.classify import Predictions
from ssl_audio.train import goodput, words

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
    assert "24 clips.</p>" in page and f"<td>accuracy</td><td>{right / 24:.3f}</td>" in page
    assert page.count("<td>2</td>") >= 12, "clips of each class"
    assert "2 runs; the facts are those of fold1" in page
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


def test_clips_that_may_have_several_labels_and_have_one_each(folds, monkeypatch):
    """Scored as in training: by ranking, not as if the best class alone counted."""
    tested = report.config.build(SOURCE, "data")
    info = dataclasses.replace(tested.info, multilabel=True)
    tested = type("Tested", (), dict(info=info, meta=tested.meta, __len__=lambda _: 24))()
    monkeypatch.setattr(report, "_tested", lambda runs: [tested] * len(runs))
    page = report.report(folds)
    assert "<td>mAP</td>" in page and "<td>accuracy</td>" not in page
    assert "confusion matrix" not in page


def test_numbers_of_a_run_that_has_diverged(folds):
    path = folds / "fold1/metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "loss": NaN, "nce": Infinity, "mse": -1e300}\n')
    page = "".join(summary.numbers(folds / "fold1", ""))
    assert all(f"<td>{value}</td>" in page for value in ("nan", "inf", "-1e+300"))


def test_where_the_time_went(folds):
    path = folds / "fold1/metrics.jsonl"
    shares = dict.fromkeys(goodput.NAMES, 0.0) | {"goodput/step": 0.75, "goodput/compile": 0.25}
    more = {"step": 4, "loss": 0.2, **shares, "elapsed": 7200.0}
    path.write_text(path.read_text() + json.dumps(more) + "\n" + '{"step": 5, "loss": 0.1}\n')
    page = "".join(summary.times(folds / "fold1"))
    assert "2 h in all" in page and "<td>step</td><td>75.0%</td><td>training steps" in page
    assert page.count("<table") == 1 and not list(summary.times(folds / "fold2"))
    path.write_text(path.read_text() + json.dumps(more | {"elapsed": "long"}) + "\n")
    with pytest.raises(ValueError, match="metrics.jsonl"):
        list(summary.times(folds / "fold1"))


def test_the_head_says_data_steps_parameters_time_and_device(tmp_path):
    encoder = encoders.encoder()
    encoders.save(encoder, tmp_path, 7)
    options = encoder.config | dict(steps="9", adapt=dict(kind="lora", freeze="^encoder/"))
    options["data"]["entries"]["label"] = dict(
        kind="entries:Labels", classes=2, names=["<cat>", "dog"]
    )
    (tmp_path / "config.json").write_text(json.dumps(options))
    meta = tmp_path / "checkpoints/7/meta/metadata"
    about = dict(title="Sounds", licence="CC0 1.0", classes=2, hours=0.25)
    meta.write_text(
        json.dumps(
            dict(data=dict(a=dict(clips=16)), sources=dict(a=about), devices="8 x NVIDIA H100")
        )
    )
    (tmp_path / "metrics.jsonl").write_text('{"step": 7, "loss": 0.5, "elapsed": 5400}\n')
    (tmp_path / "tensorboard").mkdir()
    facts = {name: value for name, value, _ in summary.facts(tmp_path, options)}
    count = sum(x.size for x in jax.tree.leaves(encoder.params))
    learned = count - sum(x.size for x in jax.tree.leaves(encoder.params["encoder"]))
    assert facts == {
        "data": "Sounds: 16 clips (0.25 h) of 2 classes (CC0 1.0)",
        "classes": "2: <cat>, dog",
        "heard": "56 clips of 0.655 s: 0.0102 h",
        "steps": "7 of 9",
        "parameters": f"{count / 1e6:.2f} million, of which {learned / 1e6:.3f} million learned "
        "(adapters and head)",
        "time": "1.5 h",
        "device": "8 x NVIDIA H100",
        "more": f"tensorboard --logdir {tmp_path}/tensorboard",
    }
    page = "".join(summary.head(tmp_path, tmp_path, options, 1))
    assert "&lt;cat&gt;" in page and "<cat>" not in page
    assert "<td>loss</td><td>0.5</td><td>7</td><td>what the optimizer descends" in "".join(
        summary.numbers(tmp_path, "")
    )
    # A run of before says less, and so does its page.
    meta.write_text("{}")
    facts = {name: value for name, value, _ in summary.facts(tmp_path, options)}
    assert facts["data"] == "a" and facts["device"] == ""


def test_words_are_those_of_the_docs():
    rows = re.findall(r"^\| (`.*?) \|(.*)\|$", (ROOT / "docs/metrics.md").read_text(), re.M)
    told = {}
    for names, rest in rows:
        for name in re.findall("`([^`]+)`", names):
            told.setdefault(
                name, rest.rpartition(" | ")[2].strip() if " | " in rest else rest.strip()
            )
    for name, meaning in words.WORDS.items():
        assert name in told or name in ("goodput/step",), f"{name} is not in docs/metrics.md"
        if told[name] and name in SAME:
            assert told[name] == meaning
    assert words.meaning("test/accuracy") == "share of clips whose class is right"
    assert (
        words.meaning("zero_shot/text_to_audio_R@5")
        == "share of captions whose clip is among the first 5"
    )
    assert words.meaning("mine") == "" and words.unit("test/mAP") == "share"


# Rows of the docs that hold one name, and so its very words.
SAME = (
    "loss gradient_norm lr skipped nce mse restore error entropy majority mAP lwlrap scale".split()
)


def test_not_a_workdir(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither config.json nor fold1/config.json"):
        report.report(tmp_path)
