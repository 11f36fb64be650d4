"""Contrastive and siamese objectives: what couples examples, what gets gradients, what is equal."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssl_audio import losses
from ssl_audio.distributed.sharding import Sharding
from ssl_audio.frontend.fbank import Fbank
from ssl_audio.heads.pools import Mean
from ssl_audio.heads.projectors import Byol, Laion
from ssl_audio.objectives.contrastive import Contrastive, Reversal
from ssl_audio.objectives.siamese import Siamese
from ssl_audio.objectives.towers import Tower
from ssl_audio.structs import Encoded
from ssl_audio.tokens.patchify import Patchify
from ssl_audio.tokens.words import Words

BATCH, SAMPLES, WORDS = 8, 4000, 6


class Same(nn.Module):
    """An encoder without layers: quick to compile."""

    def __call__(self, tokens, *, train=False, layers=False):
        return Encoded(tokens=tokens)


class Attending(nn.Module):
    """Every token becomes the mean of the valid ones, by a masked softmax."""

    def __call__(self, tokens, *, train=False, layers=False):
        shares = jax.nn.softmax(jnp.where(tokens.valid, 0.0, -jnp.inf))
        mean = jnp.einsum("bn,bnd->bd", shares, tokens.x)
        return Encoded(tokens=tokens.replace(x=tokens.x + mean[:, None]))


def towers():
    frontend = Fbank(bins=8, hop=320, window=640, low=50.0)
    patches = Patchify(8, (8, 2), (8, 2))
    return {
        "audio": Tower(patches, Same(), Mean(), Laion(8), frontend),
        "text": Tower(Words(8, 64, WORDS), Same(), Mean(), Laion(8), length="text_length"),
    }


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    text = rng.integers(2, 60, (BATCH, WORDS)).astype(np.int32)
    return {
        "audio": jnp.asarray(rng.normal(0, 0.1, (BATCH, SAMPLES)), jnp.float32),
        "length": jnp.asarray([SAMPLES] * 6 + [3000, 2500], jnp.int32),
        "text": jnp.asarray(text),
        "text_length": jnp.asarray([6, 5, 6, 2, 6, 6, 1, 3], jnp.int32),
    }


def program(objective):
    """Return the jitted (params, extra, batch) → (loss, gradients, metrics)."""

    def total(params, extra, batch):
        loss = objective.loss(params, extra, batch, jax.random.key(1), train=False)
        return loss.total, loss.metrics

    def run(params, extra, batch):
        (value, metrics), grads = jax.value_and_grad(total, has_aux=True)(params, extra, batch)
        return value, grads, metrics

    return jax.jit(run)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def close(got, want, limit):
    assert np.linalg.norm(flat(got) - flat(want)) < limit * np.linalg.norm(flat(want))


@pytest.fixture(scope="module")
def contrastive(batch):
    objective = Contrastive(towers())
    params, extra = jax.jit(objective.init)(jax.random.key(0), batch)
    return objective, params, extra, program(objective)(params, extra, batch)


@pytest.fixture(scope="module")
def siamese(batch):
    objective = Siamese(towers(), Byol(8, 16))
    params, extra = jax.jit(objective.init)(jax.random.key(0), batch)
    run = program(objective)
    return objective, params, extra, run, run(params, extra, batch)


@pytest.mark.multi
def test_loss_and_gradients_do_not_depend_on_the_devices(contrastive, batch):
    objective, params, extra, (want, grads, _) = contrastive
    for devices in (4, 8):
        mesh = Sharding(data=devices).mesh()
        layout = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
        with jax.set_mesh(mesh):
            split = jax.device_put(batch, layout)
            got, found, _ = program(objective)(params, extra, split)
        assert float(got) == pytest.approx(float(want), rel=1e-6)
        close(found, grads, 2e-6)


def test_a_gradient_reaches_both_towers_and_the_scale(contrastive):
    _, _, _, (_, grads, metrics) = contrastive
    for name in ("audio", "text", "logit_scale"):
        assert np.abs(flat(grads[name])).max() > 0, name
    assert metrics["audio_to_text"][1] == BATCH


def test_examples_are_coupled_in_one_and_not_in_the_other(contrastive, siamese, batch):
    """Mean gradients of parts of a batch are the whole's without negatives only."""
    objective, params, extra, run, (value, grads, _) = siamese
    halves = [{k: v[i::2] for k, v in batch.items()} for i in (0, 1)]
    parts = [run(params, extra, half) for half in halves]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, parts[0][1], parts[1][1])
    close(mean, grads, 2e-6)
    assert float(parts[0][0] + parts[1][0]) / 2 == pytest.approx(float(value), rel=1e-6)
    assert not objective.couples_examples
    assert contrastive[0].couples_examples


def test_targets_get_no_gradient_and_follow(siamese, batch):
    objective, params, extra, _, _ = siamese

    @jax.jit
    @jax.grad
    def towards(target):
        return objective.loss(
            params, {"target": target}, batch, jax.random.key(0), train=False
        ).total

    assert not flat(towards(extra["target"])).any()
    moved = jax.tree.map(lambda x: x + 1, {n: params[n] for n in ("audio", "text")})
    state, new = extra, params | moved
    for step in range(3):
        state = objective.refresh(new, state, step)
    want = jax.tree.map(lambda old, x: 0.95**3 * old + (1 - 0.95**3) * x, extra["target"], moved)
    close(state["target"], want, 1e-6)


def test_a_collapse_shows_in_the_metrics(siamese):
    objective = siamese[0]
    rng = np.random.default_rng(0)
    random, same = jnp.asarray(rng.normal(size=(64, 16)), jnp.float32), jnp.ones((64, 16))
    healthy = objective.loss_of(*[{"audio": random, "text": random}] * 2, {}).metrics["spread"]
    collapsed = objective.loss_of(*[{"audio": same, "text": random}] * 2, {}).metrics["spread"]
    assert healthy[0] / healthy[1] > 0.9 and collapsed[0] / collapsed[1] < 0.1


def test_siamese_rows_count_by_weight_and_negatives_are_refused(siamese, batch):
    objective, params, extra, run, _ = siamese
    weight = jnp.asarray([2.0, 0, 0, 0, 0, 0, 0, 1])
    alone = [
        float(run(params, extra, jax.tree.map(lambda x, i=i: x[i : i + 1], batch))[0])
        for i in (0, 7)
    ]
    weighted = run(params, extra, batch | {"weight": weight})[0]
    np.testing.assert_allclose(weighted, (2 * alone[0] + alone[1]) / 3, rtol=1e-5)
    with pytest.raises(ValueError, match="text_negative.*data.entries.text.negatives = 0"):
        objective.loss(params, extra, batch | {"text_negative": 0}, jax.random.key(0), train=False)


def test_the_scale_stays_in_its_bounds_and_comes_back():
    step = jax.jit(lambda x: x - 100.0 * jax.grad(lambda y: losses.bounded(y, 0.0, 2.0) * sign)(x))
    sign = -1.0
    beyond = step(jnp.float32(1.0))
    assert beyond == 101 and losses.bounded(beyond, 0.0, 2.0) == 2
    outward, inward = (
        jax.grad(lambda y, s=s: s * losses.bounded(y, 0.0, 2.0))(beyond) for s in (-1, 1)
    )
    assert outward == 0 and inward == 1


def test_positives_and_reversals():
    z = {"audio": jnp.eye(4), "text": jnp.eye(4)}
    scale = jnp.zeros((1, 1))
    texts = {"text": jnp.asarray([[1, 2], [1, 2], [3, 0], [4, 0]])}
    alone = Contrastive(towers()).loss_of(scale, z, texts, {})
    merged = Contrastive(towers(), positives="texts").loss_of(scale, z, texts, {})
    assert merged.metrics["audio_to_text"][0] == 4 and merged.total > alone.total
    tact = Contrastive(towers(), reversal=Reversal(same=0.0, cross=0.0))
    without = tact.loss_of(scale, z, texts, {})
    half = {name: x[:2, :2] for name, x in z.items()}
    assert float(without.total) == pytest.approx(
        float(Contrastive(towers()).loss_of(scale, half, texts, {}).total), rel=1e-5
    )


def test_weights_and_further_negatives(contrastive, batch):
    made, params, extra, _ = contrastive
    text = dataclasses.replace(made.towers["text"], encoder=Attending())
    objective = dataclasses.replace(made, towers=made.towers | {"text": text})
    run, weight = program(objective), jnp.asarray([2.0, 0, 1, 1, 1, 1, 1, 1])
    value, _, metrics = run(params, extra, batch | {"weight": weight})
    z = jax.jit(objective.embeddings)(params, batch)
    far = {
        "text_negative": jnp.stack([batch["text"][::-1], batch["text"]], axis=1),
        "text_length_negative": jnp.asarray([[6, 0], *[[0, 0]] * 7], jnp.int32),
    }
    with_far, grads, _ = run(params, extra, batch | far | {"weight": weight})
    scale = 1 / 0.07
    scores = scale * np.asarray(z["audio"]) @ np.asarray(z["text"]).T
    turned = {
        "text": far["text_negative"][:1, 0],
        "text_length": far["text_length_negative"][0, :1],
    }
    apart = np.asarray(losses.unit(objective.towers["text"](params["text"], turned, "text")))
    column = scale * np.asarray(z["audio"]) @ apart.T

    def nce(logits):
        return np.log(np.exp(logits).sum(1)) - np.diagonal(logits)

    w = np.asarray(weight) / weight.sum()
    back = (w * nce(scores.T)).sum()
    np.testing.assert_allclose(value, ((w * nce(scores)).sum() + back) / 2, rtol=1e-5)
    ahead = (w * nce(np.concatenate([scores, column], axis=1))).sum()
    np.testing.assert_allclose(with_far, (ahead + back) / 2, rtol=1e-5)
    assert metrics["audio_to_text"][1] == BATCH and np.isfinite(flat(grads)).all()


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="edges: got .*of the modalities audio, text"):
        Contrastive(towers(), edges=(("audio", "image", 1.0),))
    with pytest.raises(ValueError, match="wanted one of pairs, labels, texts"):
        Contrastive(towers(), positives="same")
    with pytest.raises(ValueError, match="wanted 0 to 1"):
        Siamese(towers(), Laion(8), inter=2.0)
    none = dataclasses.replace(Contrastive(towers()), edges=())
    with pytest.raises(ValueError, match="without edges has no loss"):
        none.loss({}, {}, {}, jax.random.key(0), train=False)
