"""Semi-supervised learning: each method's loss by hand, the order of its passes, and what it must not do."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssl_audio import config, losses
from ssl_audio.distributed import sharding
from ssl_audio.distributed.sharding import Sharding
from ssl_audio.frontend.views import View
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.load import interface
from ssl_audio.objectives import mixing, re_mix_match
from ssl_audio.objectives.base import replaced
from ssl_audio.objectives.mixing import Clips
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Louder(View):
    """Add a number to all features, so that a clip's view can be told."""

    by: float

    def spec(self, spec, key, floor):
        """Return louder features."""
        del key, floor
        return spec + self.by * jnp.cos(jnp.arange(spec.shape[-1]))[None, None]


CLASSES, SAMPLES = 3, 2800
CNN = dict(kind="cnn", channels=(4,), convolutions=1, norm=dict(kind="norms:BatchNorm"))
METHODS = "supervised fix_match fix_match:Uda mix_match re_mix_match mean_teacher deep_co_training".split()
KEY = jax.random.key(3)


def made(kind, **options):
    parts = dict(
        kind=kind,
        frontend=dict(kind="fbank", bins=8, frames=16),
        tokenizer=dict(kind="bins"),
        encoder=CNN,
        head=dict(kind="classify:Classifier", classes=CLASSES),
    )
    objective = config.build(parts | options, "objectives")
    return dataclasses.replace(objective, weak=Louder(0.5), strong=Louder(2.0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)

    def clips(count, gain):
        audio = gain * rng.standard_normal((count, SAMPLES)) ** rng.integers(1, 4, (count, 1))
        return jnp.asarray(audio, jnp.float32), jnp.full(count, SAMPLES)

    found = {}
    for of, gain in (("", 0.1), ("unlabelled_", 0.4), ("second_", 0.2)):
        found[f"{of}audio"], found[f"{of}length"] = clips(4, gain)
    labels = jnp.eye(CLASSES)[jnp.array([0, 1, 2, 0])]
    return found | {"label": labels, "second_label": labels[::-1]}


def begun(objective, batch):
    """Return parameters, `extra`, and features: those of x, u and second as they are, weak and strong."""
    params, extra = objective.init(KEY, batch)
    seen = []
    for of in ("", "unlabelled_", "second_"):
        views = (None, objective.weak, objective.strong)
        seen.append([objective.clips(batch, of, view, KEY) for view in views])
    return params, extra, *seen


@pytest.fixture
def share(monkeypatch):
    """Let every mixup draw 0.3."""
    monkeypatch.setattr(jax.random, "beta", lambda key, a, b: jnp.asarray(0.3))


def mix(one, other):
    return jax.tree.map(lambda a, b: (0.7 * a + 0.3 * b).astype(a.dtype), one, other)


def cross(logits, label):
    return jnp.mean(-jnp.sum(label * jax.nn.log_softmax(logits), -1))


def compare(objective, params, extra, batch, by_hand):
    """Compare loss, gradients and renewed statistics with those of `by_hand(params) -> loss, params`."""

    @jax.jit
    def both(params, extra, batch):
        def loss(params):
            found = objective.loss(params, extra, batch, KEY, train=True)
            return found.total, (found, replaced(params, found.renewed or {}))

        found = jax.value_and_grad(loss, has_aux=True)(params)
        return found, jax.value_and_grad(by_hand, has_aux=True)(params)

    ((got, (found, after)), gradients), want = both(params, extra, batch)
    assert float(got) == pytest.approx(float(want[0][0]), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradients, want[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after, want[0][1])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    return found


def still(x):
    return jax.lax.stop_gradient(x)


@pytest.mark.parametrize("view", ["none", "weak", "strong"])
def test_supervised(batch, view):
    objective = made("supervised", view=view)
    params, extra, x, *_ = begun(objective, batch)

    def by_hand(params):
        clips = x["none weak strong".split().index(view)]
        logits, params = objective.scored(params, clips, KEY)
        return cross(logits, batch["label"]), params

    compare(objective, params, extra, {k: batch[k] for k in ("audio", "length", "label")}, by_hand)


def test_supervised_mixup_is_not_folded(batch, share):
    objective = made("supervised", view="none", mixup=0.4)
    params, extra, (x, *_), *_ = begun(objective, batch)
    order = jax.random.permutation(jax.random.split(KEY, 4)[1], 4)

    def by_hand(params):
        spec = 0.3 * x.spec + 0.7 * x.spec[order]
        label = 0.3 * batch["label"] + 0.7 * batch["label"][order]
        logits, params = objective.scored(params, x._replace(spec=spec), KEY)
        return cross(logits, label), params

    compare(objective, params, extra, batch, by_hand)


@pytest.mark.parametrize("mode, mixup", [("train", 0.0), ("eval", 0.75)])
def test_fix_match_takes_what_it_is_sure_of_and_averages_over_all(batch, share, mode, mixup):
    objective = made("fix_match", pseudo_label_bn=mode, weight=0.7, mixup=mixup)
    params, extra, (_, x, _), (_, weak, strong), _ = begun(objective, batch)
    sure = jnp.sort(jax.nn.softmax(objective.guessed(params, weak)[0]).max(-1))
    objective = dataclasses.replace(objective, threshold=float(sure[:2].mean()))
    inputs = (mix(x, strong), mix(strong, x)) if mixup else (x, strong)

    def by_hand(params):
        logits, after = objective.scored(still(params), weak, renew=mode == "train")
        params = statistics_of(after, params)
        share = jax.nn.softmax(logits)
        on_x, params = objective.scored(params, inputs[0], KEY)
        on_u, params = objective.scored(params, inputs[1], KEY)
        taken = jnp.where(
            share.max(-1) >= objective.threshold,
            jnp.take_along_axis(-jax.nn.log_softmax(on_u), share.argmax(-1)[:, None], 1)[:, 0],
            0.0,
        )
        return cross(on_x, batch["label"]) + 0.7 * jnp.sum(taken) / 4, params

    found = compare(objective, params, extra, batch, by_hand)
    assert found.metrics["confident"] == (3, 4)


def statistics_of(source, params):
    """Return `params` with the running statistics of another tree."""
    return {
        name: statistics_of(source[name], part)
        if isinstance(part, dict)
        else source[name]
        if name in ("mean", "var")
        else part
        for name, part in params.items()
    }


@pytest.mark.parametrize("mixup", [0.0, 0.75])
def test_uda_has_sharpened_labels_that_are_mixed(batch, share, mixup):
    objective = made("fix_match:Uda", threshold=0.0, mixup=mixup)
    params, extra, (_, x, _), (_, weak, strong), _ = begun(objective, batch)
    label = batch["label"]

    def by_hand(params):
        logits, after = objective.guessed(params, weak)
        guess = losses.sharpened(jax.nn.softmax(logits), 0.5)
        pairs = (x, label), (strong, guess)
        if mixup:
            pairs = mix((x, label), (weak, guess)), mix((strong, guess), (x, label))
        on_x, after = objective.scored(after, pairs[0][0], KEY)
        on_u, after = objective.scored(after, pairs[1][0], KEY)
        return cross(on_x, pairs[0][1]) + cross(on_u, pairs[1][1]), after

    compare(objective, params, extra, batch, by_hand)


@pytest.mark.parametrize("mode, mixup", [("train", 0.0), ("eval", 0.75)])
def test_mix_match_guesses_view_by_view_then_x_then_u(batch, share, mode, mixup):
    objective = made("mix_match", mixup=mixup, pseudo_label_bn=mode)
    params, extra, (_, x, _), (_, u, _), _ = begun(objective, batch)
    assert float(extra["weight"]) == 0
    extra = objective.refresh(params, extra, jnp.asarray(7_999))
    assert float(extra["weight"]) == pytest.approx(0.5)

    def by_hand(params):
        shares, after = [], still(params)
        for _ in range(2):
            logits, after = objective.scored(after, u, renew=mode == "train")
            shares.append(jax.nn.softmax(logits))
        guess = ((shares[0] + shares[1]) / 2) ** 2
        guess = guess / guess.sum(-1, keepdims=True)
        after = statistics_of(after, params)
        clips = x, batch["label"], mixing.joined(u, u), jnp.concatenate([guess, guess])
        own, label, others, guess = mixing.mixed_match(jax.random.split(KEY, 6)[1], mixup, *clips)
        on_x, after = objective.scored(after, own, KEY)
        on_u, after = objective.scored(after, others, KEY)
        return cross(on_x, label) + 0.5 * cross(on_u, guess), after

    compare(objective, params, extra, batch, by_hand)


def test_re_mix_match_aligns_probabilities_with_labels(batch):
    objective = made("re_mix_match", mixup=0.0, history=3)
    params, extra, (*_, x), (_, weak, strong), _ = begun(objective, batch)
    assert params["flips"]["linear"]["dense"]["bias"].shape == (4,)
    extra = re_mix_match.remembered(
        extra, jnp.array([0.5, 0.25, 0.25]), jnp.array([0.125, 0.375, 0.5])
    )

    def by_hand(params):
        logits, after = objective.guessed(params, weak)
        share = jax.nn.softmax(logits)
        wanted = (jnp.array([0.5, 0.25, 0.25]) + batch["label"].mean(0)) / 2
        found = (jnp.array([0.125, 0.375, 0.5]) + share.mean(0)) / 2
        guess = share * wanted[None] / found[None]
        guess = (guess / guess.sum(-1, keepdims=True)) ** 2
        guess = guess / guess.sum(-1, keepdims=True)
        on_x, after = objective.scored(after, x, KEY)
        on_u, after = objective.scored(after, mixing.joined(weak, strong, strong), KEY)
        alone, after = objective.scored(after, strong, KEY)
        # The key of the flips: the fourth of those that the loss splits its own into.
        turned, how = re_mix_match.flipped(jax.random.split(KEY, 10)[3], strong, SAMPLES)
        turns, after = objective.scored(after, turned, KEY, head="flips")
        parts = cross(on_x, batch["label"]), cross(on_u, jnp.tile(guess, (3, 1)))
        more = cross(alone, guess), cross(turns, how)
        return parts[0] + 1.5 * parts[1] + 0.5 * more[0] + 0.5 * more[1], after

    found = compare(objective, params, extra, batch, by_hand)
    assert int(found.extra["batches"]) == 2


def test_frequencies_of_classes_are_of_the_last_batches(batch):
    rng = np.random.default_rng(0)
    seen = rng.dirichlet(np.ones(CLASSES), (7, 2)).astype(np.float32)
    ring = jnp.zeros((3, CLASSES), jnp.float32)
    extra = {"labels": ring, "guesses": ring, "batches": jnp.zeros((), jnp.int32)}
    add = jax.jit(re_mix_match.remembered)
    for number, (label, guess) in enumerate(seen):
        extra = add(extra, label, guess)
        last = seen[max(0, number - 2) : number + 1]
        for name, column in (("labels", 0), ("guesses", 1)):
            got = re_mix_match.mean(extra, name)
            np.testing.assert_allclose(got, last[:, column].mean(0), atol=1e-6)


def test_flips_are_of_time_and_frequency_and_none_is_rare():
    spec = jnp.asarray(np.random.default_rng(0).standard_normal((400, 5, 3)), jnp.float32)
    turned, how = re_mix_match.flipped(KEY, Clips(spec, jnp.full(400, 70)), 100)
    which = np.argmax(how, -1)
    for kind, axes in enumerate([(), (1,), (2,), (1, 2)]):
        mine = which == kind
        assert abs(mine.sum() - 100) < 3 * np.sqrt(400 * 0.25 * 0.75)
        np.testing.assert_array_equal(turned.spec[mine], np.flip(spec[mine], axes))
        assert (np.asarray(turned.length)[mine] == (100 if 1 in axes else 70)).all()


@pytest.mark.parametrize("mode, mixup", [("train", 0.0), ("eval", 0.75)])
def test_mean_teacher_sees_all_clips_at_once_and_keeps_its_statistics(batch, share, mode, mixup):
    objective = made("mean_teacher", pseudo_label_bn=mode, mixup=mixup)
    params, extra, (x, own, _), (u, other, _), _ = begun(objective, batch)
    teacher = jax.tree.map(
        lambda a: a + 0.01 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), params
    )
    extra = extra | {"teacher": teacher, "weight": jnp.asarray(0.8)}
    clean = mixing.joined(x, u)

    def by_hand(params):
        taught = jax.nn.softmax(objective.scored(teacher, clean, renew=mode == "train")[0])
        pairs = (own, batch["label"]), (other, taught[4:])
        if mixup:
            pairs = mix(*pairs), mix(*pairs[::-1])
        both = mixing.joined(pairs[0][0], pairs[1][0])
        logits, after = objective.scored(params, both, KEY)
        apart = jax.nn.softmax(logits) - jnp.concatenate([taught[:4], pairs[1][1]])
        return cross(logits[:4], pairs[0][1]) + 0.8 * jnp.mean(apart**2), after

    found = compare(objective, params, extra, batch, by_hand)
    np.testing.assert_allclose(
        objective.logits(params, found.extra, batch),
        objective.scored(found.extra["teacher"], x)[0],
        atol=1e-5,
    )
    # The first update makes the teacher equal to the model, but for statistics of its own.
    own = objective.scored(teacher, clean, renew=True)[1] if mode == "train" else params
    after = objective.refresh(params, found.extra, jnp.asarray(0))["teacher"]
    want = statistics_of(own, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after, want)
    after = objective.refresh(params, found.extra, jnp.asarray(3))["teacher"]["head"]
    moved = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, teacher["head"], params["head"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after, moved)


def test_the_teachers_noise_has_the_ratio_that_was_asked_for(batch):
    objective = made("mean_teacher", noise=15.0)
    spec = jnp.asarray(5 + np.random.default_rng(0).standard_normal((2, 200, 50)), jnp.float32)
    noise = objective._noisy(Clips(spec, jnp.ones(2)), KEY).spec - spec
    ratio = 10 * np.log10(np.mean(spec**2, (1, 2)) / np.mean(noise**2, (1, 2)))
    np.testing.assert_allclose(ratio, 15, atol=0.2)


def test_deep_co_training(batch, share):
    objective = made("deep_co_training", epsilon=0.1, mixup=1.0)
    params, extra, (_, x, _), (_, u, _), (_, second, _) = begun(objective, batch)
    order = jax.random.permutation(jax.random.split(KEY, 7)[2], 4)
    u = u._replace(spec=mix(u.spec, u.spec[order]))
    biases = [p["head"]["linear"]["dense"]["bias"] for p in (params, params["second"])]
    assert not np.allclose(*biases)
    extra = {"agree": jnp.asarray(0.9), "differ": jnp.asarray(0.4)}

    def attacked(model, clips, label):
        def loss(spec):
            return cross(objective.scored(still(model), Clips(spec, clips.length))[0], label)

        return Clips(clips.spec + 0.1 * jnp.sign(jax.grad(loss)(clips.spec)), clips.length)

    def by_hand(params):
        f, g = params, params["second"]
        f_x, f = objective.scored(f, x, KEY)
        g_x, g = objective.scored(g, second, KEY)
        f_u, f = objective.scored(f, u, KEY)
        g_u, g = objective.scored(g, u, KEY)
        against_f = (
            attacked(f, x, batch["label"]),
            attacked(f, u, jax.nn.one_hot(f_u.argmax(-1), CLASSES)),
        )
        against_g = (
            attacked(g, second, batch["second_label"]),
            attacked(g, u, jax.nn.one_hot(g_u.argmax(-1), CLASSES)),
        )
        differ = 0
        for clips, wanted in zip(against_g, (g_x, g_u), strict=True):
            logits, f = objective.scored(f, clips, KEY)
            differ += 4 * cross(logits, jax.nn.softmax(wanted)) / 8
        for clips, wanted in zip(against_f, (f_x, f_u), strict=True):
            logits, g = objective.scored(g, clips, KEY)
            differ += 4 * cross(logits, jax.nn.softmax(wanted)) / 8
        agree = jnp.mean(losses.jensen_shannon(f_u, g_u))
        value = cross(f_x, batch["label"]) + cross(g_x, batch["second_label"])
        return value + 0.9 * agree + 0.4 * differ, f | {"second": g}

    compare(objective, params, extra, batch, by_hand)
    near = dataclasses.replace(objective, epsilon=1e-3)
    false = near.deceptive(params, (x, u), (batch["label"], batch["label"]))
    worse, before = (cross(objective.scored(params, c)[0], batch["label"]) for c in (false[0], x))
    assert worse > before


def test_mixtures_have_the_labels_of_what_they_are_made_of():
    rng = np.random.default_rng(0)

    def some(count):
        label = jnp.asarray(rng.dirichlet(np.ones(CLASSES), count), jnp.float32)
        spec = jnp.broadcast_to((label @ jnp.array([1.0, 10, 100]))[:, None, None], (count, 2, 2))
        return Clips(spec, jnp.asarray(rng.integers(1, 50, count))), label

    one, label = some(3)
    other, guess = some(6)
    found = jax.jit(lambda key: mixing.mixed_match(key, 0.75, one, label, other, guess))
    far = []
    for seed in range(5):
        x, x_label, u, u_label = found(jax.random.key(seed))
        for clips, mixed, own, least in (
            (x, x_label, label, one.length),
            (u, u_label, guess, other.length),
        ):
            code = jnp.broadcast_to(
                (mixed @ jnp.array([1.0, 10, 100]))[:, None, None], clips.spec.shape
            )
            np.testing.assert_allclose(clips.spec, code, rtol=1e-4)
            # Own labels prevail: no class loses more than half.
            assert (mixed >= 0.5 * own - 1e-6).all() and (clips.length >= least).all()
            far.append(float(jnp.abs(mixed - own).max()))
    assert max(far) > 0.05
    same = mixing.mixed_match(KEY, 0.0, one, label, other, guess)
    np.testing.assert_array_equal(same[2].spec, other.spec)


def test_labels_stay_distributions_when_much_is_sharpened_or_nothing_is_left():
    share = jnp.full((2, 50), 0.02).at[1, 3].set(0.04)
    share = share / share.sum(-1, keepdims=True)
    hard = losses.sharpened(share, 0.01)
    np.testing.assert_allclose(hard[0], 0.02, rtol=1e-5)
    np.testing.assert_allclose(hard[1], np.eye(50)[3], atol=1e-6)
    sure, absent = jnp.eye(3)[:2], jnp.asarray([0.0, 0.5, 0.5])
    np.testing.assert_array_equal(losses.aligned(sure, absent, jnp.full(3, 1 / 3)), sure)


def test_shares_are_drawn_from_beta():
    clips = [Clips(jnp.full((1, 1, 1), value), jnp.ones(1)) for value in (1.0, 0.0)]
    one, other = clips
    draw = jax.jit(jax.vmap(lambda k: mixing.mixup(k, 0.4, one, other, folded=False)[0].spec))
    shares = np.asarray(draw(jax.random.split(KEY, 1000))).ravel()
    assert shares.min() < 0.1 and shares.max() > 0.9
    # Of Beta(0.4, 0.4): mean 1/2, variance 1/7.2.
    assert np.mean((shares - 0.5) ** 2) == pytest.approx(1 / 7.2, rel=0.1)
    assert mixing.fold(jnp.asarray(0.3)) == mixing.fold(jnp.asarray(0.7)) == jnp.asarray(0.7)


@pytest.mark.parametrize("kind", METHODS)
def test_a_step_keeps_the_form_of_the_state(batch, kind):
    objective = made(kind)
    txs = Optim(lr=1e-2).make(objective.phases, 10)
    state = jax.eval_shape(lambda b: init_state(objective, txs, KEY, b), batch)
    after, metrics = jax.eval_shape(make_train_step(objective, txs), state, batch)
    jax.tree.map(
        lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype) or pytest.fail(), state, after
    )
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for value, weight in (metrics["loss"], metrics["accuracy"]):
        assert value.shape == jnp.shape(weight) == ()
    assert interface(objective) is Classifier


def test_in_evaluation_it_is_the_cross_entropy_of_what_it_says(batch):
    objective = made("mix_match")
    params, extra, (x, *_), *_ = begun(objective, batch)
    alone = {k: v for k, v in batch.items() if k in ("audio", "length", "label")}
    loss = objective.loss(params, extra, alone, KEY, train=False)
    logits = objective.scored(params, x)[0]
    assert float(loss.total) == pytest.approx(float(cross(logits, alone["label"])), rel=1e-5)
    assert loss.renewed is None


def test_any_encoder_that_tagging_takes(batch):
    encoder = dict(
        kind="stack",
        width=8,
        depth=2,
        block=dict(kind="blocks:PreNorm", mixer=dict(kind="attention", heads=2)),
        drop_path=0.5,
    )
    parts = dict(
        frontend=dict(kind="fbank", bins=16, frames=16),
        tokenizer=dict(kind="patchify", width=8, patch=(8, 4), stride=(8, 4)),
        encoder=encoder,
        head=dict(kind="classify:LayerMix", classes=CLASSES),
        window=2,
    )
    objective, tagging = (
        made("fix_match", **parts),
        config.build(parts | dict(kind="tagging"), "objectives"),
    )

    @jax.jit
    def both(batch):
        params, extra = objective.init(KEY, batch)
        drawn = objective.scored(params, objective.clips(batch), KEY)[0]
        return [o.logits(params, extra, batch) for o in (objective, tagging)], drawn

    (ours, theirs), drawn = both(batch)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert (ours != drawn).any()  # layers are left out in training
    params = jax.eval_shape(objective.init, KEY, batch)[0]
    loss = jax.eval_shape(lambda p, b: objective.loss(p, {}, b, KEY, train=True), params, batch)
    assert loss.renewed is None


@pytest.mark.parametrize("kind", METHODS)
def test_clips_without_a_label_among_those_with_one_are_refused(batch, kind):
    objective = made(kind)
    params, extra = jax.eval_shape(objective.init, KEY, batch)
    loss = functools.partial(objective.loss, train=True)
    with pytest.raises(ValueError, match=r"unlabelled: got True, .* data.kind='beside'"):
        jax.eval_shape(loss, params, extra, batch | {"labelled": jnp.ones(4)}, KEY)


def test_mistakes_are_named(batch):
    with pytest.raises(
        ValueError, match=r"MeanTeacher: got .* without the teacher's.*a step of the run"
    ):
        made("mean_teacher").logits({}, {}, batch)
    objective = made("fix_match")
    params, extra = objective.init(KEY, batch)
    few = {k: v for k, v in batch.items() if not k.startswith("unlabelled")}
    with pytest.raises(ValueError, match=r"FixMatch: got a batch without unlabelled_audio.*beside"):
        objective.loss(params, extra, few, KEY, train=True)
    with pytest.raises(ValueError, match="head.classes: got 3, wanted the 2"):
        objective.init(KEY, batch | {"label": batch["label"][:, :2]})
    fewer = {k: v[:3] if k.startswith("unlabelled") else v for k, v in batch.items()}
    with pytest.raises(ValueError, match=r"mixup: got features of \(4, 16, 8\) and \(3, 16, 8\)"):
        made("fix_match", mixup=0.75).loss(params, extra, fewer, KEY, train=True)
    for kind, option, value in (
        ("supervised", "view", "weird"),
        ("fix_match", "pseudo_label_bn", "test"),
        ("mix_match", "views", 0),
        ("supervised", "mixup", -1.0),
        ("fix_match", "mixup", float("nan")),
        ("fix_match", "threshold", 95.0),
        ("fix_match:Uda", "temperature", 0.0),
        ("re_mix_match", "mixup", float("inf")),
        ("mean_teacher", "decay", 1.5),
        ("deep_co_training", "epsilon", -0.1),
        ("re_mix_match", "history", 0),
        ("re_mix_match", "head", dict(kind="classify:PatchPredictor", out=3)),
    ):
        with pytest.raises(ValueError, match=f"{option}.*wanted"):
            made(kind, **{option: value})


@pytest.mark.multi
@pytest.mark.parametrize("kind", ["mix_match", "mean_teacher"])
def test_statistics_are_of_the_whole_batch_on_any_devices(batch, kind):
    """Parameters, running statistics and `extra` after a step are those of one device."""
    objective = made(kind)
    whole = {name: jnp.concatenate([value, value]) for name, value in batch.items()}
    whole = {name: value for name, value in whole.items() if not name.startswith("second_")}
    txs = Optim(lr=1e-2).make(objective.phases, 10, 1)
    first = functools.partial(init_state, objective, txs)
    want = jax.jit(make_train_step(objective, txs))(first(KEY, whole), whole)[0]
    for shape in (dict(data=8), dict(data=2, fsdp=4)):
        how = Sharding(**shape, max_replicated=1.0)
        mesh = how.mesh()
        with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
            layout = how.infer(jax.eval_shape(first, KEY, whole), mesh)
            split = jax.device_put(whole, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
            state = jax.jit(first, out_shardings=layout)(KEY, split)
            step = jax.jit(make_train_step(objective, txs), out_shardings=(layout, None))
            got = step(state, split)[0]
        got, expected = (jax.device_get((s.params, s.extra)) for s in (got, want))
        moved = got[0]["encoder"]["block0_conv0_norm"]["mean"]
        assert moved.any()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected)
