#!/usr/bin/env bash
# jaxtyping's import hook: with `from __future__ import annotations`, fields of linen modules are not checked.
#
# Expected: the hook checks the arguments of every dataclass; a linen module is one. The future import may trouble
#   names of local scope, but annotations made of names that the file itself imports are found, as they are for a
#   plain dataclass or a flax.struct dataclass in the same file.
# Happens: in a linen module every field whose annotation is not a builtin (`Float[Array, "a b"]`, `jax.Array`,
#   `Annotated[int, …]`, `Config | None`) is taken for Any, in silence; `int` and `str` fields are still checked, so
#   a quick test of the hook passes. The class keyword `kw_only=True` brings the checks back, and so does leaving
#   out the future import. Methods are checked in all cases.
# Why: linen puts a wrapper around the generated __init__ that counts positional arguments; jaxtyping looks the names
#   up where the outermost function was defined, which is now a file of flax, and takes what it cannot find for Any.
#   kw_only=True uses the standard library's dataclass without the wrapper.
# Matters: shape annotations on a module's constants (mel filters, position tables, norm statistics) look enforced
#   in the tests and are not.
# Versions: jaxtyping 0.3.11, beartype 0.23.1, flax 0.12.8, jax 0.10.2; Python 3.11.
# Source: jaxtyping's decorator source (the step that turns annotation strings into types) and flax.linen's module
#   of keyword-only dataclasses; jaxtyping's page on runtime type checking advises against the future import in
#   general, and does not say that one dataclass of a file is checked and its neighbour is not.
# Output seen:
#   direct Linen plain:checked noted:checked array:checked table:checked method:checked
#   future Plain plain:checked noted:checked array:checked table:checked
#   future LinenKeywords plain:checked noted:checked array:checked table:checked method:checked
#   future Linen plain:checked noted:NOT CHECKED array:NOT CHECKED table:NOT CHECKED method:checked
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  jaxtyping==0.3.11 beartype==0.23.1 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cat > direct.py <<'PY'
import dataclasses
from typing import Annotated

import flax.linen as nn
import jax
from flax import struct
from jaxtyping import Array, Float


class Linen(nn.Module):
    plain: int = 0
    noted: Annotated[int, "width"] = 0
    array: jax.Array | None = None
    table: Float[Array, "time width"] | None = None

    def __call__(self, audio: Float[Array, "batch samples"]):
        return audio


class LinenKeywords(nn.Module, kw_only=True):
    plain: int = 0
    noted: Annotated[int, "width"] = 0
    array: jax.Array | None = None
    table: Float[Array, "time width"] | None = None

    def __call__(self, audio: Float[Array, "batch samples"]):
        return audio


@struct.dataclass
class Struct:
    plain: int = 0
    noted: Annotated[int, "width"] = 0
    array: jax.Array | None = None
    table: Float[Array, "time width"] | None = None


@dataclasses.dataclass
class Plain:
    plain: int = 0
    noted: Annotated[int, "width"] = 0
    array: jax.Array | None = None
    table: Float[Array, "time width"] | None = None
PY
{ echo 'from __future__ import annotations'; echo; cat direct.py; } > future.py
cat > look.py <<'PY'
import sys

import jax.numpy as jnp
from jaxtyping import TypeCheckError, install_import_hook

with install_import_hook(["direct", "future"], "beartype.beartype"):
    import direct
    import future

WRONG = {"plain": "text", "noted": "text", "array": "text", "table": jnp.ones(3)}
NOT_CHECKED = {("future", "Linen", field) for field in ("noted", "array", "table")}
changed = []


def checked(call):
    try:
        call()
    except TypeCheckError:
        return True
    return False


for module in (direct, future):
    for name in ("Plain", "Struct", "LinenKeywords", "Linen"):
        kind = getattr(module, name)
        seen = {}
        for field, wrong in WRONG.items():
            seen[field] = checked(lambda kind=kind, given={field: wrong}: kind(**given))
        if name.startswith("Linen"):
            seen["method"] = checked(lambda kind=kind: kind().apply({}, jnp.ones(3)))
        words = [f"{field}:{'checked' if yes else 'NOT CHECKED'}" for field, yes in seen.items()]
        print(module.__name__, name, *words)
        for field, yes in seen.items():
            if yes == ((module.__name__, name, field) in NOT_CHECKED):
                changed.append(f"{module.__name__} {name} {field}")
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
