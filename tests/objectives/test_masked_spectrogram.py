"""Masked spectrogram modelling: its losses from their definition, what is hidden, keys, pictures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import losses
from ssl_audio.config import build
from ssl_audio.presets import patch_encoders, runs

FRAMES, GRID = 64, (8, 4)


@functools.cache
def objective(encoder="ssast", **changes):
    options = runs.masked_spectrogram(
        encoder=encoder, size="tiny", patch=(16, 16), masked=12, frames=FRAMES, mean=-4.0, std=4.5
    )
    options["encoder"] |= dict(width=48, depth=2, drop_path=0.0)
    options["tokenizer"]["width"] = 48
    return build(options | changes, "objectives")


def batch(clips=3):
    wave = 0.1 * np.random.default_rng(0).standard_normal((clips, 10_000))
    return {"audio": jnp.asarray(wave, jnp.float32), "length": jnp.full(clips, 10_000, jnp.int32)}


@functools.cache
def params():
    return jax.jit(lambda: objective().init(jax.random.key(0), batch())[0])()


@functools.cache
def loss_of(**changes):
    made = objective(**changes)

    def run(params, spec, masks):
        return made.loss_of(params, {}, spec, masks, jax.random.key(0), train=True)

    return jax.jit(run)


@functools.cache
def spec():
    return objective().frontend(**{k: v for k, v in batch().items()})


def masks():
    draw = objective().masking
    return {
        name: draw(jax.random.key(i), 3, GRID)
        for i, name in enumerate(("discriminate", "reconstruct"))
    }


def test_parameters():
    p = params()
    assert set(p) == {"tokenizer", "encoder", "mask_token", "discriminate", "reconstruct"}
    assert p["mask_token"].shape == (48,)
    assert float(jnp.std(p["mask_token"])) == pytest.approx(48**-0.5, rel=0.3)
    made = objective(reconstruct=0.0)
    alone = jax.eval_shape(lambda: made.init(jax.random.key(0), batch())[0])
    assert set(alone) == set(p) - {"reconstruct"}


def test_joint_loss_is_the_weighted_sum_of_both_tasks():
    p, m = params(), masks()
    both = loss_of()(p, spec(), m)
    nce, mse = (float(both.metrics[name][0] / both.metrics[name][1]) for name in ("nce", "mse"))
    assert float(both.total) == pytest.approx(nce + 10 * mse, rel=1e-5)
    assert {name: float(w) for name, (_, w) in both.metrics.items()} == {
        "nce": 3,
        "mse": 3,
        "accuracy": 3,
    }

    one = loss_of(reconstruct=0.0)(p, spec(), {"discriminate": m["discriminate"]})
    assert float(one.total) == pytest.approx(nce, rel=1e-5) and "mse" not in one.metrics
    other = loss_of(discriminate=0.0, reconstruct=2.0)(p, spec(), {"reconstruct": m["reconstruct"]})
    assert float(other.total) == pytest.approx(2 * mse, rel=1e-5) and "nce" not in other.metrics


def test_nothing_to_learn_or_overlapping_targets_are_refused():
    with pytest.raises(ValueError, match="discriminate and reconstruct are both 0"):
        objective(discriminate=0.0, reconstruct=0.0)
    overlapping = dict(kind="patchify", width=48, patch=(16, 16), stride=(10, 10))
    encoder = patch_encoders.encoder("ssast", "tiny", GRID)
    parts = dict(frontend=dict(kind="fbank"), tokenizer=overlapping, encoder=encoder)
    options = dict(kind="masked_spectrogram", masking=dict(kind="masking:Random", count=3), **parts)
    with pytest.raises(ValueError, match=r"stride \(10, 10\) differs from patch \(16, 16\)"):
        build(options, "objectives")


@pytest.mark.parametrize("encoder", ["ssast", "ssamba"])
def test_what_is_hidden_cannot_leak_into_the_predictions(encoder):
    made = objective(encoder)
    hidden = {"reconstruct": masks()["reconstruct"]}
    p = (
        params()
        if encoder == "ssast"
        else jax.jit(lambda: made.init(jax.random.key(0), batch())[0])()
    )

    def said(spec):
        return jnp.sum(
            jnp.sin(made._predict(p, spec, hidden, jax.random.key(0), False)["reconstruct"])
        )

    value, gradient = jax.jit(jax.value_and_grad(said))(spec())
    cut = np.asarray(gradient).reshape(3, 4, 16, 8, 16).transpose(0, 3, 1, 2, 4).reshape(3, 32, -1)
    inside = np.zeros((3, 32), bool)
    inside[np.arange(3)[:, None], hidden["reconstruct"]] = True
    felt = np.abs(cut).max(-1)
    assert not felt[inside].any(), "hidden patches are felt"
    assert (felt[~inside] > 0).all(), "visible patches are not"
    assert np.isfinite(value)


def test_the_hidden_patches_are_the_targets():
    """The loss, but not the prediction, changes with the content of a hidden patch."""
    m = masks()
    common = set(np.asarray(m["discriminate"][0])) & set(np.asarray(m["reconstruct"][0]))
    row, column = divmod(int(min(common)), 4)
    louder = spec().at[0, 16 * column : 16 * (column + 1), 16 * row : 16 * (row + 1)].add(1.0)
    before, after = loss_of()(params(), spec(), m), loss_of()(params(), louder, m)
    assert abs(float(before.total - after.total)) > 1e-4


def test_losses_from_their_definition():
    g = np.random.default_rng(0)
    predicted, target = (g.standard_normal((2, 5, 4)).astype(np.float32) for _ in range(2))
    target[:, 0] = 3 * predicted[:, 0]
    want = {"predictions": [], "targets": []}
    accuracy = []
    for p, t in zip(predicted, target, strict=True):
        scores = t @ p.T  # [target, prediction]
        exp = np.exp(scores)
        want["predictions"].append(-np.log(np.diag(exp) / exp.sum(1)).mean())
        want["targets"].append(-np.log(np.diag(exp) / exp.sum(0)).mean())
        share = exp / exp.sum(1, keepdims=True)
        accuracy.append(np.mean(share.argmax(0) == np.arange(5)))
    for over, value in want.items():
        loss, hits = losses.patch_nce(jnp.asarray(predicted), jnp.asarray(target), over)
        np.testing.assert_allclose(loss, value, rtol=1e-5)
        np.testing.assert_allclose(hits, accuracy, rtol=1e-6)
    assert np.abs(np.subtract(*want.values())).max() > 0.01
    mse = losses.patch_mse(jnp.asarray(predicted), jnp.asarray(target))
    np.testing.assert_allclose(mse, ((predicted - target) ** 2).mean((1, 2)), rtol=1e-5)
    with pytest.raises(ValueError, match="softmax over 'both'"):
        losses.patch_nce(jnp.asarray(predicted), jnp.asarray(target), "both")


def test_softmax_over_reaches_the_loss():
    one, other = (
        loss_of(softmax_over=over)(params(), spec(), masks()) for over in ("predictions", "targets")
    )
    assert abs(float(one.total - other.total)) > 1e-5
    assert float(one.metrics["mse"][0]) == pytest.approx(float(other.metrics["mse"][0]), rel=1e-6)


@dataclasses.dataclass(frozen=True)
class Remembered:
    """A masking that keeps what it drew."""

    inner: object
    drawn: list

    def __call__(self, key, batch, grid):
        self.drawn.append(self.inner(key, batch, grid))
        return self.drawn[-1]


def test_masks_depend_on_the_key_and_differ_between_tasks_and_clips():
    def draw(seed):
        seen = Remembered(objective().masking, [])
        made = dataclasses.replace(objective(), masking=seen)

        def stop(*args, **kwargs):
            raise StopIteration

        object.__setattr__(made, "loss_of", stop)
        with pytest.raises(StopIteration):
            made.loss(params(), {}, batch(), jax.random.key(seed), train=True)
        return [np.asarray(m) for m in seen.drawn]

    first, again, other = draw(0), draw(0), draw(1)
    assert len(first) == 2 and first[0].shape == (3, 12)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any() and (first[0][0] != first[0][1]).any()
    assert (first[0] != other[0]).any()


def test_the_loss_is_a_function_of_the_key():
    made = objective()
    run = jax.jit(lambda key: made.loss(params(), {}, batch(), key, train=True).total)
    values = [float(run(jax.random.key(seed))) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_gradients_reach_every_parameter():
    grads = jax.jit(jax.grad(lambda p: loss_of()(p, spec(), masks()).total))(params())
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        # A constant added to all predictions of a clip moves every score of a target alike.
        if jax.tree_util.keystr(path) != "['discriminate']['second']['dense']['bias']":
            assert np.abs(g).max() > 1e-7, jax.tree_util.keystr(path)


def test_pictures():
    made = objective()
    offers = made.predictors()
    assert set(offers) == {"encode", "pictures"}
    assert set(objective(reconstruct=0.0).predictors()) == {"encode"}
    drawn = jax.jit(offers["pictures"])(params(), {}, batch())
    assert {k: v.shape for k, v in drawn.items()} == dict.fromkeys(
        ("original", "original, masked", "reconstructed"), (3, FRAMES, 128)
    )
    np.testing.assert_allclose(drawn["original"], spec(), atol=1e-4)
    hidden = np.isnan(drawn["original, masked"])
    assert hidden.sum() == 3 * 12 * 256
    np.testing.assert_array_equal(drawn["original, masked"][~hidden], drawn["original"][~hidden])
    np.testing.assert_array_equal(drawn["reconstructed"][~hidden], drawn["original"][~hidden])
    assert (
        np.asarray(drawn["reconstructed"])[hidden] != np.asarray(drawn["original"])[hidden]
    ).any()


def test_encode_sees_everything_and_gives_all_layers():
    encoded = jax.jit(objective().encode)(params(), {}, batch())
    assert encoded.tokens.x.shape == (3, 32, 48) and encoded.special.shape == (3, 2, 48)
    assert encoded.layers.shape == (2, 3, 32, 48)
    alone = jax.jit(objective().encode)(params(), {}, jax.tree.map(lambda x: x[1:2], batch()))
    np.testing.assert_allclose(alone.tokens.x[0], encoded.tokens.x[1], atol=2e-5)
