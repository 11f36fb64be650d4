"""What a separator is given: segments around anchors, conditions, and an output that can equal the input."""

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.objectives import anchors, queries, separation
from ssl_audio.objectives.base import Objective
from ssl_audio.structs import Encoded, Loss, Tokens

SEPARATION = dict(
    kind="separation",
    spectrum=dict(kind="spectrum", rate=1000, size=32, hop=8),
    model=dict(kind="resunet", channels=(4, 4), norm=dict(kind="norms:BatchNorm", momentum=0.01)),
)


@dataclasses.dataclass(frozen=True)
class Heard(Objective):
    """A frozen model whose logits say how loud both halves of a clip are; its features are their means."""

    def init(self, key, batch):  # noqa: D102
        del key, batch
        return {"gain": jnp.float32(3.0)}, {}

    def loss(self, params, extra, batch, key, *, train) -> Loss:  # noqa: D102
        raise NotImplementedError

    def predictors(self) -> dict[str, Any]:  # noqa: D102
        return {"logits": self.logits, "frame_logits": self.frames, "encode": self.encode}

    # Of a column: a quarter of a clip of 400 samples.
    tokenizer, encoder, frontend = (
        types.SimpleNamespace(stride=(1, 10)), None, types.SimpleNamespace(hop=10),
    )  # fmt: skip

    def logits(self, params, extra, batch):  # noqa: D102
        halves = jnp.stack(jnp.split(batch["audio"], 2, axis=1), 1)
        return params["gain"] * jnp.mean(jnp.abs(halves), -1)

    def frames(self, params, extra, batch):  # noqa: D102
        audio = batch["audio"]
        loud = jnp.abs(audio.reshape(len(audio), 4, -1)).mean(-1)
        return params["gain"] * jnp.stack([loud, -loud], -1)

    def encode(self, params, extra, batch):  # noqa: D102
        x = batch["audio"].reshape(len(batch["audio"]), -1, 4) * params["gain"]
        index = jnp.zeros(x.shape[:2], jnp.int32)
        valid = jnp.arange(x.shape[1])[None] < 2
        return Encoded(Tokens(x, index, (x.shape[1], 1), jnp.broadcast_to(valid, x.shape[:2])))


def clips(samples=400):
    """Return four clips that are loud from a quarter on, each of another class."""
    audio = np.random.default_rng(0).normal(size=(4, samples)) * 0.01
    audio[:, samples // 4 : samples // 2] *= 20
    return {
        "audio": jnp.asarray(audio, jnp.float32),
        "length": jnp.full(4, samples, jnp.int32),
        "label": jnp.eye(4),
    }


def test_the_output_is_the_input_where_the_mask_is_1_and_the_phase_stays():
    objective, sound = config.build(SEPARATION, "objectives"), clips()["audio"]
    heard = objective.heard(sound)
    open_ = jnp.broadcast_to(jnp.array([30.0, 30.0, 0.0]), (*heard[0].shape[:3], 3))
    assert np.abs(objective.sound(open_, heard, 400) - sound).max() < 1e-4
    shut = open_.at[..., 0].set(-30.0)
    assert np.abs(objective.sound(shut, heard, 400)).max() < 1e-4


def test_segments_lie_where_the_sound_is():
    batch = clips()
    loudest = anchors.Loudest(frames=10, hop=10)
    np.testing.assert_array_equal(loudest({}, batch), batch["audio"][:, 100:200])
    with pytest.raises(ValueError, match="400 samples, and a segment 500"):
        anchors.Loudest(frames=50, hop=10)({}, batch)
    with pytest.raises(ValueError, match="even"):
        anchors.Loudest(frames=9)


def test_segments_anywhere_differ_by_key_and_are_centred_without():
    batch = clips() | {"audio": jnp.broadcast_to(jnp.arange(400.0)[None], (4, 400))}
    anywhere = anchors.Anywhere(frames=10, hop=10)
    begins = np.concatenate([anywhere({}, batch, jax.random.key(i))[:, 0] for i in range(30)])
    assert {*begins.tolist()} <= {10.0 * i for i in range(31)} and len({*begins.tolist()}) > 20
    np.testing.assert_array_equal(anywhere({}, batch)[:, 0], 150.0)


def test_segments_lie_where_a_model_hears_the_class_of_the_clip():
    batch = clips() | {"label": jnp.eye(2)[jnp.array([0, 1, 0, 1])]}
    heard = anchors.Heard(frames=10, hop=10, model=Heard())
    extra = heard.init(jax.random.key(0), batch)
    found = heard(extra, batch)
    np.testing.assert_array_equal(found[0], batch["audio"][0, 100:200])
    # The other class is heard least where there is most sound.
    assert np.abs(found[1]).max() < 0.1 < np.abs(found[0]).max()


def test_conditions_are_labels_tags_or_embeddings_of_clean_sound():
    batch, key = clips(), jax.random.key(0)
    np.testing.assert_array_equal(queries.Label()({}, {}, batch), jnp.eye(4))
    for exclusive, total in ((True, 1.0), (False, None)):
        tags = queries.Tags(Heard(), exclusive)
        extra = tags.init(key, batch)[1]
        found = tags({}, extra, batch)
        assert found.shape == (4, 2) and (found[:, 0] > found[:, 1]).all()
        if total:
            np.testing.assert_allclose(found.sum(-1), total, rtol=1e-6)
    plain = queries.Embedding(Heard())
    extra = plain.init(key, batch)[1]
    want = 3 * batch["audio"][:, :8].reshape(4, 2, 4).mean(1)  # valid tokens only
    np.testing.assert_allclose(plain({}, extra, batch), want, rtol=1e-5)
    with pytest.raises(ValueError, match="wanted a model with 'codes'"):
        queries.asked(Heard(), "codes", extra, batch)


def test_an_adaptor_learns_and_what_it_reads_does_not():
    batch = clips()
    objective = dataclasses.replace(
        config.build(SEPARATION, "objectives"), query=queries.Embedding(Heard(), hidden=8)
    )
    params, extra = jax.jit(objective.init)(jax.random.key(0), batch)

    def loss(params, extra):
        return objective.loss(params, extra, batch, jax.random.key(1), train=True).total

    learned, still = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, extra)
    assert np.abs(learned["query"]["dense_0"]["kernel"]).max() > 0
    assert float(still["query"]["params"]["gain"]) == 0.0


def test_the_ratio_does_not_depend_on_the_level():
    rng = np.random.default_rng(0)
    target = rng.normal(0, 0.05, (1, 16_000)).astype(np.float32)
    found = target + rng.normal(0, 0.005, target.shape).astype(np.float32)
    wanted = 10 * np.log10(np.mean(target**2) / np.mean((found - target) ** 2))
    for level in (10.0, 1.0, 1e-2, 1e-4, 1e-6):  # a power of 1e-10 as the floor: 14 dB at 1e-3
        got = separation.distortion(jnp.asarray(level * found), jnp.asarray(level * target))
        np.testing.assert_allclose(got, wanted, atol=1e-3)
    silent = jnp.zeros((1, 16))
    assert separation.distortion(silent, silent) == 100
    assert separation.distortion(silent + 1, silent) == -100
    assert separation.distortion(jnp.asarray(target), jnp.asarray(target)) == 100


def test_training_mixes_the_segments():
    objective = dataclasses.replace(
        config.build(SEPARATION, "objectives"),
        query=queries.Label(),
        anchor=anchors.Loudest(frames=10, hop=10),
    )
    batch = clips()
    params, extra = jax.jit(objective.init)(jax.random.key(0), batch)
    assert params["model"]["down_0"]["film_0"]["kernel"].shape[0] == 4
    cut = {"audio": batch["audio"][:, 100:200], "label": batch["label"]}
    plain = dataclasses.replace(objective, anchor=None)
    whole, short = (
        jax.jit(functools.partial(one.loss, train=False))(params, extra, some, jax.random.key(0))
        for one, some in ((objective, batch), (plain, cut))
    )
    np.testing.assert_allclose(whole.total, short.total, rtol=1e-5)
