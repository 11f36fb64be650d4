"""AudioMosaic: what each view keeps, what the loss is, what it must not see, what its projector forgets."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import CONFIGS, load

from ssl_audio import losses
from ssl_audio.config import build, plain
from ssl_audio.heads.pools import Mean, MeanOfAll
from ssl_audio.heads.projectors import AudioMosaic
from ssl_audio.structs import Encoded, Tokens
from ssl_audio.tokens.masking import others
from ssl_audio.tokens.patchify import patches

GRID, WIDTH, SIDE = (3, 10), 16, 8
TOTAL = GRID[0] * GRID[1]
MIXERS = {"attention": dict(kind="attention", heads=2), "mamba": dict(kind="mamba", state=4)}
(CONFIG,) = [path for path in CONFIGS if path.stem == "audiomosaic"]


def masking(layout, number):
    return build(plain(load(CONFIG, f"layout={layout}").objective.maskings[number]), "tokens")


def kept(layout, number, grid, batch=3):
    """Return which (row, column) of the grid each clip's view keeps [B, rows, columns]."""
    made = masking(layout, number)
    hidden = np.asarray(made(jax.random.key(number), batch, grid))
    assert hidden.shape == (batch, made.number(grid)) and (np.diff(hidden, axis=1) > 0).all()
    seen = np.ones((batch, grid[0] * grid[1]), bool)
    np.put_along_axis(seen, hidden, False, 1)
    return seen.reshape(batch, *grid)


@pytest.mark.parametrize(
    "layout, number, grid, count",
    [
        ("grid", 0, (8, 64), 200),
        ("grid", 1, (8, 64), 256),
        ("released", 0, (8, 64), 192),
        ("released", 1, (8, 64), 304),
        ("grid", 0, (4, 31), 48),
        ("grid", 1, (4, 31), 62),
    ],
)
def test_each_view_keeps_the_published_number_of_patches(layout, number, grid, count):
    seen = kept(layout, number, grid)
    assert (seen.sum((1, 2)) == count).all()
    assert not np.array_equal(seen[0], seen[1])  # drawn for each clip alone
    if layout == "grid":  # whole columns, or whole rows
        axis = 1 if number == 0 else 2
        assert (seen.all(axis) == seen.any(axis)).all()


def test_the_released_masks_are_those_of_its_index_arithmetic():
    for number in (0, 1):
        seen = kept("released", number, (8, 64))
        theirs = seen.swapaxes(1, 2).reshape(3, 8, 64)  # tokens column by column, read as 8 x 64
        axis = 2 if number == 0 else 1
        assert (theirs.all(axis) == theirs.any(axis)).all()
        assert (theirs.any(axis).sum(1) == (3, 38)[number]).all()
    blocks = kept("released", 0, (8, 64)).reshape(3, 8, 8, 8)
    assert (blocks.all((1, 3)) == blocks.any((1, 3))).all()  # all rows of 8 columns, or none
    pattern = kept("released", 1, (8, 64)).reshape(3, 8, 8, 8)
    assert (pattern == pattern[:, :, :1]).all()  # the same in every 8 columns


def unit(count, width=5, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_loss_of_equal_vectors_and_of_swapped_views():
    same = jnp.asarray(np.repeat(unit(1), 6, axis=0), jnp.float32)
    loss, _ = losses.nt_xent(same, same, 0.1)
    assert loss.shape == (12,) and np.allclose(loss, math.log(11), atol=1e-5)
    x, y = (jnp.asarray(unit(6, seed=seed), jnp.float32) for seed in (1, 2))
    assert np.isclose(
        jnp.mean(losses.nt_xent(x, y, 0.1)[0]), jnp.mean(losses.nt_xent(y, x, 0.1)[0])
    )
    right = jnp.eye(6)
    loss, hit = losses.nt_xent(right, right, 0.01)
    assert np.allclose(loss, 0, atol=1e-5) and (hit == 1).all()


def looped(z, temperature):
    """Return the mean loss over all rows of both views, written as a double loop (float64)."""
    count, total = len(z), 0.0
    for i in range(count):
        partner = (i + count // 2) % count
        others = sum(jnp.exp(z[i] @ z[j] / temperature) for j in range(count) if j != i)
        total -= jnp.log(jnp.exp(z[i] @ z[partner] / temperature) / others)
    return total / count


def test_loss_and_gradient_are_those_of_an_explicit_double_loop():
    with jax.enable_x64(True):
        z = jnp.asarray(unit(6))

        def ours(z):
            return jnp.mean(losses.nt_xent(z[:3], z[3:], 0.1)[0])

        for made, wanted in zip(
            jax.value_and_grad(ours)(z),
            jax.value_and_grad(lambda z: looped(z, 0.1))(z),
            strict=True,
        ):
            assert made.dtype == jnp.float64 and np.allclose(made, wanted, rtol=0, atol=1e-10)


def objective(mixer="attention", **more):
    block = dict(kind="blocks:PreNorm", mixer=MIXERS[mixer], mlp=2.0)
    options = dict(
        kind="masked_contrast",
        frontend=dict(kind="fbank", bins=24, frames=80),
        tokenizer=dict(
            kind="patchify",
            width=WIDTH,
            patch=(SIDE, SIDE),
            stride=(SIDE, SIDE),
            norm=dict(kind="norms:LayerNorm"),
        ),
        encoder=dict(
            kind="stack",
            width=WIDTH,
            depth=1,
            remat="none",
            special=1,
            block=block,
            positions=dict(kind="positions:Learned", grid=GRID, start="sincos"),
            first_norm=dict(kind="norms:LayerNorm"),
            final_norm=None,
        ),
        pool=dict(kind="pools:MeanOfAll"),
        projector=dict(kind="projectors:AudioMosaic", hidden=8, out=4),
        maskings=(
            dict(kind="masking:TimeFrequency", time=0.6),
            dict(kind="masking:TimeFrequency", freq=0.4),
        ),
    )
    return build(options | more, "objectives")


@pytest.fixture(scope="module")
def batch():
    audio = np.random.default_rng(0).normal(0, 0.1, (4, 13_040)).astype(np.float32)
    return {"audio": jnp.asarray(audio), "length": jnp.full(4, 13_040, jnp.int32)}


def start(made, batch):
    """Return random parameters; compiling `init` would take seconds."""
    shapes, extra = jax.eval_shape(made.init, jax.random.key(0), batch)
    assert extra == {} and shapes.keys() == {"tokenizer", "encoder", "projector"}
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0.1, 0.2, s.shape), jnp.float32), shapes)


@pytest.mark.parametrize("mixer", list(MIXERS))
def test_hidden_patches_have_no_influence_and_visible_ones_have(mixer, batch):
    made = objective(mixer)
    params = start(made, batch)
    spec = made.frontend(batch["audio"], batch["length"])
    hidden = made.maskings[0](jax.random.key(1), 4, GRID)

    @jax.jit
    def gradient(spec):
        def summed(spec):
            return jnp.sum(jnp.sin(made.visible(params, spec, others(hidden, TOTAL))))

        return patches(jax.grad(summed)(spec), (SIDE, SIDE), (SIDE, SIDE))

    moved = np.abs(np.asarray(gradient(spec))).max(-1)
    rows = np.arange(4)[:, None]
    assert not moved[rows, hidden].any()
    assert (moved[rows, others(hidden, TOTAL)] > 0).all()


def test_views_may_come_with_the_batch_and_waves_change_them_in_training_only(batch):
    made = objective(augment=(dict(kind="waves:Polarity", chance=1.0), dict(kind="waves:Gain")))
    params, key = start(made, batch), jax.random.key(0)
    loss = jax.jit(
        lambda batch, train: made.loss(params, {}, batch, key, train=train).total,
        static_argnums=1,
    )
    quiet = float(loss(batch, False))
    assert quiet == float(loss(batch, False)) != float(loss(batch, True))
    names = ("audio", "length")
    same = batch | {f"{name}_second": batch[name] for name in names}
    assert np.isclose(float(loss(same, False)), quiet, atol=1e-5)
    turned = batch | {f"{name}_second": batch[name][::-1] for name in names}
    assert abs(float(loss(turned, False)) - quiet) > 1e-3
    assert made.couples_examples  # so that accumulation is refused


def test_the_projector_knows_its_batch_only_and_ends_without_a_shift():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 16)), jnp.float32)
    projector = AudioMosaic(out=4, hidden=6)
    made: Any = projector.init_with_output(jax.random.key(0), x)
    out, variables = made
    assert variables.keys() == {"params"}
    shapes = jax.tree.map(np.shape, variables["params"])
    assert shapes == {
        "norm": {"scale": (16,), "bias": (16,)},
        "first": {"dense": {"kernel": (16, 6)}},
        "norm_first": {"scale": (6,), "bias": (6,)},
        "second": {"dense": {"kernel": (6, 4)}},
        "norm_second": {"scale": (4,)},
    }
    assert np.allclose(np.mean(out, 0), 0, atol=1e-6)
    moved: Any = projector.apply(variables, 3 * x + 5)
    assert np.allclose(moved, out, atol=1e-4)  # LayerNorm first
    few: Any = projector.apply(variables, x[:4])
    assert not np.allclose(few, out[:4], atol=1e-2)


def test_the_pool_counts_special_and_valid_tokens_alike():
    rng = np.random.default_rng(0)
    x, special = (jnp.asarray(rng.normal(size=(2, n, 3)), jnp.float32) for n in (4, 2))
    index = jnp.zeros((2, 4), jnp.int32)
    tokens = Tokens(x=x, index=index, grid=(1, 4))

    def pooled(pool, encoded) -> Any:
        return pool.apply({}, encoded)

    found = pooled(MeanOfAll(), Encoded(tokens=tokens, special=special))
    assert np.allclose(found, np.concatenate([special, x], 1).mean(1), atol=1e-6)
    valid = jnp.asarray([[True, True, False, False], [True] * 4])
    few = Encoded(tokens=dataclasses.replace(tokens, valid=valid), special=special)
    wanted = np.concatenate([special[0], x[0, :2]]).mean(0)
    assert np.allclose(pooled(MeanOfAll(), few)[0], wanted, atol=1e-6)
    with pytest.raises(ValueError, match="no special tokens; use pools:Mean"):
        pooled(MeanOfAll(), Encoded(tokens=tokens))
    assert np.allclose(pooled(Mean(), few)[0], x[0, :2].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    "more, words",
    [
        (dict(temperature=0.0), "temperature=0.0; wanted two, one for each view"),
        (dict(maskings=(dict(kind="masking:Random", count=0.5),)), "wanted 2 values"),
    ],
)
def test_wrong_options_are_named(more, words):
    with pytest.raises((TypeError, ValueError), match=words):
        objective(**more)


@pytest.mark.parametrize("argument", ["layout=rows", "waves=some"])
def test_a_wrong_argument_of_the_config_is_named(argument):
    with pytest.raises(ValueError, match=f"{argument.partition('=')[0]} '.*': wanted"):
        load(CONFIG, argument)
