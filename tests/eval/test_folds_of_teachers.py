"""Folds of a method whose predictions need more than parameters."""

import pytest
from published import load
from reference import ROOT

from ssl_audio.eval import folds
from ssl_audio.eval.classify import Classify
from ssl_audio.storage import checkpoint
from ssl_audio.train import loop


def test_a_fold_is_scored_with_the_teacher(tmp_path, monkeypatch):
    class Scored(Exception):
        pass

    def predict(self, objective, params, extra, mesh):
        assert (params, extra) == ("params", {"teacher": "teacher"})
        raise Scored

    monkeypatch.setattr(loop, "train", lambda options, workdir: None)
    monkeypatch.setattr(checkpoint, "steps", lambda workdir: [4])
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir, step: ("params", {}))
    monkeypatch.setattr(checkpoint, "load_extra", lambda workdir, names: {n: n for n in names})
    monkeypatch.setattr(Classify, "predict", predict)
    options = load(ROOT / "configs/semi_supervised.py", "runlocal,method=mean_teacher")
    with pytest.raises(Scored):
        folds._fold(options, tmp_path, tmp_path / "done.json")
    options.checkpoint.best = "test/accuracy"
    with pytest.raises(ValueError, match="checkpoint.best: MeanTeacher predicts with teacher"):
        folds._fold(options, tmp_path, tmp_path / "done.json")
