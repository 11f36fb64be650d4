import sys
from types import SimpleNamespace

import encoders
import numpy as np
import pytest

from ssl_audio.eval import hear

RATE = 16_000


def noise(clips, samples, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((clips, samples))).astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    return encoders.encoder(frames=24)  # columns of 80 ms: two passes, 40 ms


@pytest.mark.parametrize("samples", [1, 300, 1600, 3000, 9001])
def test_times_are_regular_dense_and_inside_the_clip(encoder, samples):
    features, times = hear.timestamps(encoder, noise(3, samples))
    duration = 1000 * samples / RATE
    assert features.shape == (3, times.shape[1], 64) and features.dtype == np.float32
    assert np.isfinite(features).all()
    assert (times == times[0]).all() and times[0, -1] <= duration
    np.testing.assert_allclose(np.diff(times), 40)
    assert times[0, 0] == min(47.5, duration)
    assert duration - times[0, -1] < 40 + 47.5


def test_each_vector_is_of_the_column_around_its_time(encoder):
    audio = noise(2, 9001)
    features, times = hear.timestamps(encoder, audio, layer=0)
    for k, start in enumerate((0, 640)):
        found, centres = encoder.frames(audio[1, start:], RATE, layer=0)
        inside = features[1, k::2]
        np.testing.assert_array_equal(inside, found[: len(inside)])
        np.testing.assert_allclose(times[1, k::2], centres[: len(inside)] + 40 * k)


def test_dense_columns_need_one_pass():
    encoder = encoders.encoder(patch=(32, 4), frames=24)
    audio = noise(1, 4000)
    features, times = hear.timestamps(encoder, audio)
    found, centres = encoder.frames(audio[0], RATE)
    np.testing.assert_array_equal(features[0], found[: times.shape[1]])
    np.testing.assert_array_equal(times[0], centres[: times.shape[1]])


def test_a_clip_does_not_depend_on_its_batch(encoder):
    audio = noise(5, 5000)
    features, scenes = hear.timestamps(encoder, audio)[0], hear.scenes(encoder, audio)
    for i in range(5):
        np.testing.assert_array_equal(hear.timestamps(encoder, audio[i : i + 1])[0][0], features[i])
        np.testing.assert_array_equal(hear.scenes(encoder, audio[i : i + 1])[0], scenes[i])


@pytest.mark.parametrize("samples", [1600, 8000])
def test_silence_is_finite(encoder, samples):
    audio = np.zeros((2, samples), np.float32)
    assert np.isfinite(hear.timestamps(encoder, audio)[0]).all()
    assert np.isfinite(hear.scenes(encoder, audio)).all()


def test_what_is_not_a_batch_is_refused(encoder):
    with pytest.raises(ValueError, match="mono audio"):
        hear.timestamps(encoder, noise(2, 800)[0])
    with pytest.raises(ValueError, match="layer: got 9"):
        hear.timestamps(encoder, noise(2, 800), layer=9)


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ssl_audio\[hear\]'"):
        hear.load_model("runs/demo")


@pytest.mark.parametrize("tower", ["cnn", "vit"])
def test_announced_sizes_of_an_audio_text_model_are_those_given(tower, tmp_path, monkeypatch):
    folder, audio = encoders.audio_text(tmp_path, tower), noise(2, 5000)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(nn=SimpleNamespace(Module=object)))
    for pool in ("stats", "mean"):
        model = hear.load_model(str(folder), pool=pool)
        found = hear.scenes(model.encoder, audio, pool=pool)
        assert found.shape == (2, model.scene_embedding_size)
    if tower == "vit":
        found, _ = hear.timestamps(model.encoder, audio)
        assert found.shape[2] == model.timestamp_embedding_size == 4 * 192
        return
    assert model.timestamp_embedding_size == 8
    with pytest.raises(ValueError, match="no features along time"):
        hear.timestamps(model.encoder, audio)


@pytest.mark.parametrize(("pool", "size"), [("mean", 32), ("stats", 128)])
def test_the_module_converts_tensors(encoder, tmp_path, pool, size):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="got no path"):
        hear.load_model()
    encoders.save(encoder, tmp_path, 1)
    model = hear.load_model(str(tmp_path), pool=pool)
    assert isinstance(model, torch.nn.Module) and not list(model.parameters())
    sizes = model.sample_rate, model.scene_embedding_size, model.timestamp_embedding_size
    assert sizes == (RATE, size, 64)
    audio = noise(2, 5000)
    scenes = hear.get_scene_embeddings(torch.from_numpy(audio), model)
    assert scenes.dtype == torch.float32
    np.testing.assert_array_equal(scenes.numpy(), hear.scenes(encoder, audio, pool=pool))
    found = hear.get_timestamp_embeddings(torch.from_numpy(audio), model)
    for tensor, array in zip(found, hear.timestamps(encoder, audio), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
