"""ASiT through the converter, against the outputs of its code: both networks, losses, centres."""

import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import asit, from_state_dict

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("asit.npz"))
def test_outputs_losses_and_the_way_back(path):
    golden = load(path)
    model = from_state_dict("asit", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    assert max(worst.values()) <= 1e-4, worst
    back = asit.to_state_dict(model.params, model.config)
    golden.check_same_bits({f"student.{n}": v for n, v in back.items()} | model.unused)


@pytest.mark.parametrize("path", golden_files("asit.npz"))
def test_an_encoder_alone_gives_the_same_tokens(path):
    golden = load(path)
    name = "teacher.backbone."
    state = {k.removeprefix(name): v for k, v in golden.state.items() if k.startswith(name)}
    model = from_state_dict("asit", state, **golden.options)
    clean = np.concatenate([golden.inputs["clean_0"], golden.inputs["clean_1"]])
    found = model.forward(spec=clean)["tokens"]
    assert np.abs(found - golden.outputs["teacher_tokens"]).max() <= 1e-4
