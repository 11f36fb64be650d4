import json
import pickle

import numpy as np
import pytest
import soundfile

from ssl_audio.data.source import Folder, Manifest


def sound(path, seconds=0.1, rate=16_000, level=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), level), rate, format=path.suffix[1:])
    return path


def test_a_folder_is_read_sorted_and_labelled_by_sub_folder(tmp_path):
    for name in ("b/2.wav", "b/deep/1.FLAC", "a/x.Ogg", "a/.hidden.wav", "top.wav"):
        sound(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no sound")
    source = Folder(str(tmp_path), rate=8000)
    ids = [source.meta(i)["id"] for i in range(len(source))]
    assert ids == ["a/x.Ogg", "b/2.wav", "b/deep/1.FLAC", "top.wav"]
    assert source.info.labels == ("a", "b")
    assert [source.meta(i).get("label") for i in range(4)] == [0, 1, 1, None]
    example = pickle.loads(pickle.dumps(source))[1]
    assert example["audio"].shape == (800,) and example["rate"] == 8000 and example["label"] == 1


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"Folder\.root: no such folder: .*nowhere"):
        len(Folder(str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match=f"no audio file under {tmp_path}"):
        len(Folder(str(tmp_path)))


def test_a_csv_manifest(tmp_path):
    wave = np.arange(16_000) / 32768
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="PCM_16")
    (tmp_path / "m.csv").write_text(
        "path,start,end,label,fold,split,text\n"
        'a.wav,,,10,1,train,"hello, you"\n'
        "a.wav,0.5,0.75,9,2,test,\n"
    )
    source = Manifest(str(tmp_path / "m.csv"))
    assert source.info.labels == ("9", "10") and not source.info.multilabel
    first, second = source[0], source[1]
    assert first["text"] == "hello, you" and first["label"] == 1 and first["id"] == "a.wav"
    np.testing.assert_array_equal(second["audio"], first["audio"][8000:12_000])
    assert second["id"] == "a.wav#0.5" and "text" not in second
    only = Manifest(str(tmp_path / "m.csv"), split="test")
    assert len(only) == 1 and only.meta(0)["label"] == 0
    assert Manifest(str(tmp_path / "m.csv"), folds=(1,)).meta(0)["fold"] == 1
    named = Manifest(str(tmp_path / "m.csv"), labels=("10", "8", "9"))
    assert [named.meta(i)["label"] for i in (0, 1)] == [0, 2]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_several_labels(tmp_path, kind):
    sound(tmp_path / "audio" / "a.wav")
    path = tmp_path / f"m.{kind}"
    if kind == "csv":
        path.write_text("path,labels\na.wav,dog; cat\na.wav,\na.wav,cat\n")
    else:
        rows = [{"path": "a.wav", "labels": some} for some in (["dog", "cat"], [], ["cat"])]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    source = Manifest(str(path), root=str(tmp_path / "audio"))
    assert source.info.multilabel and source.info.labels == ("cat", "dog")
    assert [source.meta(i)["label"] for i in range(3)] == [(0, 1), (), (0,)]
    assert source[2]["audio"].shape == (1600,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("path,label\n", "no rows"),
        ("file,label\na.wav,1\n", "line 1: no column 'path'; the columns are file, label"),
        ("path,fold\na.wav,1\na.wav,one\n", "line 3: fold: got 'one', wanted a whole number"),
        ("path,start\na.wav,x\n", "line 2: start: got 'x', wanted a finite number"),
        ("path,label\n,x\n", "line 2: no 'path'"),
    ],
)
def test_a_faulty_manifest_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"m.csv.*{message}"):
        len(Manifest(str(path)))


def test_a_faulty_json_line_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"path": "a.wav"}\n{"path": \n')
    with pytest.raises(ValueError, match=r"m\.jsonl, line 2: not JSON"):
        len(Manifest(str(path)))


def test_unknown_splits_and_labels_list_what_there_is(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,label,split\na.wav,dog,train\n")
    with pytest.raises(ValueError, match="split='tset'.*splits are train"):
        len(Manifest(str(path), split="tset"))
    with pytest.raises(ValueError, match="line 2: label 'dog' is not one of"):
        len(Manifest(str(path), labels=("cat",)))


def test_one_split_of_a_folder(tmp_path):
    for name in ("train/a/1.wav", "train/b/2.wav", "test/a/3.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(100), 16_000)
    some = Folder(str(tmp_path), split="test")
    assert [some.meta(i)["id"] for i in range(len(some))] == ["test/a/3.wav"]
    assert some.info.labels == ("a", "b")
    with pytest.raises(ValueError, match="no clip has split='dev'"):
        len(Folder(str(tmp_path), split="dev"))
