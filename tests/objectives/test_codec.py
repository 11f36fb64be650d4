"""Training a codec: codebooks that follow what they stand for, balanced gradients, two phases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.objectives.reconstruction import balanced
from ssl_audio.quantizers import residual
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

TINY = dict(channels=4, strides=(4, 2), kernel=3, last_kernel=3, recurrent=1)
CODEC = dict(
    kind="codec",
    frontend=dict(kind="raw", rate=1000, standardise=False),
    tokenizer=dict(kind="seanet", width=6, **TINY | dict(strides=(2, 4))),
    encoder=dict(kind="identity"),
    quantizer=dict(kind="residual", books=2, codes=8, width=6),
    decoder=dict(kind="seanet", **TINY),
    spectra=[dict(kind="mel", rate=1000, bins=8, hop=16, window=64, low=0.0, high=0.0)],
    discriminator=dict(kind="discriminators:Spectra", windows=(32, 64), channels=4),
)


@pytest.fixture(scope="module")
def trained():
    objective = config.build(CODEC, "objectives")
    sound = jnp.sin(jnp.arange(4 * 400).reshape(4, 400) * (0.1 + 0.02 * jnp.arange(4)[:, None]))
    batch = {"audio": 0.5 * sound, "length": jnp.full(4, 400, jnp.int32)}
    txs = Optim(lr=1e-3).make(objective.phases, 10)
    states = [init_state(objective, txs, jax.random.key(0), batch)]
    step, reports = jax.jit(make_train_step(objective, txs)), []
    for _ in range(4):
        state, report = step(states[-1], batch)
        states.append(state)
        reports.append(report)
    return objective, batch, states, reports


def test_each_phase_learns_its_own_part_and_codebooks_no_gradient(trained):
    objective, _, states, reports = trained
    assert [phase.name for phase in objective.phases] == ["discriminator", "main"]
    assert {"loss", "wave", "mel", "discriminator/loss", "discriminator/fake"} <= reports[0].keys()
    for report in reports:
        assert float(report["finite"][0]) == 1
    for name in ("tokenizer", "decoder", "discriminator", "quantizer"):
        before, after = (jax.tree.leaves(state.params[name]) for state in states[:2])
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)), name
    state = states[-1]
    moving = state.extra["total"] / jnp.maximum(state.extra["count"], 1e-9)[..., None]
    np.testing.assert_allclose(state.params["quantizer"]["book"], moving, rtol=1e-2, atol=1e-4)


def test_the_first_batch_gives_the_codebooks_their_begin(trained):
    objective, batch, states, _ = trained
    vectors = objective.encode(states[0].params, {}, batch).tokens.x.reshape(-1, 6)
    book = np.asarray(states[1].params["quantizer"]["book"])
    codes = residual.encode(vectors, jnp.asarray(book))
    left = jnp.mean((vectors - residual.decode(codes, jnp.asarray(book))) ** 2)
    assert left < 0.5 * jnp.mean((vectors - jnp.mean(vectors, 0)[None]) ** 2)
    assert bool(states[1].extra["started"]) and not bool(states[0].extra["started"])


def test_without_training_nothing_moves(trained):
    objective, batch, states, _ = trained
    state = states[-1]
    found = objective.loss(state.params, state.extra, batch, jax.random.key(1), train=False)
    assert found.renewed is None and found.extra is state.extra


def test_entries_that_stand_for_little_are_replaced_and_stay_so():
    x = jax.random.normal(jax.random.key(0), (40, 3))
    books = jnp.stack([jnp.concatenate([x[:7], jnp.full((1, 3), 1e3)])])
    codes, left = residual.stages(x, books)
    count, total = jnp.full((1, 8), 5.0), 5.0 * books
    count = count.at[0, 7].set(1.0)
    book, count, total = residual.moved(jax.random.key(1), left, codes, count, total)
    near = jnp.min(jnp.sum((book[0, 7][None] - x) ** 2, -1))
    assert near < 1e-4 and float(count[0, 7]) == 2.0
    again, _, _ = residual.moved(jax.random.key(2), left, residual.encode(x, book), count, total)
    assert jnp.max(jnp.abs(again)) < 10
    np.testing.assert_allclose(
        residual.decode(codes, books) + left[-1] - books[0][codes[:, 0]], x, atol=1e-5
    )


def test_gradients_are_balanced_at_the_sound():
    sound = jax.random.normal(jax.random.key(0), (3, 20, 1))
    losses = {"a": lambda s: 1e4 * jnp.mean(s**2), "b": lambda s: jnp.mean(jnp.abs(s - 1))}
    norms = {name: jnp.zeros(2) for name in losses}
    weights = {"a": 1.0, "b": 3.0}

    def total(sound):
        return balanced(losses, weights, norms, sound, 0.9)[0]

    value, slope = jax.value_and_grad(total)(sound)
    parts = {name: jax.grad(loss)(sound) for name, loss in losses.items()}
    unit = {n: g / jnp.mean(jnp.sqrt(jnp.sum(g**2, (1, 2)))) for n, g in parts.items()}
    np.testing.assert_allclose(slope, 0.25 * unit["a"] + 0.75 * unit["b"], rtol=1e-4, atol=1e-6)
    wanted = 0.25 * losses["a"](sound) + 0.75 * losses["b"](sound)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    _, after, metrics = balanced(losses, weights, norms, sound, 0.9)
    assert float(after["a"][1]) == 1 and metrics["b"][1] == 3
