"""Layouts: rules and their errors, equal losses on every mesh, checkpoints that move between meshes."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ssl_audio.config import build
from ssl_audio.distributed import sharding
from ssl_audio.distributed.sharding import Sharding
from ssl_audio.presets import runs
from ssl_audio.storage.checkpoint import Checkpoints
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

# data, fsdp, tensor
MESHES = {
    "one": (1, 1, 1),
    "data": (4, 1, 1),
    "fsdp": (1, 4, 1),
    "hybrid": (2, 2, 1),
    "tensor": (2, 2, 2),
}


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


TREE = {"a": {"kernel": array(8, 12), "bias": array(12)}, "b": {"kernel": array(3, 40, 7)}}


def test_mesh_sizes():
    assert dict(Sharding().mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(Sharding(fsdp=4).mesh().shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert dict(Sharding(fsdp=2, tensor=2).mesh().shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    mesh = Sharding(data=2, fsdp=2).mesh()
    assert mesh.size == 4 and mesh.axis_names == ("data", "fsdp", "tensor")
    for wrong in (
        dict(data=3, fsdp=4),
        dict(fsdp=3),
        dict(fsdp=16),
        dict(tensor=3),
        dict(tensor=0),
    ):
        with pytest.raises(ValueError, match=r"config\.sharding: data=.* does not fit 8 devices"):
            Sharding(**wrong).mesh()


def test_rules_place_the_longest_axis_that_divides():
    mesh = Sharding(data=2, fsdp=4).mesh()
    layout = Sharding(max_replicated=0.5).infer(TREE, mesh)
    assert layout["a"]["kernel"].spec == PartitionSpec(None, "fsdp")
    assert layout["a"]["bias"].spec == PartitionSpec()
    assert layout["b"]["kernel"].spec == PartitionSpec(None, "fsdp")
    whole = Sharding().infer(TREE, Sharding().mesh())
    assert all(not any(place.spec) for place in jax.tree.leaves(whole))


def test_tensor_splits_projections_as_megatron_does():
    """Up by outputs, back by inputs; fsdp takes what is left. Layers are stacked first."""
    tree = {
        "qkv": array(2, 48, 144),
        "out": array(2, 48, 48),
        "up": array(2, 48, 192),
        "down": array(2, 192, 48),
        "odd": array(2, 3, 5),
    }
    mesh = Sharding(data=2, fsdp=2, tensor=2).mesh()
    layout = Sharding(rules=((r".*", "tensor"),), max_replicated=1.0).infer(tree, mesh)
    spec = {name: place.spec for name, place in layout.items()}
    assert spec["qkv"] == spec["up"] == PartitionSpec(None, "fsdp", "tensor")
    assert spec["out"] == spec["down"] == PartitionSpec(None, "tensor", "fsdp")
    assert spec["odd"] == PartitionSpec("tensor")
    only = Sharding(rules=((r".*", "fsdp"),), max_replicated=1.0).infer(tree, mesh)
    assert only["up"].spec == PartitionSpec(None, None, "fsdp")


def test_of_several_processes_no_device_is_left_out(monkeypatch):
    """Else one would have nothing of what the others compute, and fail at its first look."""
    assert Sharding(data=4).mesh().size == 4
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert Sharding(data=4, fsdp=2).mesh().size == 8
    with pytest.raises(
        ValueError, match="data=4 x fsdp=1 x tensor=1 takes 4 of 8 devices.*data=-1"
    ):
        Sharding(data=4).mesh()


def test_tensor_counts_for_the_parameters_not_for_the_batch():
    mesh = Sharding(data=2, fsdp=2, tensor=2).mesh()
    sharding.check_batch(4, mesh)
    with pytest.raises(ValueError, match="6 is not divisible by 4 devices; nearest: 4, 8"):
        sharding.check_batch(6, mesh)
    with pytest.raises(ValueError, match="would be copied to every device"):
        Sharding(rules=((r".*", "replicate"),)).infer(TREE, Sharding(tensor=2).mesh())


def test_rows_are_computed_where_they_are():
    """A real FFT is what XLA would first gather the batch for."""
    mesh = Sharding(data=4, fsdp=2).mesh()
    x = np.random.default_rng(0).standard_normal((16, 3, 64)).astype(np.float32)

    def transform(x):
        return sharding.by_rows(lambda rows: jnp.abs(jnp.fft.rfft(rows, 64)), x)

    with jax.set_mesh(mesh):
        there = sharding.put_batch({"x": x}, mesh)["x"]
        step = jax.jit(transform, out_shardings=there.sharding).lower(there).compile()
        assert "all-gather" not in step.as_text()
        np.testing.assert_array_equal(step(there), transform(jnp.asarray(x)))
        assert transform(jnp.asarray(x[:3])).shape == (3, 3, 33)  # does not divide
    np.testing.assert_array_equal(np.asarray(step(there)), transform(x))


def test_the_first_rule_that_matches_decides():
    rules = ((r"^b/", "replicate"), (r"kernel$", "fsdp"), (r".*", "replicate"))
    layout = Sharding(rules=rules, max_replicated=1.0).infer(TREE, Sharding(fsdp=4).mesh())
    assert not any(layout["b"]["kernel"].spec) and any(layout["a"]["kernel"].spec)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(rules=((r"kernel$", "fsdp"),)), "'a/bias' matched no rule"),
        (
            dict(rules=((r"table$", "replicate"), (r".*", "fsdp"))),
            r"rule 'table\$' matched no parameter",
        ),
        (dict(rules=((r".*", "split"),)), "tactic 'split'; wanted one of"),
        (
            dict(rules=((r".*", "replicate"),)),
            r"100\.0% of the values .*largest: b/kernel, a/kernel",
        ),
    ],
)
def test_wrong_rules_are_refused(options, words):
    with pytest.raises(ValueError, match=f"config.sharding: .*{words}"):
        Sharding(**options).infer(TREE, Sharding(fsdp=4).mesh())


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_sizes():
    mesh = Sharding(data=4, fsdp=2).mesh()
    sharding.check_batch(16, mesh, accumulate=2)
    with pytest.raises(
        ValueError, match=r"batch_size: 90 is not divisible by 8 devices; nearest: 88, 96\."
    ):
        sharding.check_batch(90, mesh)
    with pytest.raises(ValueError, match=r"4 is not divisible by 8 devices; nearest: 8\."):
        sharding.check_batch(4, mesh)
    with pytest.raises(ValueError, match=r"8 devices x 3 accumulation steps; nearest: 24, 48\."):
        sharding.check_batch(40, mesh, accumulate=3)


@functools.cache
def objective(encoder):
    options = runs.masked_spectrogram(
        encoder=encoder, size="tiny", patch=(16, 16), masked=12, frames=64, mean=-4.0, std=4.5
    )
    options["encoder"] |= dict(width=48, depth=2, drop_path=0.1)
    options["tokenizer"]["width"] = 48
    return build(options, "objectives")


def batch(step, clips=8):
    wave = 0.1 * np.random.default_rng(step).standard_normal((clips, 10_000))
    length = np.full(clips, 10_000, np.int32)
    length[::3] = 8_000
    return {"audio": wave.astype(np.float32), "length": length}


class Trainer:
    """The compiled step of one encoder on one mesh, as train/loop.py makes it."""

    def __init__(self, encoder, mesh):
        data, fsdp, tensor = MESHES[mesh]
        where = Sharding(data=data, fsdp=fsdp, tensor=tensor, max_replicated=0.5)
        made = objective(encoder)
        txs = Optim(lr=1e-3, weight_decay=0.01, clip=1.0).make(made.phases, 10, None)
        self.mesh = where.mesh()
        zeros = {k: jnp.zeros(v.shape, v.dtype) for k, v in batch(0).items()}
        init = functools.partial(init_state, made, txs, jax.random.key(0), zeros)
        with self.context():
            shapes = jax.eval_shape(init)
            self.layout = where.infer(shapes, self.mesh)
            self.init = jax.jit(init, out_shardings=self.layout)
            self.wanted = jax.tree.map(
                lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
                shapes,
                self.layout,
            )
            self.step = jax.jit(
                make_train_step(made, txs),
                out_shardings=(self.layout, sharding.replicated(self.mesh)),
            )

    def context(self):
        return jax.set_mesh(self.mesh)

    def run(self, state, first, steps):
        losses = []
        with self.context(), nn.logical_axis_rules(sharding.ACTIVATIONS):
            for i in range(first, first + steps):
                state, metrics = self.step(state, sharding.put_batch(batch(i), self.mesh))
                losses.append(float(metrics["loss"][0]))
        return state, losses


@functools.cache
def trainer(encoder, mesh):
    return Trainer(encoder, mesh)


@functools.cache
def five_steps(encoder, mesh):
    made = trainer(encoder, mesh)
    with made.context():
        state = made.init()
    return made.run(state, 0, 5)


# Every axis alone and with the others; each pair of encoder and mesh is a program to compile.
PAIRS = [("ssast", "data"), ("ssast", "tensor")]
PAIRS += [("ssamba", "fsdp"), ("ssamba", "hybrid"), ("ssamba", "tensor")]


@pytest.mark.multi
@pytest.mark.parametrize("encoder, mesh", PAIRS)
def test_losses_do_not_depend_on_the_mesh(encoder, mesh):
    alone, alone_losses = five_steps(encoder, "one")
    spread, losses = five_steps(encoder, mesh)
    assert losses == pytest.approx(alone_losses, rel=1e-5)
    assert alone_losses[-1] < alone_losses[0] - 0.01, "it learns, so the updates are compared too"
    assert int(spread.step) == int(alone.step) == 5


@pytest.mark.multi
@pytest.mark.parametrize("encoder, mesh", PAIRS[1:])
def test_parameters_and_moments_are_really_spread(encoder, mesh):
    state, _ = five_steps(encoder, mesh)
    parts = math.prod(MESHES[mesh][1:])
    for tree in (state.params, state.opt_state):
        whole = sum(x.size for x in jax.tree.leaves(tree))
        held = sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(tree))
        assert held / whole < 1 / parts + 0.1


@pytest.mark.multi
@pytest.mark.parametrize("mesh", ["hybrid", "one"])
def test_a_checkpoint_moves_to_another_mesh(mesh, tmp_path):
    state, _ = five_steps("ssamba", "fsdp")
    saved = Checkpoints(tmp_path)
    saved.save(state, {})
    saved.close()
    made = trainer("ssamba", mesh)
    back = Checkpoints(tmp_path)
    found = back.resume(made.wanted)
    back.close()
    assert found is not None and int(found.step) == 5
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    assert jax.tree.map(lambda x: x.sharding, found) == made.layout
    _, here = trainer("ssamba", "fsdp").run(state, 5, 1)
    _, there = made.run(found, 5, 1)
    assert there == pytest.approx(here, abs=1e-5)


@functools.cache
def in_cpp_on(mesh):
    made = Trainer("ssamba", mesh)
    with made.context():
        state = made.init()
    return made, *made.run(state, 0, 5)


@pytest.mark.multi
@pytest.mark.parametrize("mesh", ["hybrid", "tensor"])  # hybrid: data and fsdp
def test_in_cpp_losses_depend_neither_on_the_mesh_nor_on_the_form(in_cpp, monkeypatch, mesh):
    """Each device runs the selective scan on its part of the batch."""
    _, _, alone = in_cpp_on("one")
    _, _, losses = in_cpp_on(mesh)
    assert losses == pytest.approx(alone, rel=1e-5)
    with monkeypatch.context() as patch:
        patch.setenv("SSL_AUDIO_SCAN", "xla")
        _, other = five_steps("ssamba", mesh)
    assert losses == pytest.approx(other, rel=1e-5)
    in_cpp.discard("xla")


@pytest.mark.multi
def test_in_cpp_a_checkpoint_moves_to_another_mesh(in_cpp, tmp_path):
    made, state, _ = in_cpp_on("tensor")
    saved = Checkpoints(tmp_path)
    saved.save(state, {})
    saved.close()
    there, _, _ = in_cpp_on("hybrid")
    back = Checkpoints(tmp_path)
    found = back.resume(there.wanted)
    back.close()
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    in_cpp.add("cpp")  # by the tests before, which compiled these
    assert there.run(found, 5, 1)[1] == pytest.approx(made.run(state, 5, 1)[1], abs=1e-5)
