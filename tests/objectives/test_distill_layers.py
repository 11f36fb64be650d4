"""Distillation of layers: rates, weights by domain, the formula, teachers that stay as they are."""

import dataclasses
import functools
import math
import shutil
from typing import Any

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssl_audio
from ssl_audio.config import build
from ssl_audio.objectives import distill_layers, teacher
from ssl_audio.objectives.distill_layers import DistillLayers
from ssl_audio.presets import distillation
from ssl_audio.storage.exported import write
from ssl_audio.structs import Tokens

WIDTH, BINS, FRAMES, SAMPLES = 16, 24, 32, 400 + 160 * 31
LOG_HALF = math.log1p(math.exp(-1))  # -log sigmoid(1)


def parts(step, width=WIDTH, frames=FRAMES, rate=16_000):
    """Return a tiny Transformer of one token every `step` frames, with two layers."""
    return dict(
        frontend=dict(kind="fbank", bins=BINS, frames=frames, rate=rate),
        tokenizer=dict(kind="patchify", width=width, patch=(BINS, step), stride=(BINS, step)),
        encoder=dict(
            kind="stack",
            width=width,
            depth=2,
            remat="none",
            positions=dict(kind="positions:Learned", grid=(1, frames // step)),
            block=dict(kind="blocks:PreNorm", mixer=dict(kind="attention", heads=2), mlp=2.0),
        ),
    )


def objective(step=2, teachers=None, **more):
    teachers = teachers or dict(slow=parts(4, 8), long=parts(2, 12, frames=4 * FRAMES))
    features = {name: dict(kind="features", **found) for name, found in teachers.items()}
    options = dict(
        teachers=features,
        pairs={name: ((0, 0), (-1, 1)) for name in teachers},
        projector=dict(kind="projectors:Byol", hidden=8, norm=False),
    )
    return build(dict(kind="distill_layers", **parts(step), **options | more), "objectives")


def batch(samples=SAMPLES, rows=3):
    audio = np.random.default_rng(0).normal(0, 0.1, (rows, samples)).astype(np.float32)
    length = np.full(rows, samples, np.int32)
    length[-1] = samples // 2
    return {"audio": jnp.asarray(audio), "length": jnp.asarray(length)}


def drawn(made, found, seed=0):
    """Return random parameters and teachers; compiling `init` would take seconds."""
    shapes = jax.eval_shape(made.init, jax.random.key(0), found)
    rng = np.random.default_rng(seed)
    params, extra = jax.tree.map(
        lambda s: jnp.asarray(rng.normal(0, 0.2, s.shape), s.dtype), shapes
    )
    for layer in jax.tree.leaves(extra.get("statistics", {}), is_leaf=lambda x: "mean" in x):
        layer |= teacher.unheard(len(layer["mean"]))
    return params, extra


def test_a_frame_that_is_predicted_exactly_costs_a_log_of_a_sigmoid_and_its_cosine_pulls_nowhere():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32)
    away, cosine, loss = distill_layers.distances(z, z)
    np.testing.assert_allclose(away, 0)
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)
    np.testing.assert_allclose(loss, LOG_HALF, rtol=1e-6)
    slope = jax.grad(lambda made: jnp.sum(distill_layers.distances(made, z)[1]))(z)
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    # By hand: the mean difference is 1; the cosine of (1, 0) and (1, 2) is 1 / sqrt(5).
    made, z = jnp.array([[[1.0, 0.0]]]), jnp.array([[[1.0, 2.0]]])
    want = 1 + math.log1p(math.exp(-(5**-0.5)))
    np.testing.assert_allclose(distill_layers.distances(made, z)[2], [[want]], rtol=1e-6)


@pytest.mark.parametrize("mine", [1, 2])
def test_the_faster_ones_frames_are_averaged_and_both_are_as_long(mine):
    made = objective(step=2 * mine, teachers=dict(other=parts(4 // mine, 8)))
    rng = np.random.default_rng(0)
    for count in range(1, 41):  # frames of the faster
        fast = rng.normal(size=(2, count, 3)).astype(np.float32)
        for fewer in {max(1, count // 2), -(-count // 2)}:
            slow = rng.normal(size=(2, fewer, 3)).astype(np.float32)
            given = (fast, slow) if mine == 1 else (slow, fast)
            shapes = jax.eval_shape(functools.partial(made.together, "other"), *given)
            assert shapes[0].shape == shapes[1].shape == (2, fewer, 3)
            if count in (1, 8, 9):
                found = made.together("other", *map(jnp.asarray, given))
                want = np.stack([fast[:, 2 * i : 2 * i + 2].mean(1) for i in range(fewer)], axis=1)
                np.testing.assert_allclose(found[mine - 1], want, atol=1e-6)
                np.testing.assert_array_equal(found[2 - mine], slow)


def test_rates_that_do_not_fit_are_refused():
    found = batch()
    with pytest.raises(
        ValueError, match="teachers.other: a frame every 640 .*student one every 480"
    ):
        made = objective(step=3, teachers=dict(other=parts(4, 8)))
        made.together("other", jnp.zeros((1, 8, 3)), jnp.zeros((1, 8, 3)))
    other = parts(4, 8, rate=8000)
    with pytest.raises(ValueError, match="teachers.other: hears 8000 Hz, the student 16000 Hz"):
        drawn(objective(teachers=dict(other=other)), found)
    with pytest.raises(
        ValueError, match="pairs.slow: the teacher has no layer 2; wanted 0 to 1, or -1"
    ):
        drawn(objective(pairs=dict(slow=((0, 2),), long=((0, 0),))), found)
    with pytest.raises(
        ValueError, match="pairs: got those of slow; wanted some of each teacher: long"
    ):
        objective(pairs=dict(slow=((0, 0),)))


def test_teachers_count_by_the_domain_of_a_clip():
    domain = jnp.array([-1, 0, 1, 2])
    made = objective(matched=10.0, domains=dict(long=(0,), slow=(1, 3)))
    found = np.asarray(made.weights(domain))  # long, then slow
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    want = [[1 / 2, 1 / 2], [10 / 11, 1 / 11], [1 / 11, 10 / 11], [1 / 2, 1 / 2]]
    np.testing.assert_allclose(found, want, rtol=1e-6)
    alike = dataclasses.replace(made, matched=1.0)
    np.testing.assert_allclose(alike.weights(domain), 1 / 2)
    with pytest.raises(ValueError, match="domains: got wide; wanted names of teachers: long, slow"):
        objective(domains=dict(wide=(0,)))


def test_the_weights_and_padding_reach_the_loss():
    made, found = objective(matched=1e6, domains=dict(long=(0,), slow=(1,))), batch()
    params, extra = drawn(made, found)

    @jax.jit
    def total(params, domain, audio):
        given = found | {"domain": jnp.full(3, domain), "audio": audio}
        return made.loss(params, extra, given, jax.random.key(0), train=False).total

    audio = found["audio"]
    before = [float(total(params, k, audio)) for k in range(2)]
    assert np.isclose(total(params, -1, audio), np.mean(before), rtol=1e-5)
    moved = params | {
        "heads": params["heads"] | {"long": jax.tree.map(lambda x: 2 * x, params["heads"]["long"])}
    }
    assert not np.isclose(total(moved, 0, audio), before[0], rtol=1e-3)
    assert np.isclose(total(moved, 1, audio), before[1], rtol=1e-5)
    # Whatever lies after a clip's end.
    assert np.isclose(total(params, 0, audio.at[2, SAMPLES // 2 :].set(0.7)), before[0], rtol=1e-6)
    there = made.heard("slow", found["length"], 8)
    assert np.asarray(there).sum(1).tolist() == [8, 8, -(-(SAMPLES // 2) // 640)]


def test_teachers_hear_as_much_as_the_student_and_learn_nothing():
    made, found = objective(), batch()
    params, extra = drawn(made, found)
    assert set(params) == {"tokenizer", "encoder", "heads"}
    assert set(extra) == {"teachers"} and set(extra["teachers"]) == {"slow", "long"}

    @jax.jit
    def run(params, extra):
        def total(params, extra):
            return made.loss(params, extra, found, jax.random.key(0), train=True).total

        taught = {name: made.taught(name, extra["teachers"][name], found) for name in made.teachers}
        return jax.grad(total, argnums=(0, 1))(params, extra), taught

    (mine, theirs), taught = run(params, extra)
    assert taught["slow"].tokens.x.shape == (3, 8, 8)
    assert taught["long"].tokens.x.shape == (3, 16, 12)  # not the 64 columns of its own clips
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(theirs)) == 0
    largest = {
        name: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(part))
        for name, part in mine.items()
    }
    assert min(largest.values()) > 0, largest


def test_a_teacher_of_short_clips_hears_windows():
    short = parts(4, 8, frames=8)
    short["tokenizer"] |= dict(patch=(BINS // 2, 4), stride=(BINS // 2, 4))
    short["encoder"]["positions"]["grid"] = (2, 2)
    made, found = objective(teachers=dict(short=short)), batch()
    _, extra = drawn(made, found)
    state, size = extra["teachers"]["short"], 400 + 160 * 7
    frozen = made.teachers["short"]
    encode = jax.jit(lambda b: frozen.predictors()["encode"](state["params"], {}, b))
    want = {-1: [], 1: []}
    for start in range(0, 32 * 160, 8 * 160):
        length = jnp.clip(found["length"] - start, 1, size)
        alone = encode({"audio": found["audio"][:, start : start + size], "length": length})
        for layer, parts_of in want.items():
            parts_of.append(distill_layers.frames(alone, layer, ""))
    taught = jax.jit(lambda b: made.taught("short", state, b))(found)
    assert taught.tokens.grid == (2, 8)
    for layer, parts_of in want.items():
        same = distill_layers.frames(taught, layer, "")
        np.testing.assert_allclose(same, jnp.concatenate(parts_of, axis=1), atol=1e-5)


def test_a_convolutional_teacher_teaches_what_it_says_in_the_end():
    taught = parts(4) | dict(
        frontend=dict(kind="fbank", bins=BINS, frames=16),
        tokenizer=dict(kind="bins:Bins"),
        encoder=dict(kind="audio_ntt:AudioNtt", width=6, channels=2, blocks=2),
    )
    made = objective(teachers=dict(a=taught), pairs=dict(a=((1, -1),)), tap=True)
    params, extra = drawn(made, batch())
    extra = jax.tree.map(jnp.abs, extra)  # variances among them
    loss = jax.jit(lambda b: made.loss(params, extra, b, jax.random.key(0), train=False).total)
    assert np.isfinite(loss(batch()))
    shape = jax.eval_shape(lambda b: made.taught("a", extra["teachers"]["a"], b), batch())
    assert shape.tokens.x.shape == (3, 8, 6)  # two windows of 16 frames
    with pytest.raises(ValueError, match="the teacher has no layer 0; wanted -1 for the final one"):
        drawn(objective(teachers=dict(a=taught), pairs=dict(a=((1, 0),))), batch())


def test_features_are_standardised_by_what_was_heard_before():
    made, found = objective(standardise=True, teachers=dict(slow=parts(4, 8))), batch()
    params, extra = drawn(made, found)
    step = jax.jit(lambda e, b: made.loss(params, e, b, jax.random.key(0), train=True))
    heard = []
    for gain in (1.0, 0.2, 3.0):
        given = found | {"audio": gain * found["audio"], "length": jnp.full(3, SAMPLES)}
        extra = step(extra, given).extra
        encoded = made.taught("slow", extra["teachers"]["slow"], given)
        heard.append(np.asarray(encoded.layers[1]).reshape(-1, 8))
    layer = extra["statistics"]["slow"]["pair_1"]
    every = np.concatenate(heard)
    assert int(layer["batches"]) == 3
    np.testing.assert_allclose(layer["mean"], every.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer["variance"], every.var(0), rtol=1e-4)
    z = teacher.standard(jnp.asarray(every)[None], layer)[0]
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-3)


@pytest.mark.parametrize("mlp", [2.0, 0.0])
def test_a_tapped_layer_is_what_its_last_branch_adds(mlp):
    plain, tapped = (
        objective(teachers=dict(a=parts(4)), pairs=dict(a=((0, 1),)), tap=tap)
        for tap in (False, True)
    )
    options: Any = parts(4)["encoder"]
    options["block"]["mlp"] = mlp
    encoder = build(options, "backbones")
    tokens = Tokens(jnp.ones((1, 8, WIDTH)), jnp.arange(8)[None], (1, 8))
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), tokens)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.3, s.shape), s.dtype), shapes)
    if mlp:  # then it is all that is added
        mixer = params["params"]["layers"]["mixer"]
        mixer["out"] = jax.tree.map(jnp.zeros_like, mixer["out"])
    streams, taps = (
        jax.jit(functools.partial(one._read(encoder).apply, layers=True))(params, tokens).layers
        for one in (plain, tapped)
    )
    np.testing.assert_allclose(taps[1], streams[1] - streams[0], rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(taps[1]).min()) > 0
    with pytest.raises(
        ValueError, match="Identity cannot be tapped; wanted layers of blocks:PreNorm"
    ):
        tapped._read(build(dict(kind="identity"), "backbones"))


def test_a_folder_teaches_and_the_student_does_without_it(tmp_path):
    known = encoders.encoder(patch=(32, 8))
    folder = write(tmp_path / "teacher", known.params, known.config)
    found = distillation.taught(parts(4)["encoder"], distillation.named(str(folder)), 2, hidden=8)
    assert found["pairs"] == {"teacher": ((0, 0), (1, 1))}
    options = dict(parts(4), **found)
    made: DistillLayers = build(options, "objectives")
    params, extra = made.init(jax.random.key(0), batch())
    same = extra["teachers"]["teacher"]["params"]
    jax.tree.map(np.testing.assert_array_equal, same, known.params)
    data = dict(entries=dict(audio=dict(kind="entries:Audio", samples=SAMPLES)))
    student = write(tmp_path / "student", params, dict(objective=options, data=data))
    wave = np.asarray(batch()["audio"][0])
    before = ssl_audio.load(student).embed(wave, 16_000)
    shutil.rmtree(folder)
    after = ssl_audio.load(student).embed(wave, 16_000)
    assert before.shape == (WIDTH,) and (before == after).all()


def test_layers_are_paired_at_equal_shares_of_both_depths():
    assert distillation.spread(12, 12, 4) == ((2, 2), (5, 5), (8, 8), (11, 11))
    assert distillation.spread(6, 4, 4) == ((1, 0), (2, 1), (4, 2), (5, 3))
    assert distillation.spread(4, 12, 1) == ((3, 11),)
    assert distillation._pairs(4, 0, 3) == ((3, -1),)  # no stack of layers
    with pytest.raises(
        ValueError, match="pairs=5: the student has 12 layers, the teacher 4; wanted 1 to 4"
    ):
        distillation.spread(12, 4, 5)
