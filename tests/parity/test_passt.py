"""PaSST through the converter, against the outputs of its code: tagging, patchout, HEAR wrapper."""

import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import from_state_dict, passt

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("passt*.npz"))
def test_outputs_and_the_way_back(path):
    golden = load(path)
    model = from_state_dict("passt", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    assert worst.pop("mel", 0) <= 1e-5, worst
    assert max(worst.values()) <= 1e-4, worst
    golden.check_same_bits(passt.to_state_dict(model.params, model.config) | model.unused)
