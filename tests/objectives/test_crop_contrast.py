"""Contrast of crops: where crops come from, what is changed in them, and what a step learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.backbones.audio_ntt import AudioNtt
from ssl_audio.frontend.mel import Mel
from ssl_audio.frontend.mixed_crops import LogMixup, MixedCrops, ResizedCrop
from ssl_audio.frontend.waves import Gain
from ssl_audio.heads.pools import TimeMaxMean
from ssl_audio.heads.projectors import Swav
from ssl_audio.objectives.crop_contrast import CropContrast, cropped
from ssl_audio.tokens.bins import Bins

SAMPLES, CROP = 4000, 2500
STILL = MixedCrops(LogMixup(most=0.0, clips=8), ResizedCrop((1.0, 1.0), (1.0, 1.0), (1.0, 1.0)))
OBJECTIVE = CropContrast(
    frontend=Mel(
        rate=16_000, bins=16, hop=160, window=256, low=60.0, high=7800.0, frames=16, mean=-40.0,
        std=20.0,
    ),
    tokenizer=Bins(norm=None),
    encoder=AudioNtt(width=12, channels=3, blocks=2),
    pool=TimeMaxMean(),
    views=STILL,
    projector=Swav(out=6, hidden=8),
    crop=CROP,
)  # fmt: skip


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def batch():
    audio = random(3, 6, SAMPLES) * np.linspace(0.02, 0.5, 6)[:, None]
    return {"audio": jnp.asarray(audio, jnp.float32), "length": jnp.full(6, SAMPLES, jnp.int32)}


def test_a_crop_is_a_piece_of_its_clip():
    audio = jnp.arange(3 * 50, dtype=jnp.float32).reshape(3, 50)
    length = jnp.asarray([50, 20, 8], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 60)
    crops, left = jax.jit(jax.vmap(lambda key: cropped(audio, length, 10, 1, key)))(keys)
    np.testing.assert_array_equal(
        crops - crops[..., :1], np.broadcast_to(np.arange(10), (60, 3, 10))
    )
    np.testing.assert_array_equal(left, [[10, 10, 8]] * 60)
    first = np.asarray(crops[..., 0]) - [0, 50, 100]
    assert set(first[:, 1]) == set(range(11)) and set(first[:, 2]) == {0}
    assert first[:, 0].min() < 5 and first[:, 0].max() > 35


def test_the_loudest_of_several_places_is_taken():
    audio = jnp.zeros((1, 100)).at[0, 80:].set(1)
    length = jnp.asarray([100], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 60)
    loud = {}
    for places in (1, 4):
        draw = jax.vmap(functools.partial(cropped, audio, length, 10, places))
        loud[places] = float(jnp.mean(jnp.sum(jax.jit(draw)(keys)[0], -1)))
    assert loud[1] < 3 and loud[4] > 5, loud


def test_the_two_crops_are_drawn_apart(batch):
    seen = []

    class Watched(CropContrast):
        def view(self, *args):
            seen.append(super().view(*args))
            return seen[-1]

    def views(crop):
        fields = {f.name: getattr(OBJECTIVE, f.name) for f in dataclasses.fields(OBJECTIVE)}
        objective = Watched(**fields | {"crop": crop})
        seen.clear()
        params, extra = objective.init(jax.random.key(0), batch)
        loss = objective.loss(params, extra, batch, jax.random.key(1), train=False)
        return (*seen, loss.metrics["accuracy"][0] / 6)

    first, second, _ = jax.jit(lambda: views(CROP))()
    assert all(np.abs(x - y).max() > 0.1 for x, y in zip(first, second, strict=True))
    # Of a whole clip there is one crop, and unchanged it is its own partner.
    first, second, accuracy = jax.jit(lambda: views(SAMPLES))()
    np.testing.assert_array_equal(first, second)
    assert accuracy == 1.0


def test_waves_change_in_training_only(batch):
    changed = dataclasses.replace(OBJECTIVE, augment=(Gain(low=-30.0, high=-30.0),))
    key, length = jax.random.key(0), batch["length"]
    plain, quiet, tested = (
        o.view(batch["audio"], length, key, train)
        for o, train in ((OBJECTIVE, True), (changed, True), (changed, False))
    )
    # Energies in dB over a deviation of 20 dB.
    np.testing.assert_allclose(plain - quiet, 30 / 20, atol=1e-3)
    np.testing.assert_array_equal(plain, tested)


def test_a_step_learns_and_renews_statistics(batch):
    params, extra = jax.jit(OBJECTIVE.init)(jax.random.key(0), batch)

    def total(params, key):
        loss = OBJECTIVE.loss(params, extra, batch, key, train=True)
        return loss.total, loss

    (first, loss), slopes = jax.jit(jax.value_and_grad(total, has_aux=True))(
        params, jax.random.key(2)
    )
    still = jax.tree_util.tree_map_with_path(
        lambda path, x: bool(jnp.any(x != 0)) or "mean" in str(path) or "var" in str(path), slopes
    )
    moved = {k: any(jax.tree.leaves(v)) for k, v in still.items() if jax.tree.leaves(v)}
    assert moved == {"encoder": True, "projector": True}
    assert {"encoder", "projector"} <= set(loss.renewed)
    less = jax.tree.map(lambda p, g: p - 0.01 * g, params, slopes)
    assert total(less, jax.random.key(2))[0] < first


@pytest.mark.parametrize("wrong", [dict(crop=0), dict(temperature=0.0), dict(places=0)])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted at least one sample"):
        dataclasses.replace(OBJECTIVE, **wrong)


def test_a_crop_longer_than_the_clips_is_refused(batch):
    with pytest.raises(ValueError, match="crop=5000 samples, but the clips have 4000"):
        dataclasses.replace(OBJECTIVE, crop=5000).init(jax.random.key(0), batch)
