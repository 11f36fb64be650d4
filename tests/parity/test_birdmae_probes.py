"""Prototypical and attentive probes against the reference's outputs, through the converter."""

import json

import numpy as np
import pytest
from reference import golden_files

from ssl_audio import convert
from ssl_audio.convert import birdmae_probes

pytestmark = pytest.mark.parity


def load(path):
    data = dict(np.load(path, allow_pickle=False))
    parts = {
        start: {k.removeprefix(start): v for k, v in data.items() if k.startswith(start)}
        for start in ("param/", "in/", "out/")
    }
    return *parts.values(), json.loads(str(data["meta/config_json"]))


@pytest.mark.parametrize("path", golden_files("birdmae_probes*.npz"))
def test_it_equals_the_reference(path):
    state, inputs, wanted, options = load(path)
    model = convert.from_state_dict("birdmae_probes", state, **options)
    found = model.forward(**inputs)
    assert set(found) == set(wanted)
    for name, want in wanted.items():
        assert found[name].shape == want.shape, name
        assert np.abs(found[name] - want).max() <= 1e-5, name
    back = birdmae_probes.to_state_dict(model.params)
    assert set(back) == set(state)
    assert all(np.array_equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("path", golden_files("birdmae_probes.npz"))
def test_what_does_not_fit_is_refused(path):
    state, inputs, _, options = load(path)
    with pytest.raises(ValueError, match="protos_per_class=4: the state dict says 3"):
        convert.from_state_dict("birdmae_probes", state, **options | {"protos_per_class": 4})
    with pytest.raises(ValueError, match="got gamma; wanted gamma_neg"):
        convert.from_state_dict("birdmae_probes", state, heads=4, asl={"gamma": 1})
    with pytest.raises(ValueError, match="missing keys: id.last_layer.bias; unexpected keys: x"):
        less = {k: v for k, v in state.items() if k != "id.last_layer.bias"}
        convert.from_state_dict("birdmae_probes", less | {"x": inputs["tokens"]}, **options)
    model = convert.from_state_dict("birdmae_probes", state, **options)
    with pytest.raises(ValueError, match="options H, W say"):
        model.forward(**inputs | {"focal_map": inputs["focal_map"][:, :, :2]})
