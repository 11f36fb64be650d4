"""SSLAM: the layout of mixtures, what is to be retained of both clips, and EAT where nothing is mixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import CONFIGS, load

from ssl_audio.config import build, plain
from ssl_audio.storage.written import samples

GRID, WIDTH = (4, 8), 16
FRAMES = 8 * GRID[1]


def objective(kind="retention", **parts):
    block = dict(kind="post_norm", mixer=dict(kind="attention", heads=2), mlp=2.0)
    return build(
        dict(
            kind=kind,
            frontend=dict(kind="fbank", bins=32, frames=FRAMES),
            tokenizer=dict(kind="patchify", width=WIDTH, patch=(8, 8), stride=(8, 8)),
            encoder=dict(
                kind="stack", width=WIDTH, depth=2, block=block, special=1, remat="none",
                positions=dict(kind="positions:Learned", grid=GRID), final_norm=None,
            ),
            decoder=dict(kind="decoders:ConvDecoder", width=16, layers=1, groups=4),
            masking=dict(kind="masking:InverseBlock", keep=0.25, side=3),
            clones=2,
            **parts,
        ),
        "objectives",
    )  # fmt: skip


@pytest.fixture(scope="module")
def batch():
    audio = np.random.default_rng(0).normal(0, 0.1, (3, 10_480)).astype(np.float32)
    return {"audio": jnp.asarray(audio), "length": jnp.asarray([10_480, 6_000, 10_480], jnp.int32)}


def start(made, batch):
    """Return random parameters, and extra state in which the teacher is another network."""
    shapes = jax.eval_shape(made.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.2, s.shape), jnp.float32), shapes)


def published():
    (path,) = [path for path in CONFIGS if path.stem == "sslam"]
    options = plain(load(path, ""))
    made = build(options["objective"], "objectives")
    return made, made.tokenizer.grid(made.frontend.count(samples(options)), made.frontend.bins)


def test_as_published_34_of_64_columns_are_mixed_in_a_fresh_layout():
    made, grid = published()
    assert grid == (8, 64) and made.window(64) == 15
    draw = jax.jit(jax.vmap(lambda key: made.mixed(key, 64)))
    layouts = np.asarray(draw(jax.random.split(jax.random.key(0), 3000)))
    assert layouts.shape == (3000, 34) and grid[0] * layouts.shape[1] == 272
    assert (np.diff(layouts, axis=1) > 0).all()
    starts = set()
    for layout in layouts:
        left = np.setdiff1d(np.arange(64), layout)
        first, second = left[0], left[15]
        assert list(left) == [*range(first, first + 15), *range(second, second + 15)]
        starts.add((first, second))
    # Every pair of them, and no other, as the released code draws them in steps of 16 frames.
    wanted = {(i // 16, j // 16) for i in range(0, 501, 16) for j in range(i + 240, 1023 - 240, 16)}
    assert starts <= wanted and len(wanted - starts) < 0.1 * len(wanted)
    assert {first for first, _ in starts} == set(range(32))
    assert {second for _, second in starts} == set(range(15, 49))


def test_a_mixture_has_the_louder_of_both_in_mixed_columns_and_its_clip_elsewhere(batch):
    made = objective()
    spec = made.frontend(batch["audio"], batch["length"])
    mixed = jnp.asarray([0, 1, 5, 7])
    found = np.asarray(jax.jit(made.mixtures)(spec, batch["length"], mixed))
    spec = np.asarray(spec)
    there = np.isin(np.arange(FRAMES) // 8, mixed)
    assert (found[:, ~there] == spec[:, ~there]).all()
    valid = np.asarray(made.frontend.valid(batch["length"], FRAMES))
    assert valid[1].sum() < FRAMES == valid[0].sum()
    louder = np.maximum(spec, np.roll(spec, 1, axis=0))
    # Where both sound; padding neither hides the partner nor is heard in its place.
    assert (found[0, there] == louder[0, there]).all()
    assert (found[1, there] == np.where(valid[1][:, None], louder[1], spec[0])[there]).all()
    assert (found[2, there] == np.where(valid[1][:, None], louder[2], spec[2])[there]).all()
    assert (found[0, there] != spec[0, there]).any()


def test_silence_as_partner_gives_the_clip_back(batch):
    made = objective()
    length = jnp.full(3, 10_480)
    silent = made.frontend(batch["audio"].at[0].set(0), length)
    found = jax.jit(made.mixtures)(silent, length, jnp.arange(8))
    assert (np.asarray(found[1]) == np.asarray(silent[1])).all()


def test_what_is_retained_is_half_of_each_clip_and_all_of_it_where_nothing_is_mixed(batch):
    made = objective()
    _, extra = start(made, batch)
    spec = made.frontend(batch["audio"], batch["length"])
    mixed = jnp.asarray([1, 2, 6])

    @jax.jit
    def run(spec):
        target = made.targets(extra, spec)[0]
        return target, made.retained(extra, spec, target, mixed)

    def columns(x):
        return np.asarray(x).reshape(3, *GRID, WIDTH)

    target, found = map(columns, run(spec))
    unmixed = np.setdiff1d(np.arange(GRID[1]), mixed)
    assert (found[:, :, unmixed] == target[:, :, unmixed]).all()
    # By hand: the teacher's tokens of the partner with their positions, those of mixed columns picked
    # out, then its layers one by one.
    other = columns(2 * found - target)[:, :, mixed]
    assert np.allclose(other.mean(-1), 0, atol=1e-4) and np.allclose(other.std(-1), 1, atol=1e-2)
    assert not np.allclose(other, np.roll(target, 1, 0)[:, :, mixed], atol=0.1)
    # Of the partner's other columns the teacher hears nothing; of the mixed ones it does.
    sound = np.isin(np.arange(FRAMES) // 8, unmixed)
    changed = columns(run(jnp.where(sound[None, :, None], 3.0, spec))[1])
    other_changed = 2 * changed - columns(run(jnp.where(sound[None, :, None], 3.0, spec))[0])
    assert np.allclose(other_changed[:, :, mixed], other, atol=1e-4)
    louder = run(jnp.where(sound[None, :, None], spec, spec + 1))
    assert not np.allclose(
        (2 * columns(louder[1]) - columns(louder[0]))[:, :, mixed], other, atol=0.1
    )
    # Each clip's partner is the one before it: only the second's target changes with the first clip.
    moved = columns(run(spec.at[0].add(1.0))[1])
    assert np.allclose(moved[2], found[2], atol=1e-5)
    assert not np.allclose(moved[1][:, mixed], found[1][:, mixed], atol=0.1)


def test_positions_of_the_partner_are_those_of_the_whole_grid(batch):
    made = objective()
    _, extra = start(made, batch)
    spec = jnp.ones((2, FRAMES, 32))  # every patch sounds alike: only positions tell them apart
    target = jnp.zeros((2, 32, WIDTH))
    table = extra["teacher"]["encoder"]["positions"]["table"]
    moved = jnp.roll(table.reshape(*GRID, WIDTH), 3, axis=1).reshape(-1, WIDTH)

    @jax.jit
    def run(table, mixed):
        encoder = extra["teacher"]["encoder"]
        encoder = encoder | {"positions": encoder["positions"] | {"table": table}}
        teacher = {"teacher": extra["teacher"] | {"encoder": encoder}}
        found = made.retained(teacher, spec, target, mixed)
        return found.reshape(2, *GRID, WIDTH)[:, :, mixed]

    here, there = (run(table, jnp.asarray(mixed)) for mixed in ([0, 1], [2, 5]))
    assert not np.allclose(here, there, atol=0.05)
    assert np.allclose(run(moved, jnp.asarray([3, 4])), here, atol=1e-5)


def test_where_nothing_is_mixed_it_is_latent_prediction(batch):
    whole = objective(unmixed=1.0, noise=0.0)
    assert whole.window(GRID[1]) == 4 and whole.mixed(jax.random.key(0), GRID[1]).shape == (0,)
    plain_one = objective("latent_prediction", noise=0.0)
    params, extra = start(plain_one, batch)

    def metrics(made):
        loss = jax.jit(lambda: made.loss(params, extra, batch, jax.random.key(3), train=True))()
        return {k: float(v / w) for k, (v, w) in loss.metrics.items()}, float(loss.total)

    (ours, total), (theirs, _) = metrics(whole), metrics(plain_one)
    assert ours["patch"] == pytest.approx(theirs["patch"], rel=1e-5)
    assert ours["retention"] == pytest.approx(theirs["patch"], rel=1e-5)
    assert ours["target_deviation"] == pytest.approx(theirs["target_deviation"], rel=1e-5)
    assert total == pytest.approx(ours["patch"] + ours["clip"] + ours["retention"], rel=1e-5)
    # The special token's target is of the last layer only, so it is EAT's where there is one layer.
    assert ours["clip"] != pytest.approx(theirs["clip"], rel=1e-2)


def test_the_parts_of_the_loss_by_hand_and_who_gets_a_gradient(batch):
    made = objective(noise=0.0, utterance=0.5, retention=2.0)
    params, extra = start(made, batch)
    key = jax.random.key(5)

    @jax.jit
    def run():
        def total(params, extra):
            loss = made.loss(params, extra, batch, key, train=False)
            return loss.total, loss

        grads, loss = jax.grad(total, (0, 1), has_aux=True)(params, extra)
        spec = made.frontend(batch["audio"], batch["length"])
        mixed = made.mixed(jax.random.split(key, 4)[3], GRID[1])
        mixture = made.mixtures(spec, batch["length"], mixed)
        hidden = made.masking(jax.random.split(key, 3)[0], 6, GRID)
        shown = jnp.sort(jnp.argsort(_chosen(hidden), axis=1)[:, :8], axis=1)
        sides = []
        for x in (spec, mixture):
            encoded = made.visible(params, x, shown)
            made_ = made.reconstruct(params, encoded, jnp.zeros((6, 32, WIDTH)))
            sides.append((made_, encoded.special[:, 0], *made.targets(extra, x)))
        return loss, grads, hidden, sides, made.retained(extra, spec, sides[0][2], mixed)

    loss, (ours, theirs), hidden, sides, wanted = jax.tree.map(np.asarray, run())

    def error(made_, target):
        target = np.repeat(target, 2, axis=0)
        each = ((made_ - target) ** 2).sum(-1) / WIDTH**0.5
        return np.take_along_axis(each, hidden, axis=1).mean()

    def last(layers):
        x = layers[-1]
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return np.repeat(x.mean(1), 2, axis=0)

    patch = np.mean([error(made_, target) for made_, _, target, _ in sides])
    clip = np.mean([((s - last(x)) ** 2).sum(-1).mean() / WIDTH**0.5 for _, s, _, x in sides])
    retention = error(sides[1][0], wanted)
    found = {name: float(x / w) for name, (x, w) in loss.metrics.items()}
    assert found["patch"] == pytest.approx(patch, rel=1e-4)
    assert found["clip"] == pytest.approx(clip, rel=1e-4)
    assert found["retention"] == pytest.approx(retention, rel=1e-4)
    assert float(loss.total) == pytest.approx(patch + 0.5 * clip + 2 * retention, rel=1e-4)
    assert not any(np.any(g) for g in jax.tree.leaves(theirs))
    assert all(np.any(g) for g in jax.tree.leaves(ours))


def _chosen(hidden):
    return jax.vmap(lambda row: jnp.zeros(32, bool).at[row].set(True))(hidden)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="unmixed is 0.0; wanted a share above 0"):
        objective(unmixed=0)
    with pytest.raises(ValueError, match=r"of 3 columns gives two windows of less than one"):
        objective(unmixed=0.5).window(3)
    assert objective().couples_examples  # accumulation would pair clips with others
