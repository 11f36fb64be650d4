#!/usr/bin/env bash
# torchmetrics: metrics of a MetricCollection that agree on the first batch are one from then on, after reset too.
#
# Expected: a collection of F1 at thresholds 0.1, 0.3 and 0.5 answers what three metrics of their own do.
# Happens: if the first batch counts alike in them (four clips, and a model that is not trained says 0.05 everywhere),
#   only the first metric is updated ever after, and its answer is given under all three names; `reset()` does not end
#   it, so that the short evaluation with which a run is checked before it begins decides for the whole run.
#   If a first batch is heard rightly, the word error rate beside the match error rate is that one from then on: 0.5
#   where it is 1.0. Nothing says so.
# Why: `compute_groups=True` is the default; metrics whose states are equal (for floats: close) after the first update
#   are taken to be the same computation, though their states may stand for other things, or settings differ.
# Matters: tables of thresholds or of error rates: columns agree to the last digit, or do not, depending on the order
#   of the data. Give `compute_groups=False`, or the groups themselves as lists of names.
# Versions: torchmetrics 1.9.0, torch 2.13.0, numpy 2.4.6; Python 3.11.
# Source: torchmetrics/collections.py (_merge_compute_groups, _equal_metric_states); the documentation of compute_groups
#   promises less work for metrics that share a state and says nothing of this.
# Output seen:
#   F1, first batch says 0.05: groups [['at_10', 'at_30', 'at_50']]
#   after reset, 400 clips: {'at_10': 0.3698, 'at_30': 0.3698, 'at_50': 0.3698}
#   each of its own: {'at_10': 0.3698, 'at_30': 0.5282, 'at_50': 0.4086}
#   compute_groups=False: {'at_10': 0.3698, 'at_30': 0.5282, 'at_50': 0.4086}
#   error rates: {'match': 0.5, 'word': 0.5}; each of its own: {'match': 0.5, 'word': 1.0}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import numpy as np
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelF1Score
from torchmetrics.text import MatchErrorRate, WordErrorRate

CLASSES, CLIPS = 10, 400
changed = []
rng = np.random.default_rng(0)
truth = (rng.random((CLIPS, CLASSES)) < 0.15).astype(int)
logits = rng.normal(size=truth.shape) + 1.5 * truth - 2
said = torch.tensor(1 / (1 + np.exp(-logits)), dtype=torch.float32)
truth = torch.tensor(truth)


def rounded(values):
    return {name: round(float(value), 4) for name, value in values.items()}


def alone(metrics, *given, **named):
    return rounded({name: metric(*given, **named) for name, metric in metrics.items()})


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def thresholds():
    return {f"at_{p}": MultilabelF1Score(CLASSES, threshold=p / 100) for p in (10, 30, 50)}


together = MetricCollection(thresholds())
together.update(torch.full((4, CLASSES), 0.05), truth[:4])
groups = list(together.compute_groups.values())
expect("F1, first batch says 0.05", f"groups {groups}", len(groups) == 1)
together.reset()
together.update(said, truth)
seen, right = rounded(together.compute()), alone(thresholds(), said, truth)
expect("after reset, 400 clips", seen, len(set(seen.values())) == 1)
expect("each of its own", right, right["at_30"] > seen["at_30"] + 0.1)
apart = MetricCollection(thresholds(), compute_groups=False)
apart.update(said[:4] * 0 + 0.05, truth[:4])
apart.reset()
apart.update(said, truth)
expect("compute_groups=False", rounded(apart.compute()), rounded(apart.compute()) == right)


def rates():
    return {"match": MatchErrorRate(), "word": WordErrorRate()}


together = MetricCollection(rates())
together.update(["a dog barks"], ["a dog barks"])
together.reset()
heard, spoken = ["a dog barks loud"], ["a dog"]
together.update(heard, spoken)
seen, right = rounded(together.compute()), alone(rates(), heard, spoken)
expect(
    "error rates", f"{seen}; each of its own: {right}",
    seen["match"] == seen["word"] == 0.5 and right == {"match": 0.5, "word": 1.0},
)

print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
