import json
import pickle
import sys

import numpy as np
import pytest
import soundfile

from ssl_audio.data import prepare as verb
from ssl_audio.data import tfds
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.entries import Audio, Labels
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.source import Manifest
from ssl_audio.data.synthetic import Synthetic


def test_a_written_dataset_reads_back(tmp_path):
    source = Synthetic(24, seconds=0.1)
    made = tfds.write(source, "toy_sounds", str(tmp_path))
    made = pickle.loads(pickle.dumps(made))
    assert len(made) == 24 and made.info.labels == source.info.labels
    assert made.info.licence == "CC0 1.0" and made.info.name == "toy_sounds"
    rows = {source.meta(i)["id"]: i for i in range(24)}
    for i in range(24):
        example = made[i]
        original = source[rows[example["id"]]]
        assert (example["label"], example["fold"]) == (original["label"], original["fold"])
        np.testing.assert_allclose(example["audio"], original["audio"], atol=1.01 / 32768)
        assert made.meta(i) == {k: v for k, v in example.items() if k != "audio"}
    by_name = tfds.Tfds("toy_sounds", data_dir=str(tmp_path), folds=(2,), rate=8000)
    assert len(by_name) == 12 and by_name[0]["audio"].size == 800 and by_name[0]["fold"] == 2
    pipeline = Pipeline({"t": made}, 4, dict(audio=Audio(1600), label=Labels(12)))
    batches = pipeline.batches()
    assert next(batches)["label"].sum() == 4
    batches.close()


def test_splits_texts_and_several_labels(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(800, 0.25), 16_000)
    rows = [
        {"path": "a.wav", "id": f"{s}{i}", "labels": some, "text": "é", "split": s}
        for s in ("train", "test")
        for i, some in enumerate((["x", "y"], ["y"]))
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["--source=manifest", f"--root={tmp_path / 'm.jsonl'}", "--tfds=few"]
    verb.main([*command, f"--output={tmp_path / 'data'}"])
    test = tfds.Tfds("few", split="test", data_dir=str(tmp_path / "data"))
    assert test.info.multilabel and test.info.labels == ("x", "y")
    assert {test.meta(i)["id"]: test.meta(i)["label"] for i in (0, 1)} == {
        "test0": (0, 1),
        "test1": (1,),
    }
    assert test.meta(0)["text"] == "é" and test.meta(0)["split"] == "test"
    assert len(tfds.Tfds("few", split="train+test", data_dir=str(tmp_path / "data"))) == 4
    assert Manifest(str(tmp_path / "m.jsonl"), split="test").info.labels == test.info.labels


def test_samples_of_another_scale_are_refused(tmp_path, monkeypatch):
    made = tfds.write(Synthetic(1, seconds=0.1), "toy_sounds", str(tmp_path))
    row = made._row(0)[1]
    wave = np.tile([0, 0.5, 0, -0.5], 400)

    def read(audio):
        monkeypatch.setattr(tfds.Tfds, "_row", lambda self, i: (i, row | {"audio": audio}))
        return made[0]["audio"]

    for kind, scale in (("int16", 2**15), ("int64", 2**15), ("float32", 1), ("float64", 1)):
        np.testing.assert_array_equal(read((wave * scale).astype(kind)), wave.astype(np.float32))
    for kind, scale, wanted in (
        ("int64", 2**31, "clip 0: int64 from -1073741824 to 1073741824, wanted whole numbers on"),
        ("int32", 2**23, "int32 from -4194304 to 4194304"),
        ("uint8", 2**6, "uint8 from 0 to "),
        ("float32", 2**15, "samples reach 1.638e.04, wanted .* in the range of int16"),
    ):
        with pytest.raises(DecodeError, match=wanted):
            read(
                (wave * scale).astype(kind)
                if kind != "uint8"
                else (wave * scale + 128).astype(kind)
            )


def test_a_missing_dataset_is_named(tmp_path):
    with pytest.raises(ValueError, match="no prepared dataset in nothing or"):
        len(tfds.Tfds("nothing", data_dir=str(tmp_path)))


def test_stock_builders_name_the_extra_they_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        ImportError, match=r"spoken_digit needs TensorFlow: pip install 'ssl_audio\[tf\]'"
    ):
        verb.main(["--source=tfds:spoken_digit", f"--output={tmp_path / 'out'}"])
