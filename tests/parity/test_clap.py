"""Our CLAP, converted, against outputs of transformers; its front ends against librosa and torchaudio."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden_files

from ssl_audio.convert import clap, from_state_dict
from ssl_audio.frontend.mel import Mel, mel_bands

pytestmark = pytest.mark.parity
FILES = golden_files("clap_*.npz")


def load(path):
    data = dict(np.load(path, allow_pickle=False))
    state = {k.removeprefix("param/"): v for k, v in data.items() if k.startswith("param/")}
    return data, json.loads(bytes(data["meta_json"])), state


def under(data, prefix):
    return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


@pytest.mark.parametrize("path", FILES)
def test_embeddings_and_everything_before_them(path):
    data, meta, state = load(path)
    model = from_state_dict("clap", state, **meta["config"])
    got = model.forward(**under(data, "input/"))
    for name, want in (under(data, "out/") | under(data, "inter/")).items():
        if name == "audio/aff_out":
            got[name] = got[name][: len(want)]
        error = np.abs(got[name] - want)
        size = max(1, np.abs(want).max())
        limit = 2e-5 if name.endswith("embeds") else 1e-3 if "log" in name else 1e-4 * size
        assert error.max() < limit, (name, error.max(), size)
    back = clap.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())


@pytest.mark.parametrize("path", FILES[:1])
def test_checkpoints_of_laion_are_the_same_model_and_come_back(path):
    data, meta, state = load(path)
    model = from_state_dict("clap", state, **meta["config"])
    config = model.config | dict(reference=dict(names="laion"))
    theirs = {f"module.{n}": v for n, v in clap.to_state_dict(model.params, config).items()}
    assert "module.audio_branch.layers.0.blocks.0.attn.qkv.weight" in theirs
    theirs["module.text_branch.embeddings.position_ids"] = np.arange(3)[None]
    theirs["module.audio_transform.sequential.0.weight"] = np.zeros((2, 2), np.float32)
    again = from_state_dict("clap", theirs, **meta["config"])
    for got, want in zip(*map(_leaves, (again.params, model.params)), strict=True):
        assert np.array_equal(got, want)
    back = clap.to_state_dict(again.params, again.config) | again.unused
    assert {f"module.{name}" for name in back} == theirs.keys()


@pytest.mark.parametrize("path", FILES[:1])
def test_wrong_keys_and_sizes_are_refused(path):
    _, meta, state = load(path)
    broken = dict(state)
    broken["audio_model.surprise"] = broken.pop("text_projection.linear1.bias")
    with pytest.raises(
        ValueError, match="missing keys: text_proj.*unexpected keys: audio_model.surprise"
    ):
        from_state_dict("clap", broken, **meta["config"])
    audio = meta["config"]["audio"] | dict(depths=[2, 2, 12, 2])
    with pytest.raises(ValueError, match="depths.*the state dict says"):
        from_state_dict("clap", state, **(meta["config"] | dict(audio=audio)))


@pytest.mark.parametrize("path", FILES)
def test_frontends(path):
    data = load(path)[0]
    if "frontend/waveform_48k" not in data:
        pytest.skip("no front end in this file")
    wave = data["frontend/waveform_48k"]
    sounds = {
        "unfused": Mel(),
        "fused": Mel(scale="htk", area=False),
    }
    repeated = np.tile(wave, 480_000 // len(wave))
    repeated = np.pad(repeated, (0, 480_000 - len(repeated)))
    for name, key in (("unfused", "mel_slaney_unfused"), ("fused", "mel_htk_fused")):
        got, want = (
            np.asarray(sounds[name](jnp.asarray(repeated[None])))[0],
            data[f"frontend/{key}"],
        )
        assert np.abs(got - want)[want > -90].max() < 1e-3
    padded = np.pad(wave, (0, 100 * 480 - len(wave)))[None]
    got, want = (
        sounds["unfused"](jnp.asarray(padded))[0],
        data["frontend/mel_slaney_zero_pad_first101"],
    )
    assert np.abs(got[:100] - want[:100])[want[:100] > -90].max() < 1e-3
    for scale, area in (("slaney", True), ("htk", False)):
        bands = mel_bands(64, 1024, 48_000, 50.0, 14_000.0, scale, area)
        assert np.abs(bands.T - data[f"frontend/filters_{scale}"]).max() < 1e-6


def _leaves(tree):
    return (
        [tree]
        if isinstance(tree, np.ndarray)
        else [v for k in sorted(tree) for v in _leaves(tree[k])]
    )
