import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from ssl_audio.data import places
from ssl_audio.data import prepare as verb
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.prepare import prepare
from ssl_audio.data.shards import Shards, from_int16, to_int16
from ssl_audio.data.source import Folder, Manifest
from ssl_audio.data.synthetic import Synthetic


def test_int16_survives_the_round_trip():
    every = np.arange(-32768, 32768).astype("<i2")
    np.testing.assert_array_equal(to_int16(from_int16(every)), every)
    np.testing.assert_array_equal(to_int16(np.array([2.0, -2.0])), [32767, -32768])


@pytest.mark.parametrize("compress", [True, False])
def test_shards_hold_what_the_source_has(tmp_path, compress):
    source = Synthetic(25, seconds=0.1)
    prepare(source, tmp_path / "a [1]", shard_size=8, compress=compress)
    made = pickle.loads(pickle.dumps(Shards(str(tmp_path / "a [1]"))))
    assert len(made) == 25 and made.info == source.info
    assert len(list(tmp_path.glob("*/*.array_record"))) == 4
    for i in (24, 0, 7, 8):
        assert made.meta(i) == source.meta(i)
        np.testing.assert_allclose(made[i]["audio"], source[i]["audio"], atol=1.01 / 32768)
    assert made.meta(-1) == source.meta(24)
    np.testing.assert_array_equal(made[-1]["audio"], made[24]["audio"])
    folds = Shards(str(tmp_path / "a [1]"), folds=(2,))
    assert len(folds) == 12 and folds[0]["id"] == source.meta(12)["id"]
    with pytest.raises(ValueError, match="split='x'"):
        len(Shards(str(tmp_path / "a [1]"), split="x"))


def test_text_and_several_labels_survive(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 16_000)
    rows = [
        {"path": "a.wav", "labels": ["x", "y"], "text": "été"},
        {"path": "a.wav", "labels": [], "split": "s", "text": ["a", "b"], "rewrites": ["c"]},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Manifest(str(tmp_path / "m.jsonl"))
    made = prepare(source, tmp_path / "out")
    assert [made.meta(i) for i in (0, 1)] == [source.meta(i) for i in (0, 1)]
    assert made.info.multilabel


def test_long_clips_are_cut_into_equal_pieces(tmp_path):
    made = prepare(Synthetic(3, seconds=0.25), tmp_path / "out", seconds=0.1)
    assert [made.meta(i)["id"][-2:] for i in range(9)] == ["#0", "#1", "#2"] * 3
    whole = np.concatenate([made[i]["audio"] for i in (3, 4, 5)])
    np.testing.assert_array_equal(to_int16(whole), to_int16(Synthetic(3, seconds=0.25)[1]["audio"]))
    assert {made[i]["audio"].size for i in range(9)} == {1333, 1334}


def test_bad_files_are_listed_and_above_the_share_it_stops(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(8):
        soundfile.write(folder / f"{i}.wav", np.full(160, i / 10), 16_000)
    for name in ("bad.wav", "worse.wav"):
        (folder / name).write_text("no sound")
    command = ["--source=folder", f"--root={folder}", f"--output={tmp_path / 'out'}"]
    with pytest.raises(ValueError, match="2 of 10 clips could not be read"):
        verb.main(command)
    listed = (tmp_path / "out" / "skipped.txt").read_text()
    assert all(name in listed for name in ("bad.wav\t", "worse.wav\t")) and "unreadable" in listed
    with pytest.raises(ValueError, match="no index.json"):
        len(Shards(str(tmp_path / "out")))
    verb.main([*command, "--max-bad-share=0.2"])
    assert "8 clips" in capsys.readouterr().out
    made = Shards(str(tmp_path / "out"))
    assert [round(float(made[i]["audio"][0]), 2) for i in range(8)] == [i / 10 for i in range(8)]


def test_one_folder_keeps_one_set_of_settings(tmp_path):
    prepare(Synthetic(5, seconds=0.1), tmp_path / "out")
    prepare(Synthetic(5, seconds=0.1), tmp_path / "out")  # again: nothing to do
    with pytest.raises(ValueError, match="shard_size 512 -> 2"):
        prepare(Synthetic(5, seconds=0.1), tmp_path / "out", shard_size=2)
    with pytest.raises(ValueError, match="other settings or clips"):
        prepare(Synthetic(5, seconds=0.1, seed=1), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not empty, and not begun by prepare: thesis.tex"):
        prepare(Synthetic(5, seconds=0.1), tmp_path / "mine")


SLOW = """
import sys, time
from ssl_audio.data.prepare import prepare
from ssl_audio.data.synthetic import Synthetic

class Slow(Synthetic):
    def __getitem__(self, i):
        time.sleep(0.01)
        return super().__getitem__(i)

prepare(Slow(60, seconds=0.1), sys.argv[1], shard_size=6, workers=1)
"""


def test_an_output_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="out: cannot be written: Not a directory"):
        prepare(Synthetic(2, seconds=0.1), tmp_path / "out")


def test_killed_and_run_again_it_finishes_with_the_same_clips(tmp_path):
    root = tmp_path / "out"
    root_of_package = pathlib.Path(verb.__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(root)],
        env={**os.environ, "PYTHONPATH": str(root_of_package)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(list(root.glob("0*.json"))) < 3 and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished = sorted(root.glob("0*.json"))
    assert 3 <= len(finished) < 10 and not (root / "index.json").exists()
    kept = finished[1].with_suffix(".array_record")
    before = kept.stat().st_mtime_ns
    source = Synthetic(60, seconds=0.1)
    made = prepare(source, root, shard_size=6)
    assert kept.stat().st_mtime_ns == before
    assert [made.meta(i) for i in range(60)] == [source.meta(i) for i in range(60)]
    for i in range(60):
        np.testing.assert_array_equal(to_int16(made[i]["audio"]), to_int16(source[i]["audio"]))
    left = {path.suffix for path in root.iterdir() if not path.name.startswith(".")}
    assert left == {".array_record", ".json", ".txt"}


def test_a_damaged_shard_is_a_bad_clip(tmp_path):
    made = prepare(Synthetic(4, seconds=0.5), tmp_path / "out", compress=False)
    assert made[3]["audio"].any()
    (path,) = (tmp_path / "out").glob("*.array_record")
    content = bytearray(path.read_bytes())
    at = content.index(to_int16(made[3]["audio"]).tobytes()[:64])
    content[at : at + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(DecodeError, match="clip synthetic-0-000003"):
        Shards(str(tmp_path / "out"))[3]


def test_the_command_line_takes_options_of_the_source(tmp_path, capsys):
    command = ["--source=synthetic", "--set=size=13", "--set=folds=(1,)", "--set", "seconds=0.1"]
    verb.main([*command, f"--output={tmp_path / 'out'}", "--rate=8000"])
    made = Shards(str(tmp_path / "out"))
    assert len(made) == 12 and made[0]["rate"] == 8000 and made[0]["audio"].size == 800
    with pytest.raises(ValueError, match="no 'sintetic' here"):
        verb.main(["--source=sintetic", f"--output={tmp_path / 'no'}"])


def test_a_folder_of_real_recordings(tmp_path, shared_data):
    root = shared_data / "esc10"
    options = ["--set=subset=esc10", "--set=folds=(1,)", f"--output={tmp_path / 'out'}"]
    verb.main(["--source=sets.esc", f"--root={root}", *options])
    made = Shards(str(tmp_path / "out"))
    source = Folder(str(root / "audio"))
    paths = [source.meta(i)["id"].removesuffix(".ogg") for i in range(len(source))]
    assert len(made) == 80 and made.info.licence == "CC BY 3.0"
    example = made[5]
    original = source[paths.index(example["id"])]["audio"]
    np.testing.assert_allclose(example["audio"], np.clip(original, -1, 1), atol=1.01 / 32768)


def test_shards_in_an_object_store_are_copied_once(tmp_path, monkeypatch):
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    opened = []

    class Bucket(LocalFileSystem):
        """A folder that stands for gs://."""

        protocol = ("gcs", "gs")
        cachable = False

        def open(self, path, mode="rb", **options):
            opened.append(str(path))
            return super().open(str(path).replace("gs://bucket", str(tmp_path)), mode, **options)

    monkeypatch.setenv("EPATH_USE_TF", "false")
    monkeypatch.setenv("SSL_AUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fsspec, "filesystem", lambda name, **_: Bucket())
    prepare(Synthetic(5, seconds=0.1), tmp_path / "out", shard_size=3)
    near, far = Shards(str(tmp_path / "out")), Shards("gs://bucket/out")
    assert len(far) == len(near) == 5 and far.info == near.info
    for i in range(5):
        np.testing.assert_array_equal(far[i]["audio"], near[i]["audio"])
    first = len(opened)
    assert first == 3 and len(list((tmp_path / "cache").rglob("*.partial"))) == 0
    again = Shards("gs://bucket/out")
    assert again[4]["id"] == near[4]["id"] and len(opened) == first + 1, "only the index again"
    assert places.source("gs://bucket/out") == {"kind": "shards", "root": "gs://bucket/out"}
    with pytest.raises(ValueError, match="no index.json in gs://bucket/other"):
        len(Shards("gs://bucket/other"))
