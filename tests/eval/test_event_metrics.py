"""Scores of events: counted by hand, classes that do not occur, and another library's numbers."""

import importlib.util

import numpy as np
import pytest

from ssl_audio.data.annotations import Event
from ssl_audio.eval import event_metrics
from ssl_audio.eval.event_metrics import Counts, measure

if importlib.util.find_spec("sed_scores_eval") is None:  # one that is there must work
    pytest.skip(
        "metrics of events NOT tested: pip install 'ssl_audio[events]'", allow_module_level=True
    )
LABELS = ["bird", "cat", "dog", "emu"]
TRUTH = {
    "a": [Event(1.0, 2.0, "dog"), Event(3.0, 6.0, "dog"), Event(4.0, 5.0, "cat")],
    "b": [Event(0.0, 1.0, "cat")],
}
FOUND = {
    # The second's offset is 0.5 s off, within 20 % of 3 s; the cat's onset is 0.25 s off.
    "a": [Event(1.19, 2.0, "dog"), Event(3.0, 5.5, "dog"), Event(4.25, 5.0, "cat")],
    "b": [Event(0.0, 1.0, "cat"), Event(2.0, 3.0, "cat"), Event(0.5, 0.7, "emu")],
}
LONG = {"a": 10.0, "b": 10.0}


def test_counted_by_hand():
    found = measure(FOUND, TRUTH, LONG, LABELS)
    assert found.counts == {"cat": Counts(1, 2, 1), "dog": Counts(2, 0, 0), "emu": Counts(0, 1, 0)}
    assert found.total == Counts(3, 3, 1)
    assert found.total.f1 == pytest.approx(6 / 10)
    # Mean of the classes that occur: the emu counts among all events, and the bird nowhere.
    assert found.macro_f1 == pytest.approx((2 / 5 + 1) / 2)
    assert found.counts["emu"].f1 is None and found.psds == {}
    said = "\n".join(found.lines())
    assert "F1 0.600 over all events, 0.700 as mean of the 2 of 4 classes that occur" in said
    assert "false alarms of classes that do not occur, in no class mean and no PSDS: emu 1" in said
    plain = found.as_dict()
    assert (plain["classes"], plain["classes_in_truth"]) == (4, 2)
    assert plain["per_class"]["emu"] == dict(right=0, wrong=1, missed=0, f1=None, f1_segment=None)
    wide = measure(FOUND, TRUTH, LONG, LABELS, collar=0.3)
    assert wide.counts["cat"] == Counts(2, 1, 0)


def test_events_of_a_class_that_overlap_or_touch_are_one():
    # As two people mark them: the library takes no such truth.
    truth = {"a": [Event(2.0, 3.0, "dog"), Event(1.0, 2.0, "dog"), Event(2.5, 2.7, "dog"),
                   Event(1.5, 4.0, "cat")]}  # fmt: skip
    found = {"a": [Event(1.0, 2.5, "dog"), Event(2.5, 3.0, "dog"), Event(0.0, 1.0, "emu"),
                   Event(1.0, 2.0, "emu")]}  # fmt: skip
    scored = measure(found, truth, LONG, LABELS)
    assert scored.counts == {"cat": Counts(0, 0, 1), "dog": Counts(1, 0, 0), "emu": Counts(0, 1, 0)}
    assert scored.segments["dog"] == Counts(2, 0, 0) and scored.segments["emu"] == Counts(0, 2, 0)


def test_nothing_in_the_truth_and_nothing_found():
    nothing = {"a": []}
    found = measure({"a": [Event(0, 1, "cat")]}, nothing, LONG, LABELS)
    assert found.counts == {"cat": Counts(0, 1, 0)} and found.macro_f1 is None
    assert "not defined (no event in the truth)" in "\n".join(found.lines())
    assert measure(nothing, nothing, LONG, LABELS).total == Counts(0, 0, 0)
    with pytest.raises(ValueError, match="class 'cow', which is none of the model's"):
        measure(nothing, {"a": [Event(0, 1, "cow")]}, LONG, LABELS)
    with pytest.raises(ValueError, match="wanted the same"):
        measure(nothing, {"b": []}, LONG, LABELS)


def test_psds_of_scores_that_are_the_truth_and_of_none():
    edges = np.arange(101) / 10
    scores = {}
    for file, events in TRUTH.items():
        values = np.zeros((100, 4), np.float32)
        for e in events:
            values[round(e.start * 10) : round(e.end * 10), LABELS.index(e.label)] = 1
        scores[file] = edges, values
    perfect = measure(TRUTH, TRUTH, LONG, LABELS, scores)
    assert perfect.psds == pytest.approx(dict(psds1=1.0, psds2=1.0))
    assert perfect.macro_f1 == 1.0
    blind = {file: (edges, 1 - values) for file, (_, values) in scores.items()}
    assert measure(FOUND, TRUTH, LONG, LABELS, blind).psds["psds1"] < 0.3


def test_sed_eval_counts_the_same():
    sed_eval = pytest.importorskip("sed_eval", reason="another library, to compare with")
    rng = np.random.default_rng(0)
    truth, found = {}, {}
    for file in "abcdef":
        starts = np.cumsum(rng.uniform(2, 4, 12))
        kinds = rng.choice(LABELS[:3], 12)
        truth[file] = [
            Event(s, s + rng.uniform(0.3, 1.5), k) for s, k in zip(starts, kinds, strict=True)
        ]
        found[file] = [
            Event(max(0, e.start + rng.normal(0, 0.15)), e.end + rng.normal(0, 0.15), e.label)
            for e in truth[file]
            if rng.random() < 0.8
        ]
    ours = measure(found, truth, dict.fromkeys(truth, 60.0), LABELS)
    theirs = sed_eval.sound_event.EventBasedMetrics(
        LABELS[:3], t_collar=0.2, percentage_of_length=event_metrics.OFFSET_SHARE
    )

    def listed(file, events):
        names = ("event_onset", "event_offset", "event_label")
        return [
            dict(zip(names, (*e[:2], str(e.label)), strict=True), file=file) for e in events[file]
        ]

    for file in truth:
        theirs.evaluate(listed(file, truth), listed(file, found))
    for name in LABELS[:3]:
        scores = theirs.results_class_wise_metrics()[name]["f_measure"]
        assert ours.counts[name].f1 == pytest.approx(scores["f_measure"])
    overall = theirs.results_overall_metrics()["f_measure"]["f_measure"]
    assert ours.total.f1 == pytest.approx(overall)
    # Segments of 1 s, and of the classes that occur nowhere those in which they are found.
    found["a"].append(Event(2.5, 4.0, "emu"))
    ours = measure(found, truth, dict.fromkeys(truth, 60.0), LABELS)
    segments = sed_eval.sound_event.SegmentBasedMetrics(LABELS, time_resolution=1.0)
    for file in truth:
        segments.evaluate(listed(file, truth), listed(file, found), evaluated_length_seconds=60.0)
    for name in LABELS[:3]:
        scores = segments.results_class_wise_metrics()[name]["f_measure"]
        assert ours.segments[name].f1 == pytest.approx(scores["f_measure"])
    assert ours.segments["emu"] == Counts(0, 2, 0)
    overall = segments.results_overall_metrics()["f_measure"]["f_measure"]
    assert ours.segment_f1 == pytest.approx(overall)


def test_segments_counted_by_hand():
    found = measure(FOUND, TRUTH, LONG, LABELS)
    # Dog, a: seconds 1, 3, 4 and 5 in the truth; 1, 3 and 4, 5 (to 5.5) found. Cat: a 4; b 0 and, found, 2.
    assert found.segments == {
        "cat": Counts(2, 1, 0), "dog": Counts(4, 0, 0), "emu": Counts(0, 1, 0),
    }  # fmt: skip
    assert found.segment_f1 == pytest.approx(12 / 14)
    assert found.segment_macro_f1 == pytest.approx((4 / 5 + 1) / 2)
    plain = found.as_dict()
    assert plain["f1_segment_micro"] == pytest.approx(12 / 14) and plain["segment"] == 1
    assert plain["per_class"]["cat"]["f1_segment"] == pytest.approx(4 / 5)
    assert "segments of 1 s: F1 0.857 over all, 0.900 as mean" in "\n".join(found.lines())
