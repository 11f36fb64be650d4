"""A whole MusicGen (T5, codec, language model) becomes one model that generates, and goes back bit by bit."""

import numpy as np
import pytest
from goldens import load
from reference import golden_files

import ssl_audio
from ssl_audio.convert import encodec, from_state_dict, musicgen, t5
from ssl_audio.storage import exported

pytestmark = pytest.mark.parity
NAMES = ("musicgen_lm.npz", "t5_v1_relu.npz", "encodec_audiogen_noncausal.npz")
FOUND = [golden_files(name)[0].values[0] for name in NAMES]
paths = pytest.mark.parametrize(
    ("lm", "text", "codec"),
    [FOUND]
    if all(FOUND)
    else [pytest.param(*FOUND, marks=pytest.mark.skip(reason="no goldens: set SSL_AUDIO_SHARED"))],
)


def whole(lm, text, codec):
    """Return the state dict and the options of a MusicGen made of three goldens."""
    state = {f"decoder.{n}": v for n, v in load(lm).state.items()}
    state |= {f"text_encoder.{n}": v for n, v in load(text).state.items()}
    state |= {f"audio_encoder.{n}": v for n, v in load(codec).state.items()}
    options = {"decoder": load(lm).options, "text_encoder": load(text).options}
    return state, options | {"audio_encoder": load(codec).options, "model_type": "musicgen"}


@paths
def test_whole_and_its_parts(lm, text, codec, tmp_path):
    state, options = whole(lm, text, codec)
    model = from_state_dict("musicgen", state, **options)
    back = musicgen.to_state_dict(model.params, model.config) | dict(model.unused)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    exported.write(tmp_path / "whole", model.params, model.config, unused=model.unused)
    made = ssl_audio.load(tmp_path / "whole")
    assert made.rate == 1600 and made.books == 4 and "condition" in made.offers
    golden = load(text)
    ids, mask = golden.inputs["input_ids"], golden.inputs["attention_mask"]
    batch = {"text": ids.astype(np.int32), "text_length": mask.sum(1).astype(np.int32)}
    found, valid = made._condition(made._on_device, batch)
    near = np.abs(np.asarray(found) - golden.outputs["last_hidden_state"])[np.asarray(valid)]
    assert near.max() < 1e-4
    # Each part from a folder of its own gives the same model.
    for name, family, path in (("t5", t5, text), ("codec", encodec, codec)):
        part = family.from_state_dict(load(path).state, **load(path).options)
        exported.write(tmp_path / name, part.params, part.config, unused=part.unused)
    parts = dict(text=str(tmp_path / "t5"), codec=str(tmp_path / "codec"))
    joined = from_state_dict("musicgen", load(lm).state, **load(lm).options, **parts)
    exported.write(tmp_path / "joined", joined.params, joined.config, unused=joined.unused)
    condition = [np.asarray(found[0])[np.asarray(valid)[0]]]
    first, second = (
        model.generate(condition=condition, seconds=0.1, seed=1, top_k=5)[0]
        for model in (made, ssl_audio.load(tmp_path / "joined"))
    )
    np.testing.assert_array_equal(first, second)
    assert first.shape == (160,) and np.ptp(first) > 0


@paths
def test_what_does_not_fit_is_refused(lm, text, codec, tmp_path):
    state, options = whole(lm, text, codec)
    with pytest.raises(ValueError, match="has one already"):
        from_state_dict("musicgen", state, **options, codec=str(tmp_path))
    part = t5.from_state_dict(load(text).state, **load(text).options)
    exported.write(tmp_path / "t5", part.params, part.config)
    with pytest.raises(ValueError, match="codec=.*contrastive"):
        from_state_dict("musicgen", load(lm).state, **load(lm).options, codec=str(tmp_path / "t5"))
    alone = from_state_dict("musicgen", load(lm).state, **load(lm).options)
    exported.write(tmp_path / "alone", alone.params, alone.config)
    with pytest.raises(ValueError, match="without a codec"):
        ssl_audio.load(tmp_path / "alone").generate("rain", 0.1)
