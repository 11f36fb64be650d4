"""Muon: a layer of a stack is updated as if it stood alone; the rest is Adam's; it learns, and resumes."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from published import load
from reference import ROOT
from test_train import options as run_options
from test_train import records, same_parameters

from ssl_audio import config
from ssl_audio.objectives.base import Phase
from ssl_audio.presets import runs
from ssl_audio.train import preview
from ssl_audio.train.loop import train
from ssl_audio.train.muon import Muon
from ssl_audio.train.optim import Optim
from ssl_audio.train.run import Run

SHAPES = {
    "tokenizer": {"kernel": (6, 4)},
    "encoder": {
        "layers": {
            "up": {"kernel": (3, 4, 8), "bias": (3, 8)},
            "in_proj": (3, 8, 4),
            "conv_kernel": (3, 2, 8),
            "taps": {"kernel": (3, 2, 1, 8)},
        }
    },
    "head": {"kernel": (4, 5)},
}
MATRICES = ("encoder/layers/up/kernel", "encoder/layers/in_proj")


def arrays(seed):
    g = np.random.default_rng(seed)
    shapes, tree = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    return tree.unflatten([jnp.asarray(g.standard_normal(s), jnp.float32) for s in shapes])


def named(tree):
    return {
        "/".join(k.key for k in path): np.asarray(x, np.float64)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def after(optim, steps=4):
    tx = optim.make((Phase(),), 100, None)["main"]
    params = arrays(0)
    state = tx.init(params)
    for number in range(steps):
        updates, state = tx.update(arrays(number + 1), state, params, value=1.0)
        params = optax.apply_updates(params, updates)
    return named(params)


def orthogonal(m, iterations):
    """Return a matrix with singular values near 1: the quintic iteration of the published code."""
    a, b, c = 3.4445, -4.7750, 2.0315
    turned = m.shape[0] > m.shape[1]
    x = (m.T if turned else m) / (np.linalg.norm(m) + 1e-8)
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if turned else x


def by_hand(optim, name, layer=None, steps=4, rate=1.0):
    """Return one matrix after some steps, from the definition."""
    pick = (lambda x: x) if layer is None else (lambda x: x[layer])
    p, beta = pick(named(arrays(0))[name]), optim.momentum
    m = np.zeros_like(p)
    for number in range(steps):
        g = pick(named(arrays(number + 1))[name])
        m = beta * m + (1 - beta) * g
        ahead = beta * m / (1 - beta ** (number + 2)) + (1 - beta) * g / (1 - beta ** (number + 1))
        update = 0.2 * max(p.shape) ** 0.5 * orthogonal(ahead, optim.iterations)
        p = p - rate * optim.lr * (update + optim.weight_decay * p)
    return p


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_each_layer_s_matrix_is_one_of_its_own(layer_decay):
    optim = Muon(lr=0.02, weight_decay=0.1, layer_decay=layer_decay)
    found = after(optim)
    for name in MATRICES:
        for layer in range(3):
            wanted = by_hand(optim, name, layer, rate=layer_decay ** (3 - layer))
            np.testing.assert_allclose(found[name][layer], wanted, atol=2e-5)


def test_updates_are_about_as_large_as_adam_s():
    before, found = named(arrays(0)), after(Muon(lr=1.0), steps=1)
    for name in MATRICES:
        size = np.sqrt(np.mean((found[name] - before[name]) ** 2))
        assert 0.13 < size < 0.25, (name, size)


def test_all_else_is_adam_s():
    muon, adam = (after(kind(lr=0.02, weight_decay=0.1, clip=1.0)) for kind in (Muon, Optim))
    for name, value in muon.items():
        if name in MATRICES:
            assert np.abs(value - adam[name]).max() > 1e-3
        else:
            np.testing.assert_array_equal(value, adam[name])


def test_what_makes_no_sense_is_refused():
    for wrong, field in ((dict(momentum=1.0), "momentum"), (dict(iterations=0), "iterations"),
                         (dict(coupled=True), "coupled"), (dict(lr=-1.0), "lr")):  # fmt: skip
        with pytest.raises(ValueError, match=field):
            Muon(**{"lr": 1.0, **wrong})
    with pytest.raises(ValueError, match="'nothing' matches no matrix"):
        after(Muon(lr=1.0, matrices="nothing"))


def test_a_config_names_it():
    made = config.plain(load(ROOT / "configs/ssast.py", "runlocal"))
    made["optim"] |= {"kind": "muon", "coupled": False}
    assert type(config.make(Run, made).optim) is Muon
    assert runs._kind(Muon(lr=1.0)) == {"kind": "muon:Muon"} and runs._kind(Optim(lr=1.0)) == {}


@pytest.mark.multi
def test_its_momentum_is_spread_as_the_parameters_are():
    made = config.plain(load(ROOT / "configs/ssast.py", "runlocal"))
    made["optim"] |= {"kind": "muon", "coupled": False}
    made["sharding"] |= {"data": 1, "fsdp": 8, "max_replicated": 0.5}
    spread = preview.preview(made, compiled=False)
    made["sharding"] |= {"fsdp": 1}
    whole = preview.preview(made, compiled=False)
    assert spread.state_bytes < whole.state_bytes / 4


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once", "no_pictures")
def test_a_run_with_it_learns_and_goes_on_with_the_same_bits(tmp_path):
    made = run_options(steps=20, checkpoint={"every": 10}, record__every=5)
    made["optim"] |= {
        "kind": "muon",
        "coupled": False,
        "lr": 2e-3,
        "weight_decay": 0.01,
        "schedule": "cosine",
    }
    train(made, tmp_path / "whole")
    losses = [line["loss"] for line in records(tmp_path / "whole")]
    assert sum(losses[-2:]) / 2 < 0.95 * losses[0], losses
    # As if killed before the last checkpoint was whole.
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoints/20")
    train(made, tmp_path / "again")
    assert records(tmp_path / "again") == records(tmp_path / "whole")
    same_parameters(tmp_path / "whole", tmp_path / "again")
