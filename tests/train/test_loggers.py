"""Loggers by name: what they get, that none can stop a run, and the real packages, offline."""

import json
import threading

import numpy as np
import pytest

from ssl_audio.storage import written
from ssl_audio.train import loggers
from ssl_audio.train.record import Record, Recorder


class Fake:
    """A logger that keeps what it is asked; of class attribute `broken`, it fails there."""

    package, extra, broken = "json", "fake", ""

    def __init__(self, workdir, start):
        self.seen = [("start", start)]
        type(self).last = self
        (workdir / "fake").mkdir(exist_ok=True)

    def __getattr__(self, name):
        if name not in ("config", "scalars", "figure", "close"):
            raise AttributeError(name)

        def note(*args):
            if name == self.broken:
                raise OSError(28, "No space left on device")
            self.seen.append((name, *args))

        return note

    @staticmethod
    def look(workdir):
        return f"fake show {workdir}"


class Broken(Fake):
    broken = "scalars"


class Stuck(Fake):
    def __init__(self, workdir, start):
        threading.Event().wait(20)  # as one that waits for a network


@pytest.fixture
def fakes(monkeypatch):
    known = {"fake": Fake, "broken": Broken, "stuck": Stuck, **loggers.LOGGERS}
    monkeypatch.setattr(loggers, "LOGGERS", known)
    return monkeypatch


def recorder(workdir, logger, **options):
    how = {"start": 0, "total": 9, "lead": True, **options}
    return Recorder(workdir, Record(logger=logger, progress=False), **how)


def test_names():
    assert loggers.names("wandb+tensorboard") == ("wandb", "tensorboard")
    assert loggers.names("none") == ()
    for wrong in ("", "wand", "none+wandb", "wandb+wandb", "wandb,mlflow"):
        with pytest.raises(ValueError, match="wanted tensorboard, wandb, mlflow or none"):
            Record(logger=wrong)


def test_a_missing_package_is_named_before_the_first_step(monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"mlflow needs a package: pip install 'ssl_audio\[mlflow\]'"
    ):
        Record(logger="mlflow").check()
    Record(logger="none").check()


def test_a_logger_gets_all_that_is_written(tmp_path, fakes, caplog):
    caplog.set_level("INFO", "ssl_audio")
    (tmp_path / "config.json").write_text('{"steps": 9}')
    with recorder(tmp_path, "fake", start=4) as made:
        made.log(5, {"loss": 2.0})
        made.log(5, {"accuracy": 0.5}, prefix="test/")
        made.pictures(5, {})
    seen = Fake.last.seen
    assert seen[:4] == [
        ("start", 4),
        ("config", {"steps": 9}),
        ("scalars", {"loss": 2.0}, 5),
        ("scalars", {"test/accuracy": 0.5}, 5),
    ]
    name, png, step = seen[4][1:]
    assert (seen[4][0], name, step) == ("figure", "curves", 5) and png.startswith(b"\x89PNG")
    assert seen[5:] == [("close", False)]
    assert f"to look at the run with fake: fake show {tmp_path}" in caplog.text
    assert loggers.look(tmp_path) == {"fake": f"fake show {tmp_path}"}


def test_a_run_that_fails_says_so(tmp_path, fakes):
    with pytest.raises(KeyError), recorder(tmp_path, "fake"):
        raise KeyError
    assert Fake.last.seen[-1] == ("close", True)


def test_a_logger_that_fails_is_warned_of_once_and_stops_nothing(tmp_path, fakes, caplog):
    with recorder(tmp_path, "broken+fake") as made:
        for step in (1, 2, 3):
            made.log(step, {"loss": 1.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [one[2] for one in Fake.last.seen if one[0] == "scalars"] == [1, 2, 3]
    (warning,) = [r.getMessage() for r in caplog.records]
    assert "broken: OSError: [Errno 28] No space left on device" in warning
    assert "metrics.jsonl has all numbers" in warning


@pytest.mark.parametrize("waiting", [2, 1000], ids=["full", "late"])
def test_a_run_does_not_wait_for_a_logger_that_hangs(tmp_path, fakes, caplog, waiting):
    fakes.setattr(loggers, "WAITING", waiting)
    fakes.setattr(loggers, "PATIENCE", 0.05)
    with recorder(tmp_path, "stuck") as made:
        for step in range(1, 6):
            made.log(step, {"loss": 1.0})
    (warning,) = [r.getMessage() for r in caplog.records]
    assert ("records behind" if waiting == 2 else "s after the run's end") in warning


def test_only_the_lead_writes(tmp_path, fakes):
    Fake.last = None
    with recorder(tmp_path, "fake", lead=False) as made:
        made.log(1, {"loss": 1.0})
    assert Fake.last is None and not (tmp_path / "metrics.jsonl").exists()


def test_tensorboard(tmp_path):
    (tmp_path / "config.json").write_text('{"steps": 9, "optim": {"lr": 0.1}}')
    with recorder(tmp_path, "tensorboard") as made:
        made.log(1, {"loss": 1.0})
        made.pictures(1, {})
    (file,) = (tmp_path / "tensorboard").glob("events*")
    written_there = file.read_bytes()
    for part in (b"loss", b"curves", b"optim.lr = 0.1", b"PNG"):
        assert part in written_there
    assert loggers.look(tmp_path)["tensorboard"].startswith("tensorboard --logdir ")


def test_configs_of_before_are_read():
    old = {"record": {"every": 5, "tensorboard": False}}
    assert written.upgraded(old)["record"] == {"every": 5, "logger": "none"}
    assert written.upgraded({"record": {"tensorboard": True}})["record"] == {
        "logger": "tensorboard"
    }
    new = {"record": {"logger": "wandb"}}
    assert written.upgraded(new) == new


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, of SQLAlchemy
def test_mlflow_goes_on_with_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip(
        "mlflow", reason="MLflow NOT tested: pip install 'ssl_audio[mlflow]'"
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for start, steps in ((0, "9"), (2, "12")):
        (tmp_path / "config.json").write_text(json.dumps({"steps": steps, "optim": {"lr": start}}))
        with recorder(tmp_path, "mlflow", start=start) as made:
            made.log(start + 1, {"text_to_audio_R@1": 1.0, "loss": float(start)})
            made.pictures(start + 1, {})
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow/runs.db")
    (experiment,) = client.search_experiments(filter_string="name = 'ssl_audio'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == tmp_path.name
    assert run.data.params == {"steps": "9", "optim.lr": "0"}  # MLflow's cannot change
    file = client.download_artifacts(run.info.run_id, "config.json")
    with open(file) as text:
        assert json.load(text)["steps"] == "12"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.0), (3, 2.0)]
    assert "text_to_audio_R_1" in run.data.metrics
    assert any("curves" in a.path for a in client.list_artifacts(run.info.run_id, "images"))
    assert loggers.look(tmp_path)["mlflow"].startswith("mlflow ui --backend-store-uri sqlite:")


def test_names_of_mlflow():
    """Paths of regexes among options, as `rates` has them, would be refused, and end the logger."""
    names = {
        "optim.rates.^head/": "optim.rates._head",
        "a//b/../c": "a/b/c",
        "/": "_",
        "text_to_audio_R@1": "text_to_audio_R_1",
        "x" * 300: "x" * 250,
    }
    assert {name: loggers._name(name) for name in names} == names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_takes_every_config(tmp_path, monkeypatch):
    mlflow = pytest.importorskip(
        "mlflow", reason="MLflow NOT tested: pip install 'ssl_audio[mlflow]'"
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    options = {"rates": {"positions/": 0.0, "^head/": 3.0}, "a//b": {"../c": ""}, "x" * 300: 1}
    (tmp_path / "config.json").write_text(json.dumps(options))
    with recorder(tmp_path, "mlflow") as made:
        made.log(1, {"loss": float("nan")})
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow/runs.db")
    run = client.get_run(json.loads((tmp_path / "mlflow/run.json").read_text())["id"])
    wanted = {"rates.positions": "0.0", "rates._head": "3.0", "a/b...": "", "x" * 250: "1"}
    assert run.info.status == "FINISHED" and len(run.data.params) == len(wanted)
    assert run.data.params.items() >= {k: v for k, v in wanted.items() if "a/" not in k}.items()


def test_wandb_goes_on_with_the_same_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb NOT tested: pip install 'ssl_audio[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "config.json").write_text('{"steps": 9}')
    for start in (0, 2):
        with recorder(tmp_path, "wandb", start=start) as made:
            made.log(start + 1, {"loss": float(start)})
            made.pictures(start + 1, {})
    name = json.loads((tmp_path / "wandb/run.json").read_text())["id"]
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert files and b"loss" in files[0].read_bytes()
    assert np.sum([f.stat().st_size > 500 for f in files]) == len(files)
    assert loggers.look(tmp_path)["wandb"] == f"wandb sync {tmp_path}/wandb/offline-run-*"
