"""Batch normalisation with running statistics: in a module, over several passes, in a step, in a run."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config, losses
from ssl_audio.layers.lora import Lora
from ssl_audio.layers.norms import BatchNorm
from ssl_audio.objectives import statistics
from ssl_audio.objectives.adapted import Adapted
from ssl_audio.objectives.base import collects_statistics
from ssl_audio.structs import Loss
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

ENCODER = dict(kind="cnn", channels=(4, 8), convolutions=1, norm=dict(kind="norms:BatchNorm"))
TAGGING = dict(
    kind="tagging",
    frontend=dict(kind="fbank", bins=16, frames=32),
    tokenizer=dict(kind="bins"),
    encoder=ENCODER,
    head=dict(kind="classify:Classifier", classes=3),
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Two(nn.Module):
    """Two norms, one in a child."""

    @nn.compact
    def __call__(self, x):
        """Normalise twice."""
        return BatchNorm(name="second")(2 * BatchNorm(momentum=0.25, name="first")(x) + 1)


def test_a_training_pass_normalises_with_the_batch_and_an_evaluation_with_what_was_kept(rng):
    x = jnp.asarray(3 * rng.standard_normal((6, 5, 4)) + 2, jnp.float32)
    module = BatchNorm()
    params = module.init(jax.random.key(0), x)["params"]
    assert not params["mean"].any() and (params["var"] == 1).all()
    out, after = statistics.applied(module, params, x, renew=True)
    flat = np.asarray(x).reshape(-1, 4)
    want = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(out, want.reshape(x.shape), atol=1e-5)
    np.testing.assert_allclose(after["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(after["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
    out, same = statistics.applied(module, after, x, renew=False)
    want = (np.asarray(x) - np.asarray(after["mean"])) / np.sqrt(after["var"] + 1e-5)
    np.testing.assert_allclose(out, want, atol=1e-5)
    assert same is after


def test_passes_renew_in_turn_and_only_statistics(rng):
    first, second = jnp.asarray(rng.standard_normal((2, 8, 4)), jnp.float32)
    module = Two()
    params = module.init(jax.random.key(0), first)["params"]
    _, once = statistics.applied(module, params, first, renew=True)
    _, twice = statistics.applied(module, once, second, renew=True)
    running = 0.75 * (0.25 * first.mean(0)) + 0.25 * second.mean(0)
    np.testing.assert_allclose(twice["first"]["mean"], running, atol=1e-6)
    found = statistics.renewed({"encoder": params}, {"encoder": twice})
    assert jax.tree.structure(found) == jax.tree.structure(
        {"encoder": {name: {"mean": 0, "var": 0} for name in ("first", "second")}}
    )
    assert statistics.renewed(params, params) is None


def test_gradients_reach_scale_and_bias_and_no_statistic(rng):
    x = jnp.asarray(rng.standard_normal((8, 4)), jnp.float32)
    module = BatchNorm()
    params = module.init(jax.random.key(0), x)["params"]

    def loss(params):
        out, after = statistics.applied(module, params, x, renew=True)
        return jnp.sum(out * x) + jnp.sum(after["var"])

    grads = jax.grad(loss)(params)
    assert not grads["mean"].any() and not grads["var"].any()
    assert grads["scale"].all() and jnp.isfinite(grads["bias"]).all()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_puts_them_into_the_parameters(rng, parts):
    objective = config.build(TAGGING, "objectives")
    batch = {
        "audio": jnp.asarray(rng.standard_normal((8, 6000)), jnp.float32),
        "length": jnp.full(8, 6000),
        "label": jnp.eye(3)[jnp.arange(8) % 3],
    }
    txs = Optim(lr=1e-3, weight_decay=0.1).make(objective.phases, 10, 1)
    state = init_state(objective, txs, jax.random.key(0), batch)
    after, _ = jax.jit(make_train_step(objective, txs, accumulate=parts))(state, batch)
    for norm in ("block0_conv0_norm", "block1_conv0_norm"):
        old, new = (s.params["encoder"][norm] for s in (state, after))
        assert not old["mean"].any() and new["mean"].any() and (new["var"] != 1).all()
    # Those of the first norm, by hand: it sees the first convolution of the initial parameters.
    tokens = objective.tokenizer.apply(
        {"params": state.params["tokenizer"]}, objective.frontend(batch["audio"], batch["length"])
    )
    image = tokens.x.reshape(8, *tokens.grid, 1)
    seen = nn.Conv(4, (3, 3), use_bias=False).apply(
        {"params": state.params["encoder"]["block0_conv0"]}, image
    )
    new = after.params["encoder"]["block0_conv0_norm"]["mean"]
    np.testing.assert_allclose(new, 0.1 * seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    # What is trained with them is evaluated with them, alone as in a batch.
    logits = objective.logits(after.params, after.extra, batch)
    alone = objective.logits(after.params, after.extra, {k: v[:1] for k, v in batch.items()})
    np.testing.assert_allclose(alone[0], logits[0], atol=1e-5)


def test_an_objective_that_leaves_statistics_as_they_were_is_refused_and_a_teacher_is_not():
    parts = {k: TAGGING[k] for k in ("frontend", "tokenizer", "encoder")}
    features = config.build(dict(kind="features", **parts), "objectives")
    assert collects_statistics(features)

    class Still(type(features)):
        """Learns something, and renews nothing."""

        def loss(self, params, extra, batch, key, *, train):  # noqa: D102
            return Loss(jnp.mean(self.encode(params, extra, batch).tokens.x), {}, extra)

    still = Still(**vars(features))
    batch = {"audio": jnp.zeros((2, 6000)), "length": jnp.full(2, 6000)}
    txs = Optim(lr=1e-3).make(still.phases, 10, 1)
    state = init_state(still, txs, jax.random.key(0), batch)
    with pytest.raises(ValueError, match="Still does not renew running statistics"):
        make_train_step(still, txs)(state, batch)
    quantizer = dict(kind="multi_codebook", books=1, codes=4, width=8)
    codes = dict(kind="fit_codes", teacher=dict(kind="features", **parts), quantizer=quantizer)
    assert not collects_statistics(config.build(codes, "objectives"))


@pytest.mark.parametrize("how", ["adapt", "rates"])
def test_those_of_what_is_frozen_are_used_and_stay(rng, how):
    bins = dict(kind="bins", norm=dict(kind="norms:BatchNorm"))
    objective: Any = config.build(TAGGING | dict(tokenizer=bins), "objectives")
    optim = Optim(lr=0.1, rates={"^encoder/": 0.0} if how == "rates" else {})
    if how == "adapt":
        objective = Adapted(objective, Lora(rank=0, freeze="^encoder/"))
    batch = {
        "audio": jnp.asarray(rng.standard_normal((8, 6000)), jnp.float32),
        "length": jnp.full(8, 6000),
        "label": jnp.eye(3)[jnp.arange(8) % 3],
    }
    txs = optim.make(objective.phases, 10, 1)
    state = init_state(objective, txs, jax.random.key(0), batch)
    params = dict(state.params)
    params["encoder"] = jax.tree.map(lambda x: x + 0.25, params["encoder"])
    state = state.replace(params=params)
    step = jax.jit(make_train_step(objective, txs, learns=optim.learns))
    after, metrics = step(state, batch)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state.params, after.params)
    assert all(jax.tree.leaves(same["encoder"]))
    assert not any(jax.tree.leaves(same["tokenizer"]))  # of what learns they move
    # The encoder makes of tokens in training what it makes of them in evaluation.
    spec = objective.frontend(batch["audio"], batch["length"])
    tokens, _ = statistics.applied(objective.tokenizer, params["tokenizer"], spec, renew=True)
    encoded: Any = objective.encoder.apply({"params": params["encoder"]}, tokens, layers=True)
    logits = objective.head.apply({"params": params["head"]}, encoded)
    wanted = jnp.mean(losses.softmax_cross_entropy(logits, batch["label"]))
    np.testing.assert_allclose(metrics["loss"][0], wanted, rtol=1e-5)
