#!/usr/bin/env bash
# Orbax: of two arrays whose paths differ only in where a dot is, one is lost, and which one is chance.
#
# Expected: a state with the entries "norm.scale" and "norm" -> "scale" holds two arrays, and so does its checkpoint; or
#   saving refuses the two names.
# Happens: arrays are stored under the keys of their path joined by dots, so that both have one name. Both are written
#   at once, the later writer stays, and restoring gives its values for both, with the shapes and types asked for. Saving
#   the same state ten times keeps the one some times and the other the other times. It makes no difference whether the
#   checkpoint is read back with a template, and lists meet too: "layers.0" and "layers" -> [first]. Shapes that differ
#   are an error from the storage layer below; equal ones never. A dotted key alone is harmless.
# Matters: states mix both ways of naming where parts come from elsewhere: adapters, averages, statistics or optimizer
#   states keyed by the dotted names of a PyTorch state dict beside the nested parameters; metrics "val.loss" beside
#   {"val": {"loss": ...}}. The adapter of a layer has the layer's shape as often as not, and no step of saving or
#   restoring says that the checkpoint holds one of them twice. Keys without dots, or another sign, are safe.
# Versions: orbax-checkpoint 0.12.8, jax 0.10.2, numpy 2.4.6; Python 3.11. The same with jax 0.12.0.1 and Python 3.13;
#   the v1 API loses one too, or fails with an error of the storage layer, by chance.
# Source: orbax/checkpoint/_src/tree/utils.py, the name of a parameter: its path's keys joined by "."; the guide to the
#   checkpoint format does not name a restriction on keys.
# Output seen (one array is zeros, the other ones; the count of each varies from run to run):
#   StandardCheckpointer: 0 of 10 whole, 4 twice the dotted one, 6 twice the nested one
#   CheckpointManager, by template: 0 of 10 whole, 4 twice the dotted one, 6 twice the nested one
#   PyTreeCheckpointer: 0 of 10 whole, 3 twice the dotted one, 7 twice the nested one
#   a dotted key alone: [0.0, 0.0]
#   other shapes: ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  orbax-checkpoint==0.12.8 "jax==${JAX:-0.10.2}" "jaxlib==${JAX:-0.10.2}" numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import logging
import pathlib
import sys

import jax.numpy as jnp
import orbax.checkpoint as ocp

logging.disable(logging.CRITICAL)  # Orbax logs each step of a save
folder = pathlib.Path.cwd()
changed = []
state = {"norm.scale": jnp.zeros(2), "norm": {"scale": jnp.ones(2)}}


def standard(path, tree, template=None):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, template)


def manager(path, tree):
    with ocp.CheckpointManager(path) as manager:
        manager.save(1, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()
        return manager.restore(1, args=ocp.args.StandardRestore(tree))


def pytree(path, tree):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        return checkpointer.restore(path)


def expect(label, seen, right):
    print(f"{label}: {seen}")
    if not right:
        changed.append(label)


ways = {
    "StandardCheckpointer": standard,
    "CheckpointManager, by template": manager,
    "PyTreeCheckpointer": pytree,
}
for name, way in ways.items():
    read = [way(folder / f"{name} {i}", state) for i in range(10)]
    pairs = [(float(r["norm.scale"][0]), float(r["norm"]["scale"][0])) for r in read]
    whole, dotted, nested = (pairs.count(pair) for pair in ((0, 1), (0, 0), (1, 1)))
    text = f"{whole} of 10 whole, {dotted} twice the dotted one, {nested} twice the nested one"
    expect(name, text, whole == 0 and dotted + nested == 10)

alone = standard(folder / "alone", {"norm.scale": state["norm.scale"]})["norm.scale"].tolist()
expect("a dotted key alone", alone, alone == [0, 0])
try:
    standard(folder / "shapes", {**state, "norm.scale": jnp.zeros(3)})
    seen = "no error"
except Exception as error:
    seen = type(error).__name__
expect("other shapes", seen, seen == "ValueError")
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python -W ignore look.py
