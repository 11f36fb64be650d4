#!/usr/bin/env bash
# optax.MultiSteps: after one gradient that is not finite its sum stays NaN for good, whatever the optimizer inside.
#
# Expected: with gradients summed over k small batches, a NaN in one of them spoils one step of the optimizer. A guard
#   inside (`apply_if_finite`, `zero_nans`) drops that step as it does without MultiSteps, and training goes on.
# Happens: the sum is emptied by multiplying it with 0, and 0 x NaN is NaN: all later sums are NaN, although all later
#   gradients are fine. `apply_if_finite` inside rejects every step from then on, until it has counted
#   max_consecutive_errors and lets one through: the parameters are NaN. `zero_nans` inside makes every update 0: the
#   run goes on without error, NaN or change of a parameter. An infinite gradient does the same. The guards work if
#   they are put around MultiSteps, or with its own `should_skip_update_fn=optax.skip_not_finite`.
# Matters: half-precision runs have single bad batches, which is what the guards are for; MultiSteps is documented as
#   a wrapper of any optimizer, and such chains are built there. A learning rate's schedule keeps running.
# Versions: optax 0.2.8, jax 0.10.2, numpy 2.4.6; Python 3.11.
# Source: optax/transforms/_accumulation.py, MultiSteps.update: `(1 - emit) * ga` for the sum, `emit * ga` for what is
#   given out.
# Output seen (the parameter after each of 14 gradients of 1, the fourth of them NaN; steps after every second one):
#   nan, apply_if_finite inside: 0, -1, -1, -1, -1, -1, -1, -1, -1, nan, nan, nan, nan, nan
#   inf, apply_if_finite inside: 0, -1, -1, -1, -1, -1, -1, -1, -1, nan, nan, nan, nan, nan
#   nan, zero_nans inside: 0, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1
#   nan, apply_if_finite around: 0, -1, -1, -1, -2, -2, -3, -3, -4, -4, -5, -5, -6, -6
#   nan, should_skip_update_fn: 0, -1, -1, -1, -2, -2, -3, -3, -4, -4, -5, -5, -6, -6
#   nan, zero_nans around: 0, -1, -1, -1.5, -1.5, -2.5, -2.5, -3.5, -3.5, -4.5, -4.5, -5.5, -5.5, -6.5
#   nan, apply_if_finite, no MultiSteps: -1, -2, -3, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12, -13
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

changed = []


def train(optimizer, gradients):
    """The parameter after each gradient."""

    def step(carry, gradient):
        value, state = carry
        update, state = optimizer.update(gradient, state, value)
        value = optax.apply_updates(value, update)
        return (value, state), value

    start = jnp.zeros(())
    _, seen = jax.jit(lambda g: jax.lax.scan(step, (start, optimizer.init(start)), g))(gradients)
    return np.asarray(seen)


def expect(label, seen, wanted):
    print(f"{label}: {', '.join(f'{value:g}' for value in seen)}")
    if not np.array_equal(seen, wanted, equal_nan=True):
        changed.append(label)


def two(optimizer, **options):
    return optax.MultiSteps(optimizer, 2, **options).gradient_transformation()


# Fourteen gradients of 1, the fourth of them not finite: the optimizer steps after every second one.
nan, inf = np.nan, np.inf
bad = {value: np.where(np.arange(14) == 3, value, 1.0).astype("float32") for value in (nan, inf)}
sgd = optax.sgd(1.0)
guard = optax.apply_if_finite(sgd, max_consecutive_errors=3)
zero = optax.chain(optax.zero_nans(), sgd)
fine = [0, -1, -1, -1, -2, -2, -3, -3, -4, -4, -5, -5, -6, -6]
halved = [0, -1, -1] + [step - 0.5 for step in (-1, -1, -2, -2, -3, -3, -4, -4, -5, -5, -6)]
for value in (nan, inf):
    expect(
        f"{value}, apply_if_finite inside",
        train(two(guard), bad[value]),
        [0, -1, -1, -1, -1, -1, -1, -1, -1, nan, nan, nan, nan, nan],
    )
expect("nan, zero_nans inside", train(two(zero), bad[nan]), [0] + [-1] * 13)
expect(
    "nan, apply_if_finite around",
    train(optax.apply_if_finite(two(sgd), max_consecutive_errors=3), bad[nan]),
    fine,
)
expect(
    "nan, should_skip_update_fn",
    train(two(sgd, should_skip_update_fn=optax.skip_not_finite), bad[nan]),
    fine,
)
expect("nan, zero_nans around", train(optax.chain(optax.zero_nans(), two(sgd)), bad[nan]), halved)
expect(
    "nan, apply_if_finite, no MultiSteps",
    train(guard, bad[nan]),
    [-1, -2, -3, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12, -13],
)
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
