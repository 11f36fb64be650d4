"""Own labels: parts that share no recording, the same ones every time; splits that the data has."""

import json
import logging

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data import division, shards
from ssl_audio.data.labelled import Labelled
from ssl_audio.data.prepare import prepare
from ssl_audio.data.source import Folder, Manifest, content
from ssl_audio.presets import own_labels

CLASSES = ("cat", "dog", "owl")


def table(folder, rows, columns="path,label"):
    path = folder / "list.csv"
    path.write_text("\n".join([columns, *rows]), encoding="utf-8")
    return Manifest(str(path))


def plain(folder, count=30):
    return table(folder, [f"{i}.wav,{CLASSES[i % 3]}" for i in range(count)])


def ids(source):
    return {source.meta(i)["id"] for i in range(len(source))}


def test_parts_are_disjoint_stratified_and_the_same_every_time(tmp_path):
    source = plain(tmp_path)
    train, held = (Labelled(source, part) for part in ("train", "validation"))
    assert (len(train), len(held)) == (24, 6) and not ids(train) & ids(held)
    assert held.found.counts["validation"].tolist() == [2, 2, 2] and held.info.labels == CLASSES
    assert content(held) == content(Labelled(plain(tmp_path), "validation"))
    meta = held.meta(0)
    assert (
        meta["split"] == "validation"
        and CLASSES[meta["label"]] == CLASSES[int(meta["id"][:-4]) % 3]
    )
    # More clips move few of the others.
    more = Labelled(plain(tmp_path, 33), "validation")
    assert len(ids(more) & ids(held)) >= 5


def test_the_built_config_survives_json(tmp_path):
    source = dict(kind="source:Manifest", path=plain(tmp_path).path)
    options = json.loads(json.dumps(dict(kind="labelled", source=source, part="train", by=[])))
    assert len(config.build(options, "data")) == 24
    with pytest.raises(ValueError, match="part: got 'training'"):
        config.build(options | dict(part="training"), "data")


@pytest.mark.parametrize("column", ["recording", "Speaker", "my own"])
def test_a_recording_is_in_one_part(tmp_path, column):
    rows = [f"{i}.wav,{CLASSES[i % 3]},r{i // 5}" for i in range(60)]
    by = (column,) if column == "my own" else ()
    found = Labelled(table(tmp_path, rows, f"path,label,{column}"), by=by).found
    recording = {name: {int(row) // 5 for row in rows} for name, rows in found.parts.items()}
    assert not recording["train"] & recording["validation"] and found.groups == column
    assert 6 <= len(found.parts["validation"]) <= 18 and found.counts["validation"].all()


def test_stretches_of_a_file_are_in_one_part(tmp_path):
    rows = [f"{i // 4}.wav,{i % 4},{i % 4 + 1},{CLASSES[i % 3]}" for i in range(48)]
    found = Labelled(table(tmp_path, rows, "path,start,end,label")).found
    files = {name: {int(row) // 4 for row in rows} for name, rows in found.parts.items()}
    assert found.groups == "file" and files["validation"]
    assert not files["train"] & files["validation"]


def test_rows_of_the_same_clip_are_one_with_several_labels(tmp_path):
    rows = ["a.wav,dog", "b.wav,cat", "a.wav,cat", "b.wav,cat", "c.wav,", "d.wav,dog"]
    source = Labelled(table(tmp_path, rows), share=0)
    assert source.info.multilabel and len(source) == 3
    assert [source.meta(i)["label"] for i in range(3)] == [(0, 1), (0,), (1,)]
    assert any("1 of 6 clips have no label" in note for note in source.found.notes)
    assert any("2 rows name a clip" in note for note in source.found.notes)
    codes, values = source.coded_labels()
    assert [values[code] for code in codes] == [(0, 1), (0,), (1,)]
    # In a column of several labels, none is an answer too.
    rows = ["a.wav,dog;cat", "b.wav,", "c.wav,cat"]
    source = Labelled(table(tmp_path, rows, "path,labels"), share=0)
    assert [source.meta(i)["label"] for i in range(3)] == [(0, 1), (), (0,)]


def test_splits_of_the_data_are_obeyed(tmp_path):
    rows = [
        f"{i}.wav,{CLASSES[i % 3]},{('train', 'train', 'val', 'TEST')[i % 4]}" for i in range(48)
    ]
    found = Labelled(table(tmp_path, rows, "path,label,split")).found
    assert found.given == ("train", "validation", "test")
    assert {i % 4 for i in found.parts["validation"]} == {2}
    assert {i % 4 for i in found.parts["test"]} == {3}
    # Of those for training some are held out where only the test is named.
    for name in ("train", "test"):
        for label in CLASSES:
            for i in range(5):
                path = tmp_path / "tree" / name / label / f"{i}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    found = Labelled(Folder(str(tmp_path / "tree"))).found
    assert {name: len(rows) for name, rows in found.parts.items()} == dict(
        train=12, validation=3, test=15
    )
    odd = [f"{i}.wav,{CLASSES[i % 3]},{'ab'[i % 2]}" for i in range(6)]
    with pytest.raises(ValueError, match="split 'a', 'b': wanted train, validation, test"):
        len(Labelled(table(tmp_path, odd, "path,label,split")))


def test_rows_that_contradict_each_other_are_told_of(tmp_path):
    rows = [f"{i}.wav,{'ab'[i % 2]},{'test' if i > 7 else 'train'}" for i in range(10)]
    found = Labelled(
        table(tmp_path, [*rows, "2.wav,a,test", "3.wav,b,train"], "path,label,split")
    ).found
    said = " ".join(found.notes)
    assert (
        "1 clips have rows with different entries in 'split', as 2.wav: that of the first" in said
    )
    assert len(found.parts["test"]) == 2
    assert "different" not in " ".join(
        Labelled(table(tmp_path, rows, "path,label,split")).found.notes
    )


def test_a_fold_is_the_test(tmp_path):
    rows = [f"{i}.wav,{CLASSES[i % 3]},{i % 5 + 1}" for i in range(60)]
    source = table(tmp_path, rows, "path,label,fold")
    found = Labelled(source, fold=2).found
    assert {i % 5 for i in found.parts["test"]} == {1} and len(found.parts["test"]) == 12
    with pytest.raises(ValueError, match="fold 9 cannot be the test: its folds are"):
        len(Labelled(source, fold=9))


def test_few_clips(tmp_path):
    rows = ["a.wav,cat", "b.wav,dog", "c.wav,dog", "d.wav,owl", "e.wav,owl", "f.wav,owl"]
    found = Labelled(table(tmp_path, rows)).found
    assert found.counts["train"].all()  # the only clip of a class is for training
    assert found.counts["validation"].tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="two classes or more; all 2 clips are of one: 'cat'"):
        len(Labelled(table(tmp_path, ["a.wav,cat", "b.wav,cat"])))
    with pytest.raises(ValueError, match="all 2 clips are of one: 'cat'"):
        len(Labelled(table(tmp_path, ["a.wav,cat", "b.wav,cat"], "path,labels")))
    only = Labelled(table(tmp_path, ["a.wav,cat", "b.wav,"], "path,labels"), share=0)
    assert len(only) == 2 and "split" not in only.meta(0)
    with pytest.raises(ValueError, match="none of its 2 clips has a label"):
        len(Labelled(table(tmp_path, ["a.wav,", "b.wav,"])))


def test_groups_that_share_an_entry_are_one():
    keys = [["a", "b", None, "b", ""], [1, 2, 3, 3, 4]]
    assert division.together(keys, 5).tolist() == [0, 1, 1, 1, 2]
    rng = np.random.default_rng(0)
    labels = [tuple(rng.choice(6, rng.integers(0, 3), replace=False).tolist()) for _ in range(300)]
    groups = rng.integers(0, 40, 300)
    out = division.held_out(labels, groups, [str(i) for i in range(300)], 0.2)
    assert not set(groups[out]) & set(groups[~out]) and 0.1 < out.mean() < 0.35
    left = {n for some, o in zip(labels, out, strict=True) if not o for n in some}
    assert left == set(range(6))


def test_names_that_are_nearly_alike_and_missing_files_are_told_of(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    rows = [
        f"{i}.wav,{name}" for i, name in enumerate(["Dog", "dog", "sea waves", "sea_waves"] * 5)
    ]
    source = table(tmp_path, rows)
    whole = Labelled(source)
    own_labels.warn_of_names(whole.info.labels, whole.found)
    assert "'Dog' (5 clips), 'dog' (5 clips)" in caplog.text and "'sea waves'" in caplog.text
    for i in range(19):
        (tmp_path / f"{i}.wav").touch()
    own_labels.check_files(source, 0.01, "list.csv")
    assert "1 of 20 files are missing" in caplog.text and "19.wav" in caplog.text
    (tmp_path / "0.wav").unlink()
    with pytest.raises(ValueError, match=r"2 of 20 files are missing: .*0.wav, .*max_bad_share"):
        own_labels.check_files(source, 0.01, "list.csv")


def test_shards_keep_recordings_together(tmp_path):
    clips = dict(
        id=[f"{i}" for i in range(20)], label=[i % 2 for i in range(20)], split=[None] * 20,
        fold=[None] * 20, columns=[{"recording": f"r{i // 4}"} for i in range(20)],
    )  # fmt: skip
    info = dict(name="mine", labels=["a", "b"])
    index = dict(version=1, rate=16_000, info=info, clips=clips, shards=[])
    index["shards"] = [dict(file="0.array_record", count=20)]
    (tmp_path / shards.INDEX).write_text(json.dumps(index))
    found = Labelled(shards.Shards(str(tmp_path))).found
    recording = {name: {int(row) // 4 for row in rows} for name, rows in found.parts.items()}
    assert found.groups == "recording" and recording["validation"]
    assert not recording["train"] & recording["validation"]


def test_shards_of_excerpts_have_the_parts_of_their_table(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 3)
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", noise, 16_000)
    rows = [f"{i}.wav,{s},{s + 1},{'ab'[(s + i) % 2]}" for i in range(8) for s in range(3)]
    source = table(tmp_path, rows, "path,start,end,label")
    made = prepare(source, tmp_path / "shards")
    found, wanted = Labelled(made).found, Labelled(source).found
    assert found.groups == wanted.groups == "file" and found.part_of == wanted.part_of
    whole = table(tmp_path, [f"{i}.wav,{'ab'[i % 2]}" for i in range(8)])
    for given, seconds in ((made, 0.4), (whole, 1.0)):  # of excerpts, of whole files
        cut = prepare(given, tmp_path / f"cut{seconds:g}", seconds=seconds)
        parts = {
            n: {cut.meta(int(i))["id"][0] for i in p} for n, p in Labelled(cut).found.parts.items()
        }
        assert parts["validation"] and not parts["train"] & parts["validation"]
    assert "path" not in prepare(whole, tmp_path / "plain").columns.arrays


def test_shards_that_do_not_know_their_recordings_say_so(tmp_path):
    source = table(
        tmp_path, [f"{i}.wav,{s},{'ab'[s]}" for i in range(6) for s in (0, 1)], "path,start,label"
    )
    soundfile.write(tmp_path / "0.wav", np.zeros(32_000), 16_000)
    for i in range(1, 6):
        (tmp_path / f"{i}.wav").symlink_to("0.wav")
    prepare(source, tmp_path / "shards")
    index = json.loads((tmp_path / "shards" / shards.INDEX).read_text())
    for name in ("path", "start", "end"):  # an earlier version did not write them
        del index["clips"][name]
    (tmp_path / "shards" / shards.INDEX).write_text(json.dumps(index))
    notes = Labelled(shards.Shards(str(tmp_path / "shards"))).found.notes
    assert "12 clips are, by their names, of 6 recordings" in " ".join(notes)
