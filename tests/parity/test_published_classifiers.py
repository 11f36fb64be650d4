"""Published classifiers, converted and loaded: what `Classifier` says of a clip is what they say."""

import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio.convert import from_state_dict
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.load import load as open_folder
from ssl_audio.storage import exported

pytestmark = pytest.mark.parity


def converted(family, path, folder):
    golden = load(path)
    model = from_state_dict(family, golden.state, **golden.options)
    exported.write(folder, model.params, model.config)
    return golden, model, open_folder(folder)


@pytest.mark.parametrize("path", golden_files("cnn14_*.npz"))
def test_panns(path, tmp_path):
    golden, model, classifier = converted("cnn14", path, tmp_path)
    assert type(classifier) is Classifier and classifier.several
    short = golden.inputs["waveform"]
    rate, wanted = classifier.rate, golden.outputs["clipwise_output"]
    logits = np.stack(classifier.predict("logits", short, rate))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), wanted, atol=1e-6)
    # A clip that ends within a column of the last map is heard to the column before.
    found = np.stack([classifier.scores(clip, rate).values[0] for clip in short])
    assert np.abs(found - wanted).max() < 0.03
    whole = np.resize(short[:1], (1, 10 * rate))
    wanted = model.forward(waveform=whole)["clipwise_output"]
    assert np.abs(classifier.scores(whole[0], rate).values - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("family", "path", "pad"),
    [
        pytest.param(family, *parameter.values, pad, id=family, marks=parameter.marks)
        for family, pattern, pad in [
            ("passt", "passt.npz", "training"),
            ("beats", "beats.npz", "none"),
            ("hf_ast", "ast_hf.npz", "training"),
        ]
        for parameter in golden_files(pattern)
    ],
)
def test_others_load_and_end_clips_as_published(family, path, pad, tmp_path):
    _, _, classifier = converted(family, path, tmp_path)
    assert type(classifier) is Classifier and classifier.several and classifier.fill == pad
    clip = np.random.default_rng(0).normal(0, 0.1, classifier.rate // 2).astype(np.float32)
    found = classifier.scores(clip, classifier.rate).values
    assert found.shape == (1, classifier.classes) and 0 < found.min() < found.max() < 1
