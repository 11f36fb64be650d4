"""Audio and text in one space, used: the same vectors always, labels in words, search of a folder."""

import dataclasses

import encoders
import jax
import numpy as np
import pytest
import soundfile

from ssl_audio import load
from ssl_audio.data.source import Folder, Manifest
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import audio_text
from ssl_audio.inference import indexing, kmeans, search
from ssl_audio.inference.audio_text import AudioTextModel
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.windows import half_apart

RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return encoders.audio_text(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Return the folder of a model whose audio tower takes patches."""
    return encoders.audio_text(tmp_path_factory.mktemp("patches"), "vit")


@pytest.fixture(scope="module")
def encoder(model):
    return load(model)


def sound(seed, seconds):
    t = np.arange(round(RATE * seconds)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.01, len(t))
    return (0.3 * np.sin(2 * np.pi * 150 * 2 ** (seed % 6) * t) + noise).astype(np.float32)


def test_the_same_clip_has_the_same_vector_whatever_its_company(encoder):
    clips = [sound(i, seconds) for i, seconds in enumerate((0.1, 0.5, 0.77, 2.3))]
    alone = [encoder.embed_audio(clip, RATE) for clip in clips]
    together = encoder.embed_audio(clips + clips[::-1], RATE)
    assert np.array_equal(together[:4], np.stack(alone))
    assert np.array_equal(together[:4], together[:3:-1])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)
    texts = ["a dog", "rain on a roof", "a dog"]
    words = encoder.embed_text(texts)
    assert np.array_equal(words[0], words[2]) and np.array_equal(
        words[1], encoder.embed_text(texts[1])
    )
    assert words.shape == (3, encoder.width) == (3, 16)


def test_labels_in_words(encoder, tmp_path):
    odds = encoder.classify(sound(0, 1.0), ["dog_bark", "rain"], RATE)
    assert odds.shape == (2,) and odds.sum() == pytest.approx(1)
    soundfile.write(tmp_path / "a.wav", sound(0, 1.0), RATE, subtype="FLOAT")
    same = encoder.classify([tmp_path / "a.wav"] * 2, ["dog_bark", "rain"])
    np.testing.assert_allclose(same, [odds, odds], rtol=1e-5)
    with pytest.raises(ValueError, match="give the rate of the waveform"):
        encoder.classify(sound(0, 1.0), ["rain"])
    with pytest.raises(ValueError, match="wanted a text or a list"):
        encoder.embed_text([])


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ("dog", ["a {}"], "labels: got 'dog', wanted a list"),
        ([1, 2], ["a {}"], "labels: got .*wanted a list"),
        (["dog", "rain"], ["a sound"], "templates: got 'a sound', wanted texts with {}"),
        (["dog", "rain"], "a {}", "templates: got 'a', wanted texts with {}"),
    ],
)
def test_labels_and_templates_that_are_none(encoder, labels, templates, message):
    with pytest.raises(ValueError, match=message):
        encoder.classify(sound(0, 1.0), labels, RATE, templates=templates)


def test_a_list_of_tiny_clips_is_stereo_with_its_channels_last(encoder):
    with pytest.raises(ValueError, match="channels come last"):
        encoder.embed_audio(np.stack([sound(0, 0.1)] * 2, axis=-1).tolist(), RATE)


def test_one_class_is_no_test(encoder, tmp_path):
    (tmp_path / "dog").mkdir()
    soundfile.write(tmp_path / "dog/a.wav", sound(0, 0.5), RATE)
    with pytest.raises(ValueError, match="two classes or more, got dog"):
        audio_text.evaluate(encoder, Folder(str(tmp_path)))


def test_a_tower_without_patches_gives_features_by_windows(encoder):
    clips = [sound(i, seconds) for i, seconds in enumerate((0.3, 1.2))]
    found = encoder.embed(clips, RATE)
    sound_encoder = encoder.encoder
    assert found.shape == (2, sound_encoder.width) == (2, 8)
    assert sound_encoder.num_layers == 0 and sound_encoder.rows == 1
    assert np.array_equal(found[1], encoder.embed(clips[1], RATE))
    zeros = jax.tree.map(np.zeros_like, sound_encoder.params)
    blank = dataclasses.replace(sound_encoder, params=zeros)
    assert not np.allclose(found, blank.embed(clips, RATE))
    with pytest.raises(ValueError, match="Cnn: this audio tower has no features along time"):
        encoder.frames(clips[0], RATE)


def test_a_model_has_an_encoder_of_the_audio_towers_width(patches):
    model = load(patches)
    found = model.encoder
    assert type(model) is AudioTextModel and not isinstance(model, Encoder)
    assert (model.width, found.width, found.num_layers, found.rows) == (16, 192, 1, 4)
    clip = sound(1, 1.3)
    features, times = model.frames(clip, RATE)
    assert features.shape == (len(times), found.rows * found.width)
    assert model.embed(clip, RATE).shape == (found.width,)
    assert np.array_equal(model.embed(clip, RATE, layer=0), found.embed(clip, RATE, layer=0))
    few = dataclasses.replace(model, batch_size=2)
    assert few.encoder.batch_size == 2
    assert few.predict("embed_audio", sound(1, 0.5), RATE).shape == (16,)


def test_codes_are_of_the_audio_towers_tokens(patches, tmp_path, monkeypatch):
    """The vectors that are clustered have the tokens' width, not that of the common space."""
    source = Synthetic(6, 0.6)
    monkeypatch.setattr(kmeans.places, "source", lambda _: dict(kind="synthetic", size=6))
    kmeans.main(
        f"--data synthetic --codes 5 --checkpoint {patches} --out {tmp_path / 'codes'}".split()
    )
    coded = load(tmp_path / "codes")
    book = coded.params["quantizer"]["book"]
    assert book.shape == (5, 192)
    encoder = load(patches).encoder
    samples = encoder.blank()["audio"].shape[1]
    clips = [source[i]["audio"][:samples] for i in range(len(source))]
    found = [said.tokens.x for said in coded.predict("encode", clips, RATE)]
    tokens = np.concatenate(found)
    nearest = ((tokens[:, None] - book[None]) ** 2).sum(-1).argmin(-1)
    codes = np.concatenate(coded.predict("codes", clips, RATE))
    assert np.array_equal(codes[:, 0], nearest) and len(set(nearest.tolist())) > 1
    means = [x.mean(0) for x in found]
    np.testing.assert_allclose(means, encoder.embed(clips, RATE), atol=1e-5)


def test_a_tower_without_tokens_along_time_has_no_codes(encoder):
    with pytest.raises(ValueError, match="no features along time"):
        kmeans.fit(encoder.encoder, Synthetic(4, 0.4), 2)


@pytest.mark.parametrize(
    ("options", "learned", "want"),
    [
        (dict(max_scale=200.0), [[150.0]], 150),
        (dict(max_scale=200.0), [[900.0]], 200),
        (dict(max_scale=10.0), [[30.0]], 10),
        (dict(per_direction=True), [[30.0, 40.0]], 30),
        (dict(per_direction=True, edges=(("text", "audio", 1.0),)), [[30.0, 40.0]], 40),
        (
            dict(edges=(("audio", "audio", 1.0), ("audio", "text", 1.0))),
            [[30.0], [0.1]],
            1,
        ),
    ],
)
def test_similarities_are_scaled_as_in_training(model, options, learned, want):
    given = load(model)
    objective = dataclasses.replace(given.objective, **options)
    params = given.params | {"logit_scale": np.log(np.array(learned, np.float32))}
    changed = dataclasses.replace(given, objective=objective, params=params)
    assert changed.scale == pytest.approx(want, rel=1e-5)
    odds = changed.classify(sound(0, 1.0), ["dog bark", "rain"], RATE)
    scores = changed.embed_audio(sound(0, 1.0), RATE) @ changed.embed_labels(["dog bark", "rain"]).T
    ratio = np.exp(np.float64(want) * (scores[0] - scores[1]))
    assert odds[0] / odds[1] == pytest.approx(ratio, rel=1e-3)


def test_a_model_that_learns_no_scale_has_one(tmp_path):
    predictor = dict(kind="projectors:Laion", out=16)
    given = load(encoders.audio_text(tmp_path, kind="siamese", predictor=predictor))
    assert given.scale == 20


def test_what_a_model_does_not_have_is_said(model, tmp_path):
    encoders.save(encoders.encoder(frames=24), tmp_path, 1)
    with pytest.raises(
        ValueError, match="wanted a model of sound and words .*got an encoder of sound, which"
    ):
        audio_text.main(["--checkpoint", str(tmp_path), "--set", "synthetic"])
    given = load(model)
    words = {"text": given.objective.towers["text"]}
    silent = dataclasses.replace(
        given, objective=dataclasses.replace(given.objective, towers=words, edges=())
    )
    for asked in ("encoder", "rate"):
        with pytest.raises(ValueError, match="no audio tower, only text"):
            getattr(silent, asked)


def test_every_protocol_and_its_table(encoder, tmp_path):
    source = Synthetic(24, 0.4)
    records = audio_text.evaluate(encoder, source, order=True)
    assert [r["protocol"] for r in records] == ["template", "order"]
    assert 0 <= records[0]["accuracy"] < 0.6 and abs(records[1]["before"] - 0.5) <= 0.25
    lines = audio_text.table(records).splitlines()
    assert len(lines) == 4 and lines[0].startswith("| set | clips | protocol")
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", sound(ord(name), 0.5), RATE)
    rows = '{"path": "a.wav", "text": ["x", "y"]}\n{"path": "b.wav", "text": ["z", "a dog"]}\n'
    (tmp_path / "m.jsonl").write_text(rows)
    (found,) = audio_text.evaluate(encoder, Manifest(str(tmp_path / "m.jsonl")))
    assert found["protocol"] == "retrieval" and found["text_to_audio_R@5"] == 1


def test_search(model, encoder, tmp_path, capsys):
    pytest.importorskip("faiss", reason="pip install 'ssl_audio[search]'")
    place, where = tmp_path / "sounds", tmp_path / "index"
    place.mkdir()
    for seed in range(5):
        soundfile.write(place / f"{seed}.wav", sound(seed, 0.4 + seed / 2), RATE, subtype="FLOAT")
    (place / "broken.wav").write_bytes(b"nothing")
    (place / "gone.wav").symlink_to("/no/such/file.wav")
    with pytest.raises(ValueError, match="no index there"):
        search.Index(where)
    first = search.main(["index", "--checkpoint", str(model), "--index", str(where), str(place)])
    assert len(first) == sum(len(half_apart(len(sound(i, 0.4 + i / 2)), 8000)) for i in range(5))
    hits = search.main(
        ["query", "--index", str(where), "--audio", str(place / "0.wav"), "--top", "3"]
    )
    assert len(hits) == 3 and hits[0].path.endswith("0.wav") and hits[0].score > 0.999
    assert capsys.readouterr().out.splitlines()[-3].split()[-1].endswith("0.wav")
    assert len(search.main(["query", "--index", str(where), "a dog"])) == 5
    # Only what is new is read; what is gone leaves.
    (place / "0.wav").unlink()
    soundfile.write(place / "new.wav", sound(9, 0.4), RATE)
    read = []

    class Watched(AudioTextModel):
        def spans(self, clips):
            return super().spans(read.append(len(c)) or c for c in clips)

    watched = Watched(encoder.objective, encoder.params, encoder.config)
    second = indexing.build(watched, str(model.resolve()), where, [str(place)])
    assert read == [6400] and len(second) == len(first)
    paths = {hit.path for hit in second.query(encoder.embed_text("a dog"), 9)}
    assert len(paths) == 5 and not any(path.endswith("/0.wav") for path in paths)
