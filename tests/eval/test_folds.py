"""`folds`: scores of a fold that is done are those of the config that is asked for."""

import json

import pytest
from published import load
from reference import ROOT

from ssl_audio import config
from ssl_audio.eval import folds

CONFIG = ROOT / "configs/finetune.py"


def options(more="", **changes):
    made = config.plain(load(CONFIG, f"task=esc10,root=DATA,size=tiny,encoder=ssast{more}"))
    made["optim"] |= changes
    return made


@pytest.fixture
def done(tmp_path):
    """Return the workdir of a fold that is done, as training and `folds` leave it."""
    told = options()
    told["data"]["entries"]["label"]["names"] = [f"class {i}" for i in range(10)]
    (tmp_path / "config.json").write_text(json.dumps(told))
    (tmp_path / "result.json").write_text(json.dumps({"last": {"accuracy": 0.5}}))
    return tmp_path


def test_scores_of_another_config_are_refused(done):
    for made, wrong in (
        (options(lr=1e-2), "optim.lr: 0.0007, now 0.01"),
        (options(",fold=2"), "data.sources.0.folds: .*; evals.test.source.folds"),
        (options() | {"steps": "99ep"}, "steps: '10ep', now '99ep'"),
    ):
        with pytest.raises(ValueError, match=f"the scores of a run of another config.*{wrong}"):
            folds.fold(made, done)


def test_scores_are_kept_where_nothing_changed_that_matters(done):
    moved = json.loads(json.dumps(options()).replace('"DATA"', '"ELSEWHERE"'))
    moved["data"]["sources"] = {"elsewhere": moved["data"]["sources"]["esc10"]}
    assert "ELSEWHERE" in json.dumps(moved)
    quiet = options() | {"record": {"logger": "none"}, "eval_every": "0"}
    for made in (options(), moved, quiet):
        assert folds.fold(made, done) == {"last": {"accuracy": 0.5}}
