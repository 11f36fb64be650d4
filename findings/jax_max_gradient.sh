#!/usr/bin/env bash
# JAX: compiled without LLVM's optimisations, the gradient of jnp.max over scaled and shifted values is infinite.
#
# Expected: the gradient of a maximum goes to the places that hold it, with any compiler setting; a setting that makes
#   compilation faster changes speed and, at most, rounding.
# Happens: on a CPU with XLA_FLAGS=--xla_backend_optimization_level=0, `jax.jit(jax.grad(…))` of
#   `sum(max(x * scale + shift, axis=1) ** 2)` has infinite values, and with a normalisation before it NaN for most of the
#   input. Not compiled, and compiled with the default setting, both are right. `take_along_axis(x, argmax(x))` in the
#   place of `max` is right everywhere.
# Why: the rule for the gradient of a reduction by maximum marks the places that equal the result and divides by their
#   number. The compiled program computes x * scale + shift twice, for the maximum and for the marks, and rounds once
#   after the product and once not, so no place may equal the maximum; the number is then 0.
# Matters: test suites set this flag because it compiles several times faster; a loss with max pooling then becomes NaN
#   at some step, in the tests only, or a network seems to be at fault.
# Versions: jax 0.10.2, jaxlib 0.10.2; Python 3.11; x86-64.
# Source: jax/_src/lax/lax.py, the rule of reduce_max (`_reduce_chooser_jvp_rule`); XLA's CPU compiler.
# Output seen:
#   default; level 0; level 0 by argmax: scaled right, normalised right; scaled infinite, normalised NaN; scaled right, normalised right
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 || exit 2
cat > look.py <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np

rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((8, 200, 64)), jnp.float32)
SCALE, SHIFT = (jnp.asarray(v, jnp.float32) for v in rng.standard_normal((2, 64)))


def scaled(x):
    return x * SCALE + SHIFT


def normalised(x):
    return scaled((x - x.mean((0, 1))) * jax.lax.rsqrt(x.var((0, 1)) + 1e-5))


def by_argmax(x):
    return jnp.take_along_axis(x, jnp.argmax(x, 1, keepdims=True), 1)[:, 0]


greatest = by_argmax if "argmax" in sys.argv else lambda x: jnp.max(x, 1)
found = []
for values in (scaled, normalised):
    gradient = jax.grad(lambda x, values=values: jnp.sum(greatest(values(x)) ** 2))
    wanted, got = gradient(X), jax.jit(gradient)(X)
    if jnp.isnan(got).any():
        found.append("NaN")
    elif jnp.isinf(got).any():
        found.append("infinite")
    else:
        found.append("right" if np.allclose(got, wanted, atol=1e-3) else "wrong")
print(", ".join(f"{name} {what}" for name, what in zip(("scaled", "normalised"), found)))
PY
export JAX_PLATFORMS=cpu
level=--xla_backend_optimization_level=0
seen="$(venv/bin/python look.py); $(XLA_FLAGS=$level venv/bin/python look.py); $(XLA_FLAGS=$level venv/bin/python look.py argmax)"
echo "default; level 0; level 0 by argmax: $seen"
[ "$seen" = "scaled right, normalised right; scaled infinite, normalised NaN; scaled right, normalised right" ]
