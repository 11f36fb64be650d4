"""Released forms of masked encoders: without heads, fine-tuned, under other prefixes."""

import numpy as np
import pytest

from ssl_audio.convert import audiomae, from_state_dict
from ssl_audio.data.entries import clips

WIDTH = 16


def vit(**more):
    """Return a state dict of one layer on a grid of 2 rows and 3 columns."""
    rng = np.random.default_rng(0)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 7, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 1, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
    }
    for name, out, into in (
        ("attn.qkv", 3, 1),
        ("attn.proj", 1, 1),
        ("mlp.fc1", 2, 1),
        ("mlp.fc2", 1, 2),
    ):
        shapes[f"blocks.0.{name}.weight"] = (out * WIDTH, into * WIDTH)
        shapes[f"blocks.0.{name}.bias"] = (out * WIDTH,)
    for name in ("blocks.0.norm1", "blocks.0.norm2", *more.get("norms", ("norm",))):
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    shapes |= more.get("shapes", {})
    return {k: rng.normal(0, 0.1, s).astype(np.float32) for k, s in shapes.items()}


OPTIONS = dict(num_heads=2, img_size=(48, 32))


def test_an_encoder_alone_becomes_features_and_its_size_is_checked():
    model = from_state_dict("audiomae", vit(), **OPTIONS)
    assert model.config["objective"]["kind"] == "features"
    assert model.config["objective"]["encoder"]["positions"]["grid"] == (2, 3)
    with pytest.raises(
        ValueError, match="7 rows; 64 frames x 32 bins mean 2 x 4 patches and a cls"
    ):
        from_state_dict("audiomae", vit(), **OPTIONS | dict(img_size=(64, 32)))
    with pytest.raises(ValueError, match="depth=2: the state dict says 1"):
        from_state_dict("audiomae", vit(), **OPTIONS, depth=2)


def test_a_finetuned_model_becomes_a_tagger_without_final_norm():
    head = {"head.weight": (5, WIDTH), "head.bias": (5,)}
    state = vit(norms=("fc_norm",), shapes=head)
    model = from_state_dict("audiomae", state, **OPTIONS)
    objective = model.config["objective"]
    assert objective["kind"] == "tagging" and objective["encoder"]["final_norm"] is None
    back = audiomae.to_state_dict(model.params, model.config)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())


def test_bird_mae_is_read_under_its_prefix_with_its_frontend():
    state = {f"encoder.{name}": value for name, value in vit(norms=("fc_norm",)).items()}
    model = from_state_dict("birdmae", state, **OPTIONS)
    frontend = model.config["objective"]["frontend"]
    assert (frontend["rate"], frontend["padding"], frontend["mean"]) == (32_000, "lowest", -7.2)
    assert model.config["data"] == clips(800 + 47 * 320, rate=32_000)
    assert model.unused.keys() == {"fc_norm.weight", "fc_norm.bias"}
