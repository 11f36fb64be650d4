"""A place that cannot be written is found out before hours are spent on what goes there."""

import pathlib
import re

import pytest

from ssl_audio.convert import export
from ssl_audio.eval import evaluate, report
from ssl_audio.inference import embed, kmeans
from ssl_audio.storage import atomic


def test_a_place_is_tried_and_left_as_it_was(tmp_path):
    atomic.check(tmp_path / "new/folder/out.npz")
    assert not list((tmp_path / "new/folder").iterdir())
    atomic.check_folder(tmp_path / "other/folder")
    assert not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("here")
    for path in (tmp_path / "file/out.npz", tmp_path / "new", pathlib.Path("/proc/none/out.npz")):
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: cannot be written: "):
            atomic.check(path)
    with pytest.raises(ValueError, match="^/proc/none: cannot be written: "):
        atomic.check_folder(pathlib.Path("/proc/none"))
    with pytest.raises(ValueError, match="file: cannot be written: "):
        atomic.check_folder(tmp_path / "file")


def test_a_file_that_the_command_reads_is_not_one_that_it_writes(tmp_path):
    (tmp_path / "table.csv").write_text("here")
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")
    for name in ("table.csv", "link.csv", "../" + tmp_path.name + "/table.csv"):
        with pytest.raises(ValueError, match="for something else, too, and would replace it"):
            atomic.check(tmp_path / name, None, str(tmp_path / "table.csv"))
    atomic.check(tmp_path / "other.csv", None, tmp_path / "table.csv", "")
    assert (tmp_path / "table.csv").read_text() == "here"


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        (embed, ["--checkpoint=RUN", "--output=/proc/none/out.npz", "a.wav"]),
        (kmeans, ["--data=synthetic", "--codes=2", "--out=/proc/none"]),
        (export, ["--checkpoint=RUN", "--out=/proc/none"]),
        (evaluate, ["--checkpoint=RUN", "--set=synthetic", "--output=/proc/none/x.jsonl"]),
        (report, ["RUN", "--output=/proc/none/x.html"]),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else "",
)
def test_verbs_try_their_output_first(tmp_path, monkeypatch, verb, arguments):
    """RUN is an empty folder: whoever looks into it first complains of something else."""
    for module in ("ssl_audio.inference.load.load", "ssl_audio.storage.checkpoint.load_params"):
        monkeypatch.setattr(
            module, lambda *_, **__: type("Model", (), {"encoder": type("E", (), {"rate": 16_000})})
        )
    with pytest.raises(ValueError, match="^/proc/none.*: cannot be written: "):
        verb.main([a.replace("RUN", str(tmp_path)) for a in arguments])
