import os
import pathlib

import numpy as np
import pytest
import soundfile

from ssl_audio.data import pyav
from ssl_audio.data.entries import Audio
from ssl_audio.data.listing import audio_files
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.prepare import main as prepare
from ssl_audio.data.shards import Shards
from ssl_audio.data.source import Folder


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def wav(path, samples=1600):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(os.fsencode(path), np.full(samples, 0.25), 16_000, format="WAV")


def test_endings_that_need_pyav_are_counted_and_named(tmp_path, monkeypatch):
    touch(
        tmp_path, "a.wav", "b.SPH", "c.voc", "x/d.m4a", "x/e.M4A", "f.webm", "notes.txt", "README"
    )
    touch(tmp_path, ".hidden.wav", ".git/g.wav")
    monkeypatch.setattr(pyav, "installed", lambda: False)
    found = audio_files(tmp_path)
    assert [path.name for path in found] == ["a.wav", "b.SPH", "c.voc"]
    assert found.left_out == {".m4a": 2, ".webm": 1, ".txt": 1, "without ending": 1}
    assert found.summary == "2 .m4a, 1 .webm (install ssl_audio[av]); 1 .txt, 1 without ending"
    monkeypatch.setattr(pyav, "installed", lambda: True)
    found = audio_files(tmp_path)
    assert len(found) == 6 and found.summary == "1 .txt, 1 without ending"


def test_many_other_endings_are_summed_up(tmp_path):
    touch(tmp_path, *[f"a.e{i:02d}" for i in range(20)])
    assert audio_files(tmp_path).summary.endswith("1 .e11, 8 with other endings")


def test_an_ending_of_something_else_counts_if_it_is_sound(tmp_path):
    soundfile.write(tmp_path / "sound.mat", np.zeros(100), 16_000, format="MAT5")
    (tmp_path / "table.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    found = audio_files(tmp_path)
    assert [path.name for path in found] == ["sound.mat"] and found.summary == "1 .mat"


def test_links_to_parents_and_to_each_other_end(tmp_path):
    wav(tmp_path / "a/one.wav")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/other").symlink_to(tmp_path / "a")
    (tmp_path / "a/back").symlink_to(tmp_path / "b")
    assert audio_files(tmp_path) == [tmp_path / "a/one.wav"]


def test_a_linked_folder_elsewhere_is_read_once_under_its_own_name_if_it_has_one(tmp_path):
    root = tmp_path / "root"
    wav(root / "z/one.wav")
    wav(tmp_path / "away/two.wav")
    (root / "a").symlink_to(root / "z")
    (root / "b").symlink_to(tmp_path / "away")
    (root / "c").symlink_to(tmp_path / "away")
    assert audio_files(root) == [root / "b/two.wav", root / "z/one.wav"]


def test_what_was_left_out_is_said_by_sources_runs_and_prepare(tmp_path, capsys):
    wav(tmp_path / "in/a.wav")
    touch(tmp_path, "in/b.xyz")
    source = Folder(str(tmp_path / "in"))
    assert source.info.left_out == "1 .xyz"
    entries = {"audio": Audio(160)}
    assert "in: left out: 1 .xyz" in Pipeline({"in": source}, 1, entries).describe()
    out = str(tmp_path / "out")
    prepare(["--source", "folder", "--root", str(tmp_path / "in"), "--output", out])
    assert "left out: 1 .xyz" in capsys.readouterr().out
    assert Shards(out).info.left_out == "1 .xyz"
    touch(tmp_path, "none/b.xyz")
    with pytest.raises(ValueError, match=r"no audio file under .*; left out: 1 \.xyz"):
        len(Folder(str(tmp_path / "none")))


def test_names_that_are_not_utf8_work_in_prepare_and_training(tmp_path, capsys):
    folder = os.fsdecode(bytes(tmp_path / "in") + b"/d\xe9")
    for name in (b"/\xe9.wav", b"/\xe8.wav"):
        wav(pathlib.Path(folder + os.fsdecode(name)))
    pathlib.Path(folder + os.fsdecode(b"/bad\xe9.wav")).touch()
    source = Folder(str(tmp_path / "in"))
    ids = [source.meta(i)["id"] for i in range(len(source))]
    assert ids == ["d\\xe9/bad\\xe9.wav", "d\\xe9/\\xe8.wav", "d\\xe9/\\xe9.wav"]
    assert source.info.labels == ("d\\xe9",)
    pipeline = Pipeline({"in": source}, 2, {"audio": Audio(160)}, shuffle=False, threads=0)
    batches = pipeline.batches()
    next(batches)
    assert list(pipeline.bad) == ["in:d\\xe9/bad\\xe9.wav"]
    batches.close()
    out = tmp_path / "out"
    prepare(["--source", "folder", "--root", str(tmp_path / "in"), "--output", str(out)])
    assert len(Shards(str(out))) == 2
    assert "bad\\xe9.wav: empty file" in (out / "skipped.txt").read_text(encoding="utf-8")
    capsys.readouterr().out.encode()
