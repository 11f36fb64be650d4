"""Folders of transformers as they lie on disks: shards, half precision, heads that have no place here."""

import json

import ml_dtypes
import numpy as np
import pytest
from convert.test_from_waveform import FAMILIES, golden

from ssl_audio.convert import clap, command, from_state_dict
from ssl_audio.convert.files import read
from ssl_audio.storage import exported

RNG = np.random.default_rng(0)


def folder(path, state, options, shards=1):
    """Write what save_pretrained writes."""
    options = dict(options)
    (path / "preprocessor_config.json").write_text(json.dumps(options.pop("preprocessor")))
    (path / "config.json").write_text(json.dumps(options))
    if shards == 1:
        exported.write_arrays(path / "model.safetensors", state, {"format": "pt"})
        return path
    names = sorted(state)
    places = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: state[name] for name in names[number::shards]}
        exported.write_arrays(path / file, part, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = json.dumps(dict(metadata={}, weight_map=places))
    (path / "model.safetensors.index.json").write_text(index)
    return path


def test_shards_are_read_like_the_whole(tmp_path):
    state, options = golden("wav2vec2_group")
    found, given = read(folder(tmp_path, state, options, shards=3))
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[name], value) for name, value in state.items())
    assert given["preprocessor"] == options["preprocessor"]
    alone, _ = read(tmp_path / "model.safetensors.index.json")
    assert alone.keys() == state.keys()
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="1 of its 3 files are missing: model-00002-of"):
        read(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "got damaged JSON"),
        ("[]", r"got \[\], wanted the JSON object"),
        ("{}", "no weight_map"),
        ('{"weight_map": {"a": "../secret.safetensors"}}', "names '../secret.safetensors'"),
        ('{"weight_map": {"a": "run.py"}}', "names 'run.py'; wanted .safetensors"),
    ],
)
def test_a_damaged_index_is_told_as_such(tmp_path, text, message):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=f"index.json: {message}"):
        read(tmp_path)


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_becomes_single_without_another_rounding(tmp_path, kind):
    state, options = golden("wav2vec2_group")
    half = {name: value.astype(kind) for name, value in state.items()}
    found, given = read(folder(tmp_path, half, options))
    model = from_state_dict("wav2vec2", found, **given)
    wanted = {name: value.astype(np.float32) for name, value in half.items()}
    kernel = model.params["tokenizer"]["tokenizer"]["conv_0"]["kernel"]
    assert kernel.dtype == np.float32
    name = "feature_extractor.conv_layers.0.conv.weight"
    assert np.array_equal(kernel.transpose(2, 1, 0), wanted[name])


HEADS = {
    "ctc": ("wav2vec2_group", "wav2vec2.", {"lm_head.weight": (32, 16), "lm_head.bias": (32,)}),
    "layer sum": (
        "hubert_layer",
        "hubert.",
        {"layer_weights": (3,), "projector.weight": (8, 16), "classifier.weight": (2, 8)},
    ),
    "xvector": (
        "wavlm_group",
        "wavlm.",
        {"tdnn.0.kernel.weight": (8, 80), "feature_extractor.weight": (8, 16), "objective.weight": (8, 2)},
    ),
    "regression": ("ast", "audio_spectrogram_transformer.", {"regressor.weight": (1, 16)}),
    "captions": ("clap_unfused", "", {"decoder.weight": (4, 8)}),
}  # fmt: skip


@pytest.mark.parametrize("which", HEADS)
def test_a_head_without_a_place_is_listed_and_kept_and_refused_if_strict(which, caplog):
    name, prefix, shapes = HEADS[which]
    state, options = golden(name)
    head = {k: RNG.normal(size=shape).astype(np.float32) for k, shape in shapes.items()}
    whole = {f"{prefix}{k}": v for k, v in state.items()} | head
    options["use_weighted_layer_sum"] = True
    model = from_state_dict(FAMILIES[name], whole, **options)
    assert sorted(model.left) == sorted(head)
    assert all(np.array_equal(model.unused[k], v) for k, v in head.items())
    assert all(k in caplog.text for k in head)
    plain = from_state_dict(FAMILIES[name], state, **options)
    assert not plain.left
    with pytest.raises(ValueError, match="unexpected keys: .*no place for; without `strict`"):
        from_state_dict(FAMILIES[name], whole, strict=True, **options)


def test_what_is_unknown_inside_an_encoder_is_still_refused():
    state, options = golden("wav2vec2_group")
    state["encoder.layers.0.adapter_layer.norm.weight"] = np.ones(16, np.float32)
    with pytest.raises(ValueError, match="unexpected keys: encoder.layers.0.adapter_layer"):
        from_state_dict("wav2vec2", state, **options)


def test_one_tower_of_clap(tmp_path):
    state, options = golden("clap_unfused")
    audio = {n: v for n, v in state.items() if n.startswith(("audio_model", "audio_projection"))}
    tower = options["audio_config"] | dict(preprocessor=options["preprocessor"])
    for arrays in (
        audio,
        {n.removeprefix("audio_model."): v for n, v in audio.items() if "_model" in n},
    ):
        model = from_state_dict("clap", arrays, **tower)
        assert model.config["objective"]["towers"].keys() == {"audio"}
        back = clap.to_state_dict(model.params, model.config) | dict(model.unused)
        assert back.keys() == arrays.keys()
    text = {n: v for n, v in state.items() if n.startswith(("text_model", "text_projection"))}
    model = from_state_dict("clap", text, **options["text_config"])
    assert model.config["objective"]["towers"].keys() == {"text"}


def test_the_command_lists_heads_and_refuses_them_if_strict(tmp_path, capsys):
    state, options = golden("ast")
    state = {f"audio_spectrogram_transformer.{n}": v for n, v in state.items()}
    state["regressor.weight"] = np.zeros((1, 16), np.float32)
    given = ["--from", "hf_ast", "--checkpoint", str(folder(tmp_path, state, options))]
    out = ["--out", str(tmp_path / "ours")]
    stale = tmp_path / "ours/calibration.json"
    stale.parent.mkdir()
    stale.write_text('{"scale": 9.0, "bias": [], "thresholds": [], "clips": 20}')
    command.main([*given, *out])
    assert not stale.exists(), "it is of the model that was there before"
    assert "left out, no place for this head: regressor.weight" in capsys.readouterr().out
    with pytest.raises(ValueError, match="regressor.weight"):
        command.main([*given, *out, "--strict"])


def test_beats_with_one_width_has_no_projection():
    from convert.states import beats

    for inner, linear in ((16, False), (8, True)):
        state = beats(width=16, inner=inner)
        assert ("post_extract_proj.weight" in state) is linear
        model = from_state_dict("beats", state, encoder_attention_heads=2, conv_pos_groups=4)
        assert model.config["objective"]["tokenizer"]["linear"] is linear
        assert model.config["data"]["entries"]["audio"]["samples"] > 10 * 16_000
        from ssl_audio.convert import beats as family

        assert family.to_state_dict(model.params, model.config).keys() == state.keys()
    del state["post_extract_proj.weight"]
    with pytest.raises(ValueError, match="missing keys: post_extract_proj.weight"):
        from_state_dict("beats", state, encoder_attention_heads=2, conv_pos_groups=4)
