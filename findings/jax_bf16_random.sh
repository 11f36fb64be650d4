#!/usr/bin/env bash
# JAX draws random numbers in the type of its argument: in bfloat16, from 128 values, which ruins categorical draws.
#
# Expected: `jax.random.categorical` of bfloat16 logits, those of a model that computes in bfloat16, draws each code as
#   often as its probability says, up to the rounding of the logits (below 1 %).
# Happens: among equal logits the first codes are drawn and the last ones never. Of 1,024 codes, the first eighth gets
#   64 % of the draws; of 4,096, the last half gets none in 20,000. Where logits differ (a normal's, times 2), the
#   draws are 0.30 of total variation from the probabilities (0.05 in float32, which is what the count of draws leaves);
#   float16 is between the two (0.12).
#   `bernoulli(p)` with a bfloat16 p of 0.001 is true in 0.77 % of the draws, with 0.999 in all of them; `choice` with
#   p in bfloat16 takes 128 of 1,024 entries only; `normal` has 128 values, none above 2.52.
# Why: the uniform number below is drawn in that type, with the 7 bits of its mantissa. A Gumbel noise of 128 values
#   makes ties, argmax takes the first; its largest value is 4.85, so that what is unlikely never wins.
# Matters: language models of codec tokens sampled from bfloat16 logits (low codes, whichever they are, come out too
#   often, in silence), masks and dropout with a rate held in bfloat16, noise of a diffusion drawn in the model's type,
#   parameters initialised in bfloat16. Cast to float32 first, draw, cast back; `mode="high"` mends categorical alone.
# Versions: jax 0.12.0.1, jaxlib 0.12.0.1; the same numbers in jax 0.10.2. Python 3.12 (jax 0.12 needs it).
# Source: jax.random.uniform, gumbel and categorical; the documentation of `mode` speaks of float32 and of large values.
# Output seen:
#   equal logits, share of the first eighth of 1024 codes: {'float32': 0.118, 'float16': 0.19, 'bfloat16': 0.637}
#   equal logits, share of the last half of 4096 codes, bfloat16: 0.0
#   differing logits, total variation: {'float32': 0.051, 'float16': 0.123, 'bfloat16': 0.303}
#   bfloat16, mode="high", share of the first eighth: 0.126
#   bernoulli, bfloat16: {0.001: 0.00771, 0.01: 0.01537, 0.999: 1.0}
#   choice of 1024, p in bfloat16, entries ever taken: 128
#   normal, bfloat16: 128 values in a million draws, largest 2.516
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS
cd "$folder"
"${PYTHON:-python3.12}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 || exit 2
cat > look.py <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np

TYPES = (jnp.float32, jnp.float16, jnp.bfloat16)
DRAWS = 20_000
key = jax.random.key(0)
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def drawn(logits, **options):
    """Return codes drawn from the same logits [V]."""
    return np.asarray(jax.random.categorical(key, logits, shape=(DRAWS,), **options))


def first(codes, number):
    return round(float(np.mean(codes < number // 8)), 3)


def away(logits):
    """Return the total variation between draws and the softmax of the logits."""
    seen = np.bincount(drawn(logits), minlength=len(logits)) / DRAWS
    wanted = np.asarray(jax.nn.softmax(logits.astype(jnp.float32)))
    return round(float(np.abs(seen - wanted).sum()) / 2, 3)


def equal(number, dtype):
    return jnp.zeros(number, dtype)


shares = {t.__name__: first(drawn(equal(1_024, t)), 1_024) for t in TYPES}
right = abs(shares["float32"] - 0.125) < 0.015 and shares["bfloat16"] > 0.55
expect("equal logits, share of the first eighth of 1024 codes", shares, right)
late = float(np.mean(drawn(equal(4_096, jnp.bfloat16)) >= 2_048))
expect("equal logits, share of the last half of 4096 codes, bfloat16", late, late < 0.001)
differing = 2 * jax.random.normal(jax.random.key(5), (1_024,))
far = {t.__name__: away(differing.astype(t)) for t in TYPES}
right = far["float32"] < 0.07 and far["bfloat16"] > 0.25
expect("differing logits, total variation", far, right)
high = first(drawn(equal(1_024, jnp.bfloat16), mode="high"), 1_024)
expect('bfloat16, mode="high", share of the first eighth', high, abs(high - 0.125) < 0.015)

rates = {
    p: round(float(jax.random.bernoulli(key, jnp.bfloat16(p), (1_000_000,)).mean()), 5)
    for p in (0.001, 0.01, 0.999)
}
expect("bernoulli, bfloat16", rates, rates[0.001] > 0.007 and rates[0.01] > 0.014 and rates[0.999] == 1)
even = jnp.full(1_024, 1 / 1_024, jnp.bfloat16)
taken = len(np.unique(jax.random.choice(key, 1_024, (DRAWS,), p=even)))
expect("choice of 1024, p in bfloat16, entries ever taken", taken, taken <= 128)
noise = np.asarray(jax.random.normal(key, (1_000_000,), jnp.bfloat16).astype(jnp.float32))
values, largest = len(np.unique(noise)), float(noise.max())
expect(
    "normal, bfloat16", f"{values} values in a million draws, largest {largest:.3f}",
    values <= 128 and largest < 2.6,
)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
