"""Audio and text in one space, used: the same vectors always, labels in words, search of a folder."""

import dataclasses

import jax
import numpy as np
import pytest
import soundfile

from ssl_audio import config, load
from ssl_audio.data.source import Manifest
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import audio_text
from ssl_audio.inference import search
from ssl_audio.inference.audio_text import JointEncoder, windows
from ssl_audio.presets import audio_text as presets
from ssl_audio.storage import exported

RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the folder of a small audio-text model that has learned nothing."""
    loss = dict(temperature=0.07, max_scale=100.0, per_direction=False, positives="pairs")
    options = presets.laptop(
        kind="contrastive", root="", fold=5, encoder="cnn", text="words", out=16, **loss
    )
    presets.runlocal(options)
    options.data.samples = 8_000
    options.objective.towers.audio.encoder.channels = (8,)
    options.objective.towers.audio.pool.kind = "pools:Mean"
    options.objective.towers.text.pool.kind = (
        "pools:Flat"  # whose width hangs on the length of texts
    )
    options = config.plain(options)
    objective = config.build(options["objective"], "objectives")
    blank = JointEncoder.of(objective, {}, options).blank()
    params = jax.jit(objective.init)(jax.random.key(0), blank)[0]
    return exported.write(
        tmp_path_factory.mktemp("model"), jax.tree.map(np.asarray, params), options
    )


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


def test_windows_cover_a_clip_from_begin_to_end():
    audio = np.arange(25, dtype=np.float32)
    cut = list(windows(audio, 10, "zeros"))
    assert [start for start, _, _ in cut] == [0, 5, 10, 15]
    assert all(np.array_equal(piece, audio[start : start + 10]) for start, piece, _ in cut)
    ((start, piece, length),) = windows(audio[:3], 10, "repeatpad")
    assert piece.tolist() == [0, 1, 2] * 3 + [0] and (start, length) == (0, 9)
    ((_, piece, length),) = windows(audio[:3], 10, "join")
    assert length == 10


def test_labels_in_words(encoder, tmp_path):
    odds = encoder.classify(sound(0, 1.0), ["dog_bark", "rain"], RATE)
    assert odds.shape == (2,) and odds.sum() == pytest.approx(1)
    soundfile.write(tmp_path / "a.wav", sound(0, 1.0), RATE, subtype="FLOAT")
    same = encoder.classify([tmp_path / "a.wav"] * 2, ["dog_bark", "rain"])
    np.testing.assert_allclose(same, [odds, odds], rtol=1e-5)
    with pytest.raises(ValueError, match="say the rate of the waveform"):
        encoder.classify(sound(0, 1.0), ["rain"])
    with pytest.raises(ValueError, match="wanted a text or a list"):
        encoder.embed_text([])


def test_a_tower_without_patches_gives_features_by_windows(encoder):
    clips = [sound(i, seconds) for i, seconds in enumerate((0.3, 1.2))]
    found = encoder.embed(clips, RATE)
    assert found.shape == (2, 8) and encoder.num_layers == 0 and encoder.rows == 1
    assert np.array_equal(found[1], encoder.embed(clips[1], RATE))
    blank = dataclasses.replace(encoder, params=jax.tree.map(np.zeros_like, encoder.params))
    assert not np.allclose(found, blank.embed(clips, RATE))
    with pytest.raises(ValueError, match="Cnn: this audio tower has no features along time"):
        encoder.frames(clips[0], RATE)


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
    with pytest.raises(ValueError, match="no index there"):
        search.Index(where)
    first = search.main(["index", "--checkpoint", str(model), "--index", str(where), str(place)])
    assert len(first) == sum(
        len(list(windows(sound(i, 0.4 + i / 2), 8000, "zeros"))) for i in range(5)
    )
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

    class Watched(JointEncoder):
        def spans(self, clips):
            return super().spans(read.append(len(c)) or c for c in clips)

    watched = Watched.of(encoder.joint, encoder.joint_params, encoder.config)
    second = search.build(watched, str(model.resolve()), where, [str(place)])
    assert read == [6400] and len(second) == len(first)
    paths = {hit.path for hit in second.query(encoder.embed_text("a dog"), 9)}
    assert len(paths) == 5 and not any(path.endswith("/0.wav") for path in paths)
