#!/usr/bin/env bash
# Means of JAX's metric libraries: flax divides by the size of the mask, clu adds up in bfloat16, metrax weighs batches.
#
# Expected: a metric merged over batches is that of all their values; what a mask hides, and how the batches were cut,
#   changes nothing.
# Happens: flax's `Average` and `Accuracy` take a mask that can be broadcast to the values, as their text says, sum over
#   all values that it covers and divide by the sum of the mask as it came: with [8, 1] over losses [8, 100] the mean is
#   a hundred times too large. Of a mask of weights the sum is cut to a whole number. `Welford`, in a `MultiMetric` that
#   is given a mask, takes what is masked too.
#   clu's `Average` merged batch by batch adds bfloat16 losses in bfloat16 and counts in integers: the total stops at
#   256, so that the mean of losses around 1 is right for 500 batches, 0.51 after 1,000 and 0.13 after 4,000, as if the
#   model had learned. metrax's `MSE` inherits it. It is right where merging begins with `empty()`, which is float32.
#   metrax's `Perplexity` divides by the weights within a batch and weighs batches by their number of sequences: padded
#   sequences of 3 to 80 codes, the long ones harder, have 9.25 at once and 2.84 one by one. Its `WER` takes the same
#   types as its `BLEU`, lists of str, but a sentence of a list is then one word: a sentence error rate, 0.5 for one
#   wrong word of seven. Its `BLEU` says that it takes the closest reference's length, and takes the shortest one's.
# Why: `mask.sum()` beside `values * mask`; the type of the first batch stays; formulas that hold for a batch were
#   carried over to merging.
# Matters: validation losses of padded batches, eval sets read with another batch size, losses that only seem to fall.
#   Broadcast masks yourself, cast to float32, begin with `empty()`, and merge sums of your own for perplexity.
# Versions: flax 0.12.12 (mask since March 2026), clu 0.0.12, google-metrax 0.2.4, jax 0.12.0.1; Python 3.12.
# Source: github.com/google/flax pull request 5588 (open, September 2026) mends the broadcast mask; flax
#   nnx/training/metrics.py, clu/metrics.py Average, metrax/nlp_metrics.py.
# Output seen:
#   flax Average: true, mask [8, 100], mask [8, 1]: (1.95, 1.95, 195.43)
#   flax Average, mask of weights: true, found: (1.93, 2.07)
#   flax MultiMetric, the rest 100: means by Average and Welford: (1.95, 26.47)
#   clu Average of bfloat16, true 1.0, after n batches: {100: 1.0, 500: 1.008, 1000: 0.512, 4000: 0.128}
#     the same cast to float32 before: 1.0
#     the same merged from empty(): 1.0
#   metrax MSE of bfloat16: true, found: (1.125, 0.256)
#   metrax Perplexity, true 9.25, by batch size: {8: 9.254, 4: 3.625, 2: 3.536, 1: 2.839}
#   metrax WER of a list, one by one (1 of 7 words is wrong): (0.5, 0.143)
#   metrax BLEU: by the closest reference, as its text says, found: (0.751, 1.0)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS
cd "$folder"
"${PYTHON:-python3.12}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 flax==0.12.12 clu==0.0.12 \
  google-metrax==0.2.4 numpy==2.5.5 || exit 2
cat > look.py <<'PY'
import sys

import jax
import jax.numpy as jnp
import metrax
import numpy as np
from clu import metrics as clu
from flax import nnx

rng = np.random.default_rng(0)
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def merged(batches):
    """Return the value of metrics merged one after the other, as clu's documentation does it."""
    found = None
    for one in batches:
        found = one if found is None else found.merge(one)
    return round(float(found.compute()), 3)


# 1. flax: losses of 8 clips of 100 frames, of which the last two clips fill up the batch.
loss = jnp.asarray(rng.gamma(4, 0.5, (8, 100)), jnp.float32)
real = jnp.arange(8)[:, None] < 6


def averaged(values, mask):
    found = nnx.metrics.Average()
    found.update(values=values, mask=mask)
    return round(float(found.compute()), 2)


true = round(float(loss[:6].mean()), 2)
whole, narrow = averaged(loss, jnp.broadcast_to(real, loss.shape)), averaged(loss, real)
right = whole == true and abs(narrow - 100 * true) < 1
expect("flax Average: true, mask [8, 100], mask [8, 1]", (true, whole, narrow), right)
clips, weights = loss.mean(1), jnp.asarray(rng.random(8), jnp.float32)
true = round(float((clips * weights).sum() / weights.sum()), 2)
found = averaged(clips, weights)
expect("flax Average, mask of weights: true, found", (true, found), found > 1.03 * true)
both = nnx.MultiMetric(mean=nnx.metrics.Average("loss"), spread=nnx.metrics.Welford("loss"))
both.update(loss=jnp.where(real, loss, 100.0), mask=jnp.broadcast_to(real, loss.shape))
means = round(float(both.compute()["mean"]), 2), round(float(both.compute()["spread"].mean), 2)
expect("flax MultiMetric, the rest 100: means by Average and Welford", means, means[1] > 10 * means[0])

# 2. clu, and metrax, which inherits from it: losses of a model that computes in bfloat16, batch after batch.
steps = [jnp.asarray(1.0 + 0.5 * np.sin(k), jnp.bfloat16) for k in range(4_000)]
true = round(float(np.mean([float(x) for x in steps])), 3)
found = {
    n: merged(clu.Average.from_model_output(x) for x in steps[:n]) for n in (100, 500, 1_000, 4_000)
}
expect(f"clu Average of bfloat16, true {true}, after n batches", found, found[4_000] < 0.2 * true)
right = merged(clu.Average.from_model_output(x.astype(jnp.float32)) for x in steps)
expect("  the same cast to float32 before", right, abs(right - true) < 0.01)
right = merged([clu.Average.empty(), *(clu.Average.from_model_output(x) for x in steps)])
expect("  the same merged from empty()", right, abs(right - true) < 0.01)
found = merged(metrax.MSE.from_model_output(x[None], jnp.zeros(1, jnp.bfloat16)) for x in steps)
true = round(float(np.mean([float(x) ** 2 for x in steps])), 3)
expect("metrax MSE of bfloat16: true, found", (true, found), found < 0.3 * true)

# 3. metrax: perplexity of sequences of different lengths, padded, where the long ones are harder.
lengths = np.array([3, 4, 5, 6, 8, 60, 70, 80])
codes = rng.integers(0, 50, (8, 80))
logits = rng.normal(size=(8, 80, 50))
np.put_along_axis(logits, codes[..., None], np.where(lengths > 50, 2.0, 6.0)[:, None, None], -1)
logits, codes = jnp.asarray(logits, jnp.float32), jnp.asarray(codes)
there = jnp.asarray(np.arange(80) < lengths[:, None], jnp.float32)
surprise = -jnp.take_along_axis(jax.nn.log_softmax(logits), codes[..., None], -1)[..., 0]
true = round(float(jnp.exp((surprise * there).sum() / there.sum())), 2)
found = {
    size: merged(
        metrax.Perplexity.from_model_output(
            logits[k : k + size], codes[k : k + size], sample_weights=there[k : k + size],
            from_logits=True,
        )
        for k in range(0, 8, size)
    )
    for size in (8, 4, 2, 1)
}  # fmt: skip
right = abs(found[8] - true) < 0.01 and found[1] < 0.5 * true
expect(f"metrax Perplexity, true {true}, by batch size", found, right)
said, words = ["rain on a roof", "a dog barks"], ["rain on the roof", "a dog barks"]
found = merged([metrax.WER.from_model_output(said, words)])
single = merged(metrax.WER.from_model_output(a, b) for a, b in zip(said, words, strict=True))
expect("metrax WER of a list, one by one (1 of 7 words is wrong)", (found, single), (found, single) == (0.5, 0.143))
texts = ["a dog barks", "a dog barks loudly in the yard at night"]
found = merged([metrax.BLEU.from_model_output(["a dog barks loudly in the yard"], [texts])])
closest = round(float(np.exp(1 - 9 / 7)), 3)
expect("metrax BLEU: by the closest reference, as its text says, found", (closest, found), found == 1)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python -W ignore look.py
