"""A class without a clip is in no mean over classes, and whoever says a mean says over how many it is."""

import csv
import inspect
import json
import re

import numpy as np
import pytest

from ssl_audio.eval import classify, finetune, folds, metrics, report
from ssl_audio.eval.classify import Predictions
from ssl_audio.eval.event_metrics import Counts, Metrics
from ssl_audio.eval.zero_shot import zero_shot

NAMES = ("cat", "dog", "owl", "yak")
# No clip is an owl; one is taken for it. No clip is a yak, nor taken for one.
LABELS = np.eye(4)[[0, 0, 1, 1]]
LOGITS = np.eye(4)[[0, 2, 1, 1]]
# Several labels: all are cats, no clip is an owl or a yak.
SEVERAL = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
RANKED = np.array(
    [[0.9, 0.8, 0.7, 0.1], [0.8, 0.3, 0.9, 0.2], [0.7, 0.6, 0.1, 0.0], [0.6, 0.1, 0, 0]]
)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_means_are_those_of_the_classes_that_there_are(absent):
    rng = np.random.default_rng(absent)
    scores, hot = rng.normal(size=(30, 6)), rng.random((30, 6)) < 0.4
    hot[:, :absent] = False
    rest = slice(absent, None)
    labels = np.eye(6)[np.resize(np.arange(absent, 6), 30)]
    found = classify.scores(scores, labels, multilabel=False)
    some = [np.mean(scores.argmax(1)[labels[:, c] > 0] == c) for c in range(absent, 6)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(some))
    assert found["classes"] == 6 - absent
    found = classify.scores(scores, hot, multilabel=True)
    want = classify.scores(scores[:, rest], hot[:, rest], multilabel=True)
    for name in ("mAP", "AUC", "d_prime", "classes", "AUC_classes"):
        assert found[name] == pytest.approx(want[name], rel=1e-12), name
    assert found["classes"] == found["AUC_classes"] == 6 - absent


def test_a_class_of_all_clips_has_no_auc_and_is_not_counted_there():
    found = classify.scores(RANKED, SEVERAL, multilabel=True)
    assert found["classes"] == 2 and found["AUC_classes"] == 1
    assert found["AUC"] == metrics.roc_auc(RANKED, SEVERAL)[1] == 1 and found["mAP"] == 1
    said = finetune.said(found, 4)
    assert "mAP 1.000 (over 2 of 4 classes)" in said and "AUC 1.000 (over 1 of 4 classes)" in said
    assert "lwlrap" in said and "classes 2" not in said
    every = np.stack([metrics.average_precision(RANKED, SEVERAL), metrics.roc_auc(RANKED, SEVERAL)])
    assert np.isnan(every[:, 2:]).all()


def test_the_table_of_classes_has_no_numbers_for_them(tmp_path):
    made = Predictions(np.array(list("abcd")), LOGITS, LABELS)
    classify.report(made, NAMES, tmp_path, multilabel=False)
    rows = {
        r.pop("class"): r
        for r in csv.DictReader((tmp_path / "classes.csv").read_text().splitlines())
    }
    assert rows["cat"] == {"clips": "2", "precision": "1.0000", "recall": "0.5000", "F1": "0.6667"}
    assert rows["owl"] == {"clips": "0", "precision": "0.0000", "recall": "", "F1": ""}
    assert rows["yak"] == {"clips": "0", "precision": "", "recall": "", "F1": ""}
    several = Predictions(made.ids, RANKED, SEVERAL)
    classify.report(several, NAMES, tmp_path, multilabel=True)
    rows = {
        r["class"]: r["average precision"]
        for r in csv.DictReader((tmp_path / "classes.csv").read_text().splitlines())
    }
    assert rows == {"cat": "1.0000", "dog": "1.0000", "owl": "", "yak": ""}
    assert "owl" in finetune.aligned((tmp_path / "classes.csv").read_text())
    for one, labels in ((made, LABELS), (several, SEVERAL)):
        page = "".join(report._errors([one], [], "Classifier", NAMES))
        page = re.sub(r'src="data:[^"]*"', "", page)  # letters of a picture
        assert "No clip is of owl, yak: in no mean over classes." in page and "nan" not in page
        assert classify.absent(NAMES, labels) == ["owl", "yak"]


def test_means_over_folds_leave_out_folds_without_a_value(tmp_path):
    nan = float("nan")
    scores = {1: {"last": {"mAP": 0.5, "AUC": nan}}, 2: {"last": {"mAP": 0.7, "AUC": 0.8}}}
    columns, rows, notes = folds.averaged(scores)
    assert columns == [("last", "mAP"), ("last", "AUC")]
    assert [label for label, _ in rows] == ["1", "2", "mean", "std"]
    np.testing.assert_allclose(rows[2][1], [0.6, 0.8])
    np.testing.assert_allclose(rows[3][1], [0.1, 0])
    assert notes == ["last AUC: of 1 of 2 folds; the others have none"]
    assert folds.table(scores).splitlines()[-1] == notes[0]
    (tmp_path / "folds.json").write_text(json.dumps(scores))
    assert notes[0] in report._folds(tmp_path / "folds.json")
    none = folds.averaged({1: {"last": {"AUC": nan}}})
    assert np.isnan(none[1][1][1]).all() and "of 0 of 1 folds" in none[2][0]
    perfect = folds.averaged({k: {"last": {"d_prime": float("inf")}} for k in (1, 2)})
    assert np.isinf(perfect[1][2][1]).all() and not perfect[2]


def test_zero_shot_says_how_many_labels_have_a_clip():
    prompts = np.eye(4)
    found = zero_shot(LOGITS, prompts, LABELS)
    assert found["classes"] == 2
    some = metrics.average_precision(LOGITS, LABELS)[:2]
    assert found["text_to_audio_mAP"] == pytest.approx(np.mean(some))
    assert zero_shot(RANKED, prompts, SEVERAL, multilabel=True)["classes"] == 2


def test_events_say_over_how_many_classes_each_mean_is():
    counts = {"cat": Counts(1, 0, 1), "owl": Counts(0, 3, 0)}
    made = Metrics(counts, {"psds1": 0.5}, classes=4, collar=0.2, segments=counts)
    said = "\n".join(made.lines())
    assert made.macro_f1 == pytest.approx(2 / 3) and counts["owl"].f1 is None
    assert "0.667 as mean of the 1 of 4 classes that occur" in said
    assert "PSDS1 0.500, over the same 1 classes" in said and "owl 3" in said
    assert made.as_dict()["classes_in_truth"] == 1
    assert made.segment_macro_f1 == pytest.approx(2 / 3)
    owls = {"owl": Counts(0, 3, 0)}
    none = Metrics(owls, {}, 4, 0.2, owls)
    assert none.macro_f1 is None and none.segment_macro_f1 is None


def test_every_mean_over_classes_of_the_metrics_is_known_here():
    """A new one has to be looked at: what it does with an absent class, and who says over how many it is."""
    means = {name for name, f in vars(metrics).items() if inspect.isfunction(f)}
    means = {
        name
        for name in means
        if name[0] != "_" and "_mean(" in inspect.getsource(vars(metrics)[name])
    }
    over_pairs = {"lwlrap"}
    assert means - over_pairs == {
        "balanced_accuracy", "mean_average_precision", "macro_auc", "mean_d_prime",
    }  # fmt: skip
