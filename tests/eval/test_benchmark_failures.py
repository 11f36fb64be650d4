"""`ssl-audio benchmark` goes on after a broken checkpoint and after a task that fails, and says so."""

import json

import encoders
import pytest

from ssl_audio.eval import benchmark, benchmark_table, tasks
from ssl_audio.eval.protocols import Linear
from ssl_audio.storage import exported


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a folder with a model that is `whole`, one that is `damaged`, and a file."""
    made = tmp_path_factory.mktemp("models")
    model = encoders.encoder(frames=24)
    for name in ("whole", "damaged"):
        exported.write(made / name, model.params, model.config)
    place = made / "damaged/model.safetensors"
    place.write_bytes(place.read_bytes()[:100])
    (made / "file").write_text("no model")
    return made


def compared(tmp_path, *argv):
    """Run the command; return the message of its end and the records by model and task."""
    with pytest.raises(SystemExit) as ended:
        benchmark.main([*argv, "--output", str(tmp_path / "out"), "--most", "60"])
    lines = (tmp_path / "out/results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return str(ended.value), {(r["name"], r["task"]): r for r in records}


def test_a_broken_checkpoint_is_named_and_the_others_are_scored(tmp_path, models, capsys):
    names = ("damaged", "missing", "file", "whole")
    places = [str(models / name) for name in names]
    said, by = compared(tmp_path, "--checkpoint", *places, "--tasks", "notes/linear,esc50/linear")
    assert by["whole", "notes/linear"]["value"] > 0
    for name, error in (("damaged", "ValueError"), ("missing", "FileNotFoundError")):
        for task in ("notes/linear", "esc50/linear"):
            assert by[name, task]["failed"].startswith(f"it cannot be loaded: {error}: ")
    assert str(models / "damaged") in by["damaged", "notes/linear"]["failed"]
    assert "absent" in by["whole", "esc50/linear"]
    assert "6 of 8 not scored: damaged, notes/linear" in said and "table.md" in said
    page = capsys.readouterr().out
    assert "| `notes/linear` | music |" in page and "| failed | failed | failed | 0." in page
    assert "* damaged: `notes/linear`, `esc50/linear`: it cannot be loaded: ValueError" in page
    assert "mean over 1 tasks" in page  # of the models that have a score at all
    assert (tmp_path / "out/figure.png").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyError, AssertionError, MemoryError])
def test_a_task_that_fails_is_named_and_the_others_are_scored(tmp_path, monkeypatch, error):
    class Broken(Linear):
        def case(self, source, listening, seed):
            raise error("out of luck")

    broken = tasks.Task("notes/linear", "notes", Broken())
    monkeypatch.setattr(tasks, "TASKS", {**tasks.TASKS, "notes/linear": broken})
    said, by = compared(tmp_path, "--controls", "--tasks", "notes/linear,counted/linear")
    assert by["perfect", "notes/linear"]["failed"].startswith(f"{error.__name__}: ")
    assert "out of luck" in by["perfect", "notes/linear"]["failed"]
    assert by["perfect", "counted/linear"]["value"] == pytest.approx(1)
    assert "3 of 6 not scored" in said


def test_ctrl_c_ends_it_and_what_failed_is_asked_again(tmp_path, monkeypatch):
    class Stopped(Linear):
        error: type[BaseException] = RuntimeError

        def case(self, source, listening, seed):
            raise type(self).error

    stopped = tasks.Task("notes/linear", "notes", Stopped())
    monkeypatch.setattr(tasks, "TASKS", {"notes/linear": stopped})
    argv = ["--controls", "--tasks", "notes", "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        benchmark.main(argv)
    Stopped.error = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(argv)


def test_long_lists_of_tasks_are_cut_short():
    records = [
        dict(name="a", task=f"t{i}", failed="E: no", seed=0, most=0, group="g", metric="m")
        for i in range(9)
    ]
    page = benchmark_table.text(records)
    assert "* a: `t0`, `t1`, `t2`, `t3`, `t4`, `t5` and 3 more: E: no" in page
