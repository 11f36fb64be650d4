"""BAT's encoder through the converter: against its equations in numpy, and every array back."""

import json
import math
from typing import Any

import numpy as np
import pytest

import ssl_audio
from ssl_audio.convert import bat, command, from_state_dict

WIDTH, HEADS, DEPTH, ROWS, COLUMNS, PATCH = 32, 2, 2, 2, 4, 16
OPTIONS: Any = dict(n_mels=ROWS * PATCH, target_length=COLUMNS * PATCH, heads=HEADS)


def state(prefix=bat.RELEASED):
    rng = np.random.default_rng(0)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, ROWS * COLUMNS, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 1, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
    }
    norms = ["pre_norm"]
    for i in range(DEPTH):
        block = f"blocks.{i}"
        norms += [f"{block}.norm1", f"{block}.norm2"]
        for name, out, into in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("attn.gate", WIDTH, WIDTH),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):
            shapes |= {f"{block}.{name}.weight": (out, into), f"{block}.{name}.bias": (out,)}
    for name in norms:
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    return {prefix + k: rng.normal(0, 0.2, s).astype(np.float32) for k, s in shapes.items()}


def equations(weights, spec):
    """Return the streams after each block [1 + N, D] of one input [T, F], tokens column by column."""
    w = {name.removeprefix(bat.RELEASED): x.astype(np.float64) for name, x in weights.items()}

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    cut = spec.reshape(COLUMNS, PATCH, ROWS, PATCH).swapaxes(1, 2).reshape(-1, PATCH * PATCH)
    x = cut @ w["patch_embed.proj.weight"].reshape(WIDTH, -1).T + w["patch_embed.proj.bias"]
    x = norm("pre_norm", np.concatenate([w["cls_token"][0], x + w["pos_embed"][0]]))
    found = []
    for i in range(DEPTH):
        at = f"blocks.{i}"
        q, k, v = (
            y.reshape(len(x), HEADS, -1).swapaxes(0, 1)
            for y in np.split(linear(f"{at}.attn.qkv", x), 3, axis=-1)
        )
        share = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(WIDTH // HEADS))
        share /= share.sum(-1, keepdims=True)
        mixed = (share @ v).swapaxes(0, 1).reshape(x.shape)
        gate = 1 / (1 + np.exp(-linear(f"{at}.attn.gate", x)))
        h = norm(f"{at}.norm1", x + linear(f"{at}.attn.proj", gate * mixed))
        up = linear(f"{at}.mlp.fc1", h)
        up *= 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
        x = norm(f"{at}.norm2", h + linear(f"{at}.mlp.fc2", up))
        found.append(x)
    return found


def test_every_block_is_what_the_equations_give():
    weights = state()
    model = from_state_dict("bat", weights, **OPTIONS)
    spec = np.random.default_rng(1).random((1, 1, COLUMNS * PATCH, ROWS * PATCH)).astype(np.float32)
    found = model.forward(spec=spec)
    for i, wanted in enumerate(equations(weights, spec[0, 0].astype(np.float64))):
        np.testing.assert_allclose(found[f"block_{i}"][0], wanted, atol=1e-4)
    np.testing.assert_array_equal(found["tokens"], found[f"block_{DEPTH - 1}"])


@pytest.mark.parametrize("prefix", bat.PREFIXES)
def test_names_with_and_without_prefix_come_back(prefix, tmp_path, capsys):
    """The pretraining code saves names that its own loader passes over in silence."""
    weights = state(prefix)
    if prefix == "encoder.":
        weights |= {"decoder.mask_token": np.ones(3, np.float32)}
        weights |= {f"ema_{k}": v + 1 for k, v in state(prefix).items()}
    np.savez(tmp_path / "x.npz", **weights)
    out = str(tmp_path / "ours")
    options = [word for k, v in OPTIONS.items() for word in ("--option", f"{k}={v}")]
    command.main(
        [
            "--from",
            "bat",
            "--checkpoint",
            str(tmp_path / "x.npz"),
            "--out",
            out,
            "--check",
            *options,
        ]
    )
    assert f"{len(weights)} arrays are the same bits" in capsys.readouterr().out
    config = json.loads((tmp_path / "ours/config.json").read_text())
    front = config["objective"]["frontend"]
    assert front["per_clip"] and front["top_db"] == 80 and front["scale"] == "htk"
    if prefix:
        return
    encoder = ssl_audio.load(out)
    audio = np.sin(np.arange(9000) / 9.0)
    assert encoder.embed(audio, 16_000, pool="special").shape == (WIDTH,)
    np.testing.assert_allclose(
        encoder.embed(0.1 * audio, 16_000), encoder.embed(audio, 16_000), atol=1e-3
    )
    # What is trained here gets the names that BAT's loader wants.
    plain = {k: v for k, v in config.items() if k != "reference"}
    assert set(bat.to_state_dict(encoder.params, plain)) == set(state())


def test_what_is_not_bat_is_refused():
    with pytest.raises(ValueError, match="missing keys: student.encoder.patch_embed.proj.weight"):
        from_state_dict("bat", {"x": np.zeros(3)})
    with pytest.raises(ValueError, match="pos_embed: a table of 8 rows"):
        from_state_dict("bat", state(), **OPTIONS | dict(target_length=96))
    with pytest.raises(ValueError, match="dim=64"):
        from_state_dict("bat", state(), **OPTIONS, dim=64)
    wrong = state()
    del wrong[f"{bat.RELEASED}blocks.1.attn.gate.bias"]
    with pytest.raises(ValueError, match="missing keys: .*gate.bias"):
        from_state_dict("bat", wrong, **OPTIONS)
