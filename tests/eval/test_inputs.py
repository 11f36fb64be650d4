"""What an evaluator needs is asked of its clips before step 1."""

import dataclasses

import numpy as np
import pytest
import soundfile

from ssl_audio import config, config_files
from ssl_audio.data.source import Folder, Manifest
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import inputs
from ssl_audio.eval.classify import Classify
from ssl_audio.eval.held_out import HeldOut
from ssl_audio.train.run import Run


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


def run(train, **evals):
    made = config_files.load("finetune:runlocal")
    made = config.make(Run, made)
    return dataclasses.replace(made, data=train, evals=evals)


def test_classes_are_numbered_by_the_names_of_training(tmp_path):
    train = training(folder(tmp_path / "train", "cat", "cow", "dog"), label=LABEL)
    fewer = Classify(folder(tmp_path / "fewer", "cat", "dog"), 1600, 3)  # here a dog is number 1
    found = run(train, test=fewer, loss=HeldOut(training(fewer.source, label=LABEL))).numbered()
    assert [found.evals["test"].source.meta(i)["label"] for i in range(2)] == [0, 2]
    (held_out,) = found.evals["loss"].data.sources.values()
    assert held_out.meta(1)["label"] == 2 and held_out.info.labels == ("cat", "cow", "dog")
    other = Classify(folder(tmp_path / "other", "cat", "ox"), 1600, 3)
    with pytest.raises(ValueError, match="config.evals.test: other: classes 'ox' are not among"):
        run(train, test=other).numbered()
    unlabelled = run(training(train.sources["a"]), test=other)  # nothing learns labels
    assert unlabelled.numbered().evals == unlabelled.evals
    missing = Classify(Manifest(str(tmp_path / "none.csv")), 1600, 3)
    with pytest.raises(ValueError, match="config.evals.test: .*none.csv"):
        run(train, test=missing).numbered()


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
