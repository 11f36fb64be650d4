"""Oobleck of stable-audio-tools, through the converter."""

import pytest
from goldens import load
from reference import golden_files

import ssl_audio
from ssl_audio.convert import command, from_state_dict, oobleck

pytestmark = pytest.mark.parity
FILES = golden_files("oobleck_vae*.npz")


@pytest.mark.parametrize("path", FILES)
def test_latents_and_sound(path):
    golden = load(path)
    model = from_state_dict("oobleck", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    assert max(worst.values()) <= 1e-4, worst
    golden.check_same_bits(oobleck.to_state_dict(model.params, model.config))
    inside = {f"pretransform.model.{n}": v for n, v in golden.state.items()}
    inside["model.model.preprocess_conv.weight"] = golden.state["encoder.layers.0.bias"]
    model = from_state_dict("oobleck", inside, **golden.options)
    back = oobleck.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == inside.keys()


def test_a_folder_gives_latents_and_sound(tmp_path):
    path = FILES[0].values[0]
    golden, out = load(path), tmp_path / "vae"
    command.main(["--from", "oobleck", "--checkpoint", str(path), "--out", str(out)])
    model = ssl_audio.load(out)
    audio = golden.inputs["audio"].swapaxes(1, 2)[0] / 10
    mean, deviation = model.predict("latents", audio=audio)
    assert mean.shape == deviation.shape == golden.outputs["mean"][0].T.shape
    sound = model.predict("sound", latents=mean)
    assert sound.shape == golden.outputs["decoded"][0].T.shape
