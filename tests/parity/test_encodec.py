"""EnCodec of transformers, through the converter: codes to the last, sound to 1e-4."""

import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import encodec, from_state_dict

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("encodec*.npz"))
def test_codes_are_equal_and_sound_is_near(path):
    golden = load(path)
    model = from_state_dict("encodec", golden.state, **golden.options)
    found = model.forward(**golden.inputs)
    worst = golden.differences(found)
    for name, value in worst.items():
        exact = "codes" in name or "pad_length" in name
        assert value <= (0 if exact else 1e-5 if "scales" in name else 1e-4), (name, value)
    back = encodec.to_state_dict(model.params, model.config) | model.unused
    golden.check_same_bits(back)
