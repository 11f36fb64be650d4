"""Universal source separation: the separator through the converter, anchors and mixtures."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import from_state_dict, uss
from ssl_audio.objectives.anchors import anchors, cut
from ssl_audio.objectives.separation import mixed

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("uss_resunet30*.npz"))
def test_waveforms_and_maps(path):
    golden = load(path)
    model = from_state_dict("uss", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    for name, value in worst.items():
        most = 1e-5 if "waveform" in name else 1e-4 * np.abs(golden.outputs[name]).max()
        assert value <= most, (name, value)
    back = uss.to_state_dict(model.params, model.config) | model.unused
    golden.check_same_bits(back)
    inside = {f"ss_model.{n}": v for n, v in golden.state.items()}
    inside["query_net.base.bn0.weight"] = np.ones(3, np.float32)
    model = from_state_dict("uss", inside, **golden.options)
    assert (uss.to_state_dict(model.params, model.config) | model.unused).keys() == inside.keys()


@pytest.mark.parametrize("path", golden_files("uss_anchor*.npz"))
def test_anchors_and_mixtures(path):
    file = np.load(path, allow_pickle=False)
    options = json.loads(str(file["config_json"]))
    given = {n.removeprefix("in/"): jnp.asarray(file[n]) for n in file.files if n.startswith("in/")}
    want = {n.removeprefix("out/"): file[n] for n in file.files if n.startswith("out/")}
    likely = given["framewise_prob"][jnp.arange(len(given["class_ids"])), :, given["class_ids"]]
    scores, centre = anchors(likely, options["segment_frames"], options["clip_frames"])
    np.testing.assert_allclose(scores, want["scores"], atol=1e-5)
    found, begin, end = cut(
        given["waveform"], centre, options["segment_frames"], options["hop_samples"]
    )
    np.testing.assert_array_equal(begin, want["bgn_sample"])
    np.testing.assert_array_equal(end, want["end_sample"])
    np.testing.assert_array_equal(found, want["segments"])
    np.testing.assert_array_equal(found, want["targets"])
    np.testing.assert_allclose(mixed(found, 2), want["mixtures_mix2_matched"], atol=1e-5)
    three = mixed(found, 3, match=False)
    np.testing.assert_allclose(three, want["mixtures_mix3_unmatched"], atol=1e-5)
