"""Cnn14 of PANNs through the converter, against the outputs of its code."""

import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import cnn14, from_state_dict

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("cnn14_*.npz"))
def test_outputs_and_the_way_back(path):
    golden = load(path)
    model = from_state_dict("cnn14", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    power = golden.outputs["spectrogram_power"].max()
    assert worst.pop("spectrogram_power") <= 1e-5 * power, worst
    assert worst.pop("logmel_db") <= 1e-3, worst
    assert worst.pop("after_conv_block1") <= 1e-4, worst
    assert worst.pop("embedding", 0) <= 1e-4, worst
    assert max(worst.values()) <= 1e-5, worst
    golden.check_same_bits(cnn14.to_state_dict(model.params, model.config) | model.unused)


@pytest.mark.parametrize("path", golden_files("cnn14_tag.npz"))
def test_options_that_contradict_the_arrays_are_refused(path):
    golden = load(path)
    for wrong, message in (
        (dict(fmax=3000), "not the mel bank of 32 bands from 50.0 to 3000.0 Hz at 8000 Hz"),
        (dict(window_size=512), "window_size=512: the state dict says 256"),
        (dict(kind="Cnn10"), "kind='Cnn10': only 'Cnn14' or 'Cnn14_DecisionLevelMax'"),
        (dict(top_db=80.0), "top_db=80.0: only None"),
    ):
        with pytest.raises(ValueError, match=message):
            from_state_dict("cnn14", golden.state, **golden.options | wrong)
    short = {n: v for n, v in golden.state.items() if not n.startswith("conv_block6")}
    with pytest.raises(ValueError, match="blocks conv_block1, .*conv_block5; Cnn14 has"):
        from_state_dict("cnn14", short, **golden.options)
    bank = {n: v for n, v in golden.state.items() if "melW" not in n}
    plain = from_state_dict("cnn14", bank, **golden.options)
    found = plain.forward(**golden.inputs)["clipwise_output"]
    assert np.abs(found - golden.outputs["clipwise_output"]).max() <= 1e-5
