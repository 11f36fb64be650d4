"""Diffusion Transformers, velocities, samplers and preferences against the references."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import dit, from_state_dict
from ssl_audio.objectives.noise import Cosine, ddim
from ssl_audio.objectives.preference import preference

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("dit*.npz"))
def test_velocity_with_and_without_guidance(path):
    golden = load(path)
    model = from_state_dict("dit", golden.state, **golden.options)
    found = model.forward(**golden.inputs)
    worst = golden.differences(found)
    for name, value in worst.items():
        assert value <= 1e-4 * np.abs(golden.outputs[name]).max(), (name, value)
    golden.check_same_bits(dit.to_state_dict(model.params, model.config) | model.unused)
    inside = {f"model.model.{n}": v for n, v in golden.state.items()}
    inside["pretransform.model.encoder.layers.0.bias"] = np.ones(3, np.float32)
    model = from_state_dict("dit", inside, **golden.options)
    back = dit.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == inside.keys()
    inside["model.model.transformer.layers.0.ff_norm.beta"] += 1
    with pytest.raises(ValueError, match=r"layers.0.ff_norm.beta differs"):
        from_state_dict("dit", inside, **golden.options)


@pytest.mark.parametrize("path", golden_files("diffusion_dpo*.npz"))
def test_preferences_and_a_sampler(path):
    file = np.load(path, allow_pickle=False)
    options = json.loads(str(file["config_json"]))
    given = {n.removeprefix("in/"): jnp.asarray(file[n]) for n in file.files if n.startswith("in/")}
    want = {n.removeprefix("out/"): file[n] for n in file.files if n.startswith("out/")}
    schedule, pairs = Cosine(), options["B"]
    x, noise, time = given["x_winner_loser"], given["noise"], given["t"]

    def close(got, name):
        np.testing.assert_allclose(got, want[name], atol=1e-5, rtol=1e-5)

    close(schedule.mixed(x, noise, time), "noised")
    target = schedule.velocity(x, noise, time)
    close(target, "v_target")
    signal, added = schedule.parted(schedule.mixed(x, noise, time), target, time)
    np.testing.assert_allclose(signal, x, atol=1e-5)
    np.testing.assert_allclose(added, noise, atol=1e-5)
    errors = []
    for whose, name in (("policy_out", "policy"), ("reference_out", "ref")):
        error = jnp.mean((given[whose] - target) ** 2, axis=(1, 2))
        close(error[:pairs], f"mse_{name}_winner")
        close(error[pairs:], f"mse_{name}_loser")
        errors += [error[:pairs], error[pairs:]]
    value, _ = preference(*errors, beta=options["beta"])
    np.testing.assert_allclose(value, want["loss_per_pair"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jnp.mean(value), want["loss"], rtol=1e-5)
    found = jax.jit(
        lambda x: ddim(lambda x, t: 0.3 * x + 0.2 * t, schedule, x, options["sampler_steps"])
    )(given["sampler_x_T"])
    close(found, "sampler_x0")
