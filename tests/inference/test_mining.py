"""Captions mined by pictures."""

import json

import numpy as np
import pytest
import soundfile

from ssl_audio.data.source import Manifest
from ssl_audio.inference import mining, search

CAPTIONS = np.eye(6, dtype=np.float32)


def frame(*weights):
    found = np.zeros(6, np.float32)
    for place, weight in enumerate(weights):
        found[place] = weight
    return found / np.linalg.norm(found)


def test_the_union_over_frames_nearest_first():
    first = np.stack([frame(0.5, 1.0), frame(0, 0, 0, 9.0, 1.0)])
    assert mining.mine([first], CAPTIONS, top=2) == [[3, 1, 0, 4]]
    twice = np.stack([frame(0.5, 1.0), frame(0.4, 1.0)])
    assert mining.mine([twice], CAPTIONS, top=2) == [[1, 0]]
    assert mining.mine([first[:1], twice], CAPTIONS, top=1) == [[1], [1]]


def test_the_control_has_as_many_and_knows_nothing():
    frames = [np.stack([frame(1.0)])] * 300
    found = mining.mine(frames, CAPTIONS, top=2, random=3)
    assert {len(some) for some in found} == {2} and all(len(set(s)) == 2 for s in found)
    hits = np.bincount([i for some in found for i in some], minlength=6) / 600
    assert np.abs(hits - 1 / 6).max() < 0.05
    assert found == mining.mine(frames, CAPTIONS, top=2, random=3)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="wanted 1 to 6"):
        mining.mine([CAPTIONS[:1]], CAPTIONS, top=7)
    with pytest.raises(ValueError, match="clip 1 has none"):
        mining.mine([CAPTIONS[:1], CAPTIONS[:0]], CAPTIONS, top=1)


class Pivot:
    """Pictures are named after the caption that they show."""

    takes = ("image", "text")

    def embed_text(self, texts):
        return CAPTIONS[: len(texts)]

    def embed_image(self, pictures):
        return np.stack([CAPTIONS[int(path[-5])] for path in pictures])


def test_the_command_writes_the_same_table(tmp_path, monkeypatch, capsys):
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", np.full(160, 0.1), 16_000)
    (tmp_path / "t.csv").write_text("path,frame\n0.wav,1.png; 0.png\n1.wav,2.png\n")
    (tmp_path / "captions.txt").write_text("no\none\n\ntwo\none\n")
    pivot = Pivot()
    monkeypatch.setattr("ssl_audio.inference.load.load", lambda *_, **__: pivot)
    out = tmp_path / "mined.jsonl"
    given = ["mine", "--checkpoint=RUN", f"--manifest={tmp_path / 't.csv'}", "--column=frame"]
    given += [f"--captions={tmp_path / 'captions.txt'}", f"--output={out}", "--top=1"]
    assert search.main(given) == [[0, 1], [2]]
    assert "2 sounds, 1.5 captions each" in capsys.readouterr().out
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [
        ["no", "one"], ["two"],
    ]  # fmt: skip
    for name in ("t.csv", "captions.txt"):
        before = (tmp_path / name).read_text()
        with pytest.raises(ValueError, match="for something else, too, and would replace it"):
            search.main([*given, f"--output={tmp_path / name}"])
        assert (tmp_path / name).read_text() == before
    with monkeypatch.context() as patch:  # nothing is looked at before
        patch.setattr(pivot, "embed_image", None, raising=False)
        with pytest.raises(ValueError, match="top: got 4, wanted 1 to 3, the number of different"):
            search.main([*given, "--top=4"])
    pivot.takes = ("audio", "text")
    with pytest.raises(ValueError, match="wanted a model of pictures and words .*got a Pivot"):
        search.main(given)
    (tmp_path / "captions.txt").write_text("")
    with pytest.raises(ValueError, match=r"captions\.txt: got an empty file"):
        search.main(given)


def test_the_table_can_be_trained_on(tmp_path):
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", np.full(160, 0.1), 16_000)
    (tmp_path / "t.csv").write_text("path,image\n0.wav,1.png; 0.png\n1.wav,2.png\n")
    source = Manifest(str(tmp_path / "t.csv"))
    out = tmp_path / "mined.jsonl"
    found = mining.write(Pivot(), source, ["no", "one", "two", "one"], out, top=1)
    assert found == [[0, 1], [2]]
    assert json.loads(out.read_text().splitlines()[1])["text"] == ["two"]
    again = Manifest(str(out))
    assert [clip.text for clip in again.clips] == [("no", "one"), ("two",)]
    assert len(again[0]["audio"]) == 160
