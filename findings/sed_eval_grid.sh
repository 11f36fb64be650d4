#!/usr/bin/env bash
# sed_eval: on a grid of times a detection as late as the collar counts or not by where it lies in the recording.
#
# Expected: a detector that is exactly 0.2 s late is judged alike at all times, with a collar of 0.2 s: "less or equal".
#   An event of 0.2 s from one tenth of a second to another covers two segments of 0.1 s.
# Happens: with times in steps of 0.1 s, 35 % of such detections are hits, in steps of 0.01 s 57 %: moving truth and
#   detections together by one step changes the event-based F1. sed_scores_eval and mir_eval count all of them.
#   In the segment-based metrics a third of the events of 0.2 s cover three segments, so an estimate that is right
#   loses recall where the truth was given in tenths and its own times lie 1 ms inside.
# Why: the differences and quotients of decimal times are compared, rounded down and rounded up as floating point
#   numbers: 1.2 - 1.0 is less than 0.2, 0.9 - 0.7 is more; 0.7 / 0.1 is 6.999…. mir_eval rounds differences to four
#   decimals first.
# Matters: times of labels are decimals and frames are 10, 20 or 100 ms, so that differences equal to the collar are
#   common: here a detector with errors of up to 0.3 s in steps of 0.1 s gets an F1 of 0.65 or 0.56 instead of 0.72.
#   Add a microsecond to the collar, and take one from both ends of events before segment-based metrics.
# Versions: sed_eval 0.2.1, dcase_util 0.2.20, sed_scores_eval 0.0.4, mir_eval 0.8.2, pandas 2.3.3, numpy 2.4.6;
#   Python 3.11.
# Source: sed_eval/sound_event.py (validate_onset, validate_offset), sed_eval/util/event_roll.py (floor and ceil),
#   mir_eval/transcription.py (N_DECIMALS).
# Output seen:
#   0.2 s late, at 100 times 0.1 s apart, mean F1: {'sed_eval': 0.35, 'sed_scores_eval': 1.0, 'mir_eval': 1.0}
#   0.2 s late, at 100 times 0.02 s apart, mean F1: {'sed_eval': 0.44, 'sed_scores_eval': 1.0, 'mir_eval': 1.0}
#   0.2 s late, at 100 times 0.01 s apart, mean F1: {'sed_eval': 0.57, 'sed_scores_eval': 1.0, 'mir_eval': 1.0}
#   100 events, errors of up to 0.3 s, all 0.0 s later, F1: {'sed_eval': 0.65, 'sed_scores_eval': 0.72, 'mir_eval': 0.72}
#   100 events, errors of up to 0.3 s, all 0.1 s later, F1: {'sed_eval': 0.56, 'sed_scores_eval': 0.72, 'mir_eval': 0.72}
#   segments of 0.1 s covered by an event of 0.2 s, and how often: {2: 67, 3: 33}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check sed_eval==0.2.1 dcase_util==0.2.20 sed_scores_eval==0.0.4 \
  mir_eval==0.8.2 pandas==2.3.3 numpy==2.4.6 'setuptools<81' || exit 2
cat > look.py <<'PY'
import sys

import dcase_util
import mir_eval
import numpy as np
import sed_eval
import sed_scores_eval
from sed_scores_eval.base_modules.scores import create_score_dataframe

COLLAR = 0.2
changed = []


def expect(label, ok):
    print(label)
    if not ok:
        changed.append(label)


def events(times):
    rows = [
        dict(filename="a", onset=float(on), offset=float(off), event_label="dog")
        for on, off in times
    ]
    return dcase_util.containers.MetaDataContainer(rows)


def by_sed_eval(truth, found):
    metric = sed_eval.sound_event.EventBasedMetrics(
        ["dog"], t_collar=COLLAR, percentage_of_length=0.2
    )
    metric.evaluate(events(truth), events(found))
    return np.nan_to_num(metric.results_overall_metrics()["f_measure"]["f_measure"])


def by_sed_scores_eval(truth, found):
    edges = np.unique(np.concatenate([[0.0], np.ravel(found), [np.max([truth, found]) + 1]]))
    active = np.any([(edges[:-1] >= on) & (edges[:-1] < off) for on, off in found], axis=0)
    score, *_ = sed_scores_eval.collar_based.fscore(
        {"a": create_score_dataframe(active[:, None] * 1.0, edges, ["dog"])},
        {"a": [(float(on), float(off), "dog") for on, off in truth]},
        threshold=0.5,
        onset_collar=COLLAR,
        offset_collar=COLLAR,
        offset_collar_rate=0.2,
    )
    return score["dog"]


def by_mir_eval(truth, found):
    pitch = np.full(len(truth), 440.0)
    limits = dict(onset_tolerance=COLLAR, offset_ratio=0.2, offset_min_tolerance=COLLAR)
    return mir_eval.transcription.precision_recall_f1_overlap(
        np.array(truth), pitch, np.array(found), pitch, **limits
    )[2]


def times(start, length):
    """Begin and end of an event, as decimals."""
    return [(round(start, 3), round(start + length, 3))]


LIBRARIES = {
    "sed_eval": by_sed_eval,
    "sed_scores_eval": by_sed_scores_eval,
    "mir_eval": by_mir_eval,
}


def mean_scores(pairs):
    return {
        name: round(float(np.mean([score(*pair) for pair in pairs])), 2)
        for name, score in LIBRARIES.items()
    }


for step in (0.1, 0.02, 0.01):
    pairs = [(times(i * step, 1.0), times(i * step + COLLAR, 1.0)) for i in range(100)]
    scores = mean_scores(pairs)
    first, *others = scores.values()
    expect(
        f"0.2 s late, at 100 times {step} s apart, mean F1: {scores}",
        0.2 < first < 0.8 and others == [1, 1],
    )

draw = np.random.default_rng(0)
starts, errors = np.arange(0.5, 300, 3.0), draw.integers(-3, 4, 100) / 10
truth = [pair for start in starts for pair in times(start, 1.0)]
found = [
    pair for start, error in zip(starts, errors, strict=True) for pair in times(start + error, 1.0)
]
for shift in (0.0, 0.1):
    moved = [
        [(round(on + shift, 3), round(off + shift, 3)) for on, off in side]
        for side in (truth, found)
    ]
    scores = mean_scores([moved])
    first, *others = scores.values()
    expect(
        f"100 events, errors of up to 0.3 s, all {shift} s later, F1: {scores}",
        first < others[0] == others[1],
    )

covered = []
for i in range(100):
    event = events(times(i * 0.1, 0.2))
    metric = sed_eval.sound_event.SegmentBasedMetrics(["dog"], time_resolution=0.1)
    metric.evaluate(event, event, evaluated_length_seconds=12)
    covered.append(int(metric.overall["Nref"]))
counts = {number: covered.count(number) for number in sorted(set(covered))}
expect(
    f"segments of 0.1 s covered by an event of 0.2 s, and how often: {counts}",
    counts.get(3, 0) > 10,
)
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
venv/bin/python -W ignore look.py
