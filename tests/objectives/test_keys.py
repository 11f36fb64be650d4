"""Keys of random numbers: what is drawn for different purposes is independent."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives.test_latent_diffusion import DIFFUSION, batch, made
from reference import ROOT


def twice(text):
    """Return the functions that both split a key and fold a number into it, with the key's name."""
    found = []
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        used = {"split": set(), "fold_in": set()}
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
                if ast.unparse(call.func.value).endswith("random") and call.func.attr in used:
                    used[call.func.attr].add(ast.unparse(call.args[0]))
        found += [(function.name, key) for key in sorted(used["split"] & used["fold_in"])]
    return found


def test_no_key_is_split_and_folded_into():
    # split(key, n)[i] is fold_in(key, i): both would draw the same numbers.
    key = jax.random.key(3)
    split, folded = jax.random.split(key, 3)[1], jax.random.fold_in(key, 1)
    assert (jax.random.key_data(split) == jax.random.key_data(folded)).all()
    body = "    a, b = jax.random.split(key)\n    c = jax.random.fold_in({}, 1)\n"
    assert twice("def f(key):\n" + body.format("key")) == [("f", "key")]
    assert not twice("def f(key):\n" + body.format("a"))
    files = sorted((ROOT / "ssl_audio").rglob("*.py"))
    found = {path.name: which for path in files if (which := twice(path.read_text()))}
    assert not found, found


@pytest.mark.parametrize("kind", ["diffusion", "preference"])
def test_noise_is_not_that_of_the_latents(monkeypatch, kind):
    objective = made(DIFFUSION | {"kind": kind})
    given = batch()
    shapes = jax.eval_shape(objective.init, jax.random.key(0), given)  # what they are plays no part
    params, extra = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    seen = []

    def broad(self, extra, audio, length=None):
        shape = len(audio), 10, params["latents"]["mean"].shape[-1]
        return jnp.zeros(shape), jnp.ones(shape)

    def heard(self, params, x, noise, *rest):
        seen.append((np.asarray(x).ravel(), np.asarray(noise).ravel()))
        return jnp.zeros(len(x))

    monkeypatch.setattr(type(objective), "_coded", broad)
    monkeypatch.setattr(type(objective), "errors", heard)
    objective.loss(params, extra, given, jax.random.key(5), train=False)
    assert seen and all(abs(np.corrcoef(x, noise)[0, 1]) < 0.1 for x, noise in seen)
