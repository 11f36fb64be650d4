"""Distillation into an encoder's own layers: the four terms, who gets gradients, layers of any encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config

C = 5
OPTIONS = dict(
    kind="layer_distill",
    frontend=dict(kind="fbank", bins=16, frames=16),
    tokenizer=dict(kind="bins", norm=None),
    encoder=dict(kind="audio_ntt", width=6, channels=3, dropout=0.0),
    head=dict(kind="classify:Pooled", classes=C, pool=dict(kind="pools:TimeMaxMean")),
    shallow=dict(kind="projectors:BarlowTwins", out=C),
)
STACK = dict(
    tokenizer=dict(kind="patchify", width=8, patch=(8, 8), stride=(8, 8)),
    encoder=dict(
        kind="stack", width=8, depth=2, remat="none", positions=None,
        block=dict(kind="blocks:PreNorm", mixer=dict(kind="attention", heads=2), mlp=2.0),
    ),
    layers=(0, -1),
)  # fmt: skip


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    audio = jnp.asarray(rng.normal(0, 0.1, (4, 2800)), jnp.float32)
    return dict(
        audio=audio, length=jnp.full(4, 2800, jnp.int32), label=jnp.eye(C)[jnp.array([0, 1, 4, 1])]
    )


def start(objective, batch):
    """Return random parameters; compiling `init` would take seconds."""
    shapes, _ = jax.eval_shape(objective.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.01, 0.5, s.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def made(batch):
    objective = config.build(OPTIONS, "objectives")
    return objective, start(objective, batch)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def test_the_four_terms_are_their_definitions(made):
    objective, _ = made
    rng = np.random.default_rng(1)
    q, p = rng.standard_normal((3, C)), rng.standard_normal((2, 3, C))
    number = np.array([2, 0, 4])
    terms = objective.terms(jnp.asarray(q), [*jnp.asarray(p)], jnp.eye(C)[number])
    entropy = [-np.mean(np.log(softmax(x)[np.arange(3), number])) for x in (q, *p)]
    np.testing.assert_allclose(terms["entropy"], entropy[0], rtol=1e-5)
    np.testing.assert_allclose(terms["own"], entropy[1:], rtol=1e-5)
    for i in range(2):
        kl = np.mean(np.sum(softmax(q) * np.log(softmax(q) / softmax(p[i])), -1))
        np.testing.assert_allclose(terms["follow"][i], kl, rtol=1e-5)
        cos = np.sum(q * p[i], -1) / np.linalg.norm(q, axis=-1) / np.linalg.norm(p[i], axis=-1)
        np.testing.assert_allclose(terms["align"][i], np.mean(2 - 2 * cos), rtol=1e-5)
    weighted = sum(
        w * np.sum(terms[n])
        for w, n in ((1, "entropy"), (0.7, "own"), (0.3, "follow"), (0.003, "align"))
    )
    np.testing.assert_allclose(objective.total(terms), weighted, rtol=1e-6)


def test_a_pass_in_training_renews_statistics_and_all_parts_learn(made, batch):
    objective, params = made

    def total(params):
        loss = objective.loss(params, {}, batch, jax.random.key(1), train=True)
        return loss.total, loss.renewed

    grads, kept = jax.jit(jax.grad(total, has_aux=True))(params)
    still = [
        path
        for path, g in jax.tree_util.tree_leaves_with_path(grads)
        if not np.any(g) and path[-1].key not in ("mean", "var") and path[-1].key != "bias"
    ]
    assert not still, still
    assert set(kept) == {"encoder", "shallow"}
    assert set(kept["shallow"]) == {f"layer_{n}" for n in range(3)}


def test_the_last_classifier_is_pulled_towards_the_shallow_ones_too(made):
    """As released there is no stop of gradients: what follows the end moves the end."""
    objective, _ = made
    logits, *shallow = jnp.asarray(np.random.default_rng(2).standard_normal((3, 4, C)))

    def follow(q):
        terms = objective.terms(q, shallow, jnp.eye(C)[:4])
        return jnp.sum(terms["follow"]) + jnp.sum(terms["align"])

    assert np.abs(jax.grad(follow)(logits)).max() > 1e-2


def test_layers_of_a_stack_are_taught_too(batch):
    objective = config.build(OPTIONS | STACK, "objectives")
    params = start(objective, batch)
    assert set(params["shallow"]) == {"layer_0", "layer_-1"}

    @jax.jit
    def both(params):
        spec = objective.frontend(batch["audio"], batch["length"])
        layers = objective.encode(params, {}, batch).layers
        own = params["shallow"]["layer_-1"]
        want = objective.shallow.apply({"params": own}, jnp.mean(layers[1], axis=1))
        loss = objective.loss(params, {}, batch, jax.random.key(1), train=False)
        return objective.classified(params, spec)[1][1], want, loss.total

    found, want, total = both(params)
    np.testing.assert_allclose(found, want, rtol=1e-4)
    assert np.isfinite(total)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(layers=(0, 3)), "AudioNtt returns 3 layers"),
        (dict(layers=(1, 1)), "wanted different numbers"),
        (dict(shallow=dict(kind="projectors:BarlowTwins", out=4)), r"logits \(4, 4\), wanted \(4, 5\)"),
        (dict(encoder=dict(kind="cnn", channels=(4,), convolutions=1)), "Cnn returns 0 layers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, message, batch):
    with pytest.raises(ValueError, match=message):
        made = config.build(OPTIONS | changes, "objectives")
        jax.eval_shape(made.init, jax.random.key(0), batch)


def test_clips_that_may_have_no_label_are_refused(batch):
    objective = config.build(OPTIONS, "objectives")
    with pytest.raises(ValueError, match=r"unlabelled: got True, .* data.kind='beside'"):
        jax.eval_shape(objective.init, jax.random.key(0), batch | {"labelled": batch["length"]})
