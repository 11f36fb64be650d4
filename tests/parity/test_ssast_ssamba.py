"""Our SSAST and SSAMBA against outputs and gradients of the PyTorch references, random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden_files

from ssl_audio.backbones import heads, sizes
from ssl_audio.config import build
from ssl_audio.convert import ssamba, ssast
from ssl_audio.objectives.masked_spectrogram import MaskedSpectrogram
from ssl_audio.tokens.positions import transfer

pytestmark = pytest.mark.parity


def load(path):
    data = dict(np.load(path, allow_pickle=False))
    return data, json.loads(str(data["config"]))


def under(data, prefix):
    return {k[len(prefix) :]: v for k, v in data.items() if k.startswith(prefix)}


def small_encoder(config, grid):
    """Return our encoder for a golden file's sizes: a published one with width and depth changed."""
    paired = config.get("if_bidirectional", False)
    name = "ssast" if config["model"] == "ssast" else "ssamba" if paired else "ssamba_rms"
    options = sizes.encoder(name, "tiny", grid) | {
        "width": config["embed_dim"],
        "depth": config["depth"],
        "drop_path": 0.0,
    }
    if name == "ssast":
        options["block"]["mixer"]["heads"] = config["heads"]
    return build(options, "encoder")


def convert(state, config):
    if config["model"] == "ssast":
        return ssast.to_params(state)
    return ssamba.to_params(state, paired=config["if_bidirectional"])


def back(ours, like, config):
    """Return our tree under the reference's names: send element numbers through the converter."""
    ids, start = {}, 0
    for name, value in like.items():
        ids[name] = np.arange(start, start + value.size).reshape(value.shape)
        start += value.size
    flat = np.full(start, np.nan)
    jax.tree.map(lambda i, x: flat.__setitem__(i, np.asarray(x)), convert(ids, config), ours)
    return {name: flat[number] for name, number in ids.items()}


def relative(got, want):
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12)


class Spectrogram:
    """Stands where the front end does: the golden inputs are spectrograms already."""

    bins, hop, rate = 128, 160, 16000

    def __call__(self, audio, length):
        del length
        return audio

    count = valid = __call__


def pretraining(config):
    patch = dict(
        patch=(config["fshape"], config["tshape"]), stride=(config["fshape"], config["tshape"])
    )
    return MaskedSpectrogram(
        frontend=Spectrogram(),
        tokenizer=build(dict(kind="patchify", width=config["embed_dim"], **patch), "tokenizer"),
        encoder=small_encoder(config, tuple(config["grid"])),
        masking=build(dict(kind="masking:Random", count=config["mask_patch"]), "masking"),
    )


@pytest.mark.parametrize("path", golden_files("ss*_pretrain.npz"))
def test_pretraining_losses_and_gradients(path):
    data, config = load(path)
    reference = under(data, "param/")
    params = jax.tree.map(jnp.asarray, convert(reference, config))
    objective = pretraining(config)
    x = jnp.asarray(data["in/x"])
    fresh, _ = jax.eval_shape(
        objective.init, jax.random.key(0), {"audio": x, "length": jnp.zeros(len(x), jnp.int32)}
    )
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)

    masks = {
        "discriminate": jnp.asarray(data["in/mpc_mask_index"], jnp.int32),
        "reconstruct": jnp.asarray(data["in/mpg_mask_index"], jnp.int32),
    }

    def total(params):
        loss = objective.loss_of(params, {}, x, masks, jax.random.key(0), train=True)
        return loss.total, loss.metrics

    (loss, metrics), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    mean = {name: float(total / weight) for name, (total, weight) in metrics.items()}
    assert mean["nce"] == pytest.approx(float(data["out/mpc_nce"]), abs=1e-5)
    assert mean["mse"] == pytest.approx(float(data["out/mpg_mse"]), abs=1e-6)
    assert float(loss) == pytest.approx(float(data["out/joint_loss"]), abs=2e-5)
    assert mean["accuracy"] == pytest.approx(float(data["out/mpc_acc"]), abs=1e-6)

    ours = back(grads, reference, config)
    names = [str(n) for n in data["gradstat/names"]]
    for name, want in zip(names, data["gradstat/sum_l2_probe64"], strict=True):
        if name == "cpredlayer.2.bias":
            assert np.abs(ours[name]).max() < 1e-6, (
                "a constant added to all predictions is invisible"
            )
            continue
        got = ours[name].astype(np.float64).ravel()
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
    reference = under(load(backbone)[0], "param/")
    reference = {k: v for k, v in reference.items() if k.startswith("v.")}
    for tag, variant in config["variants"].items():
        head = {k: v for k, v in under(data, f"{tag}/param/").items() if k.startswith("mlp_head")}
        params = convert(reference | head, config)
        patch = (config["fshape"], config["tshape"])
        # Frames cannot move along frequency, whatever stride the file notes.
        tokenizer = build(
            dict(
                kind="patchify",
                width=config["embed_dim"],
                patch=patch,
                stride=(variant["fstride"], variant["tstride"]),
            ),
            "tokenizer",
        )
        x = jnp.asarray(data[f"{tag}/in/x"])
        grid, old = tokenizer.grid(*x.shape[1:]), tuple(config["grid"])
        special = params["encoder"]["positions"]["special"]
        table = transfer(params["encoder"]["positions"]["table"], old, grid, rule="reference")
        want = data[f"{tag}/param/v.pos_embed"][0]
        assert np.abs(np.concatenate([special, table]) - want).max() < 2e-5, tag

        # The encoder moves the table it was trained with to the grid of its input by itself.
        tokens = tokenizer.apply({"params": params["tokenizer"]}, x)
        encoder = small_encoder(config, old)
        encoded = encoder.apply({"params": params["encoder"]}, tokens)
        if f"{tag}/mid/tokens" in data:
            x = jnp.concatenate([encoded.special, encoded.tokens.x], axis=1)
            assert np.abs(x - data[f"{tag}/mid/tokens"]).max() < 2e-5, tag
        if f"{tag}/out/hidden_state" in data:
            once = build(
                dict(kind="norms:RMSNorm" if config["rms_norm"] else "norms:LayerNorm", eps=1e-5),
                "norm",
            )
            first = encoder.copy(final_norm=once)
            single = params["encoder"] | {"final_norm": params["encoder"]["final_norm"]["norm"]}
            hidden = heads.frame_tokens(first.apply({"params": single}, tokens))
            assert np.abs(hidden - data[f"{tag}/out/hidden_state"]).max() < 2e-5, tag
            continue
        classes = head["mlp_head.1.bias"].size
        pools = {"ft_avgtok": ("mean", 0), "ft_cls": ("special", 0)}
        if "segments" in variant:
            pools["ft_avgtok_1sec"] = ("grouped", variant["segments"])
        checked = 0
        for name, (pool, groups) in pools.items():
            if f"{tag}/out/{name}" in data:
                classifier = heads.Classifier(classes, pool, groups)
                logits = classifier.apply({"params": params["head"]}, encoded)
                assert np.abs(logits - data[f"{tag}/out/{name}"]).max() < 2e-5, (tag, name)
                checked += 1
        assert checked, tag


@pytest.mark.parametrize("path", golden_files("vim_mixer*.npz"))
def test_vim_mixer(path):
    data, config = load(path)
    reference = {f"v.layers.0.mixer.{k}": v for k, v in under(data, "param/").items()}
    mixer = build(dict(kind="mamba", state=config["d_state"], conv=config["d_conv"]), "mixer")
    params = jax.tree.map(jnp.asarray, _mixer_params(reference))

    def run(params, x):
        y = mixer.apply({"params": params}, x)
        return jnp.sum(y * data["in/dy"]), y

    grad = jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True))
    (grads, dx), y = grad(params, jnp.asarray(data["in/x"]))
    assert np.abs(y - data["out/y"]).max() < 2e-6
    assert relative(dx, data["grad/x"]) < 2e-5
    wanted = _mixer_params({f"v.layers.0.mixer.{k}": v for k, v in under(data, "grad/").items()})
    error = jax.tree.map(relative, grads, wanted)
    assert max(jax.tree.leaves(error)) < 2e-5, error


def _mixer_params(state):
    """Convert one mixer by wrapping it into the smallest state dict that has one."""
    one = np.zeros(1, np.float32)
    rest = {
        "v.layers.0.norm.weight": one,
        "v.norm_f.weight": one,
        "v.patch_embed.proj.weight": np.zeros((1, 1, 1, 1)),
        "v.patch_embed.proj.bias": one,
        "v.pos_embed": np.zeros((1, 2, 1)),
        "v.cls_token": np.zeros((1, 1, 1)),
    }
    state = {k: v for k, v in state.items() if ".mixer." in k and not k.endswith("mixer.x")}
    layers = ssamba.to_params(state | rest, paired=False)["encoder"]["layers"]
    return jax.tree.map(lambda v: v[0], layers["mixer"])
