"""The selective scan: agreement of back-ends, padding, splitting, precision, memory, sharding."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssl_audio.layers.scan import Inputs, bidirectional_scan, choose, selective_scan, xla

KEYS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
BY_TIME = ("u", "delta", "B", "C", "z")
CHUNK = xla.CHUNK
PLAIN = ("reference", "xla")  # the Pallas kernels: test_scan_kernels.py


def arrays(batch, length, channels, states, *, seed=0) -> dict[str, np.ndarray]:
    g = np.random.default_rng(seed)

    def f(*shape):
        return g.standard_normal(shape).astype(np.float32)

    seq, mix = (batch, length, channels), (batch, length, states)
    skip, bias = f(channels), f(channels) - 1
    A = -np.exp(f(channels, states))
    values = (f(*seq), f(*seq), A, f(*mix), f(*mix), skip, f(*seq), bias)
    return dict(zip(KEYS, (*values, f(batch, channels, states)), strict=True))


def make(batch, length, channels, states, **kw) -> dict[str, jax.Array]:
    return {k: jnp.asarray(v) for k, v in arrays(batch, length, channels, states, **kw).items()}


@partial(jax.jit, static_argnames=("reverse", "implementation"))
def outputs_and_gradients(inputs, dy, dlast, *, reverse=False, implementation="xla"):
    run = partial(
        selective_scan, reverse=reverse, return_last_state=True, implementation=implementation
    )
    outputs, pull = jax.vjp(lambda x: run(**x), inputs)
    return dict(zip(("y", "last"), outputs, strict=True)), pull((dy, dlast))[0]


def in_float64(inputs, dy, dlast, **kw):
    """Run in double precision and return numpy arrays."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (inputs, dy, dlast))
        return jax.tree.map(np.asarray, outputs_and_gradients(*wide, **kw))


def worst(got, wanted) -> float:
    """Largest relative L2 error over the leaves."""

    def error(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.isfinite(a).all()
        return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))

    return max(jax.tree.leaves(jax.tree.map(error, got, wanted)))


@pytest.mark.parametrize(
    ("shape", "reverse"),
    [
        ((1, 1, 3, 1), False),
        ((2, CHUNK - 1, 5, 4), True),
        ((1, CHUNK, 4, 3), False),
        ((3, 2 * CHUNK + 6, 7, 5), False),
        ((1, 2 * CHUNK + 1, 5, 16), True),
    ],
    ids=str,
)
def test_xla_equals_reference(shape, reverse):
    inputs = make(*shape)
    g = np.random.default_rng(1)
    dy = jnp.asarray(g.standard_normal(inputs["u"].shape), jnp.float32)
    dlast = jnp.asarray(g.standard_normal(inputs["initial_state"].shape), jnp.float32)
    wanted = in_float64(inputs, dy, dlast, reverse=reverse, implementation="reference")
    double = in_float64(inputs, dy, dlast, reverse=reverse)
    assert double[0]["y"].dtype == double[1]["A"].dtype == np.float64
    assert worst(double, wanted) < 1e-12
    assert worst(outputs_and_gradients(inputs, dy, dlast, reverse=reverse), wanted) < 1e-5


def test_optional_inputs_default_to_nothing():
    inputs = make(2, 5, 3, 4)
    bare = {k: inputs[k] for k in ("u", "delta", "A", "B", "C")}
    zeros = {k: jnp.zeros_like(inputs[k]) for k in ("D", "delta_bias", "initial_state")}
    y = jax.jit(selective_scan)(**bare)
    np.testing.assert_allclose(y, jax.jit(selective_scan)(**bare, **zeros), rtol=0, atol=1e-6)
    step = jax.nn.softplus(bare["delta"])
    given = jax.jit(partial(selective_scan, delta_softplus=False))(**bare | {"delta": step})
    np.testing.assert_allclose(y, given, rtol=0, atol=1e-6)


@pytest.mark.parametrize("implementation", PLAIN)
def test_reverse_is_the_flipped_scan_of_the_flipped_sequence(implementation):
    inputs = make(2, CHUNK + 5, 3, 4)
    flipped = {k: jnp.flip(v, 1) if k in BY_TIME else v for k, v in inputs.items()}
    run = partial(selective_scan, return_last_state=True, implementation=implementation)
    y, last = jax.jit(partial(run, reverse=True))(**inputs)
    y_flipped, last_flipped = jax.jit(run)(**flipped)
    np.testing.assert_allclose(y, jnp.flip(y_flipped, 1), rtol=0, atol=1e-6)
    np.testing.assert_allclose(last, last_flipped, rtol=0, atol=1e-6)


def check_padding(implementation, reverse, valid, length, channels) -> float:
    """What stands in padding must change no bit of the rest and receive no gradient.

    Returns how far results are from those of the sequences without it.
    """
    mask = jnp.broadcast_to(jnp.arange(length) < valid, (2, length))
    inputs, noise = make(2, length, channels, 4), make(2, length, channels, 4, seed=1)
    garbage = {
        k: jnp.where(mask[:, :, None], v, 50 * noise[k]) if k in BY_TIME else v
        for k, v in inputs.items()
    }
    short = {k: v[:, :valid] if k in BY_TIME else v for k, v in inputs.items()}

    @jax.jit
    def run(x, mask=None):
        def loss(x):
            options = dict(mask=mask, reverse=reverse, return_last_state=True)
            y, last = selective_scan(**x, **options, implementation=implementation)
            y = y[:, :valid]
            return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(last)), (y, last)

        (_, outputs), gradients = jax.value_and_grad(loss, has_aux=True)(x)
        return outputs, gradients

    outputs, _ = run(inputs, mask)
    same, gradients = run(garbage, mask)
    jax.tree.map(np.testing.assert_array_equal, outputs, same)
    for k in BY_TIME:
        assert not np.any(gradients[k][:, valid:]), k
        gradients[k] = gradients[k][:, :valid]
    return worst((outputs, gradients), run(short))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("implementation", PLAIN)
def test_padding_is_inert(implementation, reverse):
    assert check_padding(implementation, reverse, CHUNK - 3, CHUNK + 7, 3) < 1e-5


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("implementation", PLAIN)
def test_two_halves_make_the_whole(implementation, reverse):
    inputs = make(2, CHUNK + 9, 3, 4)
    run = jax.jit(
        partial(
            selective_scan, reverse=reverse, return_last_state=True, implementation=implementation
        )
    )
    cut = 17
    early = {k: v[:, :cut] if k in BY_TIME else v for k, v in inputs.items()}
    late = {k: v[:, cut:] if k in BY_TIME else v for k, v in inputs.items()}
    first, second = (late, early) if reverse else (early, late)
    y_first, state = run(**first)
    y_second, state = run(**second | {"initial_state": state})
    halves = (y_second, y_first) if reverse else (y_first, y_second)
    y, last = run(**inputs)
    np.testing.assert_allclose(jnp.concatenate(halves, 1), y, rtol=0, atol=1e-5)
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", PLAIN)
def test_low_precision_inputs_keep_a_float32_state(implementation):
    low = {k: v.astype(jnp.bfloat16) for k, v in make(2, 3 * CHUNK, 4, 8).items()}
    high = {k: v.astype(jnp.float32) for k, v in low.items()}
    dy, dlast = jnp.ones_like(low["u"]), jnp.ones_like(high["initial_state"])
    out, grads = outputs_and_gradients(low, dy, dlast, implementation=implementation)
    wanted, wanted_grads = outputs_and_gradients(
        high, dy.astype(jnp.float32), dlast, implementation=implementation
    )
    assert out["y"].dtype == jnp.bfloat16
    assert out["last"].dtype == jnp.float32
    np.testing.assert_allclose(out["last"], wanted["last"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out["y"].astype(jnp.float32), wanted["y"], rtol=2**-8, atol=1e-5)
    for k, g in grads.items():
        assert g.dtype == jnp.bfloat16, k
    assert worst({k: g.astype(jnp.float32) for k, g in grads.items()}, wanted_grads) < 5e-3


def test_steep_decay_stays_finite_and_accurate():
    inputs = make(2, 3 * CHUNK, 4, 16)
    inputs["A"] = -jnp.broadcast_to(jnp.arange(1.0, 17.0), (4, 16))
    inputs["delta"] = jnp.abs(inputs["delta"]) ** 3
    inputs["delta"] *= 600 / 16 / jnp.max(inputs["delta"])  # step x rate from 0 to 600
    inputs["delta_bias"] = jnp.zeros(4)
    dy, dlast = jnp.ones_like(inputs["u"]), jnp.ones_like(inputs["initial_state"])
    wanted = in_float64(inputs, dy, dlast, implementation="reference")
    assert worst(outputs_and_gradients(inputs, dy, dlast), wanted) < 2e-6


def compiled(implementation, batch, length, channels, states):
    """Compile the bare recurrence, forward and with every gradient."""
    spec = {
        k: jax.ShapeDtypeStruct(v.shape, v.dtype)
        for k, v in arrays(batch, 1, channels, states).items()
    }
    seq, mix = ((batch, length, n) for n in (channels, states))
    u, b = (jax.ShapeDtypeStruct(s, np.float32) for s in (seq, mix))
    operands = (u, u, spec["A"], b, b, spec["initial_state"])

    def run(*operands):
        return choose.run(implementation, [operands], [False])[0]

    def with_gradients(operands, cotangents):
        outputs, pull = jax.vjp(run, *operands)
        return outputs, pull(cotangents)

    forward = jax.jit(run).lower(*operands).compile()
    return forward, jax.jit(with_gradients).lower(operands, (u, operands[-1])).compile()


def largest_array(program) -> int:
    shapes = re.findall(r"\[(\d+(?:,\d+)*)\]", program.as_text())
    return max(int(np.prod([int(n) for n in s.split(",")])) for s in shapes)


@pytest.mark.parametrize("shape", [(1, 512, 24, 16), (2, 1024, 64, 8)], ids=str)
def test_memory_is_chunk_boundaries_and_one_chunk(shape):
    batch, length, channels, states = shape
    state = 4 * batch * channels * states  # bytes
    _, naive = compiled("reference", *shape)
    assert largest_array(naive) >= batch * length * channels * states  # the search finds it
    forward, gradients = compiled("xla", *shape)
    tokens_or_states = max(4 * batch * length * channels, max(CHUNK, length // CHUNK) * state)
    assert 4 * max(largest_array(forward), largest_array(gradients)) <= tokens_or_states
    assert forward.memory_analysis().temp_size_in_bytes <= 8 * state + 65536
    bound = (-(-length // CHUNK) + CHUNK) * state
    assert gradients.memory_analysis().temp_size_in_bytes <= 1.3 * bound + 65536


@pytest.mark.multi
def test_batch_sharding_is_kept():
    """Values and gradients equal the unsharded ones, and no operand is gathered."""
    inputs = make(4, 2 * CHUNK + 3, 6, 3)
    dy, dlast = jnp.sin(inputs["u"]), jnp.cos(inputs["initial_state"])
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    sharded = {
        k: jax.device_put(v, whole if k in ("A", "D", "delta_bias") else split)
        for k, v in inputs.items()
    }
    operands = (sharded, jax.device_put(dy, split), jax.device_put(dlast, split))
    program = outputs_and_gradients.lower(*operands).compile()
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert collective not in program.as_text()
    out, grads = program(*operands)
    for array in (*out.values(), *(grads[k] for k in (*BY_TIME, "initial_state"))):
        assert array.sharding.is_equivalent_to(split, array.ndim)
    wanted = outputs_and_gradients(inputs, dy, dlast)
    assert worst((out, grads), wanted) < 1e-6


def test_stacked_layers_with_remat():
    """The mixer's use: `lax.scan` over layers whose body is rematerialised."""
    inputs = make(2, CHUNK + 1, 4, 3)
    rates = jnp.stack([inputs["A"], 0.5 * inputs["A"]])

    def layer(x, A, implementation):
        return x + selective_scan(**inputs | {"u": x, "A": A}, implementation=implementation)

    def scanned(x, rates):
        body = jax.checkpoint(lambda x, A: (layer(x, A, "xla"), None))
        return jnp.sum(jnp.sin(jax.lax.scan(body, x, rates)[0]))

    def unrolled(x, rates):
        for A in rates:
            x = layer(x, A, "reference")
        return jnp.sum(jnp.sin(x))

    got, wanted = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(inputs["u"], rates)
        for f in (scanned, unrolled)
    )
    assert worst(got, wanted) < 1e-5


@pytest.mark.parametrize("implementation", PLAIN)
def test_both_directions_are_the_sum_of_two_scans(implementation):
    shared = make(2, CHUNK + 2, 3, 4)
    z = shared.pop("z")
    shared.pop("initial_state")
    other = make(2, CHUNK + 2, 3, 4, seed=1)
    backward = {k: other[k] for k in shared}
    mask = jnp.broadcast_to(jnp.arange(CHUNK + 2) < CHUNK, (2, CHUNK + 2))

    def both(ahead, back, z):
        options = dict(mask=mask, implementation=implementation)
        return bidirectional_scan(Inputs(**ahead), Inputs(**back), z, **options)

    def apart(ahead, back, z):
        run = partial(selective_scan, z=z, mask=mask, implementation=implementation)
        return run(**ahead) + run(**back, reverse=True)

    got, wanted = (
        jax.jit(jax.value_and_grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), (0, 1, 2)))(
            shared, backward, z
        )
        for f in (both, apart)
    )
    assert worst(got, wanted) < 1e-5


def test_choice_of_implementation(monkeypatch):
    inputs = make(1, 2, 2, 2)
    monkeypatch.setenv("SSL_AUDIO_SCAN", "")
    monkeypatch.setitem(choose.PREFERRED, "cpu", "xla")
    assert choose.find("auto") == "xla"
    monkeypatch.setenv("SSL_AUDIO_SCAN", "reference")
    assert choose.find("auto") == "reference"
    assert choose.find("xla") == "xla", "an explicit name wins"
    monkeypatch.setenv("SSL_AUDIO_SCAN", "fast")
    with pytest.raises(ValueError, match=r"SSL_AUDIO_SCAN='fast'.*auto, reference, xla"):
        selective_scan(**inputs)
    with pytest.raises(ValueError, match=r"implementation='pallas'.*auto, reference, xla"):
        selective_scan(**inputs, implementation="pallas")


def test_auto_falls_back_once_with_one_line(monkeypatch, caplog):
    choose._works.cache_clear()
    monkeypatch.setenv("SSL_AUDIO_SCAN", "auto")
    monkeypatch.setitem(choose.PREFERRED, "cpu", "pallas_tpu")
    try:
        with caplog.at_level("WARNING"):
            for _ in range(2):  # also while tracing
                jax.eval_shape(selective_scan, **make(1, 2, 2, 2))
        (record,) = caplog.records
        assert "using 'xla', not 'pallas_tpu': " in record.getMessage()
        with pytest.raises(ValueError, match="interpret mode"):
            jax.jit(partial(selective_scan, implementation="pallas_tpu"))(**make(1, 2, 2, 2))
        choose._works.cache_clear()
        monkeypatch.setattr(choose, "VERSIONS", ((0, 1), (0, 9)))
        assert choose.find("auto") == "xla"
        assert "it is written for jax 0.1 to 0.9" in caplog.records[-1].getMessage()
    finally:
        choose._works.cache_clear()


def test_a_kernel_that_is_wrong_here_is_not_used(monkeypatch):
    load = choose._load

    class Wrong:
        @staticmethod
        def scan(u, *rest, reverse):
            y, last = xla.scan(u, *rest, reverse=reverse)
            return 1.01 * y, last

    monkeypatch.setattr(choose, "_load", lambda name: Wrong if name == "wrong" else load(name))
    monkeypatch.setattr(choose, "IMPLEMENTATIONS", ("xla", "wrong"))
    assert "it is off by 0.01" in choose.trial("wrong")
    assert choose.trial("xla") == ""
    monkeypatch.setenv("SSL_AUDIO_SCAN", "")
    monkeypatch.setitem(choose.PREFERRED, "cpu", "wrong")
    assert choose.find("auto", np.float64) == "xla", "never tried in float64"
