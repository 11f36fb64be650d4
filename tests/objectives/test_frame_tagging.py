"""Frame tagging: its loss in closed form, padding that counts nowhere, logits of clips, that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import drawn

from ssl_audio.config import build
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

FRAMES, COLUMNS, CLASSES = 64, 8, 2


def tagging(**options):
    made = dict(
        kind="frame_tagging",
        frontend=dict(kind="fbank", bins=32, frames=FRAMES),
        tokenizer=dict(kind="patchify", width=8, patch=(8, 8), stride=(8, 8)),
        encoder=dict(kind="identity"),
        head=dict(kind="classify:Frames", classes=CLASSES),
    )
    return build(made | options, "objectives")


@pytest.fixture(scope="module")
def batch():
    """Return tones of two pitches, each in half of the columns of its clip."""
    rng, time = np.random.default_rng(0), np.arange(400 + 160 * (FRAMES - 1)) / 16_000
    tones = [np.sin(2 * np.pi * f * time) for f in (400, 3000)]
    audio = rng.normal(0, 0.003, (8, len(time)))
    events = np.zeros((8, COLUMNS, CLASSES))
    for clip in range(8):
        half = slice(0, 4) if clip % 4 < 2 else slice(4, 8)
        events[clip, half, clip % 2] = 1
        first = half.start * 1280
        audio[clip, first : first + 5120] += 0.3 * tones[clip % 2][first : first + 5120]
    return {
        "audio": jnp.asarray(audio, jnp.float32),
        "length": jnp.full(8, len(time), jnp.int32),
        "events": jnp.asarray(events, jnp.float32),
        "heard": jnp.ones((8, COLUMNS), jnp.float32),
    }


@pytest.fixture(scope="module")
def params(batch):
    return drawn(tagging(), batch)


def compiled(method):
    return jax.jit(
        getattr(tagging(), method), static_argnames="train" if method == "loss" else None
    )


def test_the_loss_is_the_mean_over_frames_that_are_heard(batch, params):
    loss_of = compiled("loss")
    some = {**batch, "heard": batch["heard"].at[:, 5:].set(0)}
    loss = loss_of(params, {}, some, jax.random.key(0), train=False)
    logits = np.asarray(compiled("frame_logits")(params, {}, batch), np.float64)
    p, y = 1 / (1 + np.exp(-logits)), np.asarray(batch["events"])
    entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(-1)[:, :5]
    np.testing.assert_allclose(loss.total, entropy.mean(), rtol=1e-5)
    said, true = (p > 0.5)[:, :5], (y > 0.5)[:, :5]
    right = np.sum(said & true)
    assert tuple(map(int, loss.metrics["recall"])) == (right, true.sum())
    assert tuple(map(int, loss.metrics["precision"])) == (right, said.sum())
    # What the padding is said to hold changes nothing.
    other = {**some, "events": some["events"].at[:, 5:].set(1)}
    assert loss_of(params, {}, other, jax.random.key(0), train=False).total == loss.total


def test_logits_of_a_clip_are_the_highest_of_its_columns(batch, params):
    columns, logits = compiled("frame_logits"), compiled("logits")
    short = {**batch, "length": jnp.full(8, 3 * 1280 + 1, jnp.int32)}
    np.testing.assert_allclose(
        logits(params, {}, batch), columns(params, {}, batch).max(1), atol=1e-5
    )
    found = columns(params, {}, short)[:, :4].max(1)
    np.testing.assert_allclose(logits(params, {}, short), found, atol=1e-5)


def test_it_learns_where_sounds_begin_and_end(batch):
    objective = tagging(spec_augment=dict(kind="augment:SpecAugment", freq=2, time=2))
    txs = Optim(lr=3e-2).make(objective.phases, 40)
    state = jax.jit(lambda b: init_state(objective, txs, jax.random.key(0), b))(batch)
    step = jax.jit(make_train_step(objective, txs))
    for _ in range(40):
        state, _ = step(state, batch)
    logits = compiled("frame_logits")(state.params, {}, batch)
    assert np.mean((np.asarray(logits) > 0) == (np.asarray(batch["events"]) > 0.5)) > 0.95


def test_other_columns_than_those_of_the_batch_are_refused(batch):
    wrong = {**batch, "events": batch["events"][:, :7]}
    with pytest.raises(ValueError, match="got 8 columns and 2 classes.*frames=7 and classes=2"):
        jax.eval_shape(tagging().init, jax.random.key(0), wrong)
    with pytest.raises(ValueError, match="criterion 'softmax'"):
        tagging(criterion="softmax")


def test_windows_of_pretraining_are_joined(batch, params):
    """Each window of columns is encoded by itself, which an encoder that looks at one does not notice."""
    cut = jax.jit(tagging(window=3).frame_logits)(params, {}, batch)
    np.testing.assert_allclose(cut, compiled("frame_logits")(params, {}, batch), atol=1e-5)
