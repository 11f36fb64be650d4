"""Triplets with reconstruction, and pixels of which few are labelled, against their formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config, config_files
from ssl_audio.inference.encoder import Encoder
from ssl_audio.layers.unet import UNet
from ssl_audio.objectives.segmentation import IGNORED, Segmentation


def made(**options):
    found = config.plain(config_files.load("terrain:runlocal").objective) | options
    found["frontend"] |= dict(frames=8, bins=8, rate=16_000, hop=160, window=400)
    return config.build(found, "objectives")


def triplets(seed=0, several=2):
    rng = np.random.default_rng(seed)
    audio = rng.normal(0, 0.1, (3, 2 + several, 1200)).astype(np.float32)
    return {
        "audio": jnp.asarray(audio[:, 0]),
        "length": jnp.full(3, 1200),
        "audio_positive": jnp.asarray(audio[:, 1]),
        "length_positive": jnp.full(3, 1200),
        "audio_negative": jnp.asarray(audio[:, 2:]),
        "length_negative": jnp.full((3, several), 1200),
    }


def test_the_loss_is_the_hinge_of_squared_distances_and_the_error_of_all_spectrograms():
    objective, batch = made(), triplets()
    params, extra = objective.init(jax.random.key(0), batch)
    found = objective.loss(params, extra, batch, jax.random.key(1), train=False)

    def vector(audio, length):
        spec = objective.frontend(audio, length)
        x = objective.vectors(params, spec)
        back = objective.decoder.apply({"params": params["decoder"]}, x, *spec.shape[1:])
        x = np.asarray(x)
        return x / np.linalg.norm(x, axis=-1, keepdims=True), np.asarray((back - spec) ** 2)

    a, first = vector(batch["audio"], batch["length"])
    p, second = vector(batch["audio_positive"], batch["length_positive"])
    others = [vector(batch["audio_negative"][:, j], batch["length_negative"][:, j]) for j in (0, 1)]
    near = ((a - p) ** 2).sum(-1)
    far = np.stack([((a - n) ** 2).sum(-1) for n, _ in others], 1)
    hinge = np.maximum(near[:, None] - far + 0.3, 0).mean()
    error = np.mean([first, second, *(back for _, back in others)])
    assert np.allclose(found.total, hinge + error, rtol=1e-4)
    assert np.allclose(found.metrics["told_apart"][0] / 3, (near[:, None] < far).mean())
    ablation = made(triplet=0.0).loss(params, extra, batch, jax.random.key(1), train=False)
    assert np.allclose(ablation.total, error, rtol=1e-4)
    encoded = objective.encode(params, extra, batch)
    assert np.allclose(encoded.special[:, 0], a, atol=1e-5)  # at length 1


@pytest.mark.parametrize("samples", [100, 640, 1120, 2500])
def test_clips_of_any_length_are_encoded_as_in_training(samples):
    objective, batch = made(), triplets()
    params, _ = objective.init(jax.random.key(0), batch)
    kept = dict(data=dict(rate=16_000, entries=dict(audio=dict(samples=1120))))
    encoder = Encoder(objective, jax.tree.map(np.asarray, params), kept)
    sound = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    found = encoder.embed(sound, 16_000, pool="special")
    assert found.shape == (32,) and np.isfinite(found).all()
    if samples <= 1120:
        given = np.pad(sound, (0, max(0, 400 - samples)))  # a frame at least
        clip = jnp.asarray(np.pad(given, (0, 1200 - len(given))))[None]
        one = {"audio": clip, "length": jnp.full(1, len(given))}
        assert np.allclose(found, objective.encode(params, {}, one).special[0, 0], atol=1e-4)


def test_a_batch_without_triplets_is_refused():
    objective, batch = made(), triplets()
    params, extra = objective.init(jax.random.key(0), batch)
    alone = {name: batch[name] for name in ("audio", "length")}
    with pytest.raises(ValueError, match="wanted also 'audio_positive'"):
        objective.loss(params, extra, alone, jax.random.key(1), train=False)


def pictures(labels, classes=3):
    rng = np.random.default_rng(0)
    objective = Segmentation(UNet(classes, (4, 4)), classes)
    image = jnp.asarray(rng.standard_normal((len(labels), 4, 4, 1)), jnp.float32)
    batch = {"image": image, "pixels": jnp.asarray(labels, jnp.int32)}
    return objective, batch, *objective.init(jax.random.key(0), batch)


def test_pixels_without_a_label_teach_nothing():
    labels = np.full((2, 4, 4), IGNORED)
    labels[0, 1, 2], labels[1, 0, 0], labels[1, 3, 3] = 2, 1, 1
    objective, batch, params, extra = pictures(labels)
    found = objective.loss(params, extra, batch, jax.random.key(0), train=True)
    logits = np.asarray(objective.segment(params, {}, batch), np.float64)
    entropy = np.log(np.exp(logits).sum(-1)) - logits.max(-1) * 0
    own = [(0, 1, 2, 2), (1, 0, 0, 1), (1, 3, 3, 1)]
    weight = 1 / np.log(1.02 + np.array([0, 2, 1]) / 3)  # rare classes count more
    each = [weight[c] * (entropy[b, y, x] - logits[b, y, x, c]) for b, y, x, c in own]
    assert np.allclose(found.total, np.sum(each) / sum(weight[c] for *_, c in own), rtol=1e-5)
    assert found.extra["counts"].tolist() == [0, 2, 1] and found.metrics["labelled_pixels"] == (
        3,
        32,
    )
    still = objective.loss(params, extra, batch, jax.random.key(0), train=False)
    assert still.extra["counts"].tolist() == [0, 0, 0]

    def total(logits_of):
        shifted = dict(params["model"]["out"], bias=logits_of)
        tree = {"model": {**params["model"], "out": shifted}}
        return objective.loss(tree, extra, batch, jax.random.key(0), train=True).total

    gradient = jax.grad(total)(params["model"]["out"]["bias"])
    assert np.abs(gradient).max() > 0
    none = {**batch, "pixels": jnp.full((2, 4, 4), IGNORED, jnp.int32)}
    assert objective.loss(params, extra, none, jax.random.key(0), train=True).total == 0


def test_noise_is_added_in_training_alone():
    objective, batch, params, extra = pictures(np.ones((2, 4, 4), int))
    noisy = dataclasses.replace(objective, noise=0.5)
    totals = {}
    for train in (True, False):
        for seed in (0, 1):
            found = [
                one.loss(params, extra, batch, jax.random.key(seed), train=train).total
                for one in (noisy, objective)
            ]
            totals[train, seed] = [float(value) for value in found]
    assert totals[True, 0][0] != totals[True, 1][0] != totals[True, 1][1]
    assert totals[False, 0][0] == totals[False, 1][0] == totals[False, 0][1]
    with pytest.raises(ValueError, match="noise -1"):
        dataclasses.replace(objective, noise=-1.0)


def test_odd_sides_are_refused():
    with pytest.raises(ValueError, match="wanted multiples of 4"):
        UNet(3).init(jax.random.key(0), jnp.zeros((1, 6, 8, 1)))
