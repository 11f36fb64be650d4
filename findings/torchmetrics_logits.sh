#!/usr/bin/env bash
# torchmetrics: guesses for each batch whether scores are logits; the sigmoid then made of them merges what differs.
#
# Expected: AUROC and average precision depend on the order of the scores alone, so logits and batches do not matter;
#   a class without a positive clip is left out of the mean, or its value is NaN.
# Happens: a batch with a number outside [0, 1] is put through a sigmoid, one without is not. With one clip in a batch,
#   which is common where clips differ in length, a third of the logits stay what they are: AUROC 0.878 instead
#   of 0.921 for one and the same list of scores, in silence.
#   The sigmoid is made in the type of the logits: in bfloat16 all above 6.3 become 1, and average precision falls from
#   0.90 to 0.75 (the logits themselves, in bfloat16, give 0.90); in float16, to 0.88.
#   A class without positives counts as 0 in the mean: AUROC 0.76 instead of 0.84 with one such class of ten.
# Matters: taggers and detectors that hand over logits, under mixed precision, on subsets in which rare classes are
#   missing. Give float32 probabilities, and leave absent classes out (`average=None`, then the mean of the others).
# Versions: torchmetrics 1.9.0, torch 2.13.0, scikit-learn 1.9.1, numpy 2.4.6; Python 3.11.
# Source: torchmetrics/utilities/compute.py (normalize_logits_if_needed); functional/classification/
#   precision_recall_curve.py, auroc.py (_reduce_auroc leaves out NaN, but such classes are 0).
# Output seen:
#   AUROC by size of batches: {1: 0.878, 2: 0.911, 8: 0.921, 2000: 0.921}
#   scikit-learn: 0.921
#   average precision of logits: {'float32': 0.9, 'float16': 0.876, 'bfloat16': 0.751}
#   scikit-learn, same logits: {'float32': 0.9, 'float16': 0.9, 'bfloat16': 0.899}
#   class 3 has no clip: its AUROC 0.0, mean 0.756, of the others 0.84
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  torchmetrics==1.9.0 torch==2.13.0 scikit-learn==1.9.1 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys
import warnings

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, MultilabelAUROC

CLIPS, CLASSES = 2_000, 10
warnings.simplefilter("ignore")
changed = []
rng = np.random.default_rng(0)


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def short(value):
    return round(float(value), 3)


truth = (rng.random(CLIPS) < 0.3).astype(int)
logits = (rng.normal(size=CLIPS) + 2 * truth - 1).astype(np.float32)
given, wanted = torch.tensor(logits), torch.tensor(truth)
seen = {}
for size in (1, 2, 8, CLIPS):
    metric = BinaryAUROC()
    for begin in range(0, CLIPS, size):
        metric.update(given[begin : begin + size], wanted[begin : begin + size])
    seen[size] = short(metric.compute())
right = short(roc_auc_score(truth, logits))
expect("AUROC by size of batches", seen, seen[CLIPS] == right and seen[1] < right - 0.04)
expect("scikit-learn", right, right > 0.9)

truth = (rng.random(5_000) < 0.05).astype(int)
logits = 2.5 * rng.normal(size=5_000) + 8 * truth + 0.5
seen, right = {}, {}
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    given, name = torch.tensor(logits).to(dtype), str(dtype).removeprefix("torch.")
    seen[name] = short(BinaryAveragePrecision()(given, torch.tensor(truth)))
    right[name] = short(average_precision_score(truth, given.float().numpy()))
expect("average precision of logits", seen, seen["bfloat16"] < right["bfloat16"] - 0.1)
expect("scikit-learn, same logits", right, right["bfloat16"] > right["float32"] - 0.01)

truth = (rng.random((CLIPS, CLASSES)) < 0.15).astype(int)
truth[:, 3] = 0
logits = rng.normal(size=truth.shape) + 1.4 * truth
given, wanted = torch.tensor(1 / (1 + np.exp(-logits))), torch.tensor(truth)
each = MultilabelAUROC(CLASSES, average=None)(given, wanted)
mean = MultilabelAUROC(CLASSES)(given, wanted)
there = [c for c in range(CLASSES) if truth[:, c].any()]
right = np.mean([roc_auc_score(truth[:, c], logits[:, c]) for c in there])
expect(
    "class 3 has no clip", f"its AUROC {short(each[3])}, mean {short(mean)}, of the others {short(right)}",
    each[3] == 0 and mean < right - 0.05,
)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
