"""What is inferred from a state dict, and what is an error that says what to give."""

import numpy as np
import pytest
from convert.states import ssast

from ssl_audio.convert import families, from_state_dict
from ssl_audio.convert.files import read
from ssl_audio.tokens.positions import transfer


def test_an_unknown_family_lists_those_there_are():
    assert {"hf_ast", "ssamba", "ssast"} <= set(families())
    assert not {"base", "files", "patches", "options", "trace"} & set(families())
    with pytest.raises(ValueError, match="'ast': wanted one of .*hf_ast.*ssast"):
        from_state_dict("ast", {})


def test_everything_is_inferred_from_a_pretraining_checkpoint():
    state = {f"module.{name}": value for name, value in ssast(depth=3).items()}
    objective = from_state_dict("ssast", state).config["objective"]
    assert objective["kind"] == "masked_spectrogram"
    assert objective["encoder"]["depth"] == 3
    assert objective["encoder"]["block"]["mlp"] == 2
    assert objective["encoder"]["block"]["mixer"]["heads"] == 1
    assert objective["encoder"]["positions"]["grid"] == (2, 4)
    assert (objective["frontend"]["bins"], objective["frontend"]["frames"]) == (32, 64)


def test_descriptive_options_are_ignored_and_misspelt_ones_are_not():
    from_state_dict("ssast", ssast(), batch=2, seed=7, stage="pretrain", variants={"A": {}})
    with pytest.raises(ValueError, match="'input_tdims': not known. Did you mean 'input_tdim'"):
        from_state_dict("ssast", ssast(), input_tdims=64)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(depth=3), r"depth=3: the state dict says 2 \(v.blocks.\*\)"),
        (dict(embed_dim=32), r"embed_dim=32: the state dict says 64 \(v.patch_embed"),
        (dict(fshape=8), r"fshape=8: the state dict says 16"),
        (dict(input_fdim=128), r"input_fdim=128: the state dict says 32"),
        (dict(grid=[4, 2]), r"grid=\(4, 2\): the state dict says \(2, 4\)"),
        (dict(heads=5), "heads=5: it does not divide the width 64"),
    ],
)
def test_an_option_that_contradicts_the_arrays_names_both(options, message):
    with pytest.raises(ValueError, match=message):
        from_state_dict("ssast", ssast(), **options)


def test_heads_are_asked_for_when_64_does_not_divide_the_width():
    with pytest.raises(ValueError, match="width 48 is not a multiple.*give the option heads"):
        from_state_dict("ssast", ssast(width=48))
    model = from_state_dict("ssast", ssast(width=48), heads=4)
    assert model.config["objective"]["encoder"]["block"]["mixer"]["heads"] == 4


def test_the_grid_of_a_finetuned_table_is_asked_for():
    state = ssast(columns=7, classes=5)
    with pytest.raises(ValueError, match="14 patches.*fstride, tstride and input_tdim"):
        from_state_dict("ssast", state, input_fdim=32)
    with pytest.raises(ValueError, match="mean 2 x 4 = 8.*Give the fstride"):
        from_state_dict("ssast", state, input_fdim=32, input_tdim=64)
    strides = dict(input_fdim=32, fstride=16, tstride=8)
    for length in ({}, dict(input_tdim=64)):
        objective = from_state_dict("ssast", state, **strides, **length).config["objective"]
        assert objective["kind"] == "tagging"
        assert objective["encoder"]["positions"]["grid"] == (2, 7)
        assert objective["frontend"]["frames"] == 64


def test_a_table_goes_the_published_way_where_that_gives_other_values():
    state = ssast(rows=4, columns=4)
    options = dict(fstride=10, tstride=10, input_tdim=96)
    model = from_state_dict("ssast", state, **options)
    assert model.config["objective"]["kind"] == "features"
    assert model.config["objective"]["encoder"]["positions"]["grid"] == (5, 9)
    old = state["v.pos_embed"][0, 2:]
    table = model.params["encoder"]["positions"]["table"]
    assert np.array_equal(table, transfer(old, (4, 4), (5, 9), rule="reference"))
    assert not np.allclose(table, transfer(old, (4, 4), (5, 9)), atol=1e-3)
    assert np.array_equal(model.unused["v.pos_embed"], state["v.pos_embed"])


def test_missing_and_unmapped_keys_are_both_listed():
    state = ssast() | {"v.rope.freqs": np.zeros(3, np.float32)}
    del state["v.blocks.1.attn.qkv.bias"], state["gpredlayer.2.weight"]
    with pytest.raises(ValueError) as error:
        from_state_dict("ssast", state)
    wanted, _, unwanted = str(error.value).partition("unexpected keys")
    assert "v.blocks.1.attn.qkv.bias" in wanted and "gpredlayer.2.weight" in wanted
    assert "v.rope.freqs" in unwanted


def test_an_array_of_another_shape_is_named():
    state = ssast()
    state["v.norm.bias"] = state["v.norm.bias"][:3]
    with pytest.raises(ValueError, match=r"v.norm.bias \(3,\), wanted \(64,\)"):
        from_state_dict("ssast", state)


@pytest.mark.parametrize("family", ["ssamba", "hf_ast"])
def test_a_checkpoint_of_another_model_is_told_as_such(family):
    with pytest.raises(ValueError, match="missing keys: .*checkpoint of another model"):
        from_state_dict(family, ssast())


def test_damaged_files_are_told_as_such(tmp_path):
    np.savez(tmp_path / "whole.npz", **ssast())
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "cut.safetensors").write_bytes(content[:100])
    (tmp_path / "empty").mkdir()
    for name in ("cut.npz", "cut.safetensors"):
        with pytest.raises(ValueError, match=f"{name}: (not a readable|got what cannot be read)"):
            read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="none of model.safetensors"):
        read(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "absent.npz")
    (tmp_path / "model.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in one of \.npz"):
        read(tmp_path / "model.h5")
