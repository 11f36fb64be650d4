"""Whisper's encoder under three libraries' names, and CTranslate2's files."""

import pathlib
import struct

import numpy as np
import pytest

from ssl_audio.convert import ctranslate2, export, from_state_dict, whisper
from ssl_audio.convert.base import plain_names
from ssl_audio.convert.files import read
from ssl_audio.storage import exported

NAMES = {
    "transformers": "model.encoder.layers.1.self_attn.q_proj.weight",
    "openai": "encoder.blocks.1.attn.query.weight",
    "ctranslate2": "encoder/layer_1/self_attention/linear_0/weight",
}
PREFIX = dict(transformers="model.encoder.", openai="encoder.", ctranslate2="encoder/")


GOLDEN = pathlib.Path(__file__).parent / "golden" / "whisper.npz"  # see golden/make.py


@pytest.fixture(scope="module")
def model():
    state, options = read(GOLDEN)
    return from_state_dict("whisper", state, **options)


def under(model, style):
    """Return its parameters under a library's names, and arrays of a decoder."""
    reference = dict(names=style, prefix=PREFIX[style])
    state = whisper.to_state_dict(model.params, model.config | dict(reference=reference))
    decoder = "decoder/x" if style == "ctranslate2" else "decoder.x"
    return state | {decoder: np.ones(3, np.float32)}


@pytest.mark.parametrize("style", NAMES)
def test_the_same_model_under_every_name_and_back(model, style):
    state = under(model, style)
    assert NAMES[style] in state
    again = from_state_dict("whisper", state, encoder_attention_heads=2)
    mel = np.random.default_rng(0).standard_normal((1, 16, 100)).astype(np.float32)
    a, b = (m.forward(input_features=mel)["last_hidden_state"] for m in (model, again))
    np.testing.assert_array_equal(a, b)
    back = {**whisper.to_state_dict(again.params, again.config), **again.unused}
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())


@pytest.mark.parametrize("style", NAMES)
def test_the_command_exports_it_under_the_names_that_were_read(tmp_path, model, style):
    state = under(model, style)
    again = from_state_dict("whisper", state, encoder_attention_heads=2)
    exported.write(tmp_path / "ours", again.params, again.config, unused=again.unused)
    out = tmp_path / "theirs"
    export.main(["--checkpoint", str(tmp_path / "ours"), "--out", str(out), "--to", "whisper"])
    with np.load(out / "state_dict.npz") as file:
        assert set(file.files) == state.keys()
        assert all(np.array_equal(file[name], value) for name, value in state.items())


def test_a_family_that_transformers_cannot_be_given_is_refused_before_a_folder_is_there(
    tmp_path, model
):
    exported.write(tmp_path / "ours", model.params, model.config, unused=model.unused)
    out = tmp_path / "shared"
    asked = ["--checkpoint", str(tmp_path / "ours"), "--out", str(out), "--to", "hub"]
    with pytest.raises(ValueError, match="--as whisper: .* wanted one of .*hf_ast"):
        export.main([*asked, "--as", "whisper"])
    assert not out.exists()


def test_keys_have_no_bias_and_a_bias_would_change_nothing(model):
    assert not any("k_proj.bias" in name for name in plain_names(read(GOLDEN)[0]))
    mel = np.random.default_rng(0).standard_normal((1, 16, 100)).astype(np.float32)
    wanted = model.forward(input_features=mel)["last_hidden_state"]
    qkv = model.params["encoder"]["layers"]["mixer"]["qkv"]
    kept, changed = qkv["bias"], qkv["bias"].copy()
    width = changed.shape[-1] // 3
    assert not changed[:, width : 2 * width].any()
    changed[:, width : 2 * width] = 0.3
    qkv["bias"] = changed
    try:
        found = model.forward(input_features=mel)["last_hidden_state"]
    finally:
        qkv["bias"] = kept
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_sizes_and_settings_that_contradict_are_refused(model):
    state = under(model, "transformers")
    with pytest.raises(ValueError, match="option d_model=32: the state dict says 16"):
        from_state_dict("whisper", state, d_model=32, encoder_attention_heads=2)
    settings = dict(hop_length=320)
    with pytest.raises(ValueError, match="hop_length=320: only 160"):
        from_state_dict("whisper", state, encoder_attention_heads=2, preprocessor=settings)


@pytest.mark.parametrize("style", NAMES)
def test_the_number_of_heads_is_heard_from_wherever_it_is_said(model, style):
    state = under(model, style)
    if style == "ctranslate2":
        state["encoder/num_heads"] = np.array(2, np.int8)
    for found in (
        from_state_dict("whisper", state, n_audio_head=2),
        from_state_dict("whisper", state, encoder_attention_heads=2),
    ):
        assert found.config["objective"]["encoder"]["block"]["mixer"]["heads"] == 2
    from_state_dict("whisper", state, n_audio_head=2, encoder_attention_heads=2)
    with pytest.raises(ValueError, match="encoder_attention_heads=4: the state dict says 2"):
        from_state_dict("whisper", state, n_audio_head=2, encoder_attention_heads=4)


@pytest.mark.parametrize("heads", [0, -2, "2", 2.5])
def test_what_is_no_number_of_heads_is_refused(model, heads):
    state = under(model, "transformers")
    with pytest.raises(ValueError, match=r"encoder_attention_heads=.*: wanted a whole number"):
        from_state_dict("whisper", state, encoder_attention_heads=heads)


def text(name):
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


def file(arrays, aliases=(), version=6):
    """Return the bytes of a model.bin."""
    kinds = {t: i for i, t in enumerate(ctranslate2.TYPES)}
    found = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, value in arrays.items():
        found += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        found += struct.pack("<BI", kinds[value.dtype], value.nbytes) + value.tobytes()
    found += struct.pack("<I", len(aliases))
    return found + b"".join(text(alias) + text(name) for alias, name in aliases)


def test_a_model_bin_gives_its_arrays_scaled_back(tmp_path, model):
    state = under(model, "ctranslate2")
    whole = NAMES["ctranslate2"]
    scale = 127 / np.abs(state[whole]).max(1)
    stored = dict(state)
    stored[whole] = np.round(state[whole] * scale[:, None]).astype(np.int8)
    stored[f"{whole}_scale"] = scale.astype(np.float32)
    half = "encoder/conv1/weight"
    stored[half] = state[half].astype(np.float16)
    stored["encoder/num_heads"] = np.array(2, np.int8)
    (tmp_path / "model.bin").write_bytes(file(stored, [("same", half)]))
    (tmp_path / "config.json").write_text('{"suppress_ids": [1]}')
    found, options = read(tmp_path)
    assert options == {} and found["same"] is found[half] and f"{whole}_scale" not in found
    np.testing.assert_allclose(found[whole], state[whole], atol=np.abs(state[whole]).max() / 250)
    np.testing.assert_array_equal(found[half], stored[half])
    del found["same"]
    again = from_state_dict("whisper", found)  # with the number of heads that the file says
    assert again.config["objective"]["encoder"]["block"]["mixer"]["heads"] == 2


def test_a_model_bin_that_is_cut_or_lies_is_refused(tmp_path):
    path = tmp_path / "model.bin"
    good = file({"a": np.arange(6, dtype=np.float32).reshape(2, 3)})
    path.write_bytes(good)
    assert read(path)[0]["a"].shape == (2, 3)
    for end in range(4, len(good)):
        path.write_bytes(good[:end])
        with pytest.raises(ValueError, match=r"model.bin: damaged at byte \d+"):
            read(path)
    lies = {
        "24 bytes for an array": (struct.pack("<2I", 2, 3), struct.pack("<2I", 2, 2**31)),
        "type 9": (struct.pack("<BI", 0, 24), struct.pack("<BI", 9, 24)),
        "a name of 0 bytes": (struct.pack("<II", 3, 1), struct.pack("<II", 3, 2**32 - 1)),
    }
    for message, (true, false) in lies.items():
        assert good.count(true) == 1
        path.write_bytes(good.replace(true, false))
        with pytest.raises(ValueError, match=message):
            read(path)
