"""Names of classes and paths in manifests and folders that are easily taken for something else."""

import logging

import numpy as np
import pytest
import soundfile

from ssl_audio.data import prepare
from ssl_audio.data.source import Folder, Manifest


def manifest(tmp_path, text, name="m.csv"):
    path = tmp_path / name
    path.write_text(text)
    return Manifest(str(path))


def sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(1600, 0.1, np.float32), 16_000)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "path,labels\na.wav,\"['dog', 'cat']\"\n", "line 2: labels: .* dog;cat"),
        ("m.jsonl", '{"path": "a.wav", "labels": {"dog": 1, "cat": 0}}\n', "line 1: labels"),
        ("m.jsonl", '{"path": "a.wav", "labels": [["dog"]]}\n', "line 1: labels"),
        ("m.jsonl", '{"path": ["a.wav"], "label": "dog"}\n', "line 1: path: wanted a text"),
    ],
)
def test_what_is_no_name_is_refused(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        len(manifest(tmp_path, text, name))


def test_numbers_of_json_are_one_class_however_they_are_written(tmp_path):
    lines = '{"path": "a.wav", "label": 1.0}\n{"path": "b.wav", "label": 1}\n'
    assert manifest(
        tmp_path, lines + '{"path": "c.wav", "label": NaN}\n', "m.jsonl"
    ).info.labels == ("1",)


def test_classes_that_pandas_made_floats_are_in_the_order_of_numbers(tmp_path):
    text = "path,label\na.wav,10.0\nb.wav,2.0\nc.wav,1.0\n"
    assert manifest(tmp_path, text).info.labels == ("1.0", "2.0", "10.0")


def test_a_bar_between_labels_is_warned_of(tmp_path, caplog):
    assert manifest(tmp_path, "path,labels\na.wav,dog|cat\n").info.labels == ("dog|cat",)
    assert "'|' does not separate" in caplog.text


def test_blanks_around_a_path_are_dropped_unless_they_are_in_the_name(tmp_path):
    sound(tmp_path / "a.wav")
    sound(tmp_path / " b.wav")
    source = manifest(tmp_path, "path,label\na.wav ,dog\n b.wav,dog\n")
    assert [len(source[i]["audio"]) for i in range(2)] == [1600, 1600]
    assert source.meta(0)["id"] == "a.wav"


def test_parts_beside_something_else_are_classes_and_told(tmp_path, caplog):
    for name in ("train/dog/1.wav", "test/dog/2.wav", "noise/3.wav"):
        sound(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        assert Folder(str(tmp_path)).info.labels == ("noise", "test", "train")
    assert "test, train look like parts" in caplog.text and "noise" in caplog.text


def test_a_way_to_mix_channels_that_does_not_exist_is_refused(tmp_path):
    sound(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="channels: got 'left'"):
        len(Folder(str(tmp_path), channels="left"))


def test_prepare_refuses_khz_and_other_channels_in_the_same_folder(tmp_path):
    sound(tmp_path / "in/a.wav")
    there = ["--source", "folder", "--root", str(tmp_path / "in"), "--output"]
    with pytest.raises(ValueError, match="16 Hz.*did you mean 16000"):
        prepare.main([*there, str(tmp_path / "out"), "--rate", "16"])
    prepare.main([*there, str(tmp_path / "out")])
    with pytest.raises(ValueError, match="channels None -> first"):
        prepare.main([*there, str(tmp_path / "out"), "--set", "channels=first"])
