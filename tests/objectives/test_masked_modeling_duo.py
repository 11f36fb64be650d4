"""M2D: student and teacher see complementary patches, gradients stay with the student, targets and loss."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import CONFIGS, load

from ssl_audio.config import build, plain
from ssl_audio.objectives.masked_modeling_duo import MaskedModelingDuo
from ssl_audio.storage.written import samples
from ssl_audio.tokens.masking import others
from ssl_audio.tokens.patchify import patches, unpatch

MIXERS = {"attention": dict(kind="attention", heads=2), "mamba": dict(kind="mamba", state=4)}
GRID, WIDTH, SIDE = (3, 10), 16, 8
TOTAL = GRID[0] * GRID[1]
RAMP = dict(start=0.5, end=1.0, steps=4)


def objective(mixer="attention"):
    positions = dict(kind="positions:Learned", grid=GRID, start="sincos")
    stack = dict(kind="stack", depth=1, remat="none")
    block = dict(kind="blocks:PreNorm", mixer=MIXERS[mixer], mlp=2.0)
    whole = dict(kind="blocks:PreNorm", mixer=MIXERS["attention"], mlp=2.0)
    encoder = dict(width=WIDTH, block=block, special=1, positions=positions | dict(special=False))
    return build(
        dict(
            kind="masked_modeling_duo",
            frontend=dict(
                kind="mel", rate=16_000, bins=24, hop=160, window=400, high=0.0, frames=80
            ),
            tokenizer=dict(kind="patchify", width=WIDTH, patch=(SIDE, SIDE), stride=(SIDE, SIDE)),
            encoder=stack | encoder,
            decoder=dict(
                kind="decoders:Decoder",
                trunk=stack | dict(width=8, block=whole),
                positions=positions,
            ),
            masking=dict(kind="masking:Random", count=0.7),
            momentum=RAMP,
        ),
        "objectives",
    )


@pytest.fixture(scope="module")
def batch():
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 12_800)).astype(np.float32)
    return {"audio": jnp.asarray(audio), "length": jnp.full(2, 12_800, jnp.int32)}


def start(made, batch):
    """Return random parameters and a random teacher; compiling `init` would take seconds."""
    shapes = jax.eval_shape(made.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.2, s.shape), jnp.float32), shapes)


def divided(made, batch):
    """Return a spectrogram, its hidden patches in order, and the others."""
    spec = made.frontend(batch["audio"], batch["length"])
    hidden = jnp.sort(made.masking(jax.random.key(1), 2, GRID), axis=1)
    return spec, hidden, others(hidden, TOTAL)


@pytest.mark.parametrize("mixer", list(MIXERS))
def test_student_and_teacher_see_complementary_patches(mixer, batch):
    made = objective(mixer)
    params, extra = start(made, batch)
    spec, hidden, shown = divided(made, batch)
    other = jnp.asarray(np.random.default_rng(2).normal(0, 3, spec.shape), jnp.float32)

    def both(spec):
        tokens = made.tokenizer.apply({"params": params["tokenizer"]}, spec)
        predicted = made.predict(params, made.visible(params, tokens, shown), hidden)
        return predicted, made.targets(params, extra, tokens, hidden)

    @jax.jit
    def run(spec, other):
        def student(spec):
            return jnp.sum(jnp.sin(both(spec)[0]))

        gradient = patches(jax.grad(student)(spec), (SIDE, SIDE), (SIDE, SIDE))
        cut, new = (patches(x, (SIDE, SIDE), (SIDE, SIDE)) for x in (spec, other))
        rows = jnp.arange(2)[:, None]

        def changed(where):
            flat = cut.at[rows, where].set(new[rows, where])
            return both(unpatch(flat, GRID, (SIDE, SIDE)))

        return jnp.max(jnp.abs(gradient), -1), both(spec), changed(shown), changed(hidden)

    gradient, before, others_changed, hidden_changed = jax.tree.map(np.asarray, run(spec, other))
    hidden, shown = np.asarray(hidden), np.asarray(shown)
    assert hidden.shape == (2, 21) and shown.shape == (2, 9)
    for i in range(2):
        assert sorted([*hidden[i], *shown[i]]) == list(range(TOTAL))
    assert (np.take_along_axis(gradient, hidden, 1) == 0).all()
    assert (np.take_along_axis(gradient, shown, 1) > 0).all()
    # The same bits, whatever the patches hold that the other one sees.
    assert (before[1] == others_changed[1]).all() and (before[0] != others_changed[0]).any()
    assert (before[0] == hidden_changed[0]).all() and (before[1] != hidden_changed[1]).any()


def test_targets_are_standardised_features_of_a_teacher_that_borrows_its_input(batch):
    made = objective()
    params, extra = start(made, batch)
    spec, hidden, _ = divided(made, batch)

    @jax.jit
    def targets(params, extra):
        tokens = made.tokenizer.apply({"params": params["tokenizer"]}, spec)
        return made.targets(params, extra, tokens, hidden)

    def moved(tree, part):
        return tree | {"encoder": tree["encoder"] | {part: step(tree["encoder"][part])}}

    def step(part):
        return jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), part)

    found = np.asarray(targets(params, extra), np.float64)
    assert found.shape == (2, 21, WIDTH)
    assert np.allclose(found.mean(-1), 0, atol=1e-6)
    assert np.allclose(found.var(-1, ddof=1), 1, atol=1e-4)
    for part in ("special", "positions"):
        assert not np.allclose(targets(moved(params, part), extra), found, atol=1e-4), part
    for part in ("layers", "final_norm"):
        assert (targets(moved(params, part), extra) == found).all(), part
        other = {"teacher": moved(extra["teacher"], part)}
        assert not np.allclose(targets(params, other), found, atol=1e-4), part


def test_gradients_go_through_the_prediction_only(batch):
    made = objective()
    params, extra = start(made, batch)

    @jax.jit
    def run(params, extra):
        def total(params, extra):
            return made.loss(params, extra, batch, jax.random.key(1), train=True).total

        def target(params, extra):
            spec, hidden, _ = divided(made, batch)
            tokens = made.tokenizer.apply({"params": params["tokenizer"]}, spec)
            return jnp.sum(jnp.sin(made.targets(params, extra, tokens, hidden)))

        return jax.grad(total, (0, 1))(params, extra), jax.grad(target, (0, 1))(params, extra)

    (ours, teacher), of_targets = jax.tree.map(np.asarray, run(params, extra))
    assert not any(np.any(g) for g in jax.tree.leaves((teacher, of_targets)))
    assert all(np.any(g) for g in jax.tree.leaves(ours))


def test_predictions_and_targets_are_of_the_same_patches(batch):
    made = objective()
    params, extra = start(made, batch)
    spec, hidden, shown = divided(made, batch)

    @jax.jit
    def run(where):
        tokens = made.tokenizer.apply({"params": params["tokenizer"]}, spec)
        encoded = made.visible(params, tokens, shown)
        return made.predict(params, encoded, where), made.targets(params, extra, tokens, where)

    ahead, back = jax.tree.map(np.asarray, (run(hidden), run(hidden[:, ::-1])))
    for forward, backward in zip(ahead, back, strict=True):
        assert np.allclose(forward, backward[:, ::-1], atol=1e-5)
        assert not np.allclose(forward, backward, atol=0.1)


@dataclasses.dataclass(frozen=True, eq=False)
class Given(MaskedModelingDuo):
    """Predictions and targets are those given."""

    prediction: Any = None
    target: Any = None

    def predict(self, *_):
        return self.prediction

    def targets(self, *_):
        return self.target


def test_the_loss_is_a_cosine_distance_that_vanishes_at_the_target(batch):
    rng = np.random.default_rng(3)
    target, prediction = rng.normal(0, 1, (2, 2, 21, WIDTH)).astype(np.float32)
    made = objective()
    params, extra = start(made, batch)
    parts = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}

    @jax.jit
    def loss(prediction):
        given = Given(**parts, prediction=prediction, target=jnp.asarray(target))
        found = given.loss(params, extra, batch, jax.random.key(1), train=False)
        return found.total, found.metrics

    lengths = np.linalg.norm(target, axis=-1) * np.linalg.norm(prediction, axis=-1)
    cosine = (target * prediction).sum(-1) / lengths
    assert float(loss(prediction)[0]) == pytest.approx(2 - 2 * cosine.mean(), abs=1e-5)
    assert float(loss(7 * prediction)[0]) == pytest.approx(float(loss(prediction)[0]), abs=1e-5)
    assert float(loss(3 * target)[0]) == pytest.approx(0, abs=1e-5)
    assert float(loss(-target)[0]) == pytest.approx(4, abs=1e-5)
    metrics = {name: float(x / weight) for name, (x, weight) in loss(prediction)[1].items()}
    assert metrics == pytest.approx(
        {
            "target_deviation": target.std((0, 1)).mean(),
            "target_deviation_in_clip": target.std(1).mean(),
        },
        abs=1e-5,
    )


def test_the_teacher_starts_as_another_network_and_follows_ever_more_slowly(batch):
    made = objective()
    params, extra = jax.jit(made.init)(jax.random.key(0), batch)
    own = extra["teacher"]["encoder"]
    assert set(own) == set(params["encoder"]) - {"positions", "special"} == {"layers", "final_norm"}
    kernels = jax.tree.leaves(
        jax.tree.map(lambda t, s: (t != s).mean() if t.ndim > 2 else 1, own, _only(params, own))
    )
    assert min(kernels) > 0.99
    apart = jax.tree.map(lambda p: p + 1, _only(params, own))
    for step, momentum in ((0, 0.5), (2, 0.75), (9, 1.0)):
        assert float(made.momentum(step)) == momentum
        after = made.refresh({"encoder": apart}, extra, jnp.asarray(step))["teacher"]["encoder"]
        wanted = jax.tree.map(lambda t, s, m=momentum: m * t + (1 - m) * s, own, apart)
        for found, want in zip(jax.tree.leaves(after), jax.tree.leaves(wanted), strict=True):
            assert np.allclose(found, want, atol=1e-6)


def _only(params, own):
    return {name: params["encoder"][name] for name in own}


def test_as_published_57_of_190_patches_are_visible():
    (path,) = [path for path in CONFIGS if path.stem == "m2d"]
    options = plain(load(path, ""))
    made = build(options["objective"], "objectives")
    grid = made.tokenizer.grid(made.frontend.count(samples(options)), made.frontend.bins)
    assert grid == (5, 38) == made.encoder.positions.grid
    assert made.masking.number(grid) == 133
    # The teacher is as slow as it gets when the run ends.
    assert made.momentum.steps == int(options["steps"])
