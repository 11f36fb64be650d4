#!/usr/bin/env bash
# optax: inject_hyperparams holds hyperparameters in the parameters' type; in bfloat16 Adam's b2 of 0.999 becomes 1.
#
# Expected: `optax.inject_hyperparams(optax.adam)(1e-2)` learns as `optax.adam(1e-2)` does, and shows its learning rate.
# Happens: where all parameters are bfloat16, b2 is stored as 1.0, b1 as 0.898. From the first update on adam, adamw,
#   nadam, lamb and amsgrad make every parameter NaN; adabelief and yogi change nothing at all, without a sign of it;
#   radam never divides by its second moment. Adam alone, with the same bfloat16 parameters, learns. In float16, b2
#   survives and eps = 1e-8 becomes 0. One float32 parameter in the tree, and all is well.
# Why: between 0.5 and 1 bfloat16 has steps of 1/256, so 0.999 rounds to 1: the second moment takes in none of the
#   gradient, and its correction 1 - b2**t is 0. The type is the highest among the parameters'.
# Matters: the learning rate is injected for it to be logged, changed or searched; the default b2 then fails in models
#   loaded in bfloat16 and not in their float32 test; adabelief and yogi look like a learning rate too small. The
#   option hyperparam_dtype=jnp.float32 mends it.
# Versions: optax 0.2.8, jax 0.10.2, jaxlib 0.10.2; Python 3.11.
# Source: optax/schedules/_inject.py (init_fn, update_fn: optax.tree.dtype(params, "highest")).
# Output seen:
#   stored of bfloat16 parameters: {'b1': 0.8984, 'b2': 1.0, 'eps': 1.001e-08}
#   stored of float16 parameters: {'b1': 0.8999, 'b2': 0.999, 'eps': 0.0}
#   from 3 towards 1, 300 updates: itself, injected, injected with hyperparam_dtype=float32
#     adam: 1.38, nan, 1.35   adamw: 1.38, nan, 1.35   nadam: 1.38, nan, 1.36   lamb: 0.98, nan, 1.02
#     amsgrad: 2.44, nan, 2.42   adabelief: 1.06, 3.0, 1.06   yogi: 1.38, 3.0, 1.38   radam: 2.81, 1.12, 2.81
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 || exit 2
cat > look.py <<'PY'
import math
import sys

import jax
import jax.numpy as jnp
import optax

changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def stored(dtype):
    found = optax.inject_hyperparams(optax.adam)(1e-2).init(jnp.ones(4, dtype)).hyperparams
    return {name: float(f"{float(found[name]):.4g}") for name in ("b1", "b2", "eps")}


def learned(optimizer):
    """Return where a bfloat16 parameter gets from 3, if the squared distance from 1 is the loss."""
    value = jnp.full(4, 3, jnp.bfloat16)
    state = optimizer.init(value)

    @jax.jit
    def update(value, state):
        gradient = jax.grad(lambda x: jnp.sum((x - 1) ** 2))(value)
        change, state = optimizer.update(gradient, state, value)
        return optax.apply_updates(value, change), state

    for _ in range(300):
        value, state = update(value, state)
    return round(float(value[0]), 2)


seen = stored(jnp.bfloat16)
expect("stored of bfloat16 parameters", seen, seen["b2"] == 1)
seen = stored(jnp.float16)
expect("stored of float16 parameters", seen, seen["b2"] < 1 and seen["eps"] == 0)
print("from 3 towards 1, 300 updates: itself, injected, injected with hyperparam_dtype=float32")
for name in ("adam", "adamw", "nadam", "lamb", "amsgrad", "adabelief", "yogi", "radam"):
    make = getattr(optax, name)
    inject = optax.inject_hyperparams
    itself, injected = learned(make(1e-2)), learned(inject(make)(1e-2))
    mended = learned(inject(make, hyperparam_dtype=jnp.float32)(1e-2))
    if name in ("adabelief", "yogi"):
        right = injected == 3
    elif name == "radam":
        right = abs(injected - itself) > 1
    else:
        right = math.isnan(injected)
    expect(f"  {name}", f"{itself}, {injected}, {mended}", right and abs(mended - itself) < 0.1)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
