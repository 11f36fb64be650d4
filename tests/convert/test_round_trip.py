"""convert → load → export: the two commands, and that every array comes back bit for bit."""

import json

import jax
import numpy as np
import pytest
from convert.states import ssast
from encoders import encoder, save

import ssl_audio
from ssl_audio.convert import base, command, export, files, from_state_dict
from ssl_audio.storage import checkpoint, exported


def test_npz_to_embedding_to_npz(tmp_path, capsys):
    state = {f"module.{name}": value for name, value in ssast(width=32).items()}
    np.savez(tmp_path / "x.npz", **state)
    out = str(tmp_path / "ours")
    command.main(
        ["--from", "ssast", "--checkpoint", str(tmp_path / "x.npz"), "--out", out]
        + ["--option", "heads=2", "--check"]
    )
    said = capsys.readouterr().out
    assert "masked_spectrogram" in said and "(unused, kept)" in said
    assert f"{len(state)} arrays are the same bits" in said
    assert "no outputs were compared" in said

    loaded = ssl_audio.load(out)
    assert loaded.embed(np.sin(np.arange(8000) / 9.0), 16_000).shape == (32,)

    back = str(tmp_path / "back")
    export.main(["--checkpoint", out, "--out", back, "--to", "ssast"])
    with np.load(tmp_path / "back/state_dict.npz") as file:
        found = {name: file[name] for name in file.files}
    named, _ = exported.read_arrays(tmp_path / "back/ssast/model.safetensors")
    assert found.keys() == named.keys() == {name.removeprefix("module.") for name in state}
    for name, value in state.items():
        for there in (found, named):
            got = there[name.removeprefix("module.")]
            assert got.dtype == value.dtype and got.tobytes() == value.tobytes(), name
    again = checkpoint.load_params(back)[0]
    assert jax.tree.all(jax.tree.map(np.array_equal, again, loaded.params))


def test_golden_layout_of_npz_brings_its_options(tmp_path):
    state = {f"param/{name}": value for name, value in ssast(width=48).items()}
    options = json.dumps(dict(heads=3, batch=2, model="any"))
    np.savez(tmp_path / "x.npz", config=options, **state, **{"in/x": np.zeros(3)})
    out = tmp_path / "ours"
    command.main(["--from", "ssast", "--checkpoint", str(tmp_path / "x.npz"), "--out", str(out)])
    config = json.loads((out / "config.json").read_text())
    assert config["objective"]["encoder"]["block"]["mixer"]["heads"] == 3


def test_a_state_dict_without_heads_gives_features_and_keeps_the_rest(tmp_path):
    state = {k: v for k, v in ssast().items() if k.startswith("v.")}
    options = dict(input_fdim=32, fstride=16, tstride=16, input_tdim=64)
    model = from_state_dict("ssast", state, **options)
    assert model.config["objective"]["kind"] == "features"
    exported.write(tmp_path, model.params, model.config, unused=model.unused)
    assert exported.read_unused(tmp_path).keys() == {"v.head.weight", "v.head.bias"}
    assert ssl_audio.load(tmp_path).width == 64


def test_a_workdir_becomes_a_folder_that_gives_the_same(tmp_path):
    trained = encoder()
    save(trained, tmp_path / "run", 3, 5)
    out = str(tmp_path / "plain")
    export.main(["--checkpoint", str(tmp_path / "run"), "--out", out, "--step", "3"])
    plain, config = checkpoint.load_params(out)
    assert jax.tree.all(jax.tree.map(np.array_equal, plain, trained.params))
    assert config == checkpoint.load_params(tmp_path / "run")[1]
    assert ssl_audio.load(out).width == trained.width
    with pytest.raises(FileNotFoundError, match="a plain folder, without steps"):
        ssl_audio.load(out, 3)
    with pytest.raises(ValueError, match="workdir of a training run"):
        export.main(["--checkpoint", out, "--out", str(tmp_path / "run")])


def test_a_model_that_the_family_cannot_name_is_refused():
    mamba, attention = encoder(mixer="mamba"), encoder()
    with pytest.raises(ValueError, match="ssast has no model like this"):
        export.state_dict("ssast", mamba.params, dict(mamba.config))
    with pytest.raises(ValueError, match="hf_ast has no names for all parameters"):
        export.state_dict("hf_ast", attention.params, dict(attention.config))


def test_a_finetuned_table_is_exported_on_the_grid_of_its_input():
    model = from_state_dict("ssast", ssast(classes=5), input_fdim=32, fstride=16, tstride=16)
    config = json.loads(json.dumps(model.config))
    config["objective"]["tokenizer"]["stride"] = (16, 8)
    kept = export.state_dict("ssast", model.params, config)
    del config["reference"]  # as if trained here
    moved = export.state_dict("ssast", model.params, config)
    assert kept["v.pos_embed"].shape == (1, 2 + 2 * 4, 64)
    assert moved["v.pos_embed"].shape == (1, 2 + 2 * 7, 64)


def test_a_folder_of_another_library_is_told_as_such(tmp_path):
    exported.write_arrays(tmp_path / "model.safetensors", ssast(), {"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="convert --from"):
        ssl_audio.load(tmp_path)


def test_torch_files_say_what_they_take(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"not one")
    try:
        import torch  # noqa: F401
    except ImportError:
        with pytest.raises(RuntimeError, match=r"ssl_audio\[torch\]"):
            files.read(path)
    else:
        with pytest.raises(ValueError, match="got what cannot be read, wanted a file of weights"):
            files.read(path)


def test_a_table_that_the_family_repeats_in_every_layer_has_its_names():
    def repeats(params):
        return {f"layer.{i}.bias": params["bias"] for i in range(3)} | {"w": params["w"].T}

    params = {"bias": np.ones(4), "w": np.ones((2, 3)), "extra": np.ones(5)}
    assert base.nameless(params, repeats) == ["extra"]
    half = {"w": np.ones((2, 3)), "bias": np.ones(4)}
    assert base.nameless(half, lambda p: {"w": p["w"][:1], "b": p["bias"]}) == ["w"]
