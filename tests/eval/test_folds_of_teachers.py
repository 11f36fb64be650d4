"""Folds of a method whose predictions need more than parameters."""

import numpy as np
from published import load
from reference import ROOT

from ssl_audio.eval import folds
from ssl_audio.eval.classify import Classify, Predictions
from ssl_audio.storage import checkpoint
from ssl_audio.train import loop


def test_a_fold_is_scored_with_the_teacher(tmp_path, monkeypatch):
    seen = []

    def predict(self, objective, params, extra, mesh):
        seen.append((params, extra))
        return Predictions(np.array(["a", "b", "c"]), np.eye(3), np.eye(3))

    monkeypatch.setattr(loop, "train", lambda options, workdir: None)
    monkeypatch.setattr(checkpoint, "steps", lambda workdir: [4])
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir, step: (f"params {step}", {}))
    monkeypatch.setattr(
        checkpoint, "load_extra", lambda workdir, names, step: {n: f"{n} {step}" for n in names}
    )
    monkeypatch.setattr(Classify, "predict", predict)
    options = load(ROOT / "configs/semi_supervised.py", "runlocal,method=mean_teacher")
    folds._fold(options, tmp_path, tmp_path / "done.json")
    assert seen == [("params None", {"teacher": "teacher None"})]
    options.checkpoint.best = "test/accuracy"
    folds._fold(options, tmp_path, tmp_path / "done.json")
    assert seen[1:] == [
        (f"params {step}", {"teacher": f"teacher {step}"}) for step in (None, "best")
    ]
