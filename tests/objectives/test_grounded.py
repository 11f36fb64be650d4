"""Text-grounded events: both losses in closed form, what counts nowhere, targets, and phrases as classes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import drawn

from ssl_audio import losses
from ssl_audio.config import build
from ssl_audio.data.phrases import Phrases
from ssl_audio.data.text import Text, Words
from ssl_audio.presets.audio_text import small_text
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

FRAMES, COLUMNS, WORDS = 64, 8, ("low", "high", "noise")
TEXT = Text(Words(WORDS, 8), 4)


def grounded(**options):
    _, text = small_text(WORDS)
    projector = dict(kind="projectors:OneLayer", out=16)
    audio = dict(
        kind="towers:Tower",
        frontend=dict(kind="fbank", bins=32, frames=FRAMES),
        tokenizer=dict(kind="patchify", width=8, patch=(32, 8), stride=(32, 8)),
        encoder=dict(kind="identity"),
        pool=dict(kind="pools:Mean"),
        projector=projector,
    )
    towers = dict(audio=audio, text=text | dict(projector=projector))
    made = dict(kind="grounded", towers=towers, along=projector, positives="texts")
    return build(made | options, "objectives")


@pytest.fixture(scope="module")
def batch():
    """Return tones of two pitches, each in half of the columns of its clip, and three phrases of each."""
    rng, time = np.random.default_rng(0), np.arange(400 + 160 * (FRAMES - 1)) / 16_000
    audio = rng.normal(0, 0.003, (8, len(time)))
    active = np.zeros((8, COLUMNS, 3))
    for clip in range(8):
        first = 0 if clip % 4 < 2 else 4
        inside = slice(first * 1280, (first + 4) * 1280)
        audio[clip, inside] += 0.3 * np.sin(2 * np.pi * (400, 3000)[clip % 2] * time[inside])
        active[clip, first : first + 4, clip % 2] = 1
    ids, lengths = TEXT.encode(WORDS)
    return {
        "audio": jnp.asarray(audio, jnp.float32),
        "length": jnp.full(8, len(time), jnp.int32),
        "text": jnp.asarray(ids[np.arange(8) % 2]),
        "text_length": jnp.asarray(lengths[np.arange(8) % 2]),
        "phrases": jnp.broadcast_to(jnp.asarray(ids), (8, *ids.shape)),
        "phrases_length": jnp.broadcast_to(jnp.asarray(lengths), (8, 3)),
        "active": jnp.asarray(active, jnp.float32),
        "heard": jnp.ones((8, COLUMNS), jnp.float32),
    }


@pytest.fixture(scope="module")
def params(batch):
    return jax.tree.map(jnp.asarray, drawn(grounded(), batch))


def loss_of(objective):
    return jax.jit(lambda p, b: objective.loss(p, {}, b, jax.random.key(0), train=False))


def test_pairs_at_the_start_cost_what_the_bias_says():
    """FineLAP: at similarity 0 a pair that belongs together costs softplus(10), another softplus(-10)."""
    found = losses.sigmoid_pairs(jnp.zeros((3, 4)), jnp.eye(3, 4), 0.1, -10.0)
    np.testing.assert_allclose(found, np.log1p(np.exp(10)) + 3 * np.log1p(np.exp(-10)), rtol=1e-6)
    s = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (5, 5)), jnp.float32)
    order = jnp.asarray([3, 1, 4, 0, 2])
    whole = losses.sigmoid_pairs(s, jnp.eye(5), 0.1, -10.0)
    again = losses.sigmoid_pairs(s[order][:, order], jnp.eye(5), 0.1, -10.0)
    np.testing.assert_allclose(again.sum(), whole.sum(), rtol=1e-6)


def test_both_losses_in_closed_form(batch, params):
    objective = grounded(clips=0.5, frames=2.0)
    some = {**batch, "heard": batch["heard"].at[2:].set(0)}
    loss = loss_of(objective)(params, some)
    audio, text = (
        np.asarray(objective.embed(n, params, batch), np.float64) for n in ("audio", "text")
    )
    same = np.arange(8)[:, None] % 2 == np.arange(8)[None] % 2
    sign, scale = np.where(same, 1, -1), {k: float(v) for k, v in params["clip"].items()}
    x = sign * (audio @ text.T / scale["temperature"] + scale["bias"])
    clip = np.logaddexp(0, -x).sum() / 8
    tagger, mine = objective.queried(params, jnp.asarray(_phrases(objective, params)))
    logits = np.asarray(tagger.frame_logits(mine, {}, batch), np.float64)[:2]
    y = np.asarray(batch["active"])[:2]
    frame = np.logaddexp(0, -(2 * y - 1) * logits).mean()
    np.testing.assert_allclose(loss.total, 0.5 * clip + 2 * frame, rtol=1e-4)
    # Only a clip's own caption, as published.
    plain = loss_of(grounded(frames=0.0, positives="pairs"))(params, batch)
    x = (2 * np.eye(8) - 1) * (audio @ text.T / scale["temperature"] + scale["bias"])
    np.testing.assert_allclose(plain.total, np.logaddexp(0, -x).sum() / 8, rtol=1e-4)


def _phrases(objective, params):
    ids, lengths = TEXT.encode(WORDS)
    return objective.embed(
        "text", params, {"text": jnp.asarray(ids), "text_length": jnp.asarray(lengths)}
    )


def test_clips_without_events_give_columns_no_gradient(batch, params):
    objective = grounded(clips=0.0)
    none = {**batch, "heard": jnp.zeros((8, COLUMNS))}
    grads = jax.grad(lambda p: objective.loss(p, {}, none, jax.random.key(0), train=False).total)(
        params
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_phrases_are_found_where_they_are_heard(batch):
    objective = grounded(
        context=dict(
            kind="stack", width=16, depth=1, final_norm=None,
            block=dict(kind="post_norm", mixer=dict(kind="attention", heads=2), mlp=2.0),
        )
    )  # fmt: skip
    txs = Optim(lr=1e-2).make(objective.phases, 80)
    state = jax.jit(lambda b: init_state(objective, txs, jax.random.key(0), b))(batch)
    step = jax.jit(make_train_step(objective, txs))
    for _ in range(80):
        state, _ = step(state, batch)
    tagger, mine = objective.queried(state.params, _phrases(objective, state.params))
    logits = np.asarray(jax.jit(tagger.frame_logits)(mine, {}, batch))
    true = np.asarray(batch["active"]) > 0
    assert np.mean(logits[true][:, None] > logits[~true][None]) > 0.95
    short = {**batch, "length": jnp.full(8, 3 * 1280 + 1, jnp.int32)}
    found = np.asarray(tagger.frame_logits(mine, {}, short))[:, :4].max(1)
    np.testing.assert_allclose(tagger.logits(mine, {}, short), found, atol=1e-5)


def test_what_is_refused(batch):
    with pytest.raises(ValueError, match="positives 'labels'"):
        grounded(positives="labels")
    with pytest.raises(ValueError, match="has 8 columns; wanted the 7 of"):
        jax.eval_shape(
            grounded().init, jax.random.key(0), {**batch, "active": batch["active"][:, :7]}
        )


def entry(**options):
    made: dict[str, Any] = dict(
        samples=4000, frames=50, hop=80, centre=40.0, classes=3, names=WORDS, crop="first", phrases=2,
        text=TEXT,
    )  # fmt: skip
    return Phrases(**(made | options))


def test_an_event_covers_the_frames_whose_centres_lie_in_it():
    clip = dict(audio=np.ones(4000, np.float32), rate=8000, id="x", more=None)
    centres = (40 + 80 * np.arange(50)) / 8000
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found = entry().draw({**clip, "events": ((0.101, 0.2049, 2), (0.3, 0.305, 2))}, rng)
        assert found["phrases"][0].tolist() == TEXT.encode([WORDS[2]])[0][0].tolist()
        inside = ((centres >= 0.101) & (centres < 0.2049)) | ((centres >= 0.3) & (centres < 0.305))
        assert found["active"][:, 0].tolist() == inside.tolist() and not found["active"][:, 1].any()
        assert found["heard"].all()
    shapes = {name: shape for name, (shape, _) in entry().spec().items()}
    assert {name: np.shape(x) for name, x in found.items()} == shapes
    unknown = entry().draw(clip, np.random.default_rng(0))
    assert not unknown["heard"].any() and not unknown["active"].any()
    with pytest.raises(ValueError, match="1 to 3 phrases"):
        entry(phrases=4)
    with pytest.raises(ValueError, match="phrases cannot be mixed"):
        entry().check_mix()
