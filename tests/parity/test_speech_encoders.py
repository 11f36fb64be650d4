"""BEATs, OpenBEATs, the speech encoders, SPEAR and its quantiser, against their references' outputs."""

import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio import convert

pytestmark = pytest.mark.parity

# golden files → (family, tolerance of what is not a code)
FAMILIES = {
    "beats.npz": ("beats", 1e-4),
    "beats_preln_glu.npz": ("beats", 1e-4),
    "beats_tokenizer.npz": ("beats_tokenizer", 1e-5),
    "openbeats_predictor.npz": ("openbeats_predictor", 1e-4),
    "wav2vec2_hf_*.npz": ("hf_wav2vec2", 1e-4),
    "hubert_hf_*.npz": ("hf_hubert", 1e-4),
    "wavlm_hf_*.npz": ("hf_wavlm", 1e-4),
    "data2vec_audio_hf_*.npz": ("hf_data2vec", 1e-4),
    "mvq.npz": ("mvq", 1e-5),
    "spear_zipformer.npz": ("zipformer", 1e-4),
}
FILES = [
    pytest.param(*parameter.values, *how, marks=parameter.marks, id=parameter.id)
    for pattern, how in FAMILIES.items()
    for parameter in golden_files(pattern)
]


@pytest.mark.parametrize("path, family, tolerance", FILES)
def test_outputs_and_the_way_back(path, family, tolerance):
    golden = load(path)
    model = convert.from_state_dict(family, golden.state, **golden.options)
    found = model.forward(**golden.inputs)
    found = {name: np.asarray(value, np.float64) for name, value in found.items()}
    for name, difference in golden.differences(found).items():
        codes = golden.outputs[name].dtype.kind != "f"
        assert difference <= (0 if codes else tolerance), name
    written = convert.module(family).to_state_dict(model.params, model.config)
    golden.check_same_bits(written | dict(model.unused))


def test_families_have_variants_and_other_names():
    assert convert.module("wavlm_hf_stableln") is convert.module("hf_wav2vec2")
    assert convert.module("beats_preln_glu") is convert.module("openbeats")
    assert convert.module("beats_tokenizer") is not convert.module("beats")
    with pytest.raises(ValueError, match="'beatsy': wanted one of .*beats_tokenizer"):
        convert.module("beatsy")
