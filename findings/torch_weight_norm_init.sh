#!/usr/bin/env bash
# PyTorch: initialising `weight` of a layer with weight normalisation changes nothing, without an error.
#
# Expected: after `nn.init.trunc_normal_(layer.weight, std=0.02)` the layer's weights have a deviation of 0.02.
# Happens: with `torch.nn.utils.weight_norm` `layer.weight` reads about 0.02 until the layer is first called, and is then what
#   it was before; with `torch.nn.utils.parametrizations.weight_norm` it is what it was at once. Biases, which are
#   parameters, do change.
# Why: the parameters are a length and a direction (weight_g and weight_v; original0 and original1). `weight` is a plain
#   attribute that a hook makes anew before each call, or a property that makes it anew on each read; the init writes
#   into that.
# Matters: `model.apply(init_weights)` over layers that are normalised when they are built, as in descript-audio-codec
#   1.0.0 (dac/model/dac.py: init_weights and WNConv1d), leaves torch's uniform weights: a re-implementation that draws
#   them with the deviation that is written there, as transformers' DacModel does, begins elsewhere than the original.
# Versions: torch 2.13.0; Python 3.11.
# Source: torch/nn/utils/weight_norm.py (WeightNorm.__call__), torch/nn/utils/parametrize.py (get_parametrized).
# Output seen:
#   weight_norm: 0.219 drawn, 0.021 after init, 0.219 after a call
#   parametrizations.weight_norm: 0.219 drawn, 0.219 after init, 0.219 after a call
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys
import warnings

import torch
from torch import nn

warnings.simplefilter("ignore")  # that weight_norm is deprecated
ways = {
    "weight_norm": nn.utils.weight_norm,
    "parametrizations.weight_norm": nn.utils.parametrizations.weight_norm,
}
as_described = True
for name, normalise in ways.items():
    torch.manual_seed(0)
    layer = normalise(nn.Conv1d(1, 64, 7))
    drawn = layer.weight.std().item()
    nn.init.trunc_normal_(layer.weight, std=0.02)
    after = layer.weight.std().item()
    layer(torch.zeros(1, 1, 9))
    called = layer.weight.std().item()
    print(f"{name}: {drawn:.3f} drawn, {after:.3f} after init, {called:.3f} after a call")
    as_described &= abs(called - drawn) < 1e-6 and drawn > 0.1
sys.exit(not as_described)
PY
venv/bin/python look.py
