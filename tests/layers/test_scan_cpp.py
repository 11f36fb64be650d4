"""The C++ scan for CPUs: compiled here, equal to the oracle, and taken by default."""

import shutil
import subprocess
import sys
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_scan import in_float64, make, outputs_and_gradients, worst

from ssl_audio.layers.scan import choose, cpp, selective_scan


@pytest.fixture(scope="module")
def compiled():
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler: install GCC or Clang")
    assert cpp.library().ensure() == ""


@pytest.mark.parametrize(
    ("shape", "reverse"),
    [
        ((1, 1, 3, 1), False),
        ((1, cpp.CHUNK, 16, 16), True),
        ((3, cpp.CHUNK + 1, 7, 5), False),
        ((2, 2 * cpp.CHUNK + 9, 33, 20), True),
        ((1, 40, 16 * 17, 16), False),
    ],
    ids=str,
)
def test_equals_the_reference(compiled, shape, reverse):
    inputs = make(*shape)
    g = np.random.default_rng(1)
    dy = jnp.asarray(g.standard_normal(inputs["u"].shape), jnp.float32)
    dlast = jnp.asarray(g.standard_normal(inputs["initial_state"].shape), jnp.float32)
    wanted = in_float64(inputs, dy, dlast, reverse=reverse, implementation="reference")
    got = outputs_and_gradients(inputs, dy, dlast, reverse=reverse, implementation="cpp")
    assert worst(got, wanted) < 2e-6


def test_steep_decay_and_growth_stay_accurate(compiled):
    """Decays far below what a float holds, and a growing state."""
    inputs = make(1, 70, 16, 16)
    inputs["A"] = -jnp.broadcast_to(jnp.arange(1.0, 17.0), (16, 16))
    inputs["delta"] = jnp.linspace(-4.0, 40.0, 70)[None, :, None] * jnp.ones((1, 70, 16))
    inputs["delta_bias"] = jnp.zeros(16)
    run = partial(selective_scan, return_last_state=True, delta_softplus=False)
    run = jax.jit(run, static_argnames="implementation")
    keys = ("u", "delta", "A", "B", "C")
    steep = {k: inputs[k] for k in keys} | {"delta": jnp.abs(inputs["delta"])}
    assert worst(run(**steep, implementation="cpp"), run(**steep, implementation="xla")) < 1e-6
    few = {k: inputs[k][:, :1] if k in ("u", "delta", "B", "C") else inputs[k] for k in keys}
    few |= {"delta": -jnp.ones((1, 1, 16)), "initial_state": inputs["initial_state"]}
    assert worst(run(**few, implementation="cpp"), run(**few, implementation="xla")) < 1e-6


def test_not_a_number_comes_out_again(compiled):
    inputs = make(1, 5, 16, 16)
    inputs["delta"] = inputs["delta"].at[0, 2, 3].set(jnp.nan)
    y = selective_scan(**inputs, implementation="cpp")
    bad = np.isnan(np.asarray(y))
    assert bad[0, 2:, 3].all()
    assert bad.sum() == 3


def test_low_precision_inputs_keep_a_float32_state(compiled):
    low = {k: v.astype(jnp.bfloat16) for k, v in make(2, 70, 20, 8).items()}
    dy, dlast = jnp.ones_like(low["u"]), jnp.ones((2, 20, 8))
    got = outputs_and_gradients(low, dy, dlast, implementation="cpp")
    wanted = outputs_and_gradients(low, dy, dlast, implementation="xla")
    assert got[0]["last"].dtype == jnp.float32
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype
    assert worst(got, wanted) < 5e-3


@pytest.mark.multi
def test_each_device_runs_its_part_of_the_batch(compiled):
    inputs = make(4, 70, 16, 4)
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=jax.devices()[:4])
    by_batch = ("u", "delta", "B", "C", "z", "initial_state")
    run = jax.jit(partial(selective_scan, implementation="cpp", return_last_state=True))
    wanted = run(**inputs)
    with jax.set_mesh(mesh), nn.logical_axis_rules([("batch", "data")]):
        split = {
            k: jax.device_put(v, NamedSharding(mesh, P("data") if k in by_batch else P()))
            for k, v in inputs.items()
        }
        program = run.lower(**split).compile()
        assert "all-gather" not in program.as_text()
        got = program(**split)
    assert worst(got, wanted) < 1e-6


def test_auto_takes_it(compiled, monkeypatch):
    monkeypatch.setenv("SSL_AUDIO_SCAN", "auto")
    choose._works.cache_clear()
    assert choose.find("auto") == "cpp"
    assert choose.find("auto", np.float64) == "xla"
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match="float64; 'cpp' computes in float32"),
    ):
        wide = {k: jnp.asarray(v, jnp.float64) for k, v in make(1, 2, 2, 2).items()}
        selective_scan(**wide, implementation="cpp")


def test_help():
    command = [sys.executable, "-m", "ssl_audio", "compile-scan", "--help"]
    assert "CXX" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
