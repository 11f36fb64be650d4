"""CLIP under both namings, there and back, and the tower of sound made of that of pictures."""

import json
from typing import Any

import jax
import numpy as np
import pytest

import ssl_audio
from ssl_audio import config as configs
from ssl_audio.convert import clip, command, export, from_state_dict

WIDTH, PATCH, GRID, OUT = 16, 8, 3, 12
HEADS: dict[str, Any] = dict(
    vision_config=dict(num_attention_heads=2), text_config=dict(num_attention_heads=2)
)


def openai(seed=0):
    """Return a state dict under OpenAI's names."""
    rng = np.random.default_rng(seed)
    state = {
        "visual.class_embedding": (WIDTH,),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "visual.positional_embedding": (GRID * GRID + 1, WIDTH),
        "visual.proj": (WIDTH, OUT),
        "token_embedding.weight": (40, WIDTH),
        "positional_embedding": (10, WIDTH),
        "text_projection": (WIDTH, OUT),
        "logit_scale": (),
    }
    norms = ["visual.ln_pre", "visual.ln_post", "ln_final"]
    for tower in ("visual.", ""):
        for i in range(2):
            at = f"{tower}transformer.resblocks.{i}"
            norms += [f"{at}.ln_1", f"{at}.ln_2"]
            state |= {
                f"{at}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{at}.attn.in_proj_bias": (3 * WIDTH,),
                f"{at}.attn.out_proj.weight": (WIDTH, WIDTH), f"{at}.attn.out_proj.bias": (WIDTH,),
                f"{at}.mlp.c_fc.weight": (4 * WIDTH, WIDTH), f"{at}.mlp.c_fc.bias": (4 * WIDTH,),
                f"{at}.mlp.c_proj.weight": (WIDTH, 4 * WIDTH), f"{at}.mlp.c_proj.bias": (WIDTH,),
            }  # fmt: skip
    state |= {f"{name}.{part}": (WIDTH,) for name in norms for part in ("weight", "bias")}
    return {k: np.asarray(rng.normal(0, 0.3, s), np.float32) for k, s in state.items()}


def test_openai_there_and_back_and_use(tmp_path, capsys):
    state: Any = openai()
    np.savez(tmp_path / "clip.npz", **state)
    out, back = str(tmp_path / "ours"), str(tmp_path / "back")
    given = [f"{name}={json.dumps(value)}" for name, value in HEADS.items()]
    given = [word for option in given for word in ("--option", option)]
    arguments = ["--from", "clip", "--checkpoint", str(tmp_path / "clip.npz"), *given]
    command.main([*arguments, "--out", str(tmp_path / "plain")])
    export.main(["--checkpoint", str(tmp_path / "plain"), "--out", back, "--to", "clip"])
    with np.load(tmp_path / "back/state_dict.npz") as file:
        assert {name: file[name].tobytes() for name in file.files} == {
            name: value.tobytes() for name, value in state.items()
        }

    more = ("sound=true", "bins=32", "frames=64", "patch=[8,8]", "stride=[8,4]")
    arguments += [word for option in more for word in ("--option", option)]
    command.main([*arguments, "--out", out, "--check"])
    assert f"{len(state)} arrays are the same bits" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no names for all .* audio/"):
        export.main(["--checkpoint", out, "--out", f"{back}2", "--to", "clip"])

    model = ssl_audio.load(out)
    assert isinstance(model, ssl_audio.AudioTextModel) and model.width == OUT
    white = np.full((30, 24, 3), 255, np.uint8)
    one = model.embed_image(white)
    assert one.shape == (OUT,) and np.isclose(np.linalg.norm(one), 1, atol=1e-5)
    assert np.allclose(model.embed_image([white, white])[1], one, atol=1e-6)
    with pytest.raises(ValueError, match="pictures: .* got an empty list"):
        model.embed_image([])
    heard = model.embed_audio(np.sin(np.arange(8000) / 9.0), 16_000)
    assert heard.shape == (OUT,)


def test_names_of_transformers_mean_the_same(tmp_path):
    first = from_state_dict("clip", openai(), **HEADS)
    theirs = clip.to_state_dict(first.params, dict(reference=dict(names="transformers")))
    assert "vision_model.pre_layrnorm.weight" in theirs and len(theirs) > len(openai())
    second = from_state_dict("clip", theirs, **HEADS)
    inputs = dict(
        pixel_values=np.random.default_rng(0).normal(size=(2, 3, 24, 24)).astype(np.float32),
        input_ids=np.array([[1, 5, 9, 2], [1, 7, 2, 0]], np.int32),
        attention_mask=np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.int32),
    )
    one, other = first.forward(**inputs), second.forward(**inputs)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    # Padding changes no vector of a valid text.
    short = first.forward(input_ids=inputs["input_ids"][1:, :3])
    assert np.allclose(short["text_embeds"], one["text_embeds"][1:], atol=1e-6)


def test_one_tower_by_itself_has_its_own_config():
    whole = from_state_dict("clip", openai(), **HEADS)
    theirs = clip.to_state_dict(whole.params, dict(reference=dict(names="transformers")))
    prefix = "vision_model."
    bare = {k.removeprefix(prefix): v for k, v in theirs.items() if k.startswith(prefix)}
    options: Any = dict(
        hidden_size=WIDTH, num_attention_heads=2, hidden_act="quick_gelu", image_size=24
    )
    model = from_state_dict("clip", bare, **options)
    assert list(model.config["objective"]["towers"]) == ["image"]
    back = clip.to_state_dict(model.params, model.config)
    assert back.keys() == bare.keys()
    assert all(np.array_equal(back[name], bare[name]) for name in bare)


def test_sound_begins_with_the_weights_of_pictures():
    options: Any = dict(sound=True, bins=32, frames=64, patch=(8, 8), stride=(8, 4), **HEADS)
    model = from_state_dict("clip", openai(), **options)
    image, audio = model.params["image"], model.params["audio"]
    for name in ("layers", "final_norm", "first_norm", "special"):
        same = jax.tree.map(np.array_equal, image["encoder"][name], audio["encoder"][name])
        assert jax.tree.all(same)
    kernel = image["tokenizer"]["kernel"].mean(axis=2).swapaxes(0, 1).reshape(64, WIDTH)
    assert np.allclose(audio["tokenizer"]["kernel"], kernel, atol=1e-6)
    assert audio["encoder"]["positions"]["table"].shape == (4 * 15, WIDTH)
    built = configs.build(model.config["objective"], "objectives")
    assert built.towers["audio"].tokenizer.grid(64, 32) == (4, 15)


def test_what_cannot_be_converted_is_named():
    state = openai()
    with pytest.raises(ValueError, match="image_size=32: the state dict says 24"):
        from_state_dict("clip", state, text_config=HEADS["text_config"],
                        vision_config=dict(num_attention_heads=2, image_size=32))  # fmt: skip
    with pytest.raises(ValueError, match="hidden_act"):
        from_state_dict("clip", state, text_config=HEADS["text_config"],
                        vision_config=dict(num_attention_heads=2, hidden_act="relu"))  # fmt: skip
    resnet = {"visual.attnpool.positional_embedding": np.zeros((50, 8), np.float32)}
    with pytest.raises(ValueError, match="vision transformer"):
        from_state_dict("clip", state | resnet, **HEADS)
    preprocessor: Any = dict(preprocessor=dict(image_mean=[0.5] * 3, image_std=[0.5] * 3, size=24))
    told = from_state_dict("clip", state, **HEADS, **preprocessor)
    assert told.config["data"]["entries"]["image"]["mean"] == (0.5,) * 3
    with pytest.raises(ValueError, match="do_normalize"):
        from_state_dict("clip", state, **HEADS, preprocessor=dict(do_normalize=False))
