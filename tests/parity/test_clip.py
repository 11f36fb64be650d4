"""Our CLIP, converted, against outputs of transformers 5.24 (random weights)."""

import numpy as np
import pytest
from reference import golden_files

from ssl_audio.convert import clip, from_state_dict

pytestmark = pytest.mark.parity
OPTIONS = dict(vision_config=dict(num_attention_heads=4), text_config=dict(num_attention_heads=4))


@pytest.mark.parametrize("path", golden_files("clip_vit_*.npz"))
def test_both_towers_and_their_similarities(path):
    data = dict(np.load(path, allow_pickle=False))
    state = {k.removeprefix("param/"): v for k, v in data.items() if k.startswith("param/")}
    model = from_state_dict("clip", state, **OPTIONS)
    got = model.forward(
        **{k.removeprefix("in/"): v for k, v in data.items() if k.startswith("in/")}
    )
    wanted = {k.removeprefix("out/"): v for k, v in data.items() if k.startswith("out/")}
    assert wanted.keys() >= {"image_embeds", "text_embeds", "logits_per_image", "image_pooled"}
    for name, value in wanted.items():
        assert np.abs(got[name] - value).max() < 2e-6 * max(1, np.abs(value).max()), name
    back = clip.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
