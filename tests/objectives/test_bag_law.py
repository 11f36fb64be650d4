"""The law of Verma 2021 on the computation itself: no convolution, no recurrence, no attention."""

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.heads.probes import Mlp
from ssl_audio.objectives.bag_of_codes import BagOfCodes
from ssl_audio.objectives.probe import Probe, encoded

NAMES = {
    "conv_general_dilated": "convolution", "scan": "recurrence", "while": "recurrence",
    "cumsum": "recurrence", "cumprod": "recurrence", "cummax": "recurrence", "cumlogsumexp": "recurrence",
}  # fmt: skip


def law(jaxpr, tainted):
    """Return what a computation does that is forbidden, and which of its results hang on the input.

    Attention is a matrix product of which both sides hang on the input: in all else one side is learned.
    """
    found, taint = set(), {v for v, t in zip(jaxpr.invars, tainted, strict=True) if t}

    def hangs(v):
        return not hasattr(v, "val") and v in taint

    for eqn in jaxpr.eqns:
        into = [hangs(v) for v in eqn.invars]
        if not any(into):
            continue
        if eqn.primitive.name in NAMES:
            found.add(NAMES[eqn.primitive.name])
        if eqn.primitive.name == "dot_general" and all(into):
            found.add("attention")
        inner = [
            getattr(v, "jaxpr", v)
            for v in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr)
        ]
        inner = [v for v in inner if is_jaxpr(v)]
        for one in inner:
            same = len(one.invars) == len(into) and eqn.primitive.name not in ("scan", "while")
            found |= law(one, into if same else [True] * len(one.invars))
        taint.update(eqn.outvars)
    return found


def is_jaxpr(v):
    return hasattr(v, "eqns") or hasattr(v, "jaxpr")


def broken(function, params, *given):
    """Return what a function of parameters and input does that is forbidden."""
    closed = jax.make_jaxpr(function)(params, *given)
    count = len(jax.tree.leaves(params))
    return law(closed.jaxpr, [i >= count for i in range(len(closed.jaxpr.invars))])


BATCH = {
    "audio": jax.ShapeDtypeStruct((2, 32_000), jnp.float32),
    "length": jax.ShapeDtypeStruct((2,), jnp.int32),
}


@pytest.mark.parametrize("bigrams", [0, 1024])
def test_from_waveform_to_logits_without_convolution_recurrence_or_attention(bigrams):
    probe = Probe(BagOfCodes(bigrams=bigrams), Mlp(50))
    params = jax.eval_shape(probe.init, jax.random.key(0), BATCH)[0]
    assert broken(lambda p, batch: probe.logits(p, {}, batch), params, BATCH) == set()
    assert probe.base.width == 512 + 512 + 256 + 512 + bigrams


def test_the_law_sees_what_it_forbids():
    for mixer, what in (("attention", "attention"), ("mamba", "recurrence")):
        objective = encoders.encoder(mixer=mixer).objective
        params = jax.eval_shape(objective.init, jax.random.key(0), BATCH)[0]
        assert what in broken(lambda p, b, o=objective: o.encode(p, {}, b), params, BATCH)
    kernel, x = jnp.ones((3, 1, 1)), jnp.ones((1, 8, 1))
    assert broken(lambda k, x: jnp.convolve(x[0, :, 0], k[:, 0, 0]), kernel, x) == {"convolution"}
    assert broken(lambda w, x: jax.nn.softmax(x @ w), jnp.ones((4, 4)), jnp.ones((2, 4))) == set()
    assert broken(lambda w, x: jax.nn.softmax(x @ x.T) @ w, jnp.ones((2, 4)), jnp.ones((2, 4))) == {
        "attention"
    }


def test_dropout_is_for_training():
    head = Mlp(5, hidden=(64,))
    x = encoded(jnp.asarray(np.random.default_rng(0).normal(size=(3, 7)), jnp.float32), "pooled")
    params = head.init(jax.random.key(0), x)
    still = head.apply(params, x)
    assert np.array_equal(still, head.apply(params, x))
    moved = [head.apply(params, x, rngs={"dropout": jax.random.key(i)}) for i in (0, 1)]
    assert not np.allclose(moved[0], moved[1]) and not np.allclose(moved[0], still)
