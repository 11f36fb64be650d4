#!/usr/bin/env bash
# optax's Muon on flax models: attention's kernels go to Adam and its biases to Muon; a scan over layers turns the rest.
#
# Expected: Muon orthogonalises the updates of the hidden layers' matrices, and Adam takes the rest (biases, norms). In
#   a Transformer that is nearly all parameters; scanning over equal layers changes how they are stored, not training.
# Happens: `optax.contrib.muon` picks by the number of axes of the stored array, 2, and says so. flax stores the
#   kernels of attention as [features, heads, size] and [heads, size, features], and the biases of query, key and value
#   as [heads, size]: the kernels get Adam, the biases are orthogonalised as if heads were a layer's inputs. With
#   `nn.scan` over the layers each array has one axis more: the dense kernels leave Muon, the biases and the norms'
#   scales [layers, features] enter it, and the only kernel left is the classifier's, which Muon's authors leave to
#   Adam. No matrix of a hidden layer is trained by Muon any more, and nothing is said.
#   With the stacked vectors the layers are no longer independent: the gradient of one layer's bias changes the update
#   of another's. In nnx the same holds for `nnx.MultiHeadAttention` and `nnx.vmap`-ed layers.
# Matters: a comparison of Muon with AdamW on a flax Transformer compares AdamW with AdamW, at Muon's learning rate
#   (adam_learning_rate is the same by default, tens of times what Adam wants). Pass `muon_weight_dimension_numbers`
#   made from the names of the parameters, and print which arrays are in `state.inner_states["muon"]`.
# Versions: optax 0.2.8, flax 0.12.8, jax 0.10.2, numpy 2.4.6; Python 3.11.
# Source: optax/contrib/_muon.py (muon: parameters of two axes), flax/linen/attention.py (DenseGeneral with heads) and
#   flax.linen.scan (variable_axes={"params": 0}).
# Output seen:
#   layers one by one, trained by Muon:
#     head/kernel
#     layer0/attention/key/bias
#     layer0/attention/query/bias
#     layer0/attention/value/bias
#     layer0/mlp/kernel
#     share of the hidden layers' kernels: 0.20
#   layers scanned, trained by Muon:
#     head/kernel
#     layers/attention/out/bias
#     layers/mlp/bias
#     layers/norm/bias
#     layers/norm/scale
#     share of the hidden layers' kernels: 0.00
#   a layer's update, another gradient in the layer beside it: cosine 0.62
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  optax==0.2.8 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

WIDTH, LAYERS = 32, 2
changed = []


def expect(label, ok):
    print(label)
    if not ok:
        changed.append(label)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(4, name="attention")(nn.LayerNorm(name="norm")(x))
        return x + nn.Dense(WIDTH, name="mlp")(x), None


class Encoder(nn.Module):
    scanned: bool

    @nn.compact
    def __call__(self, x):
        if self.scanned:
            stack = nn.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS
            )
            x, _ = stack(name="layers")(x, None)
        else:
            for i in range(LAYERS):
                x, _ = Block(name=f"layer{i}")(x, None)
        return nn.Dense(10, name="head")(x.mean(1))


muon = optax.contrib.muon(0.02)


def who(scanned):
    """Names of the arrays that Muon and Adam train, and how much of the hidden kernels Muon has."""
    params = Encoder(scanned).init(jax.random.key(0), jnp.ones((1, 4, WIDTH)))["params"]
    state = muon.init(params)
    names = {}
    for trainer, inner in state.inner_states.items():
        for path, _ in jax.tree_util.tree_leaves_with_path(inner):
            keys = [step.key for step in path if isinstance(step, jax.tree_util.DictKey)]
            if keys:
                names["/".join(keys)] = trainer
    sizes = {
        "/".join(step.key for step in path): value.size
        for path, value in jax.tree_util.tree_leaves_with_path(params)
    }
    hidden = {
        name: size
        for name, size in sizes.items()
        if name.endswith("kernel") and not name.startswith("head")
    }
    share = sum(size for name, size in hidden.items() if names[name] == "muon") / sum(
        hidden.values()
    )
    return sorted(name for name in names if names[name] == "muon"), share


for scanned, title in ((False, "layers one by one"), (True, "layers scanned")):
    found, share = who(scanned)
    print(f"{title}, trained by Muon:")
    for name in found:
        if not name.startswith("layer1"):
            print(f"  {name}")
    print(f"  share of the hidden layers' kernels: {share:.2f}")
    if scanned:
        wanted = {
            "head/kernel",
            "layers/attention/out/bias",
            "layers/mlp/bias",
            "layers/norm/bias",
            "layers/norm/scale",
        }
        ok = set(found) == wanted and share == 0
    else:
        biases = {f"layer0/attention/{name}/bias" for name in ("query", "key", "value")}
        ok = {name for name in found if "layer0" in name} == biases | {
            "layer0/mlp/kernel"
        } and share < 0.25
    if not ok:
        changed.append(title)

draw = np.random.default_rng(0)
first, second = (jnp.asarray(draw.standard_normal(WIDTH), "float32") for _ in range(2))


def update(*gradients):
    """The first layer's update, its bias stacked with those of the other layers."""
    stacked = {"bias": jnp.stack(gradients)}
    return muon.update(stacked, muon.init(stacked), stacked)[0]["bias"][0]


one, other = update(first, second), update(first, first + 0.1 * second)
alike = float(one @ other / jnp.linalg.norm(one) / jnp.linalg.norm(other))
expect(
    f"a layer's update, another gradient in the layer beside it: cosine {alike:.2f}",
    alike < 0.9,
)
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
