"""Our T5 encoder, converted, against outputs of transformers."""

import json

import numpy as np
import pytest
from reference import golden_files

from ssl_audio.convert import export, from_state_dict, t5

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("t5_*.npz"))
def test_every_layer_of_padded_and_whole_batches(path):
    data = dict(np.load(path, allow_pickle=False))
    state = {k.removeprefix("param/"): v for k, v in data.items() if k.startswith("param/")}
    model = from_state_dict("t5", state, **json.loads(str(data["config_json"])))
    ids, mask = data["in/input_ids"], data["in/attention_mask"]
    got = model.forward(input_ids=ids, attention_mask=mask)
    for name in ("last_hidden_state", "hidden_states", "position_bias"):
        want = data[f"out/{name}"]
        assert np.abs(got[name] - want).max() < 1e-4 * max(1, np.abs(want).max()), name
    whole = model.forward(input_ids=ids[:1])
    assert np.abs(whole["last_hidden_state"] - data["out/last_hidden_state_nomask_b0"]).max() < 1e-4
    mean = (got["last_hidden_state"] * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    assert np.abs(got["mean_pooled"] - mean).max() < 1e-5
    back = t5.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    # A text tower has no "encoder" at the top of its parameters.
    written = export.state_dict("t5", model.params, model.config)
    assert all(np.array_equal(state[name], value) for name, value in written.items())
