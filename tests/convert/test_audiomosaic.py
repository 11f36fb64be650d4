"""AudioMosaic's weights: the way there and back, and outputs against the published formulas in NumPy."""

import math
from typing import Any

import numpy as np
import pytest
from convert.states import audiomosaic as state_dict

from ssl_audio.convert import audiomosaic, from_state_dict

WIDTH, HEADS, ROWS, COLUMNS, SIDE = 16, 2, 2, 3, 16
OPTIONS: dict[str, Any] = dict(heads=HEADS, bins=ROWS * SIDE)


def norm(x, state, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)


def tokens(spec, state, keep=None):
    """Return what a spectrogram [T, F] becomes, [1 + N, D], as the paper's code orders it: time first."""
    kernel = state["patch_embed.proj.weight"][:, 0].reshape(WIDTH, -1)
    cut = spec[: COLUMNS * SIDE].reshape(COLUMNS, SIDE, ROWS, SIDE).transpose(0, 2, 1, 3)
    x = cut.reshape(COLUMNS * ROWS, -1) @ kernel.T + state["patch_embed.proj.bias"]
    x = norm(x, state, "patch_embed.norm")
    x = np.concatenate([state["cls_token"][0], x]) + state["pos_embed"][0]
    x = norm(x, state, "norm_pre")
    if keep is not None:
        x = np.concatenate([x[:1], x[1:][keep]])
    for i in range(2):
        at = f"blocks.{i}"
        qkv = linear(norm(x, state, f"{at}.norm1"), state, f"{at}.attn.qkv")
        q, k, v = qkv.reshape(len(x), 3, HEADS, -1).transpose(1, 2, 0, 3)
        weight = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS))
        mixed = (weight / weight.sum(-1, keepdims=True) @ v).transpose(1, 0, 2)
        x = x + linear(mixed.reshape(len(x), -1), state, f"{at}.attn.proj")
        hidden = linear(norm(x, state, f"{at}.norm2"), state, f"{at}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = x + linear(hidden, state, f"{at}.mlp.fc2")
    return x


def projected(f, state):
    """Return the unit vectors of a batch of clips' vectors."""
    x = norm(f, state, "fc_norm")
    for number, (layer, place) in enumerate(((0, 1), (3, 4))):
        x = linear(x, state, f"projector.{layer}")
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * state[f"projector.{place}.weight"]
        x = np.maximum(x + state["projector.1.bias"], 0) if number == 0 else x
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def state():
    return state_dict(WIDTH, ROWS, COLUMNS, SIDE)


@pytest.fixture(scope="module")
def model(state):
    return from_state_dict("audiomosaic", state, **OPTIONS)


def specs(count):
    rng = np.random.default_rng(7)
    return rng.normal(0, 0.5, (count, COLUMNS * SIDE, ROWS * SIDE)).astype(np.float32)


def test_tokens_are_those_of_the_published_formulas(state, model):
    spec = specs(2)
    found = model.forward(spec=spec[:, None])["tokens"]
    wanted = np.stack([tokens(one, state) for one in spec])
    assert found.shape == (2, 1 + ROWS * COLUMNS, WIDTH)
    assert np.allclose(found, wanted, rtol=0, atol=1e-4)


def test_views_vectors_and_loss_are_those_of_the_published_formulas(state, model):
    """The kept tokens come in any order there; ours are sorted, which attention cannot tell."""
    views = specs(8).reshape(2, 4, COLUMNS * SIDE, ROWS * SIDE)
    rng = np.random.default_rng(0)
    keep = [np.stack([rng.permutation(ROWS * COLUMNS)[:n] for _ in range(4)]) for n in (2, 3)]
    made = model.forward(
        view_0=views[0][:, None], view_1=views[1][:, None], keep_0=keep[0], keep_1=keep[1]
    )
    z = []
    for number in range(2):
        pairs = zip(views[number], keep[number], strict=True)
        f = np.stack([tokens(one, state, kept).mean(0) for one, kept in pairs])
        assert np.allclose(made[f"f_{number}"], f, rtol=0, atol=1e-4)
        z.append(projected(f, state))
        assert np.allclose(made[f"z_{number}"], z[-1], rtol=0, atol=1e-3)
    z = np.concatenate(z)
    scores = np.exp(z @ z.T / 0.1) * (1 - np.eye(8))
    right = scores[np.arange(8), (np.arange(8) + 4) % 8]
    assert abs(made["loss"] - -np.log(right / scores.sum(1)).mean()) < 1e-3


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_the_way_there_and_back_is_exact(state, prefix):
    model = from_state_dict(
        "audiomosaic", {f"{prefix}{name}": value for name, value in state.items()}, **OPTIONS
    )
    assert model.config["objective"]["kind"] == "masked_contrast"
    back = audiomosaic.to_state_dict(model.params, model.config) | dict(model.unused)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    assert set(model.unused) == {
        "projector.4.bias",
        *(f"projector.{n}.running_{what}" for n in (1, 4) for what in ("mean", "var")),
    }


def test_a_fine_tuned_encoder_becomes_features_and_its_head_is_kept_aside(state):
    head = {"head.weight": np.ones((5, WIDTH)), "head.bias": np.ones(5)}
    tuned = {n: v for n, v in state.items() if not n.startswith("projector.")} | head
    model = from_state_dict("audiomosaic", tuned, **OPTIONS)
    assert model.config["objective"]["kind"] == "features"
    assert model.config["objective"]["encoder"]["positions"]["grid"] == (ROWS, COLUMNS)
    assert model.unused.keys() == {"head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"}


def test_what_does_not_fit_is_named(state):
    with pytest.raises(ValueError, match=r"projector.4.bias: not 0"):
        from_state_dict("audiomosaic", state | {"projector.4.bias": np.ones(4)}, **OPTIONS)
    with pytest.raises(ValueError, match="7 rows; 64 frames x 32 bins mean 2 x 4 patches"):
        from_state_dict("audiomosaic", state, **OPTIONS, target_length=64)
    with pytest.raises(ValueError, match="depth=3: the state dict says 2"):
        from_state_dict("audiomosaic", state, **OPTIONS, depth=3)
