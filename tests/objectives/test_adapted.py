"""Adapters: at the start they change nothing, only they learn, and merged they are an ordinary model."""

import dataclasses
import json

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssl_audio
from ssl_audio import config
from ssl_audio.convert import export
from ssl_audio.layers.lora import ADAPTERS, Lora, LowRank, multiplied
from ssl_audio.objectives.base import Objective, Phase
from ssl_audio.storage import checkpoint, written
from ssl_audio.structs import Loss, TrainState
from ssl_audio.train import changes
from ssl_audio.train.optim import Optim
from ssl_audio.train.run import Run, WarmStart, warm_started
from ssl_audio.train.step import init_state, make_train_step

RANK = 3


def run_options(**lora):
    made = encoders.options(mixer="mamba")
    return made | dict(optim=dict(lr=0.1), steps=4, adapt=dict(kind="lora", rank=RANK, **lora))


@dataclasses.dataclass(frozen=True)
class Toy(Objective):
    """Least squares with an encoder that looks like one, and a head."""

    def init(self, key, batch):
        kernel = jax.random.normal(key, (4, 5), jnp.float32)
        encoder = {"dense": {"kernel": kernel, "bias": jnp.zeros(5)}}
        return {"encoder": encoder, "head": {"kernel": jnp.ones((5, 2))}}, {}

    def loss(self, params, extra, batch, key, *, train):
        dense = params["encoder"]["dense"]
        hidden = jnp.tanh(batch["x"] @ dense["kernel"] + dense["bias"][None])
        error = hidden @ params["head"]["kernel"] - batch["y"]
        return Loss(total=100 * jnp.mean(error**2), metrics={}, extra=extra)


BATCH = {"x": jnp.ones((8, 4)) * jnp.arange(8)[:, None] / 8, "y": jnp.zeros((8, 2))}
TOY = Lora(rank=2, alpha=6.0, where="dense/kernel$")


def toy(optim, adapt=TOY):
    """Return a run's objective, the state it begins with, and that after two steps."""
    objective = Run(objective=Toy(), data=None, optim=optim, steps=2, adapt=adapt).objective
    txs = optim.make(objective.phases, 10)
    first = init_state(objective, txs, jax.random.key(0), BATCH)
    step = jax.jit(make_train_step(objective, txs))
    after, metrics = step(first, BATCH)
    return objective, first, step(after, BATCH)[0], metrics


def test_only_adapters_and_the_head_learn():
    decaying = Optim(lr=0.1, weight_decay=0.5, decay=".*", clip=0.01, average=0.5)
    objective, first, after, metrics = toy(decaying)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first.params, after.params)
    assert all(jax.tree.leaves(same["encoder"])), "not even by weight decay"
    assert not any(jax.tree.leaves((same[ADAPTERS], same["head"])))
    # Neither moments nor an average of what is frozen.
    names = {
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(first.opt_state)
    }
    assert any("adapters" in name for name in names)
    assert not any("['encoder']" in name and "adapters" not in name for name in names)
    # The norm that clipping looks at is that of what learns.
    part = objective.phases[0].part(first.params)

    def loss(part):
        whole = objective.phases[0].replaced(first.params, part)
        return objective.loss(whole, {}, BATCH, jax.random.key(0), train=True).total

    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(jax.grad(loss)(part))))
    assert float(metrics["gradient_norm"][0]) == pytest.approx(norm, rel=1e-5)


def test_an_adapter_is_a_low_rank_change():
    objective, _, after, _ = toy(Optim(lr=0.1))
    sides = (after.params[ADAPTERS][s]["encoder"]["dense"]["kernel"] for s in "ab")
    a, b = map(np.asarray, sides)
    changed = objective.adapter.merged(after.params)["encoder"]["dense"]["kernel"]
    assert a.shape == (4, 2) and b.shape == (2, 5) and np.any(b)
    np.testing.assert_allclose(
        changed, after.params["encoder"]["dense"]["kernel"] + 6 / 2 * a @ b, rtol=1e-5
    )


def test_rank_0_leaves_the_head_alone():
    _, first, after, _ = toy(Optim(lr=0.1), Lora(rank=0))
    assert ADAPTERS not in first.params and np.any(after.params["head"]["kernel"] != 1)
    np.testing.assert_array_equal(
        after.params["encoder"]["dense"]["kernel"], first.params["encoder"]["dense"]["kernel"]
    )


def test_phases_and_losses_of_their_own():
    class Two(Toy):
        phases = (Phase("main", "kernel$"), Phase("other", "^head", loss="other"))

        def other(self, params, extra, batch, key, *, train):
            return self.loss(params, extra, batch, key, train=train)

    made = Run(objective=Two(), data=None, optim=Optim(lr=1.0), steps=2, adapt=TOY).objective
    params, _ = made.init(jax.random.key(0), BATCH)
    paths = [set(_names(phase.part(params))) for phase in made.phases]
    adapters = {f"adapters/{side}/encoder/dense/kernel" for side in "ab"}
    assert paths == [adapters | {"head/kernel"}, {"head/kernel"}]
    params[ADAPTERS]["b"]["encoder"]["dense"]["kernel"] += 1
    losses = [
        f(params, {}, BATCH, jax.random.key(0), train=True).total for f in (made.loss, made.other)
    ]
    assert losses[0] == losses[1]


def test_a_teacher_begins_as_the_pretrained_model(monkeypatch):
    class Taught(Toy):
        def init(self, key, batch):
            params, _ = super().init(key, batch)
            return params, {"teacher": {"encoder": params["encoder"]}}

    where = {"encoder": WarmStart(path="elsewhere")}
    options = dict(data=None, optim=Optim(lr=1.0), steps=2, adapt=TOY, warm_start=where)
    run = Run(objective=Taught(), **options)
    params, extra = run.objective.init(jax.random.key(0), BATCH)
    state = TrainState(np.int32(0), params, {}, extra, jax.random.key(0))
    loaded = jax.tree.map(lambda x: x + 1, params["encoder"])
    monkeypatch.setattr(checkpoint, "warm_start", lambda params, **_: params | {"encoder": loaded})
    after = warm_started(run, state)
    jax.tree.map(np.testing.assert_array_equal, after.extra["teacher"]["encoder"], loaded)
    assert ADAPTERS in after.params


def test_a_frozen_model_keeps_what_is_as_in_a_fresh_one(monkeypatch):
    """As biases of 0, which a warm start of the model that learns from it must not change."""

    class Distils(Toy):
        def init(self, key, batch):
            params, _ = super().init(key, batch)
            frozen = jax.tree.map(np.copy, params)
            frozen["encoder"]["dense"]["kernel"] += 1
            return params, {"teachers": {"one": {"params": frozen}}, "average": params}

    run = Run(
        objective=Distils(),
        data=None,
        optim=Optim(lr=1.0),
        steps=2,
        warm_start={"encoder": WarmStart(path="elsewhere")},
    )
    params, extra = run.objective.init(jax.random.key(0), BATCH)
    params, extra = jax.tree.map(jax.device_put, (params, extra))
    assert len(jax.tree.leaves(params)) > 1
    state = TrainState(np.int32(0), params, {}, extra, jax.random.key(0))
    loaded = jax.tree.map(lambda x: x + 1, params)
    monkeypatch.setattr(checkpoint, "warm_start", lambda params, **_: loaded)
    found = warm_started(run, state).extra
    jax.tree.map(np.testing.assert_array_equal, found["teachers"], extra["teachers"])
    jax.tree.map(np.testing.assert_array_equal, found["average"], loaded)


def _names(tree):
    return [
        "/".join(str(key.key) for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def test_what_matches_nothing_is_refused_with_what_there_is():
    params, _ = Toy().init(jax.random.key(0), BATCH)
    with pytest.raises(
        ValueError, match=r"config.adapt.where: 'qkv' matches no frozen matrix; there"
    ):
        Lora(where="qkv").init(jax.random.key(0), params)
    with pytest.raises(ValueError, match="encoder/dense/kernel"):
        Lora(where="bias").init(jax.random.key(0), params)
    with pytest.raises(ValueError, match=r"config.adapt.freeze: '\^trunk' matches no parameter"):
        Lora(freeze="^trunk").init(jax.random.key(0), params)
    with pytest.raises(ValueError, match="config.adapt: rank: wanted at least 0"):
        config.make(Run, run_options() | dict(adapt=dict(kind="lora", rank=-1)))
    with pytest.raises(ValueError, match="is no regex"):
        Lora(where="(")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Return a workdir whose run has adapters that are not zero, its run, parameters and a batch."""
    options = run_options()
    run = config.make(Run, options)
    assert isinstance(dataclasses.replace(run).objective.objective, type(run.objective.objective))
    plain = config.build(options["objective"], "objectives")
    batch = encoders.Encoder(plain, {}, options).blank()
    batch["audio"] = np.random.default_rng(0).normal(size=batch["audio"].shape).astype(np.float32)
    shapes = jax.eval_shape(run.objective.init, jax.random.key(0), batch)[0]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)
    workdir = tmp_path_factory.mktemp("adapted")
    (workdir / "config.json").write_text(json.dumps(options))
    checkpoints = checkpoint.Checkpoints(workdir, keep=1)
    txs = run.optim.make(run.objective.phases, 4)
    optimizer = {p.name: txs[p.name].init(p.part(params)) for p in run.objective.phases}
    state = TrainState(np.int32(3), params, optimizer, {}, jax.random.key(0))
    checkpoints.save(state, {})
    checkpoints.close()
    return workdir, run, params, batch


@pytest.fixture(scope="module")
def encode(adapted):
    _, run, _, _ = adapted
    return jax.jit(lambda params, batch: run.objective.predictors()["encode"](params, {}, batch))


def test_each_layer_has_its_own_adapters(adapted):
    _, run, params, _ = adapted
    layers = params[ADAPTERS]["b"]["encoder"]["layers"]
    assert layers["mixer"]["in_proj"].shape == (2, RANK, 128)
    assert (
        "conv_kernel" not in layers["mixer"]["forward"] and "tokenizer" not in params[ADAPTERS]["a"]
    )
    joined = run.objective.adapter.joined(params)
    one = joined["encoder"]["layers"]["mixer"]["in_proj"]
    assert isinstance(one, LowRank) and ADAPTERS not in joined
    by_hand = [one.base[i] + 16 / RANK * one.a[i] @ one.b[i] for i in range(2)]
    np.testing.assert_allclose(multiplied(one), by_hand, rtol=1e-5, atol=1e-6)


def test_at_the_start_nothing_has_changed(adapted, encode):
    _, _, params, batch = adapted
    base = {name: value for name, value in params.items() if name != ADAPTERS}
    zero = jax.tree.map(np.zeros_like, params[ADAPTERS]["b"])
    fresh = params | {ADAPTERS: params[ADAPTERS] | {"b": zero}}
    first, plain, later = (encode(p, batch).tokens.x for p in (fresh, base, params))
    np.testing.assert_array_equal(first, plain)
    assert float(jnp.abs(later - plain).max()) > 0.1


def test_a_loaded_or_exported_run_is_an_ordinary_model(adapted, encode, tmp_path):
    workdir, _, params, batch = adapted
    export.main(["--checkpoint", str(workdir), "--out", str(tmp_path / "plain")])
    assert "adapt" not in written.read(tmp_path / "plain")
    want = encode(params, batch).tokens.x
    loaded = [ssl_audio.load(path) for path in (workdir, tmp_path / "plain")]
    for model in loaded:
        assert type(model) is ssl_audio.Encoder and ADAPTERS not in model.params
        assert type(model.objective).__name__ == "MaskedSpectrogram"
    jax.tree.map(np.testing.assert_array_equal, *(model.params for model in loaded))
    found = encode(loaded[0].params, batch).tokens.x
    np.testing.assert_allclose(found, want, atol=1e-6, rtol=1e-6)


def test_a_run_goes_on_with_its_adapters_apart(adapted):
    workdir, run, params, _ = adapted
    mesh = run.sharding.mesh()
    shapes = jax.eval_shape(lambda: params)
    txs = run.optim.make(run.objective.phases, 4)
    part = run.objective.phases[0].part(shapes)
    optimizer = {"main": jax.eval_shape(txs["main"].init, part)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = jax.ShapeDtypeStruct((), np.int32)
    state = TrainState(step, shapes, optimizer, {}, key)
    layout = run.sharding.infer(state, mesh)
    wanted = jax.tree.map(
        lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), state, layout
    )
    checkpoints = checkpoint.Checkpoints(workdir, keep=1)
    found = checkpoints.resume(wanted)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found.params), params)
    assert changes.fixed("adapt.rank"), "what learns cannot change in a run"


def test_an_average_is_completed_by_what_is_frozen(tmp_path):
    options = run_options() | dict(optim=dict(lr=0.1, average=0.5), adapt=dict(kind="lora", rank=2))
    options["adapt"]["where"] = "dense/kernel$"
    _, _, after, _ = toy(Optim(lr=0.1, average=0.5), Lora(rank=2, where="dense/kernel$"))
    (tmp_path / "config.json").write_text(json.dumps(options))
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    checkpoints.save(after, {})
    checkpoints.close()
    found, _ = checkpoint.load_params(tmp_path)
    average = after.opt_state["main"]
    (mean,) = [s["average"] for s in average if isinstance(s, dict) and "average" in s]
    np.testing.assert_array_equal(found["head"]["kernel"], mean["head"]["kernel"])
    frozen = {"encoder": after.params["encoder"], **mean}
    want = Lora(rank=2).merged(jax.device_get(frozen))
    np.testing.assert_allclose(
        found["encoder"]["dense"]["kernel"], want["encoder"]["dense"]["kernel"], rtol=1e-6
    )


def test_adapters_are_divided_like_their_matrices(adapted):
    _, run, params, _ = adapted
    mesh = dataclasses.replace(run.sharding, fsdp=2, tensor=2).mesh()
    sharding = dataclasses.replace(run.sharding, fsdp=2, tensor=2, max_replicated=0.1)
    layout = sharding.infer(jax.eval_shape(lambda: params), mesh)

    def spec(tree):
        return tree["encoder"]["layers"]["mixer"]["in_proj"].spec

    assert spec(layout)[2] == spec(layout[ADAPTERS]["b"])[2] == "tensor"
    assert spec(layout[ADAPTERS]["a"])[1] == "tensor"
