#!/usr/bin/env bash
# equinox: rotary embeddings with different `theta` turn by the angles of whichever was called first, or longest.
#
# Expected: `eqx.nn.RotaryPositionalEmbedding(width, theta=1e6)` turns queries and keys by angles of base 1e6, whatever
#   else runs in the process: a module's output depends on its fields and its input.
# Happens: the sines and cosines lie in one table per process, looked up by width and dtype; theta is no part of the
#   key. Layers with windows (theta 1e4) and layers that see all (1e6) in one model, or a teacher and a student with
#   their own, have the same width of heads: the first one called fills the table for all, without a warning. Where a
#   longer sequence comes, whoever sees it first fills the table anew, and the same module gives other numbers for the
#   same input than before. `jax.jit` keeps what it was compiled with, so two lengths of one function may differ too.
# Matters: a model learns with one theta in place of two, and is another model where its layers, or other models of the
#   process, are first called in another order: an evaluation that loads a second model for comparison, a notebook, a
#   converted checkpoint compared part by part. The table of one process is right as long as only one theta is in use.
#   Until mended: work out the angles in a module of one's own, or call `eqx.clear_caches()` before each other theta.
# Versions: equinox 0.13.8, jax 0.10.2, numpy 2.4.6; Python 3.11. The same with jax 0.12.0.1 and Python 3.13.
# Source: equinox/nn/_embedding.py, `internal_rope_embedding_cache`, and `cache_key` in RotaryPositionalEmbedding's
#   __call__; theta became a field in pull request 735, the table's key stayed as it was.
# Output seen (distance of a module's output from that by its own theta, relative to the output):
#   theta 1e6 alone in a process: 0.000
#   theta 1e4, called first: 0.000
#   theta 1e6, called second: 0.901
#   theta 1e6, a sequence of 200: 0.000
#   theta 1e4, the input of before: 0.901
#   theta 1e6, called after clear_caches: 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  equinox==0.13.8 "jax==${JAX:-0.10.2}" "jaxlib==${JAX:-0.10.2}" numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import equinox as eqx
import jax.numpy as jnp
import numpy as np

WIDTH = 64
changed = []


def turned(x, theta):
    """Rotary embedding in numpy: channel c and c + WIDTH / 2 are one plane."""
    angles = np.outer(np.arange(len(x)), theta ** (-np.arange(0, WIDTH, 2) / WIDTH))
    one, two = np.split(x, 2, axis=1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=1)


def distance(module, x):
    want = turned(x, module.theta)
    return np.linalg.norm(np.asarray(module(jnp.asarray(x))) - want) / np.linalg.norm(want)


def expect(label, seen, right):
    print(f"{label}: {seen:.3f}")
    if (seen < 1e-3) != right:
        changed.append(label)


draw = np.random.default_rng(0)
short, long = (draw.standard_normal((length, WIDTH)).astype("float32") for length in (100, 200))
near = eqx.nn.RotaryPositionalEmbedding(WIDTH, theta=1e4)
far = eqx.nn.RotaryPositionalEmbedding(WIDTH, theta=1e6)
expect("theta 1e6 alone in a process", distance(far, short), True)
eqx.clear_caches()
expect("theta 1e4, called first", distance(near, short), True)
expect("theta 1e6, called second", distance(far, short), False)
expect("theta 1e6, a sequence of 200", distance(far, long), True)
expect("theta 1e4, the input of before", distance(near, short), False)
eqx.clear_caches()
expect("theta 1e6, called after clear_caches", distance(far, short), True)
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
