"""Our SSAST and SSAMBA, converted, against outputs and gradients of the PyTorch references."""

import functools
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden_files

from ssl_audio.config import build
from ssl_audio.convert import from_state_dict, ssamba
from ssl_audio.convert.base import fill

pytestmark = pytest.mark.parity


@functools.cache
def load(path):
    data = dict(np.load(path, allow_pickle=False))
    return data, json.loads(str(data["config"]))


def under(data, prefix):
    return {k[len(prefix) :]: v for k, v in data.items() if k.startswith(prefix)}


def relative(got, want):
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12)


def assert_round_trip(model, family, state):
    """Every array under its original name, bit for bit."""
    module = importlib.import_module(f"ssl_audio.convert.{family}")
    back = module.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == state.keys()
    for name, value in state.items():
        assert back[name].dtype == value.dtype, name
        assert back[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("path", golden_files("ss*_pretrain.npz"))
def test_pretraining_losses_and_everything_before_them(path):
    data, config = load(path)
    model = from_state_dict(config["model"], under(data, "param/"), **config)
    got = model.forward(**under(data, "in/"))
    tolerance = {"mpc_nce": 1e-5, "mpc_acc": 1e-6, "mpg_mse": 1e-6}
    for name, want in (under(data, "out/") | under(data, "mid/")).items():
        size = max(1, np.abs(want).max())  # the stream of SSAMBA doubles with every pair
        assert np.abs(got[name] - want).max() < tolerance.get(name, 2e-5 * size), name
    assert_round_trip(model, config["model"], under(data, "param/"))


@pytest.mark.parametrize("path", golden_files("ss*_pretrain.npz"))
def test_pretraining_gradients(path):
    data, config = load(path)
    family = importlib.import_module(f"ssl_audio.convert.{config['model']}")
    model = from_state_dict(config["model"], under(data, "param/"), **config)
    objective = build(model.config["objective"], "objectives")
    masks = {
        "discriminate": jnp.asarray(data["in/mpc_mask_index"], jnp.int32),
        "reconstruct": jnp.asarray(data["in/mpg_mask_index"], jnp.int32),
    }

    @jax.jit
    @jax.grad
    def gradient(params):
        x = jnp.asarray(data["in/x"])
        return objective.loss_of(params, {}, x, masks, jax.random.key(0), train=False).total

    ours = family.to_state_dict(jax.tree.map(np.asarray, gradient(model.params)), model.config)
    names = [str(n) for n in data["gradstat/names"]]
    for name, want in zip(names, data["gradstat/sum_l2_probe64"], strict=True):
        got = ours[name].astype(np.float64).ravel()
        if name == "cpredlayer.2.bias":
            assert np.abs(got).max() < 1e-6, "a constant added to all predictions is invisible"
            continue
        probe = got @ np.cos(0.7 * np.arange(got.size))
        assert np.linalg.norm(got) == pytest.approx(want[1], rel=2e-5), name
        assert probe == pytest.approx(want[2], abs=2e-5 * want[1] * got.size**0.5), name
        if f"grad/{name}" in data:
            assert relative(got, data[f"grad/{name}"].ravel()) < 2e-5, name


@pytest.mark.parametrize("path", golden_files("ss*_finetune.npz"))
def test_finetuned_logits(path):
    data, config = load(path)
    backbone = path.with_name(config["backbone_params"])
    if not backbone.exists():
        backbone = path.with_name(path.name.replace("finetune", "pretrain"))
    backbone = {k: v for k, v in under(load(backbone)[0], "param/").items() if k.startswith("v.")}
    for number, (tag, variant) in enumerate(config["variants"].items()):
        state = backbone | under(data, f"{tag}/param/")
        if number % 2:  # the table of pretraining: the encoder moves it to its input by itself
            state["v.pos_embed"] = backbone["v.pos_embed"]
        model = from_state_dict(config["model"], state, **(config | variant))
        got = model.forward(x=data[f"{tag}/in/x"])
        wanted = under(data, f"{tag}/mid/") | under(data, f"{tag}/out/")
        if config.get("rms_norm"):  # the fused norm of the reference never shows the first one
            wanted.pop("norm_f_first", None)
        for name, want in wanted.items():
            assert np.abs(got[name] - want).max() < 2e-5, (tag, name)
        assert_round_trip(model, config["model"], state)


@pytest.mark.parametrize("path", golden_files("vim_mixer*.npz"))
def test_vim_mixer(path):
    data, config = load(path)
    mixer = build(dict(kind="mamba", state=config["d_state"], conv=config["d_conv"]), "layers")
    shapes = jax.eval_shape(mixer.init, jax.random.key(0), data["in/x"])["params"]

    def ours(state):
        state = {f"m.{name}": value for name, value in state.items() if name != "x"}
        return fill(shapes, lambda params: ssamba.mixer("m", params), state)[0]

    def run(params, x):
        y = mixer.apply({"params": params}, x)
        return jnp.sum(y * data["in/dy"]), y

    grad = jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True))
    params = jax.tree.map(jnp.asarray, ours(under(data, "param/")))
    (grads, dx), y = grad(params, jnp.asarray(data["in/x"]))
    assert np.abs(y - data["out/y"]).max() < 2e-6
    assert relative(dx, data["grad/x"]) < 2e-5
    error = jax.tree.map(relative, grads, ours(under(data, "grad/")))
    assert max(jax.tree.leaves(error)) < 2e-5, error
