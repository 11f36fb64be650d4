#!/usr/bin/env bash
# JAX: split(key, n)[i] is fold_in(key, i). Code that does both with one key draws the same numbers twice.
#
# Expected: `split` and `fold_in` are two ways to new keys, and what comes of them is independent: a loss splits its
#   key for what it always drew, and a draw added later takes `fold_in(key, 1)`, so that the others stay as they were.
# Happens: the folded key is the second of the split ones, and of every later split of that key into any number. A
#   latent drawn from an autoencoder's deviation and the noise of its diffusion are the same numbers, bit for bit. A
#   loop over `fold_in(key, step)` takes in its first steps the keys that a split had given the parameters. It holds
#   for the default and the "rbg" generator, not for "unsafe_rbg".
#   flax's nnx.Rngs folds a counter into its key: a model of nnx.Rngs(0) gets for its n-th parameter the n-th of
#   split(jax.random.key(0), ...), which a script with the same seed gives its data or its noise. linen's make_rng is safe.
#   Besides, one key gives the same first numbers whatever the shape is: draws [3] and [5] begin alike.
# Matters: nothing fails, and JAX's checker of reused keys sees two keys: with jax_debug_key_reuse on, both draws pass.
#   A diffusion model learns from noise that it can read off the signal, and is sampled with noise that it cannot.
#   Take one split into as many keys as there are draws: more keys at the end leave the earlier ones as they were.
# Versions: jax 0.12.0.1, jaxlib 0.12.0.1, flax 0.12.12, numpy 2.5.5; Python 3.12 (jax 0.12 needs it). So since
#   jax_threefry_partitionable became the default (jax 0.5); with the flag off the keys differ.
# Source: pull request 13341 of jax-ml/jax, which made the two alike on purpose, behind that flag; the documentation of
#   split and fold_in does not speak of each other. flax/nnx/rnglib.py (RngStream.__call__).
# Output seen:
#   split(key, 3)[1] is fold_in(key, 1): {'threefry2x32': True, 'rbg': True, 'unsafe_rbg': False}
#   without jax_threefry_partitionable: False
#   correlation of the latents' draw and the noise: 1.0
#   refused by jax_debug_key_reuse: nothing
#   and of one key used twice: KeyReuseError
#   the error left to a model that reads the noise off its input: 0.0 of 1.0
#   second kernel of nnx.Rngs(0) is normal(split(key(0))[1]): True
#   split(key, 2) are the first two of split(key, 5): True
#   normal(key, [3]) begins normal(key, [5]): True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS
cd "$folder"
"${PYTHON:-python3.12}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  jax==0.12.0.1 jaxlib==0.12.0.1 flax==0.12.12 numpy==2.5.5 || exit 2
cat > look.py <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def alike(one, other):
    return bool((jax.random.key_data(one) == jax.random.key_data(other)).all())


def same(key):
    return alike(jax.random.split(key, 3)[1], jax.random.fold_in(key, 1))


names = ("threefry2x32", "rbg", "unsafe_rbg")
found = {name: same(jax.random.key(0, impl=name)) for name in names}
expect("split(key, 3)[1] is fold_in(key, 1)", found, list(found.values()) == [True, True, False])
with jax.threefry_partitionable(False):
    before = same(jax.random.key(0))
expect("without jax_threefry_partitionable", before, not before)


def noisy(key):
    """The latents of a variational autoencoder (mean 0, deviation 1), their draw, and diffusion's noise."""
    time_key, noise_key = jax.random.split(key)
    draw = jax.random.normal(jax.random.fold_in(key, 1), (8, 100))
    noise = jax.random.normal(noise_key, (8, 100))
    return draw, noise, jax.random.uniform(time_key, (8, 1))


draw, noise, time = noisy(jax.random.key(7))
alikeness = float(np.corrcoef(draw.ravel(), noise.ravel())[0, 1])
expect("correlation of the latents' draw and the noise", round(alikeness, 3), alikeness > 0.999)


def checked(call):
    """The name of what the checker of reused keys raises."""
    try:
        with jax.debug_key_reuse(True):
            jax.jit(call)(jax.random.key(7))
    except Exception as error:
        return type(error).__name__
    return "nothing"


refused = checked(noisy)
expect("refused by jax_debug_key_reuse", refused, refused == "nothing")
refused = checked(lambda key: (jax.random.normal(key, (2,)), jax.random.normal(key, (2,))))
expect("and of one key used twice", refused, refused == "KeyReuseError")
# Rectified flow: of (1 - t) x + t n, find n. Here x is n, and so is the mixture.
mixture = (1 - time) * draw + time * noise
left = float(jnp.mean((mixture - noise) ** 2))
of = float(jnp.mean(noise**2))
expect(
    "the error left to a model that reads the noise off its input",
    f"{left:.1f} of {of:.1f}",
    left < 1e-6 < 0.9 < of,
)


class Pair(nnx.Module):
    def __init__(self, rngs):
        normal = jax.random.normal
        self.first = nnx.Param(normal(rngs.params(), (4, 4)))
        self.second = nnx.Param(normal(rngs.params(), (4, 4)))


kernel = Pair(nnx.Rngs(0)).second[...]
mine = jax.random.normal(jax.random.split(jax.random.key(0))[1], (4, 4))
right = bool((kernel == mine).all())
expect("second kernel of nnx.Rngs(0) is normal(split(key(0))[1])", right, right)

key = jax.random.key(0)
right = alike(jax.random.split(key, 2), jax.random.split(key, 5)[:2])
expect("split(key, 2) are the first two of split(key, 5)", right, right)
right = bool((jax.random.normal(key, (3,)) == jax.random.normal(key, (5,))[:3]).all())
expect("normal(key, [3]) begins normal(key, [5])", right, right)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
