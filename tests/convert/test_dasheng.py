"""Dasheng: there and back bit for bit, the encoder by hand in numpy, and its spectrogram."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.config import build
from ssl_audio.convert import dasheng, from_state_dict
from ssl_audio.inference.load import load
from ssl_audio.storage import exported

WIDTH, HEADS, COLUMNS = 16, 2, 6


def state(prefix=""):
    """Return a state dict of two layers, with what is no parameter beside it."""
    rng = np.random.default_rng(0)
    shapes = {
        "time_pos_embed": (1, WIDTH, 1, COLUMNS),
        "freq_pos_embed": (1, WIDTH, 1, 1),
        "patch_embed.proj.weight": (WIDTH, 1, 64, 4),
        "patch_embed.proj.bias": (WIDTH,),
        "front_end.0.spectrogram.window": (512,),
    }
    for i in range(2):
        for name, out, into in (
            ("attn.qkv", 3, 1),
            ("attn.proj", 1, 1),
            ("mlp.fc1", 4, 1),
            ("mlp.fc2", 1, 4),
        ):
            shapes[f"blocks.{i}.{name}.weight"] = (out * WIDTH, into * WIDTH)
            shapes[f"blocks.{i}.{name}.bias"] = (out * WIDTH,)
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.{part}": (WIDTH,) for part in ("weight", "bias")}
    shapes |= {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
    shapes |= {f"init_bn.1.{part}": (64,) for part in ("weight", "bias", "running_mean")}
    found = {k: rng.normal(0, 0.2, s).astype(np.float32) for k, s in shapes.items()}
    found["init_bn.1.running_mean"] -= 30
    found["init_bn.1.running_var"] = rng.uniform(100, 900, 64).astype(np.float32)
    found["init_bn.1.num_batches_tracked"] = np.asarray(7)
    return {f"{prefix}{name}": value for name, value in found.items()}


def layer_norm(x, state, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def dense(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def by_hand(state, spec):
    """Return the encoding of one spectrogram [T, F] in dB, with the arrays under their published names."""
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    bn = {
        part: state[f"init_bn.1.{part}"]
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    x = (spec - bn["running_mean"]) / np.sqrt(bn["running_var"] + 1e-5) * bn["weight"] + bn["bias"]
    count = len(x) // 4
    kernel = state["patch_embed.proj.weight"][:, 0]
    cut = x[: 4 * count].reshape(count, 4, 64)
    x = np.einsum("ntf,dft->nd", cut, kernel) + state["patch_embed.proj.bias"]
    x = x + state["time_pos_embed"][0, :, 0, :count].T + state["freq_pos_embed"][0, :, 0].T
    for i in range(2):
        y = dense(layer_norm(x, state, f"blocks.{i}.norm1"), state, f"blocks.{i}.attn.qkv")
        q, k, v = y.reshape(count, 3, HEADS, -1).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        x = x + dense(mixed.transpose(1, 0, 2).reshape(count, -1), state, f"blocks.{i}.attn.proj")
        y = dense(layer_norm(x, state, f"blocks.{i}.norm2"), state, f"blocks.{i}.mlp.fc1")
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / np.sqrt(2)))
        x = x + dense(y, state, f"blocks.{i}.mlp.fc2")
    return layer_norm(x, state, "norm")


def test_the_encoder_agrees_with_its_formulas_on_clips_shorter_than_its_table():
    model = from_state_dict("dasheng", state(), num_heads=HEADS)
    spec = np.random.default_rng(1).normal(-30, 20, (1, 18, 64)).astype(np.float32)
    found = model.forward(spec=spec)["encoded"]
    assert found.shape == (1, 4, WIDTH)
    np.testing.assert_allclose(found[0], by_hand(state(), spec[0]), atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_every_array_comes_back_bit_for_bit(prefix):
    arrays = state(prefix)
    model = from_state_dict("dasheng", arrays, num_heads=HEADS)
    back = dasheng.to_state_dict(model.params, model.config)
    assert set(arrays) - set(back) == set(model.unused)
    assert {name.rpartition(".")[2] for name in model.unused} == {"window", "num_batches_tracked"}
    for name, value in back.items():
        assert value.tobytes() == arrays[name].tobytes(), name


def test_what_the_arrays_do_not_allow_is_refused():
    for option, message in (
        (dict(target_length=1008), "target_length=1008: the state dict says 24"),
        (dict(depth=3), "depth=3: the state dict says 2"),
        (dict(pooling="token"), "pooling='token': only 'mean' can be converted"),
        (dict(hop_size=320), "hop_size=320: only 160"),
    ):
        with pytest.raises(ValueError, match=message):
            from_state_dict("dasheng", state(), num_heads=HEADS, **option)


def test_a_folder_embeds_25_tokens_a_second(tmp_path):
    model = from_state_dict("dasheng", state(), num_heads=HEADS)
    exported.write(tmp_path, model.params, model.config, unused=model.unused)
    loaded = load(tmp_path)
    sound = np.sin(np.arange(3200) / 5.0).astype(np.float32)
    frames, times = loaded.frames(sound, 16_000)
    assert frames.shape[1:] == (WIDTH,) and np.allclose(np.diff(times), 40)
    np.testing.assert_allclose(loaded.embed(sound, 16_000), frames.mean(0), atol=1e-5)


def test_the_spectrogram_in_decibels_by_hand():
    frontend = build(
        from_state_dict("dasheng", state(), num_heads=HEADS).config["objective"]["frontend"],
        "frontend",
    )
    sound = np.random.default_rng(2).normal(0, 1.0, 4000)
    sound[2000:] = 0
    padded = np.pad(sound, 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = [padded[i : i + 512] * window for i in range(0, 4000 + 1, 160)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66) / 2595) - 1)
    lines = np.linspace(0, 8000, 257)
    up = (lines[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - lines[None]) / np.diff(edges)[1:, None]
    energy = power @ np.maximum(0, np.minimum(up, down)).T
    decibels = 10 * np.log10(np.maximum(energy, 1e-10))
    wanted = np.maximum(decibels, decibels.max() - 120)
    assert wanted.min() > -100  # silence is raised to 120 dB below the loudest
    found = np.asarray(jax.jit(frontend)(jnp.asarray(sound, jnp.float32)[None]))[0]
    np.testing.assert_allclose(found, wanted, atol=2e-3)
