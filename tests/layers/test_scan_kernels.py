"""The Pallas kernels of the scan: in interpret mode against the oracle, lowered for their platforms."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_scan import make, worst

from ssl_audio.layers.scan import (
    Inputs,
    bidirectional_scan,
    choose,
    pallas_gpu,
    pallas_tpu,
    selective_scan,
)
from ssl_audio.layers.scan.segments import scan_in_segments

PLATFORMS = {"pallas_gpu": "cuda", "pallas_tpu": "tpu"}


@pytest.fixture
def interpreted(monkeypatch):
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    # Tiles of a tenth of the size: what is interpreted is unrolled over them.
    for name, value in dict(LANES=8, PITCH=16, TOKENS=4, STRIDE=2, STATES=4).items():
        monkeypatch.setattr(pallas_gpu, name, value)
    monkeypatch.setattr(pallas_tpu, "TOKENS", 16)
    together = partial(pallas_gpu.scan_together, interpret=InterpretGPUParams())
    monkeypatch.setattr(pallas_gpu, "scan_together", together)
    monkeypatch.setattr(pallas_tpu, "scan", partial(pallas_tpu.scan, interpret=True))


def both_ways(forward, backward, z, mask, implementation):
    """Both directions with everything optional; values and all gradients in one program."""

    def loss(forward, backward, z):
        options = dict(mask=mask, implementation=implementation)
        y = bidirectional_scan(Inputs(**forward), Inputs(**backward), z, **options)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    grad = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, y), gradients = grad(forward, backward, z)
    return y, gradients


def two_directions(length, dtype=jnp.float32):
    """Two blocks of tokens and one of channels for either kernel, none of them full."""
    inputs, other = (make(1, length, 5, 3, seed=seed) for seed in (0, 1))
    z = inputs["z"].astype(dtype)
    ahead, back = (
        {k: v if k in ("A", "D", "delta_bias") else v.astype(dtype) for k, v in x.items()}
        for x in (inputs, other)
    )
    for direction in (ahead, back):
        del direction["z"], direction["initial_state"]
    return ahead, back, z, jnp.arange(length)[None] < length - 1


@pytest.mark.parametrize(("implementation", "length"), [("pallas_gpu", 6), ("pallas_tpu", 18)])
def test_values_and_gradients_equal_the_reference(interpreted, implementation, length):
    operands = two_directions(length)
    run = jax.jit(both_ways, static_argnames="implementation")
    got = run(*operands, implementation=implementation)
    assert worst(got, run(*operands, implementation="reference")) < 1e-5


@pytest.mark.parametrize(("implementation", "length"), [("pallas_gpu", 3), ("pallas_tpu", 1)])
def test_low_precision_and_states(interpreted, implementation, length):
    inputs = {k: v.astype(jnp.bfloat16) for k, v in make(2, length, 4, 2).items()}
    run = jax.jit(
        partial(selective_scan, return_last_state=True, reverse=True),
        static_argnames="implementation",
    )
    (y, last), (wanted, state) = (
        run(**inputs, implementation=name) for name in (implementation, "reference")
    )
    assert y.dtype == jnp.bfloat16 and last.dtype == jnp.float32
    np.testing.assert_allclose(last, state, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y.astype(np.float32), wanted.astype(np.float32), rtol=2**-7)


@pytest.mark.parametrize("implementation", PLATFORMS)
def test_lowers_for_its_platform_without_an_array_of_states(implementation):
    batch, length, channels, dtype = 2, 513, 384, jnp.bfloat16
    struct = jax.ShapeDtypeStruct
    wide, mix = struct((batch, length, channels), dtype), struct((batch, length, 16), dtype)
    inputs = dict(u=wide, delta=wide, B=mix, C=mix) | {
        k: struct(s, jnp.float32)
        for k, s in (("A", (channels, 16)), ("D", (channels,)), ("delta_bias", (channels,)))
    }
    mask = struct((batch, length), bool)
    program = jax.jit(both_ways, static_argnames="implementation").trace(
        inputs, inputs, wide, mask, implementation=implementation
    )
    text = program.lower(lowering_platforms=(PLATFORMS[implementation],)).as_text()
    assert {"pallas_gpu": "mosaic_gpu", "pallas_tpu": "tpu_custom_call"}[implementation] in text
    sizes = (
        int(np.prod([int(n) for n in dims.split("x") if n]))
        for dims in re.findall(r"tensor<((?:\d+x)+)[a-z]", text)
    )
    assert max(sizes) < 2 * batch * length * channels


def test_segments_equal_one_sequence():
    """Cut in three, the last one part padding."""
    reverse = True
    inputs = make(2, 20, 3, 4)
    step = jax.nn.softplus(inputs["delta"])
    operands = tuple(
        step if k == "delta" else inputs[k] for k in ("u", "delta", "A", "B", "C", "initial_state")
    )

    @partial(jax.jit, static_argnums=0)
    def run(segments, operands):
        def outputs(operands):
            if segments == 1:
                return choose.run("reference", [operands], [reverse])[0]
            scan = partial(choose.run, "reference")
            return scan_in_segments(scan, segments, [operands], [reverse])[0]

        found, pull = jax.vjp(outputs, operands)
        return found, pull(jax.tree.map(jnp.sin, found))

    assert worst(run(3, operands), run(1, operands)) < 1e-5


def test_long_sequences_of_a_small_batch_are_cut(monkeypatch):
    cut = []
    monkeypatch.setattr(pallas_gpu, "scan_in_segments", lambda _, n, *rest: cut.append(n) or [])
    inputs = make(1, 8 * pallas_gpu.SEGMENT, 1, 1)
    operands = tuple(inputs[k] for k in ("u", "delta", "A", "B", "C", "initial_state"))
    pallas_gpu.scan_together([operands] * 2, (False, True))
    assert cut == [8]


def test_double_precision_is_refused():
    with jax.enable_x64(True):
        inputs = {k: np.asarray(v, np.float64) for k, v in make(1, 2, 2, 2).items()}
        for name in PLATFORMS:
            with pytest.raises(ValueError, match=f"{name}: got a float64 state.*try 'xla'"):
                jax.eval_shape(partial(selective_scan, implementation=name), **inputs)


@pytest.mark.multi
def test_each_device_runs_its_part_of_the_batch(interpreted):
    import flax.linen as nn

    inputs = make(4, 5, 3, 2)
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=jax.devices()[:4])
    shared = ("A", "D", "delta_bias")
    placed = {
        k: jax.device_put(v, NamedSharding(mesh, P() if k in shared else P(("data", "fsdp"))))
        for k, v in inputs.items()
    }

    @partial(jax.jit, static_argnums=1)
    def run(inputs, implementation):
        def loss(inputs):
            y = selective_scan(**inputs, implementation=implementation)
            return jnp.sum(jnp.sin(y)), y

        return jax.grad(loss, has_aux=True)(inputs)

    with jax.set_mesh(mesh), nn.logical_axis_rules((("batch", ("data", "fsdp")),)):
        program = run.lower(placed, "pallas_tpu").compile()
        gradients, y = program(placed)
    assert "all-gather" not in program.as_text()
    assert y.sharding.is_equivalent_to(placed["u"].sharding, 3)
    assert worst((gradients, y), run(inputs, "reference")) < 1e-5
