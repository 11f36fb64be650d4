"""Files of a workdir that are damaged beside the checkpoints; numbers that would train nonsense."""

import json
import types

import pytest

from ssl_audio import config, config_files
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.storage import checkpoint
from ssl_audio.storage.sealed import Damaged
from ssl_audio.train import changes, record
from ssl_audio.train.clips import check_clips
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record
from ssl_audio.train.run import Run


def test_lines_that_are_no_records_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "loss": 2.0}\n'
    path.write_bytes(good + b'\xff\n[1]\n5\nnull\n"step"\n{"step": null}\n{"step": 9}\n{"step": 1')
    assert record.at(path, 1) == {"loss": 2.0}
    record.keep_until(path, 1)
    assert path.read_bytes() == good


def test_the_history_is_kept_as_it_is_where_it_is_damaged(tmp_path):
    (tmp_path / changes.HISTORY).write_bytes(b"\xff\xfe\n")
    changes._note(tmp_path, 4, {"optim.lr": (1.0, 2.0)})
    damaged, line = (tmp_path / changes.HISTORY).read_bytes().splitlines()
    assert damaged == b"\xff\xfe" and json.loads(line)["changed"] == {"optim.lr": [1.0, 2.0]}


def test_an_empty_numbered_folder_is_no_later_step(tmp_path):
    """A copy that was cut leaves one; only steps that are whole are further than the run will go."""
    (tmp_path / "checkpoints/9").mkdir(parents=True)
    run = types.SimpleNamespace(
        check=lambda: None,
        objective=types.SimpleNamespace(prepare=dict),
        data=types.SimpleNamespace(collections=dict, all_sources={}, batch_size=8, seed=0),
    )
    with changes.opened(run, {"steps": 5}, tmp_path, 5):
        assert (tmp_path / "config.json").exists()
    (tmp_path / "checkpoints/9/params").mkdir()
    with pytest.raises(ValueError, match="config.steps: 5, but the run in .* is at step 9"):
        with changes.opened(run, {"steps": 5}, tmp_path, 5):
            pass


@pytest.mark.parametrize("found", ['{"format": "x"}', '{"format": null}', "[1]", "junk"])
def test_a_format_that_is_no_number_is_damage(tmp_path, found):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/metadata").write_text(found)
    with pytest.raises(Damaged, match="meta/metadata cannot be read"):
        checkpoint.check_format(tmp_path)


@pytest.mark.parametrize(
    ("cls", "options", "wrong"),
    [
        (Optim, {"lr": -1.0}, "lr: wanted at least 0"),
        (Optim, {"lr": float("inf")}, "lr: wanted at least 0"),
        (Optim, {"lr": 1.0, "clip": -1.0}, "clip: wanted at least 0"),
        (Optim, {"lr": 1.0, "layer_decay": -1.0}, "layer_decay: wanted at least 0"),
        (Optim, {"lr": 1.0, "b1": 1.0}, "b1: wanted 0 to 1, and less"),
        (Optim, {"lr": 1.0, "average": 2.0}, "average: wanted 0 to 1, and less"),
        (Optim, {"lr": 1.0, "warmup_hold": 0}, "warmup_hold: wanted at least 1"),
        (Record, {"clips": -1}, "clips: wanted at least 0"),
        (Pipeline, {"workers": -1}, "workers: wanted at least 0"),
        (Pipeline, {"threads": -1}, "threads: wanted at least 0"),
        (Pipeline, {"seed": -1}, "seed: wanted at least 0"),
        (Run, {"accumulate": 0}, "config.accumulate: wanted at least 1"),
        (Run, {"accumulate": -2}, "config.accumulate: wanted at least 1"),
    ],
)
def test_numbers_that_train_nonsense_are_refused(cls, options, wrong):
    more = {
        Pipeline: dict(sources={}, entries={}, batch_size=8),
        Run: dict(objective=None, data=None, optim=None, steps=1),
    }
    with pytest.raises(ValueError, match=wrong):
        cls(**more.get(cls, {}) | options)


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf")])
def test_no_duration_is_negative_or_endless(value):
    with pytest.raises(ValueError, match="wanted 0 or more"):
        config.duration(value, total=10)


def test_what_a_run_was_begun_with_is_warned_of_only(caplog):
    options = config_files.load("ssamba:runlocal", ["--config.data.entries.audio.samples=16000"])
    run, plain = config.make(Run, options), config.plain(options)
    with pytest.raises(ValueError, match="would not be heard"):
        check_clips(run, plain)
    shorter = {"data": {"entries": {"audio": {"samples": 15_000}}}}
    with pytest.raises(ValueError, match="would not be heard"):
        check_clips(run, plain, shorter)
    check_clips(run, plain, plain)
    assert "the run was begun so and goes on so" in caplog.text
