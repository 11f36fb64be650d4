"""Wide-ResNet-28 of SSLH through the converter, against the outputs of its code."""

import jax
import numpy as np
import pytest
from goldens import load
from reference import golden_files

import ssl_audio
from ssl_audio.convert import command, export, from_state_dict, wrn28

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("wrn28*.npz"))
def test_both_heads_maps_and_a_pass_in_training(path):
    golden = load(path)
    model = from_state_dict("wrn28", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    assert max(worst.values()) <= 1e-4, worst
    golden.check_same_bits(wrn28.to_state_dict(model.params, model.config) | model.unused)
    plain = {n: v for n, v in golden.state.items() if "fc_rot" not in n}
    model = from_state_dict("wrn28", plain)
    found = jax.eval_shape(model.outputs, model.params, **golden.inputs)
    assert found.keys() == golden.outputs.keys() - {"logits_rot"} and not model.unused


@pytest.mark.parametrize("path", golden_files("wrn28*.npz"))
def test_options_that_contradict_the_arrays_are_refused(path):
    golden = load(path)
    for wrong, message in (
        (dict(width=3), "width=3: the state dict says"),
        (dict(layers=(4, 4)), r"layers=\(4, 4\): the state dict says"),
        (dict(n_params=7), "n_params=7: the state dict says"),
        (dict(sample_rat=8000), "Did you mean 'sample_rate'"),
    ):
        with pytest.raises(ValueError, match=message):
            from_state_dict("wrn28", golden.state, **golden.options | wrong)
    with pytest.raises(ValueError, match=r"missing keys: .*layer2.1.bn1.running_mean"):
        short = {n: v for n, v in golden.state.items() if n != "layer2.1.bn1.running_mean"}
        options = golden.options | dict(n_params=None)
        from_state_dict("wrn28", short, **options)


@pytest.mark.parametrize("path", golden_files("wrn28*.npz"))
def test_as_a_folder_it_embeds_and_is_exported(path, tmp_path):
    out, back = str(tmp_path / "wrn"), str(tmp_path / "back")
    arguments = ["--from", "wrn28", "--checkpoint", str(path), "--out", out, "--check"]
    command.main([*arguments, "--option", "sample_rate=8000", "--option", "seconds=1"])
    width = load(path).state["fc.weight"].shape[1]
    assert ssl_audio.load(out).embed(np.sin(np.arange(9000) / 5.0), 8000).shape == (width,)
    export.main(["--checkpoint", out, "--out", back, "--to", "wrn28"])
    with np.load(tmp_path / "back/state_dict.npz") as file:
        load(path).check_same_bits(dict(file))
