"""Fine-tuning: its losses in closed form, augmentation in training only, heads, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import losses
from ssl_audio.config import build
from ssl_audio.presets import patch_encoders
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

FRAMES, CLASSES = 32, 3


def tagging(head="classify:Classifier", **options):
    encoder = patch_encoders.encoder("ssast", "tiny", (8, 2), depth=2) | {"width": 32}
    encoder["block"]["mixer"]["heads"] = 2
    made = dict(
        kind="tagging",
        frontend=dict(kind="fbank", frames=FRAMES),
        tokenizer=dict(kind="patchify", width=32, patch=(16, 16), stride=(10, 10)),
        encoder=encoder,
        head=dict(kind=head, classes=CLASSES),
    )
    return build(made | options, "objectives")


@pytest.fixture(scope="module")
def batch():
    """Return tones whose pitch is their class."""
    rng = np.random.default_rng(0)
    label = np.arange(9) % CLASSES
    time = np.arange(400 + 160 * (FRAMES - 1)) / 16_000
    tone = np.sin(2 * np.pi * (300.0 * 3.0**label)[:, None] * time + rng.uniform(0, 6, (9, 1)))
    noise = rng.normal(size=tone.shape)
    return {
        "audio": jnp.asarray(0.1 * tone + 0.01 * noise, jnp.float32),
        "length": jnp.full(9, len(time), jnp.int32),
        "label": jax.nn.one_hot(label, CLASSES),
    }


def test_losses_in_closed_form():
    logits = jnp.array([[2.0, 0.0, -1.0]])
    p = np.exp([2.0, 0.0, -1.0]) / np.exp([2.0, 0.0, -1.0]).sum()
    one, two = jnp.array([[0.0, 1.0, 0.0]]), jnp.array([[1.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(logits, one)[0], -np.log(p[1]), rtol=1e-6
    )
    both = -(np.log(p[0]) + np.log(p[1])) / 2
    np.testing.assert_allclose(losses.softmax_cross_entropy(logits, two)[0], both, rtol=1e-6)
    q = 1 / (1 + np.exp([-2.0, 0.0, 1.0]))
    want = -(np.log(q[0]) + np.log(q[1]) + np.log(1 - q[2])) / 3
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(logits, two)[0], want, rtol=1e-6)


def test_windows_are_encoded_as_clips_of_their_own(batch):
    objective = tagging(
        window=2, tokenizer=dict(kind="patchify", width=32, patch=(16, 4), stride=(16, 4))
    )
    batch = {name: value[:2] for name, value in batch.items()}
    params, extra = jax.jit(objective.init)(jax.random.key(0), batch)
    found = objective.encode(params, extra, batch)
    spec = objective.frontend(batch["audio"], batch["length"])
    rows, columns = found.tokens.grid
    assert (rows, columns) == (8, FRAMES // 4) and found.special.shape == (2, 2, 32)
    for window in (0, 3):
        frames = slice(8 * window, 8 * (window + 1))
        tokens = objective.tokenizer.apply({"params": params["tokenizer"]}, spec[:, frames])
        alone = objective.encoder.apply({"params": params["encoder"]}, tokens, layers=True)
        for ours, theirs in ((found.tokens.x, alone.tokens.x), (found.layers[1], alone.layers[1])):
            part = ours.reshape(2, rows, columns, 32)[:, :, 2 * window : 2 * (window + 1)]
            np.testing.assert_allclose(part, theirs.reshape(part.shape), atol=1e-5)
    odd = dataclasses.replace(objective, window=3).encode(params, extra, batch)  # 3 + 3 + 2
    ends = jnp.stack([spec[:, :12], jnp.pad(spec[:, 24:], ((0, 0), (0, 4), (0, 0)))], 1)
    tokens = objective.tokenizer.apply({"params": params["tokenizer"]}, ends.reshape(4, 12, -1))
    valid = jnp.ones((2, 2, rows, 3), bool).at[:, 1, :, 2].set(False).reshape(4, -1)
    tokens = dataclasses.replace(tokens, valid=valid)
    alone = objective.encoder.apply({"params": params["encoder"]}, tokens).tokens.x
    alone = jnp.moveaxis(alone.reshape(2, 2, rows, 3, 32), 1, 2).reshape(2, rows, 6, 32)[:, :, :5]
    part = odd.tokens.x.reshape(2, rows, columns, 32)[:, :, np.array([0, 1, 2, 6, 7])]
    np.testing.assert_allclose(part, alone, atol=1e-5)
    short = dataclasses.replace(objective, window=99).encode(params, extra, batch)
    np.testing.assert_allclose(
        short.tokens.x,
        dataclasses.replace(objective, window=0).encode(params, extra, batch).tokens.x,
    )


@pytest.mark.parametrize("criterion", ["softmax", "sigmoid"])
def test_it_learns(batch, criterion):
    objective = tagging(criterion=criterion)
    txs = Optim(lr=3e-3).make(objective.phases, 30)
    state = jax.jit(lambda b: init_state(objective, txs, jax.random.key(0), b))(batch)
    step = jax.jit(make_train_step(objective, txs))
    first = None
    for _ in range(30):
        state, metrics = step(state, batch)
        first = first or float(metrics["loss"][0])
    assert float(metrics["loss"][0]) < 0.3 * first
    assert float(metrics["accuracy"][0] / metrics["accuracy"][1]) == 1
    logits = objective.predictors()["logits"](state.params, {}, batch)
    np.testing.assert_array_equal(jnp.argmax(logits, -1), jnp.argmax(batch["label"], -1))


def test_augmentation_is_for_training_only(batch):
    plain = tagging()
    params, _ = plain.init(jax.random.key(0), batch)
    harsh = tagging(
        spec_augment=dict(kind="augment:SpecAugment", freq=64, time=16),
        noise=dict(kind="augment:NoiseRoll"),
    )

    def loss(objective, train, seed=1):
        key = jax.random.key(seed)
        return float(objective.loss(params, {}, batch, key, train=train).total)

    assert loss(harsh, train=False) == loss(plain, train=False) == loss(plain, train=True)
    assert loss(harsh, train=True) != loss(plain, train=True)
    assert loss(harsh, train=True, seed=1) != loss(harsh, train=True, seed=2)


def test_weighted_layers_start_as_their_mean(batch):
    objective = tagging(head="classify:LayerMix")
    params, _ = objective.init(jax.random.key(0), batch)
    assert params["head"]["weights"].shape == (2,)
    logits = objective.logits(params, {}, batch)
    encoded = objective.encode(params, {}, batch)
    mean = jnp.mean(encoded.layers, axis=0)
    same = dataclasses.replace(encoded, layers=jnp.stack([mean, mean]))
    again = objective.head.apply({"params": params["head"]}, same)
    np.testing.assert_allclose(logits, again, atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="criterion 'hinge': wanted one of softmax, sigmoid"):
        tagging(criterion="hinge")
    with pytest.raises(ValueError, match="pool 'max'"):
        build(dict(kind="classify:Classifier", classes=2, pool="max"), "heads")
    with pytest.raises(ValueError, match="smoothing 1"):
        tagging(smoothing=1.0)


@pytest.mark.parametrize("criterion", ["softmax", "sigmoid"])
def test_smoothing_in_closed_form(batch, criterion):
    plain, smooth = tagging(criterion=criterion), tagging(criterion=criterion, smoothing=0.3)
    params, _ = plain.init(jax.random.key(0), batch)

    def loss(objective, label, train=True):
        batch_ = batch | {"label": label}
        return float(objective.loss(params, {}, batch_, jax.random.key(1), train=train).total)

    even = 1 / CLASSES if criterion == "softmax" else 1 / 2
    want = 0.7 * loss(plain, batch["label"]) + 0.3 * loss(plain, jnp.full((9, CLASSES), even))
    assert loss(smooth, batch["label"]) == pytest.approx(want, rel=1e-5)
    assert loss(smooth, batch["label"], train=False) == loss(plain, batch["label"], train=False)


def test_clips_count_as_their_weights_say(batch):
    objective, key = tagging(), jax.random.key(0)
    params = objective.init(key, batch)[0]
    weight = jnp.array([0.0, 3, 1, 0, 0, 0, 0, 0, 2])
    found = objective.loss(params, {}, {**batch, "weight": weight}, key, train=False).total
    each = losses.softmax_cross_entropy(objective.logits(params, {}, batch), batch["label"])
    np.testing.assert_allclose(found, (3 * each[1] + each[2] + 2 * each[8]) / 6, rtol=1e-5)


@pytest.mark.parametrize("criterion", ["softmax", "sigmoid"])
def test_clips_without_a_label_teach_nothing(batch, criterion):
    """Not even "none of the classes": loss, gradients and accuracy are those of the others, also in parts."""
    objective, key = tagging(criterion=criterion, smoothing=0.1), jax.random.key(0)
    params = objective.init(key, batch)[0]
    few = {name: value[:6] for name, value in batch.items()}
    known = jnp.array([1.0, 0, 0, 1, 1, 0])
    some = few | {"label": few["label"] * known[:, None], "labelled": known}
    rest = {name: value[known > 0] for name, value in few.items()}

    def loss(params, batch):
        found = objective.loss(params, {}, batch, key, train=True)
        return found.total, found.metrics["accuracy"]

    found, want = (jax.value_and_grad(loss, has_aux=True)(params, b) for b in (some, rest))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, want)
    weight = jnp.array([1.0, 5, 5, 2, 0, 5])
    found, want = (
        loss(params, b | {"weight": w}) for b, w in ((some, weight), (rest, weight[known > 0]))
    )
    np.testing.assert_allclose(found[0], want[0], rtol=1e-5)
    if criterion == "softmax":  # parts of a step are the same for both
        return
    txs = Optim(lr=0.0).make(objective.phases, 1)
    state = init_state(objective, txs, key, some)
    norms = [
        make_train_step(objective, txs, accumulate=n)(state, some)[1]["gradient_norm"][0]
        for n in (1, 3)
    ]
    np.testing.assert_allclose(*norms, rtol=1e-4)
