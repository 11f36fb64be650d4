"""Frame tagging from labels of clips: the loss of each part, what pools a clip, that onsets are learned."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import drawn

from ssl_audio.config import build
from ssl_audio.data.event_entries import Events
from ssl_audio.heads.classify import Frames
from ssl_audio.structs import Encoded, Tokens
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

FRAMES, COLUMNS, CLASSES = 64, 8, 2


def tagging(head=None, **options):
    made = dict(
        kind="frame_tagging",
        frontend=dict(kind="fbank", bins=32, frames=FRAMES),
        tokenizer=dict(kind="patchify", width=8, patch=(8, 8), stride=(8, 8)),
        encoder=dict(kind="identity"),
        head=dict(kind="classify:Frames", classes=CLASSES) | (head or {}),
        clips=1.0,
    )
    return build(made | options, "objectives")


@pytest.fixture(scope="module")
def batch():
    """Return tones of two pitches in a column or some; only the clips' classes are said, of all but two."""
    rng, time = np.random.default_rng(0), np.arange(400 + 160 * (FRAMES - 1)) / 16_000
    audio = rng.normal(0, 0.003, (16, len(time)))
    events, tags = np.zeros((16, COLUMNS, CLASSES)), np.zeros((16, CLASSES))
    for clip in range(16):
        for label, pitch in enumerate((400, 3000)):
            if rng.random() < 0.6:
                first = int(rng.integers(0, 6))
                inside = slice(first * 1280 + 400, (first + 2) * 1280)
                audio[clip, inside] += 0.3 * np.sin(2 * np.pi * pitch * time[inside])
                events[clip, first : first + 2, label] = tags[clip, label] = 1
    return {
        "audio": jnp.asarray(audio, jnp.float32),
        "length": jnp.full(16, len(time), jnp.int32),
        "events": jnp.asarray(events, jnp.float32),
        "heard": jnp.zeros((16, COLUMNS), jnp.float32),
        "tags": jnp.asarray(tags, jnp.float32),
        "tagged": jnp.ones(16).at[:2].set(0),
    }


def entropy(logits, y):
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(-1)


def test_each_part_counts_only_what_is_known(batch):
    objective = tagging(frames=0.5, clips=2.0)
    params = drawn(objective, batch)
    some = {**batch, "heard": batch["heard"].at[0, :3].set(1)}
    loss = jax.jit(objective.loss, static_argnames="train")(
        params, {}, some, jax.random.key(0), train=False
    )
    frames = np.asarray(objective.frame_logits(params, {}, batch))
    frame = entropy(frames, np.asarray(batch["events"]))[0, :3].mean()
    clip = entropy(frames.max(1), np.asarray(batch["tags"]))[2:].mean()
    np.testing.assert_allclose(loss.total, 0.5 * frame + 2 * clip, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["clip"][0], 14 * clip, rtol=1e-5)


def test_accumulated_parts_count_by_what_is_known_of_them(batch):
    objective, key = tagging(frames=1.0, clips=1.0), jax.random.key(0)
    heard = batch["heard"].at[:5, :6].set(1).at[9].set(1)  # columns of six clips of sixteen
    batch = {**batch, "heard": heard}
    txs = Optim(lr=1e-2).make(objective.phases, 10)
    state = jax.jit(lambda b: init_state(objective, txs, key, b))(batch)
    found = [
        jax.jit(make_train_step(objective, txs, accumulate=parts))(state, batch) for parts in (1, 8)
    ]
    (whole, told), (parts, told_parts) = found
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), whole.params, parts.params
    )
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(told[name][0], told_parts[name][0], rtol=1e-4)


def test_attention_gives_the_mean_probability_by_weights_that_padding_has_none_of():
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.normal(size=(2, 10, 4)), jnp.float32)  # two rows of five columns
    valid = np.ones((2, 2, 5), bool)
    valid[1, :, 3:] = False
    index = jnp.broadcast_to(jnp.arange(10), (2, 10))
    encoded = Encoded(Tokens(tokens, index, (2, 5), jnp.asarray(valid.reshape(2, 10))))
    head = Frames(3, pool="attention")
    params = head.init(jax.random.key(0), encoded)
    logits = np.asarray(head.apply(params, encoded, along=True), np.float64)
    _, kept = head.apply(params, encoded, capture_intermediates=True, mutable=["intermediates"])
    weights = np.asarray(kept["intermediates"]["attention"]["__call__"][0], np.float64)
    for clip, columns in ((0, 5), (1, 3)):
        a = np.exp(weights[clip, :columns])
        p = (a / a.sum(0) / (1 + np.exp(-logits[clip, :columns]))).sum(0)
        found = np.asarray(head.apply(params, encoded))[clip]
        np.testing.assert_allclose(1 / (1 + np.exp(-found)), p, rtol=1e-5)


def test_padding_changes_no_clip_behind_a_recurrent_layer():
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4)), jnp.float32)
    tokens = tokens.at[1, :4].set(tokens[0, :4])
    index, valid = jnp.broadcast_to(jnp.arange(6), (2, 6)), jnp.arange(6) < 4
    encoded = Encoded(Tokens(tokens, index, (1, 6), jnp.stack([valid, valid])))
    for pool in ("max", "attention"):
        head = Frames(2, recurrent=4, pool=pool)
        found: Any = head.apply(head.init(jax.random.key(0), encoded), encoded)
        np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("head", [{}, dict(pool="attention"), dict(pool="attention", recurrent=8)])
def test_onsets_are_learned_from_labels_of_clips(batch, head):
    objective = tagging(head)
    txs = Optim(lr=3e-2).make(objective.phases, 60)
    state = jax.jit(lambda b: init_state(objective, txs, jax.random.key(0), b))(batch)
    step = jax.jit(make_train_step(objective, txs))
    for _ in range(60):
        state, _ = step(state, batch)
    logits = np.asarray(jax.jit(objective.frame_logits)(state.params, {}, batch))
    true = np.asarray(batch["events"]) > 0
    # The share of pairs of a frame with and one without the sound that are told apart.
    on, off = logits[true], logits[~true]
    assert np.mean(on[:, None] > off[None]) > 0.9


def test_batches_without_labels_of_clips_are_refused(batch):
    plain = {name: x for name, x in batch.items() if name not in ("tags", "tagged")}
    with pytest.raises(ValueError, match="objective.clips=1: no labels of clips.*weak=True"):
        jax.eval_shape(tagging().init, jax.random.key(0), plain)
    with pytest.raises(ValueError, match="frames, clips: got 0 and 0"):
        tagging(frames=0.0, clips=0.0)


def entry(**options):
    made: dict[str, Any] = dict(
        samples=4000, frames=50, hop=80, centre=40.0, classes=3, weak=True, crop="first"
    )
    return Events(**(made | options))


def test_clips_say_what_is_known_of_them():
    rng = np.random.default_rng(0)
    clip = dict(audio=np.ones(2000, np.float32), rate=8000, id="x", more=None)
    marked = entry().draw({**clip, "events": ((0.1, 0.2, 1), (0.4, 0.5, 2))}, rng)
    # The second event lies behind the end of the sound.
    assert marked["tags"].tolist() == [0, 1, 0] and marked["tagged"] == 1
    assert marked["heard"].sum() == 25
    weak = entry().draw({**clip, "label": (0, 2)}, rng)
    assert weak["tags"].tolist() == [1, 0, 1] and weak["tagged"] == 1 and not weak["heard"].any()
    assert entry().draw({**clip, "label": 1}, rng)["tags"].tolist() == [0, 1, 0]
    unknown = entry().draw(clip, rng)
    assert not unknown["tags"].any() and unknown["tagged"] == 0 and not unknown["heard"].any()
    mixed = entry().mix(marked, weak, 0.75)
    assert mixed["tags"].tolist() == [0.25, 0.75, 0.25] and not mixed["heard"].any()
    assert mixed["tagged"] == 1 and entry().mix(marked, unknown, 0.75)["tagged"] == 0
    shapes = {name: shape for name, (shape, _) in entry().spec().items()}
    assert {name: np.shape(x) for name, x in weak.items()} == shapes
    with pytest.raises(ValueError, match="its label is 3, with classes=3"):
        entry().draw({**clip, "label": 3}, rng)
    with pytest.raises(ValueError, match="or weak=True"):
        entry(weak=False).draw({**clip, "label": 1}, rng)
