"""Synthetic clips: captions from elements, pairs, filter and self-reflection, going on after a kill."""

import csv
from typing import Any

import numpy as np
import pytest
import soundfile

from ssl_audio.data import mixcap
from ssl_audio.data.mixcap import Elements
from ssl_audio.inference import augment

RATE = 8000


def test_elements_are_what_captions_say_beside_the_label():
    texts = [
        "A dog barks in a park while rain falls",
        "Dog barking and a car drives by, birds chirp.",
        "digit dog by jackson",
    ]
    found = mixcap.mined(texts, "dog")
    assert found.scenes == ("in a park", "by jackson")
    assert "rain falls" in found.events and "birds chirp" in found.events
    assert not [one for one in (*found.events, *found.scenes) if "dog" in one]
    assert mixcap.mined(["a dog in the dog house"], "dog") == Elements()


def test_captions_name_the_label_and_are_made_of_elements():
    elements = Elements(("rain falls", "a car passes", "birds chirp", "wind blows"), ("in a park",))
    found = mixcap.propose("dog", elements, 50, np.random.default_rng(0))
    assert found == mixcap.propose("dog", elements, 50, np.random.default_rng(0))
    assert all(text.startswith("Sound of a dog") for text in found)
    assert all(len(mixcap.words(text)) <= mixcap.MOST_WORDS for text in found)
    assert len(set(found)) > 20
    for text in found:
        own = mixcap.mined([text], "dog")
        assert 1 <= len(own.events) <= 2 and set(own.events) <= set(elements.events), text
        assert set(own.scenes) <= set(elements.scenes)
    assert any("in a park" in text for text in found) and not all("in a park" in t for t in found)
    assert mixcap.propose("dog", Elements(), 2, np.random.default_rng(0)) == ["Sound of a dog"] * 2


def test_reflection_keeps_what_was_accepted_and_leaves_out_what_never_was():
    accepted = ["Sound of a dog and rain falls in a park"] * 3 + ["Sound of a dog and wind blows"]
    rng = np.random.default_rng(0)
    texts = {
        mixcap.reflect("dog", accepted, "Sound of a dog and thunder roars in a cave", rng)
        for _ in range(40)
    }
    assert not [t for t in texts if "thunder" in t or "cave" in t]
    assert all("in a park" in t for t in texts)
    assert {mixcap.mined([t], "dog").events for t in texts} == {("rain falls",), ("wind blows",)}
    kept = mixcap.reflect("dog", accepted, "Sound of a dog and rain falls", rng)
    assert "rain falls" in kept
    assert mixcap.reflect("dog", [], "Sound of a dog and thunder roars", rng) == "Sound of a dog"


class Made:
    """Generates a tone for each text: its level says how good it is."""

    rate, batch_size = RATE, 4

    def __init__(self):
        self.asked = []

    def generate(self, texts, seconds=None, seed=0):
        """Return sounds."""
        self.asked += [(text, seed + i) for i, text in enumerate(texts)]
        return [np.full(80, 0.5 if "rain" in text else 0.1, np.float32) for text in texts]


def clips(folder):
    """Write three real clips and their table."""
    lines = []
    for i, (label, text) in enumerate((("dog", "a dog and rain falls"), ("dog", ""), ("cat", ""))):
        soundfile.write(folder / f"{i}.wav", np.full(80, 0.2), RATE)
        lines.append(f"{i}.wav,{label},{text}")
    (folder / "few.csv").write_text("path,label,text\n" + "\n".join(lines) + "\n")
    return augment.rows(folder / "few.csv")


def test_rows_without_a_label_or_a_file_are_named(tmp_path):
    clips(tmp_path)
    for line, said in (
        ("0.wav,", r"row 2 \(0.wav\) has no label"),
        ("9.wav,dog", "row 2: no such file"),
    ):
        (tmp_path / "odd.csv").write_text(f"path,label\n1.wav,dog\n{line}\n")
        with pytest.raises(ValueError, match=said):
            augment.rows(tmp_path / "odd.csv")


def test_pairs_prefer_each_real_clip_to_its_own_sounds(tmp_path):
    model, real = Made(), clips(tmp_path)
    found = augment.pairs(
        model, real, tmp_path / "made", template="Sound of a {}", rejected=2, seed=5
    )
    assert [row["text"] for row in found] == ["Sound of a dog", "Sound of a dog", "Sound of a cat"]
    files = [path for row in found for path in row["rejected"].split(";")]
    assert len(set(files)) == 6 and all(soundfile.info(path).samplerate == RATE for path in files)
    assert model.asked == [
        (row["text"], 5 + 2 * i + k) for i, row in enumerate(found) for k in (0, 1)
    ]


def test_only_what_is_missing_is_generated_again(tmp_path):
    model, texts = Made(), [f"text {i}" for i in range(10)]
    paths = augment.sounds(model, texts, tmp_path, 100)
    assert len(model.asked) == 10
    for i in (3, 4, 8):
        paths[i].unlink()
    again = Made()
    assert augment.sounds(again, texts, tmp_path, 100) == paths
    assert again.asked == [("text 3", 103), ("text 4", 104), ("text 8", 108)]
    silent: Any = type("Silent", (), {"offers": ("encode",)})()
    with pytest.raises(ValueError, match="generates sound .*got a Silent, which offers encode"):
        augment.sounds(silent, texts, tmp_path, 100)


def test_sounds_that_do_not_fit_are_asked_for_in_other_words(tmp_path):
    model, real = Made(), clips(tmp_path)
    asked = [
        {"path": real[0]["path"], "label": "dog", "text": text}
        for text in ("Sound of a dog and rain falls", "Sound of a dog and thunder roars")
    ]
    loud = lambda sound, label: float(np.abs(sound).max())  # noqa: E731
    options: Any = dict(threshold=0.3, template="Sound of a {}", seed=0)
    found = augment.filtered(model, loud, asked, tmp_path / "made", rounds=3, **options)
    assert [(row["round"], row["accepted"]) for row in found] == [
        ("0", "1"),
        ("0", "0"),
        ("1", "1"),
    ]
    assert "rain falls" in found[2]["text"] and "thunder" not in found[2]["text"]
    assert len({row["seed"] for row in found}) == 3 and found[2]["parent"] == real[0]["path"]
    once = augment.filtered(model, loud, asked, tmp_path / "once", rounds=0, **options)
    assert [row["accepted"] for row in once] == ["1", "0"]
    text = augment.table(found)
    assert len(list(csv.DictReader(text.splitlines()))) == 3


def test_captions_of_a_class_come_from_its_own_clips(tmp_path):
    real = clips(tmp_path)
    options: Any = dict(each=3, template="Sound of a {}", generic=False, seed=0)
    found = augment.captions(real, **options)
    assert len(found) == 9
    assert all("rain falls" in row["text"] for row in found[:6])  # both dogs
    assert all(row["text"] == "Sound of a cat" for row in found[6:])
    plain = augment.captions(real, **options, propose=None)
    assert {row["text"] for row in plain} == {"Sound of a dog", "Sound of a cat"}
    wild = augment.captions(real, **options | dict(generic=True))
    assert any(event in wild[-1]["text"] for event in mixcap.GENERIC.events)


def test_the_filter_is_named_by_what_the_model_offers():
    class Words:
        offers, scale = ("embed_audio", "embed_text"), 10.0

        def embed_text(self, text):
            assert text == "Sound of a dog"
            return np.array([1.0, 0.0])

        def embed_audio(self, sound, rate):
            return np.array([0.6, 0.8])

    name, score = augment.fitting(Words(), "Sound of a {}", RATE)
    assert name == "clap" and score(np.zeros(8), "dog") == pytest.approx(1 / (1 + np.exp(-6)))

    class Classifier:
        offers, labels = ("encode", "logits"), ("cat", "dog")

        def scores(self, sound, rate):
            return type("Scores", (), {"values": np.array([[0.2, 0.8], [0.4, 0.6]])})

    name, score = augment.fitting(Classifier(), "", RATE)
    assert name == "confidence" and score(np.zeros(8), "dog") == pytest.approx(0.7)
    with pytest.raises(ValueError, match="none of the filter"):
        score(np.zeros(8), "cow")
    with pytest.raises(
        ValueError, match="filter: wanted a model of sound and words, or a classifier"
    ):
        augment.fitting(type("Other", (), {"offers": ("encode",)})(), "", RATE)
