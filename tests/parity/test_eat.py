"""EAT through the converter, against the outputs of its code: student, teacher and both losses."""

import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import eat, from_state_dict

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("eat.npz"))
def test_outputs_losses_and_the_way_back(path):
    golden = load(path)
    model = from_state_dict("eat", golden.state, **golden.options)
    found = model.forward(**golden.inputs)
    worst = golden.differences(found)
    total = worst.pop("losssum_cls") / golden.outputs["losssum_cls"]
    assert total <= 1e-5 and worst.pop("losssum_IMAGE_regression") <= 1e-2, worst
    assert max(worst.values()) <= 1e-4, worst
    back = eat.to_state_dict(model.params, model.config)
    golden.check_same_bits({f"student.{n}": v for n, v in back.items()} | model.unused)


@pytest.mark.parametrize("path", golden_files("eat.npz"))
def test_an_encoder_alone_gives_the_same_features(path):
    golden = load(path)
    state = {
        f"model.{name.removeprefix('student.')}": value
        for name, value in golden.state.items()
        if name.startswith("student.") and "decoder" not in name
    }
    model = from_state_dict("eat", state, **golden.options)
    found = model.forward(spec=golden.inputs["spec"])["features_nomask"]
    assert np.abs(found - golden.outputs["features_nomask"]).max() <= 1e-4
