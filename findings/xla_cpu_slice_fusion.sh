#!/usr/bin/env bash
# XLA's CPU compiler: an array picked out of a stack by a loop's index is sliced anew for every element that reads it.
#
# Expected: a scan over layers, whose parameters are stacked [layers, …], costs per layer what the layer costs alone.
#   The slice that picks a layer's small parameters, a few kilobytes, is made once per layer.
# Happens: the slice is fused into every elementwise loop that reads the parameters. The index of the layer is loaded
#   and held to its bounds for each element, and the loop is not turned into vectors: here, a depthwise convolution
#   of four taps with SiLU, it takes several times as long as with the parameters given as arrays of their own.
#   `jax.lax.optimization_barrier` around the slice changes nothing: the CPU compiler removes barriers before it
#   fuses. What helps is to pass the small parameters through a conditional whose two branches return them: nothing
#   is fused across its border. The branches must look different (a barrier in one will do), or JAX forwards the
#   operands and drops the conditional.
# Why: the fusion pass takes dynamic-slice for an elementwise operation that is cheap to compute again, whatever the
#   number of elements that read the result.
# Matters: scanning over stacked layers is the usual form in JAX. A training step of a small Mamba encoder on a CPU
#   took a fifth less time with its small parameters passed through a conditional.
# Versions: jax 0.10.2, jaxlib 0.10.2; Python 3.11; x86-64 with AVX-512. All forms give equal results.
# Source: XLA's CPU compiler and its instruction fusion pass; the fused computations of the program printed by
#   `jax.jit(f).lower(…).compile().as_text()` contain the dynamic-slice.
# Output seen:
#   alone 1.0, in a scan 5.7, in a scan behind a barrier 5.9, in a scan through a conditional 1.0 (times)
#   slices inside loops that compute: alone no, in a scan yes, in a scan behind a barrier yes, in a scan through a
#   conditional no
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import functools
import re
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

LAYERS, TOKENS, CHANNELS, TAPS = 24, 512, 384, 4


def layer(x, w):
    """Convolve every channel with four taps, then SiLU: all elementwise."""
    y = x * w[0]
    for tap in range(1, TAPS):
        y = y + jnp.pad(x[:-tap], ((tap, 0), (0, 0))) * w[tap]
    return jax.nn.silu(y)


def alone(x, w):
    """A loop over layers that all have the first one's parameters: nothing to pick."""
    fixed = w[0]
    return jax.lax.scan(lambda x, _: (layer(x, fixed), None), x, None, length=LAYERS)[0]


def scanned(x, w, hold=lambda w: w):
    return jax.lax.scan(lambda x, w: (layer(x, hold(w)), None), x, w)[0]


def through_conditional(w):
    return jax.lax.cond(w[0, 0] < 0, jax.lax.optimization_barrier, lambda w: w, w)


FORMS = {
    "alone": alone,
    "in a scan": scanned,
    "in a scan behind a barrier": functools.partial(scanned, hold=jax.lax.optimization_barrier),
    "in a scan through a conditional": functools.partial(scanned, hold=through_conditional),
}


def slices_inside(text):
    """Tell whether a fused computation that convolves (multiplies) also slices by the loop's index."""
    bodies = re.split(r"\n}\n", text)
    fused = [b for b in bodies if re.search(r"^%?fused", b.strip(), re.M) or "fused_computation" in b]
    return any("dynamic-slice(" in b and "multiply(" in b and "exponential(" in b for b in fused)


g = np.random.default_rng(0)
x = g.standard_normal((TOKENS, CHANNELS)).astype(np.float32)
w = 0.5 * g.standard_normal((TAPS, CHANNELS))
w = np.broadcast_to(w, (LAYERS, TAPS, CHANNELS)).astype(np.float32)
programs = {name: jax.jit(f).lower(x, w).compile() for name, f in FORMS.items()}
results = {name: np.asarray(p(x, w)) for name, p in programs.items()}
times = {name: [] for name in FORMS}
for _ in range(15):
    for name, program in programs.items():
        began = time.process_time()
        program(x, w).block_until_ready()
        times[name].append(time.process_time() - began)
medians = {name: statistics.median(some) for name, some in times.items()}
ratio = {name: some / medians["alone"] for name, some in medians.items()}
inside = {name: slices_inside(p.as_text()) for name, p in programs.items()}
print(", ".join(f"{name} {r:.1f}" for name, r in ratio.items()), "(times)")
print("slices inside loops that compute:", ", ".join(f"{n} {'yes' if i else 'no'}" for n, i in inside.items()))
print("milliseconds a layer:", ", ".join(f"{n} {1000 * m / LAYERS:.2f}" for n, m in medians.items()))
size = np.abs(results["alone"]).max()
equal = all(np.abs(results["alone"] - r).max() < 1e-5 * size for r in results.values())
described = equal and ratio["in a scan"] > 2 and ratio["in a scan behind a barrier"] > 2
described &= ratio["in a scan through a conditional"] < 0.7 * ratio["in a scan"]
described &= inside["in a scan"] and inside["in a scan behind a barrier"]
described &= not inside["in a scan through a conditional"]
print("as described" if described else "changed")
sys.exit(not described)
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
