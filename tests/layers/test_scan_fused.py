"""The C++ kernels with all that surrounds the recurrence, and the convolution: against float64."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_scan import check_padding, in_float64, make, outputs_and_gradients, worst
from test_scan_cpp import compiled  # noqa: F401

from ssl_audio.backbones.stack import over_layers
from ssl_audio.layers.conv import causal_conv, convolved
from ssl_audio.layers.mamba import Mamba
from ssl_audio.layers.scan import Inputs, bidirectional_scan, choose, cpp, fused_cpp, selective_scan

pytestmark = pytest.mark.usefixtures("compiled")
CHUNK = fused_cpp.CHUNK
SHARED = ("A", "D", "delta_bias")


def pulled(f, inputs, *cotangents):
    outputs, pull = jax.vjp(f, *inputs)
    return outputs, pull(*cotangents)


def both_ways(f, inputs, *cotangents):
    """Return f's outputs and gradients: with the kernels in float32, with the oracle in float64."""
    run = jax.jit(partial(pulled, partial(f, implementation="cpp")))
    got = jax.device_get(run(inputs, *cotangents))
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), jnp.float64 if x.dtype == jnp.float32 else None),
            (inputs, *cotangents),
        )
        oracle = jax.jit(partial(pulled, partial(f, implementation="reference")))
        return got, jax.device_get(oracle(*wide))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "left_out",
    [(), ("z",), ("D",), ("delta_bias",), ("initial_state",), ("D", "z", "delta_bias")],
    ids=str,
)
def test_what_is_left_out(left_out, reverse):
    inputs = {k: v for k, v in make(2, CHUNK + 3, 20, 5).items() if k not in left_out}
    dy, dlast = jnp.cos(inputs["u"]), jnp.ones((2, 20, 5))
    wanted = in_float64(inputs, dy, dlast, reverse=reverse, implementation="reference")
    got = outputs_and_gradients(inputs, dy, dlast, reverse=reverse, implementation="cpp")
    assert worst(got, wanted) < 2e-6


@pytest.mark.parametrize(
    "shape", [(1, 1, 3, 1), (1, 2, 16, 16), (3, 2 * CHUNK + 1, 40, 33)], ids=str
)
@pytest.mark.parametrize("masked", [False, True])
def test_both_directions(shape, masked):
    """Odd sizes, several tiles of states, and padding, in values and gradients."""
    first, second = make(*shape), make(*shape, seed=1)
    z = first.pop("z")
    del second["z"], first["initial_state"], second["initial_state"]
    mask = jnp.arange(shape[1])[None] < jnp.arange(shape[1], shape[1] - shape[0], -1)[:, None]

    def run(first, second, z, *, implementation):
        options = dict(mask=mask if masked else None, implementation=implementation)
        return bidirectional_scan(Inputs(**first), Inputs(**second), z, **options)

    got, wanted = both_ways(run, (first, second, z), jnp.sin(z) * mask[..., None])
    assert worst(got, wanted) < 2e-6


@pytest.mark.parametrize("reverse", [False, True])
def test_padding_is_inert(reverse):
    assert check_padding("cpp", reverse, CHUNK - 3, CHUNK + 7, 18) < 1e-6


def test_softplus_keeps_its_digits():
    """From steps of 1e-20 to 300: the step itself, seen through a state that does not decay."""
    raw = jnp.concatenate([jnp.linspace(-46.0, 46.0, 93), jnp.asarray([100.0, 300.0])])
    delta = jnp.broadcast_to(raw[:, None, None], (len(raw), 1, 16))
    one = jnp.ones((len(raw), 1, 1))
    operands = jnp.ones_like(delta), delta, -jnp.zeros((16, 1)), one, one

    def y(u, delta, A, B, C):
        return selective_scan(u, delta, A, B, C, implementation="cpp")[:, 0, 0]

    wanted = np.log1p(np.exp(-np.abs(raw, dtype=np.float64))) + np.maximum(raw, 0.0)
    np.testing.assert_allclose(y(*operands), wanted, rtol=5e-7)
    slope = jax.grad(lambda delta: y(operands[0], delta, *operands[2:]).sum())(delta)
    np.testing.assert_allclose(slope[:, 0, 0], 1 / (1 + np.exp(-np.asarray(raw, float))), rtol=5e-7)


@pytest.mark.parametrize("taps", [1, 2, 4, 5, fused_cpp.TAPS, fused_cpp.TAPS + 1])
@pytest.mark.parametrize(("length", "channels"), [(1, 3), (3, 16), (2 * CHUNK + 3, 40)])
def test_convolution(taps, length, channels):
    g = np.random.default_rng(taps)

    def draw(*shape):
        return jnp.asarray(g.standard_normal(shape), jnp.float32)

    x = draw(2, length, channels)
    kernels = [(draw(taps, channels), draw(channels)) for _ in range(2)]
    got, wanted = both_ways(convolved, (x, kernels), [draw(*x.shape), draw(*x.shape)])
    assert worst(got, wanted) < 1e-6


def test_convolution_of_one_direction():
    g = np.random.default_rng(0)
    x, w, b = (jnp.asarray(g.standard_normal(s), jnp.float32) for s in ((2, 9, 5), (4, 5), (5,)))
    (y,) = convolved(x, [(w, b)], reverse=True, implementation="cpp")
    wanted = jax.nn.silu(causal_conv(x, w, b, reverse=True))
    np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-6)
    low = [a.astype(jnp.bfloat16) for a in (x, w, b)]
    (y,) = convolved(low[0], [tuple(low[1:])], reverse=True, implementation="cpp")
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), wanted, rtol=0.02, atol=0.05)


def mixers(**options):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, CHUNK + 5, 24)), jnp.float32)
    module = Mamba(scan="reference", **options)
    return module, module.init(jax.random.key(0), x), x


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_the_mixer(causal, padded):
    module, params, x = mixers(causal=causal)
    valid = jnp.arange(x.shape[1])[None] < jnp.asarray([[x.shape[1]], [9]]) if padded else None

    def run(params, x, *, implementation):
        return module.clone(scan=implementation).apply(params, x, valid=valid)

    dy = jnp.cos(x) if valid is None else jnp.cos(x) * valid[..., None]
    got, wanted = both_ways(run, (params, x), dy)
    assert worst(got, wanted) < 5e-6


def test_the_causal_mixer_goes_on_where_a_window_ended():
    module, params, x = mixers(causal=True)
    module = module.clone(scan="cpp")
    whole = module.apply(params, x)
    memory, found = module.start(2, 24, jnp.float32), []
    for part in (x[:, :2], x[:, 2:3], x[:, 3:]):
        y, memory = module.apply(params, part, memory=memory)
        found.append(y)
    np.testing.assert_allclose(jnp.concatenate(found, 1), whole, rtol=0, atol=1e-5)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + Mamba(scan="cpp", name="mixer")(x)


@pytest.mark.parametrize(("remat", "scans"), [("none", 1), ("dots", 1), ("full", 2)])
def test_remat_keeps_what_the_scan_gave(remat, scans):
    """With "dots" the scan runs once, and the gradients are those without."""
    x = mixers()[2]

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, remat):
            def body(layer, x, _):
                return layer(x), None

            return over_layers(body, 3, remat)(Layer(name="layers"), x, None)[0]

    params = Model().init(jax.random.key(0), x, "none")
    step = jax.jit(
        jax.grad(lambda p, x, remat: jnp.sum(jnp.sin(Model().apply(p, x, remat)))),
        static_argnums=2,
    )
    program = step.lower(params, x, remat).compile()
    assert program.as_text().count('"SelectiveScanForward"') == scans
    assert program.as_text().count('"SelectiveScanBackward"') == 1
    assert worst(program(params, x), step(params, x, "none")) < 1e-6


def spec(batch, length, channels, states):
    """Return shapes of everything that `selective_scan` reads but a state."""
    f = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    wide, mix = f((batch, length, channels)), f((batch, length, states))
    vector = f((channels,))
    return [wide, wide, f((channels, states)), mix, mix, vector, wide, vector]


@pytest.mark.parametrize("shape", [(4, 22000, 384, 16), (2, 512, 384, 16)], ids=str)
def test_memory_is_chunk_boundaries_and_partial_sums(shape):
    """Softplus, gate, skip and bias add no array of [B, N, E]."""
    batch, length, channels, states = shape

    def both(operands, dy):
        y, pull = jax.vjp(partial(selective_scan, implementation="cpp"), *operands)
        return y, pull(dy)

    operands = spec(*shape)
    program = jax.jit(both).lower(operands, operands[0]).compile()
    temporary = program.memory_analysis().temp_size_in_bytes
    state = 4 * batch * channels * states
    groups = -(-fused_cpp.TASKS // batch)
    sums = 2 * groups * 4 * batch * length * states
    assert temporary <= (-(-length // CHUNK) + 8) * state + sums + 65536
    assert temporary < 100e6
    forward = jax.jit(partial(selective_scan, implementation="cpp")).lower(*operands).compile()
    assert forward.memory_analysis().temp_size_in_bytes <= 2 * state + 65536


def test_vmap_and_tiny_batches_agree():
    inputs = make(3, 40, 16, 4)
    each = {k: v[:, None] if k not in SHARED else v for k, v in inputs.items()}
    axes = {k: None if k in SHARED else 0 for k in inputs}
    run = partial(selective_scan, implementation="cpp")
    got = jax.vmap(lambda x: run(**x), in_axes=(axes,))(each)
    np.testing.assert_array_equal(got[:, 0], run(**inputs))


@pytest.mark.multi
@pytest.mark.parametrize("batch", [4, 3], ids=["divisible", "odd"])
def test_each_device_runs_its_part_of_the_mixer(batch):
    """Convolution and scans, forward and backward: as on one device, and no activation is gathered."""
    module, params, _ = mixers()
    module = module.clone(scan="cpp")
    x = jnp.asarray(np.random.default_rng(1).standard_normal((batch, 70, 24)), jnp.float32)
    valid = jnp.broadcast_to(jnp.arange(70) < 60, (batch, 70))

    def step(params, x, valid):
        def loss(params, x):
            return jnp.sum(jnp.sin(module.apply(params, x, valid=valid)))

        return jax.value_and_grad(loss, argnums=(0, 1))(params, x)

    wanted = jax.jit(step)(params, x, valid)
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=jax.devices()[:4])
    with jax.set_mesh(mesh), nn.logical_axis_rules([("batch", "data")]):
        split = NamedSharding(mesh, P("data") if batch == 4 else P())
        placed = jax.device_put(params, NamedSharding(mesh, P()))
        arguments = placed, jax.device_put(x, split), jax.device_put(valid, split)
        program = jax.jit(step).lower(*arguments).compile()
        if batch == 4:
            assert "all-gather" not in program.as_text()
        got = program(*arguments)
    assert worst(got, wanted) < 2e-6


@pytest.mark.parametrize("what", ["gate", "skip", "mask", "last", "four taps", "more", "gradient"])
def test_a_wrong_kernel_is_found_whatever_it_computes(what, monkeypatch):
    class Wrong:
        @staticmethod
        def scan_fused(directions, z, mask, **options):
            if what == "skip":
                directions = [(*one[:5], 1.01 * one[5], *one[6:]) for one in directions]
            z = 1.01 * z if what == "gate" else z
            mask = None if what == "mask" else mask
            y, (first, last) = cpp.scan_fused(directions, z, mask, **options)
            return y, [first, 1.01 * last if what == "last" else last]

        @staticmethod
        def conv_silu(x, kernels, **options):
            if what == ("more" if len(kernels[0][0]) > 4 else "four taps"):
                kernels = [(w, 1.01 * b) for w, b in kernels]
            elif what == "gradient":  # not a number, in one place
                x = jnp.where(jnp.arange(x.size).reshape(x.shape) == 5, jnp.sqrt(0 * x) + x, x)
            return cpp.conv_silu(x, kernels, **options)

    load = choose._load
    monkeypatch.setattr(choose, "_load", lambda name: Wrong if name == "wrong" else load(name))
    monkeypatch.setattr(choose, "IMPLEMENTATIONS", (*choose.IMPLEMENTATIONS, "wrong"))
    assert "it is off by" in choose.trial("wrong")


@pytest.mark.parametrize("empty", [0, 1], ids=["no example", "no token"])
def test_nothing_gives_nothing(empty):
    """Gradients of what all examples share are zero then."""
    x = jnp.zeros([0 if axis == empty else 3 for axis in range(2)] + [24])
    module, params, _ = mixers()
    module = module.clone(scan="cpp")
    y, pull = jax.vjp(module.apply, params, x)
    assert y.shape == x.shape
    assert not any(np.any(np.asarray(g)) for g in jax.tree.leaves(pull(y)))
