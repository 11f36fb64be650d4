"""Losses of models of codes, noised latents and mixtures: what they are at known places; their steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

LM = dict(
    kind="token_lm",
    model=dict(kind="codes_lm", books=2, codes=8, width=16, depth=1, heads=2, hidden=16, given=3),
    pattern=dict(kind="patterns:Delay", books=2),
)
DIT = dict(kind="dit", width=64, depth=1, heads=2, waves=4)
SEPARATION = dict(
    kind="separation",
    spectrum=dict(kind="spectrum", rate=1000, size=32, hop=8),
    model=dict(kind="resunet", channels=(4, 4), norm=dict(kind="norms:BatchNorm", momentum=0.01)),
)


def batch(name):
    """Return four examples of what an objective needs."""
    draw = np.random.default_rng(0).normal
    condition = jnp.asarray(draw(size=(4, 3, 32)), jnp.float32)
    rest = dict(condition=condition, condition_length=jnp.asarray([3, 2, 0, 3], jnp.int32))
    latents = jnp.asarray(draw(size=(4, 6, 5)), jnp.float32)
    found = {
        "token_lm": dict(
            codes=jnp.asarray(np.arange(40).reshape(4, 5, 2) % 8, jnp.int32),
            **rest | dict(condition=condition[..., :3]),
        ),
        "diffusion": dict(latents=latents, **rest),
        "preference": dict(latents=latents, rejected=latents[::-1], **rest),
        "separation": dict(
            audio=jnp.asarray(0.1 * draw(size=(4, 200)), jnp.float32), condition=jnp.eye(4)
        ),
    }
    return found[name]


MADE = {
    "token_lm": LM,
    "diffusion": dict(kind="diffusion", model=DIT),
    "preference": dict(kind="preference", model=DIT, beta=5.0),
    "separation": SEPARATION,
}


@pytest.mark.parametrize("name", MADE)
def test_steps_are_finite_and_learn(name):
    objective, given = config.build(MADE[name], "objectives"), batch(name)
    txs = Optim(lr=3e-3).make(objective.phases, 20)
    state = init_state(objective, txs, jax.random.key(0), given)
    first = state
    step, losses = jax.jit(make_train_step(objective, txs)), []
    for _ in range(12):
        state, report = step(state, given)
        assert float(report["finite"][0]) == 1
        losses.append(float(report["loss"][0]))
    assert len(set(losses)) > 1
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(*(jax.tree.leaves(s.params) for s in (first, state)), strict=True)
    ]
    assert np.mean(moved) > 0.8
    if name == "token_lm":
        assert losses[-1] < losses[0] - 0.1
    if name == "preference":  # the frozen copy is what the model was, and stays so
        assert losses[0] == pytest.approx(np.log(2), rel=1e-6)
        frozen = jax.tree.map(np.array_equal, state.extra["reference"], first.params)
        assert all(jax.tree.leaves(frozen))
    if name == "separation":
        norm = [s.params["model"]["bins_norm"]["var"] for s in (first, state)]
        assert not np.array_equal(*norm)


def test_codes_count_as_the_pattern_scores_them():
    objective, given = config.build(LM, "objectives"), batch("token_lm")
    even = jnp.zeros((4, 6, 2, 8))
    entropy, there = objective.scored(even, given["codes"])
    np.testing.assert_allclose(entropy[there], np.log(8), rtol=1e-6)
    # The second book is one step late: its last code lies beyond what is trained.
    assert there.sum((0, 1)).tolist() == [20, 16]


def test_nobody_hears_a_condition_of_length_0():
    objective, given = config.build(LM, "objectives"), batch("token_lm")
    params, extra = objective.init(jax.random.key(0), given)
    other = given | dict(condition=given["condition"].at[2].add(7.0))
    a, b = (objective.logits(params, extra, some) for some in (given, other))
    np.testing.assert_array_equal(a[2], b[2])
    changed = given | dict(condition=given["condition"].at[0].add(7.0))
    assert not np.array_equal(a[0], objective.logits(params, extra, changed)[0])
