"""What an evaluator needs is asked of its clips before step 1."""

import re

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data.source import Folder, Manifest
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import inputs
from ssl_audio.eval.classify import Classify


def folder(root, *labels):
    for label in labels:
        (root / label).mkdir(parents=True)
        soundfile.write(root / label / "0.wav", np.full(1600, 0.1), 16_000)
    return Folder(str(root))


def training(source, **entries):
    entries |= {"audio": {"kind": "entries:Audio", "samples": 1600}}
    made = config.build(
        {
            "kind": "pipeline",
            "batch_size": 2,
            "sources": {"a": {"kind": "synthetic"}},
            "entries": entries,
        },
        "data",
    )
    made.sources["a"] = source
    return made


LABEL = {"kind": "entries:Labels", "classes": 3}


def test_classes_that_differ_are_listed(tmp_path):
    train = training(folder(tmp_path / "train", "cat", "cow", "dog"), label=LABEL)
    inputs.check(folder(tmp_path / "same", "cat", "cow", "dog"), 3, train)
    fewer = folder(tmp_path / "fewer", "cat", "dog")  # here a dog would be number 1
    with pytest.raises(
        ValueError, match=re.escape("data.sources.a. Only here: none; only there: cow")
    ):
        inputs.check(fewer, 3, train)
    with pytest.raises(ValueError, match="Only here: ox; only there: cow"):
        inputs.check(folder(tmp_path / "other", "cat", "dog", "ox"), 3, train)
    inputs.check(fewer, 3, training(train.sources["a"]))  # nothing learns labels
    (tmp_path / "few.csv").write_text("path,label\nfewer/dog/0.wav,dog\n")
    inputs.check(Manifest(str(tmp_path / "few.csv"), labels=("cat", "cow", "dog")), 3, train)
    with pytest.raises(ValueError, match="the order differs"):
        inputs.check(Manifest(str(tmp_path / "few.csv"), labels=("cow", "cat", "dog")), 3, train)


def test_labels_that_are_missing_or_too_many_and_clips_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="has label 2, and there are 2 classes"):
        inputs.check(folder(tmp_path / "a", "cat", "cow", "dog"), 2)
    (tmp_path / "m.csv").write_text("path\na/cat/0.wav\n")
    with pytest.raises(ValueError, match="clip a/cat/0.wav has no label"):
        inputs.check(Manifest(str(tmp_path / "m.csv")), 2)
    (tmp_path / "m.csv").write_text("path,label\nx.wav,1\ny.wav,1\n")
    with pytest.raises(ValueError, match="no clip could be read: .*x.wav.*y.wav"):
        inputs.check(Manifest(str(tmp_path / "m.csv")), 2)


def test_a_classifier_needs_logits():
    class Other:
        def predictors(self):
            return {"embed": None}

    with pytest.raises(ValueError, match="Other has no predictor 'logits'"):
        Classify(Synthetic(2), 1600, 12).check(Other(), training(Synthetic(2)))
