#!/usr/bin/env bash
# Orbax: a state with a numpy scalar is saved and cannot be restored by itself; a template's `0` cuts a saved 0.93 to 0.
#
# Expected: what `save(path, state)` takes, `restore(path, state)` gives back, or the save is refused. A template says
#   what is there: where it asks for a whole number and the file holds a fraction, that is an error, as another shape is.
# Happens: a numpy scalar (`np.float32(0.9)`, what np.mean gives) is saved without a word. Restored with the same tree
#   it is a ValueError, "Unsupported type", with StandardCheckpointer and through a CheckpointManager, also by the
#   templates of `ocp.utils.to_shape_dtype_struct`; it is read if the template has a Python float or an array without
#   axes in that place, or without a template. PyTreeCheckpointer reads what it saved by the same tree, as a Python
#   float. v1 refuses to save it.
#   And the template's types are applied in silence: a Python `0` in the template turns a saved 0.93 into 0, int8 turns
#   300.7 into 44 and int32 turns 2**32 + 5 into 5.
# Matters: a training state of {"best": 0, ...} whose best score was 0.93 resumes with 0: the next evaluation, whatever
#   it gives, is the best. With `best = np.mean(scores)` instead every checkpoint of the run is written and none
#   resumes. Keep scalars as jnp arrays or Python numbers, start from 0.0, and test resuming after an evaluation.
# Versions: orbax-checkpoint 0.12.8, jax 0.10.2, numpy 2.4.6; Python 3.11.
# Source: orbax/checkpoint/_src/handlers/standard_checkpoint_handler.py and ocp.args.StandardRestore, whose text says
#   that the template gives shapes and dtypes; the type handlers' ScalarHandler (value_type applied to the value).
# Output seen:
#   np.float32 saved, restored by the same tree: ValueError
#   by to_shape_dtype_struct of the tree: ValueError
#   by 0.0: float 0.93
#   by an array without axes: ndarray 0.93
#   by no template: ndarray 0.93
#   CheckpointManager, the same tree: ValueError
#   PyTreeCheckpointer, the same tree: float 0.93
#   v1, save: UnregisteredTypeError
#   0.93 saved, restored by 0: int 0
#   jnp 0.93 saved, restored by 0: int 0
#   300.7 saved, restored by int8: ndarray 44
#   2**32 + 5 saved, restored by int32: ndarray 5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import logging
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import v1

logging.disable(logging.ERROR)  # Orbax logs each step of a save
folder = pathlib.Path.cwd()
changed = []


def attempt(call):
    """The value of "best" that a call gives, with its type, or the name of its error."""
    try:
        value = call()["best"]
    except Exception as error:
        return type(error).__name__
    return f"{type(value).__name__} {np.asarray(value).item():.4g}"


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if seen != wanted:
        changed.append(label)


standard, pytree = ocp.StandardCheckpointer(), ocp.PyTreeCheckpointer()


def saved(name, value):
    standard.save(folder / name, {"best": value})
    standard.wait_until_finished()
    return lambda template: attempt(lambda: standard.restore(folder / name, {"best": template}))


state = {"best": np.float32(0.93)}
restore = saved("scalar", state["best"])
expect("np.float32 saved, restored by the same tree", restore(state["best"]), "ValueError")
expect(
    "by to_shape_dtype_struct of the tree",
    restore(ocp.utils.to_shape_dtype_struct(state["best"])),
    "ValueError",
)
expect("by 0.0", restore(0.0), "float 0.93")
expect("by an array without axes", restore(np.zeros((), "float32")), "ndarray 0.93")
expect("by no template", attempt(lambda: standard.restore(folder / "scalar")), "ndarray 0.93")
with ocp.CheckpointManager(folder / "manager") as manager:
    manager.save(1, args=ocp.args.StandardSave(state))
    manager.wait_until_finished()
    expect(
        "CheckpointManager, the same tree",
        attempt(lambda: manager.restore(1, args=ocp.args.StandardRestore(state))),
        "ValueError",
    )
pytree.save(folder / "pytree", state)
expect(
    "PyTreeCheckpointer, the same tree",
    attempt(lambda: pytree.restore(folder / "pytree", item=state)),
    "float 0.93",
)
expect("v1, save", attempt(lambda: v1.save_pytree(folder / "v1", state)), "UnregisteredTypeError")
expect("0.93 saved, restored by 0", saved("float", 0.93)(0), "int 0")
expect("jnp 0.93 saved, restored by 0", saved("array", jnp.float32(0.93))(0), "int 0")
wide = saved("wide", np.array([300.7]))(jax.ShapeDtypeStruct((1,), jnp.int8))
expect("300.7 saved, restored by int8", wide, "ndarray 44")
wide = saved("whole", np.array([2**32 + 5]))(jax.ShapeDtypeStruct((1,), jnp.int32))
expect("2**32 + 5 saved, restored by int32", wide, "ndarray 5")
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python -W ignore look.py
