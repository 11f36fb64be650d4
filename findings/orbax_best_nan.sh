#!/usr/bin/env bash
# Orbax: one evaluation that is NaN makes "keep the best checkpoints" delete the best one and keep worse ones.
#
# Expected: with `best_fn` and `max_to_keep=1`, the checkpoint with the best metric stays; one whose metric is NaN (an
#   empty class, an overflow in one evaluation) counts as the worst, or is refused.
# Happens: of accuracies 0.5, 0.9, NaN, 0.6, 0.7 the last is kept, 0.9 is deleted, and `best_step()` answers 0.7's step;
#   with two kept, 0.6 and 0.7 are. If the run ends at the NaN, the NaN itself is kept as the best. No warning, no
#   error. The same where smaller is better, with the policy `BestN`, and in the v1 interface.
# Why: checkpoints are sorted by the metric after each save, and NaN is neither below nor above any number, so sorting
#   leaves what stands on either side of it where it is; the newer side is taken for the better.
# Matters: long runs that evaluate now and then: the best weights are gone from the disk, the last ones are published
#   as the best. Return minus infinity from `best_fn` (plus infinity for "min") where a metric is not finite.
# Versions: orbax-checkpoint 0.12.8, jax 0.10.2, numpy 2.4.6; Python 3.11.
# Source: orbax/checkpoint/checkpoint_manager.py (_sort_checkpoints_by_metrics),
#   _src/checkpoint_managers/preservation_policy.py (BestN).
# Output seen:
#   0.5 0.9 0.6 0.7: kept [0.9], best 0.9
#   0.5 0.9 nan 0.6 0.7: kept [0.7], best 0.7
#   the same, two kept: kept [0.6, 0.7], best 0.7
#   0.5 0.9 nan: kept [nan], best nan
#   smaller is better, 0.5 0.1 nan 0.6: kept [0.6], best 0.6
#   BestN: kept [0.7], best 0.7
#   v1, 0.5 0.9 0.6 0.7: kept [0.9]; with nan: kept [0.7]
#   NaN as minus infinity: kept [0.9], best 0.9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import logging
import math
import sys
import tempfile

import numpy as np
import orbax.checkpoint as ocp
import orbax.checkpoint.experimental.v1 as v1
from orbax.checkpoint import checkpoint_managers

logging.disable(logging.WARNING)
NAN = math.nan
changed = []


def accuracy(metrics):
    return metrics["accuracy"]


def finite(metrics):
    return metrics["accuracy"] if math.isfinite(metrics["accuracy"]) else -math.inf


def run(scores, number=1, mode="max", measure=accuracy, policy=False):
    """Save a checkpoint of each score; return the scores of those on the disk, and of the best."""
    how = {"max_to_keep": number}
    if policy:
        how = {"preservation_policy": checkpoint_managers.BestN(get_metric_fn=measure, n=number)}
    options = ocp.CheckpointManagerOptions(
        best_fn=measure, best_mode=mode, enable_async_checkpointing=False, **how
    )
    with ocp.CheckpointManager(tempfile.mkdtemp(), options=options) as manager:
        for step, score in enumerate(scores):
            args = ocp.args.StandardSave({"weights": np.ones(2)})
            manager.save(step, args=args, metrics={"accuracy": score})
        return [scores[step] for step in manager.all_steps()], scores[manager.best_step()]


def newer(scores):
    """Do the same in the v1 interface; return the scores of those on the disk."""
    best = v1.training.preservation_policies.BestN(get_metric_fn=accuracy, n=1)
    with v1.training.Checkpointer(tempfile.mkdtemp(), preservation_policy=best) as writer:
        for step, score in enumerate(scores):
            writer.save(step, {"weights": np.ones(2)}, metrics={"accuracy": score})
        return [scores[found.step] for found in writer.checkpoints]


def expect(label, seen, wanted):
    print(f"{label}: " + "kept {}, best {}".format(*seen))
    if str(seen) != str(wanted):
        changed.append(label)


sound, broken = [0.5, 0.9, 0.6, 0.7], [0.5, 0.9, NAN, 0.6, 0.7]
expect("0.5 0.9 0.6 0.7", run(sound), ([0.9], 0.9))
expect("0.5 0.9 nan 0.6 0.7", run(broken), ([0.7], 0.7))
expect("the same, two kept", run(broken, 2), ([0.6, 0.7], 0.7))
expect("0.5 0.9 nan", run(broken[:3]), ([NAN], NAN))
expect("smaller is better, 0.5 0.1 nan 0.6", run([0.5, 0.1, NAN, 0.6], mode="min"), ([0.6], 0.6))
expect("BestN", run(broken, policy=True), ([0.7], 0.7))
both = newer(sound), newer(broken)
print("v1, 0.5 0.9 0.6 0.7: kept {}; with nan: kept {}".format(*both))
if both != ([0.9], [0.7]):
    changed.append("v1")
expect("NaN as minus infinity", run(broken, measure=finite), ([0.9], 0.9))
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
