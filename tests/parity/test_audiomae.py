"""Audio-MAE through the converter, against the outputs of its code: both decoders, both maskings."""

import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import audiomae, from_state_dict

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("audiomae_*.npz"))
def test_outputs_losses_and_the_way_back(path):
    golden = load(path)
    model = from_state_dict("audiomae", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    assert max(worst.values()) <= 2e-4, worst
    back = audiomae.to_state_dict(model.params, model.config) | model.unused
    golden.check_same_bits(back)
