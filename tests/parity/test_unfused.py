"""UnFuSeD's student through the converter: the encoder against LAPE's code, the loss against its step."""

import jax
import numpy as np
import pytest
from goldens import load
from reference import golden_files

import ssl_audio
from ssl_audio.convert import command, export, from_state_dict, unfused

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("unfused*.npz"))
def test_taps_heads_and_every_term_of_the_loss(path):
    golden = load(path)
    model = from_state_dict("unfused", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    assert max(worst.values()) <= 1e-5, worst
    golden.check_same_bits(unfused.to_state_dict(model.params, model.config) | model.unused)
    plain = {n: v for n, v in golden.state.items() if n.startswith("encoder.")}
    model = from_state_dict("unfused", plain)
    found = jax.eval_shape(model.outputs, model.params, golden.inputs["x"])
    assert found.keys() == {"layer1", "layer2", "layer3", "frames", "clip_embedding"}


@pytest.mark.parametrize("path", golden_files("unfused*.npz"))
def test_options_that_contradict_the_arrays_are_refused(path):
    golden = load(path)
    for wrong, message in (
        (dict(n_mels=64), "n_mels=64: the state dict says"),
        (dict(clusters=3), "clusters=3: the state dict says"),
        (dict(layer_dims=(1, 2, 3)), r"layer_dims=\(1, 2, 3\): the state dict says"),
    ):
        with pytest.raises(ValueError, match=message):
            from_state_dict("unfused", golden.state, **golden.options | wrong)


@pytest.mark.parametrize("path", golden_files("unfused*.npz"))
def test_as_a_folder_it_embeds_classifies_and_is_exported(path, tmp_path):
    golden = load(path)
    out, back = str(tmp_path / "student"), str(tmp_path / "back")
    command.main(["--from", "unfused", "--checkpoint", str(path), "--out", out, "--check"])
    encoder = ssl_audio.load(out)
    audio = np.sin(np.arange(9000) / 5.0)
    width, classes = golden.options["d"], golden.options["clusters"]
    assert encoder.embed(audio, 16_000).shape == (width,)
    found = jax.eval_shape(encoder.objective.logits, encoder.params, {}, encoder.blank())
    assert found.shape == (1, classes)
    export.main(["--checkpoint", out, "--out", back, "--to", "unfused"])
    with np.load(tmp_path / "back/state_dict.npz") as file:
        golden.check_same_bits(dict(file))
