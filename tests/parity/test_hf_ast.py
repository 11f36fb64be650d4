"""Our AST, converted, against outputs of Hugging Face transformers."""

import json
import re

import numpy as np
import pytest
from reference import golden_files

from ssl_audio.convert import from_state_dict, hf_ast

pytestmark = pytest.mark.parity
FILES = golden_files("ast_hf*.npz")
OLDER = {
    r"\.layers\.": ".encoder.layer.",
    r"attention\.q_proj": "attention.attention.query",
    r"attention\.k_proj": "attention.attention.key",
    r"attention\.v_proj": "attention.attention.value",
    r"attention\.o_proj": "attention.output.dense",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
}


def load(path):
    data = dict(np.load(path, allow_pickle=False))
    state = {k.removeprefix("param/"): v for k, v in data.items() if k.startswith("param/")}
    return data, json.loads(str(data["meta/config_json"])), state


def older(state):
    """Return a state dict under the names of transformers before version 5."""
    found = {}
    for name, value in state.items():
        for new, old in OLDER.items():
            name = re.sub(new, old, name)
        found[name] = value
    return found


@pytest.mark.parametrize("path", FILES)
def test_outputs_and_every_hidden_state(path):
    data, config, state = load(path)
    model = from_state_dict("hf_ast", state, **config)
    got = model.forward(input_values=data["in/input_values"])
    for name, want in data.items():
        if name.startswith("out/"):
            assert np.abs(got[name.removeprefix("out/")] - want).max() < 1e-4, name


@pytest.mark.parametrize("names", [dict, older], ids=["new", "older"])
@pytest.mark.parametrize("path", FILES)
def test_both_kinds_of_names_come_back_bit_for_bit(path, names):
    _, config, state = load(path)
    named = names(state)
    model = from_state_dict("hf_ast", named, **config)
    back = hf_ast.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == named.keys()
    assert all(back[name].tobytes() == value.tobytes() for name, value in named.items())


@pytest.mark.parametrize("path", FILES[:1])
def test_a_bare_encoder_gives_features(path):
    data, config, state = load(path)
    prefix = "audio_spectrogram_transformer."
    bare = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    model = from_state_dict("hf_ast", bare, **config)
    got = model.forward(input_values=data["in/input_values"])
    assert np.abs(got["pooler_output"] - data["out/pooler_output"]).max() < 1e-4
    assert hf_ast.to_state_dict(model.params, model.config).keys() == bare.keys()


@pytest.mark.parametrize("path", FILES[:1])
def test_options_are_held_against_the_arrays(path):
    _, config, state = load(path)
    with pytest.raises(ValueError, match="62 rows; frequency_stride=10.*Give these options"):
        from_state_dict("hf_ast", state, num_attention_heads=4)
    with pytest.raises(ValueError, match="multiple of the usual 64.*num_attention_heads"):
        from_state_dict("hf_ast", state, max_length=128, num_mel_bins=64)
    with pytest.raises(ValueError, match="hidden_size=64: the state dict says 48"):
        from_state_dict("hf_ast", state, **(config | dict(hidden_size=64)))
