"""prepare on several machines: what parts and their merge give is what one machine gives."""

import csv
import filecmp
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import bucket
import numpy as np
import pytest
import soundfile

from ssl_audio.data import prepare as verb
from ssl_audio.data.preparation import Preparation, prepare
from ssl_audio.data.shards import Shards
from ssl_audio.data.source import Folder
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.storage import lock
from ssl_audio.storage.division import Part

RATE = 16_000


def same(a, b):
    """Tell whether two folders hold the same files."""
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(path.name for path in b.iterdir())
    return filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def folder(root, good=9, bad=()):
    root.mkdir()
    for i in range(good):
        soundfile.write(root / f"{i}.wav", np.full(160 + i, i / 100), RATE)
    for name in bad:
        (root / name).write_text("no sound")
    return root


@pytest.mark.parametrize("of", [1, 2, 3, 9])
def test_parts_in_any_order_give_the_bytes_of_one_machine(tmp_path, of):
    source = Synthetic(26, seconds=0.1)
    prepare(source, tmp_path / "one", shard_size=4, seconds=0.05)
    for number in reversed(range(1, of + 1)):  # more parts than files: some have none
        work = Preparation(source, tmp_path / "many", shard_size=4, seconds=0.05)
        work.do(Part(number, of))
    made = Preparation(source, tmp_path / "many", shard_size=4, seconds=0.05).join()
    assert len(made) == 52 and same(tmp_path / "one", tmp_path / "many")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "many").iterdir()}
    Preparation(source, tmp_path / "many", shard_size=4, seconds=0.05).join()  # again
    assert Preparation(source, tmp_path / "many", shard_size=4, seconds=0.05).do(Part(1, 9)) == {}
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "many").iterdir()}


def audioset(root, clips):
    """Write what AudioSet's tables and some excerpts would be; return the ids of those that have a file."""
    rng = np.random.default_rng(0)
    mids = ["/m/09x0r", "/m/05zppz", "/m/02zsn"]
    names = ["Speech", "Male speech, man speaking", "Female speech, woman speaking"]
    root.mkdir()
    with open(root / "class_labels_indices.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("index", "mid", "display_name"), *zip(range(3), mids, names, strict=True)]
        )
    lines = [
        "# Segments csv created Sun Mar  5 10:54:25 2017",
        f"# num_ytids={clips}, num_segs={clips}, num_unique_labels=3, num_positive_labels={clips}",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    there = []
    for i in range(clips):
        video = f"{i:05d}_-AbCd"[-11:].rjust(11, "x")
        labels = ",".join(rng.choice(mids, rng.integers(1, 4), replace=False))
        lines.append(f'{video}, {i}.000, {i + 10}.000, "{labels}"')
        if i % 5 != 3:  # videos disappear
            place = root / "audio" / f"{i % 3:02d}"
            place.mkdir(parents=True, exist_ok=True)
            soundfile.write(place / f"Y{video}.flac", 0.1 * rng.standard_normal(800 + i), RATE)
            there.append(video)
    (root / "eval_segments.csv").write_text("\n".join(lines) + "\n")
    return there


def test_audioset_on_several_machines(tmp_path, capsys):
    """The worked example of docs/data.md."""
    videos = audioset(tmp_path / "audioset", 40)
    command = ["--source=sets.audioset", f"--root={tmp_path / 'audioset'}", "--set=segments=eval"]
    command += ["--set=audio=audio", "--shard-size=5"]
    verb.main([*command, f"--output={tmp_path / 'one'}"])
    for number in (2, 4, 1):
        verb.main([*command, f"--output={tmp_path / 'many'}", f"--part={number}/4"])
    assert "part 1/4 in " in capsys.readouterr().out
    with pytest.raises(
        ValueError, match="part 3/4 is missing: run the same command with --part 3/4"
    ):
        verb.main([*command, f"--output={tmp_path / 'many'}", "--merge"])
    verb.main([*command, f"--output={tmp_path / 'many'}", "--part=3/4"])
    verb.main([*command, f"--output={tmp_path / 'many'}", "--merge"])
    assert "32 clips in" in capsys.readouterr().out
    assert same(tmp_path / "one", tmp_path / "many")
    made = Shards(str(tmp_path / "many"))
    assert [made.meta(i)["id"] for i in range(32)] == videos
    assert made.info.labels[1] == "Male speech, man speaking" and made.info.multilabel
    assert all(made.meta(i)["label"] for i in range(32)) and made[31]["audio"].size == 839


def test_another_list_or_other_options_are_refused_by_name(tmp_path):
    Preparation(Synthetic(8, seconds=0.1), tmp_path / "out", shard_size=2).do(Part(1, 2))
    for other, said in (
        (Preparation(Synthetic(9, seconds=0.1), tmp_path / "out", shard_size=2), "clips 8 -> 9"),
        (Preparation(Synthetic(8, seconds=0.1, seed=1), tmp_path / "out", shard_size=2), "content"),
        (Preparation(Synthetic(8, seconds=0.1), tmp_path / "out", shard_size=3), "shard_size 2"),
    ):
        for step in (lambda: other.do(Part(2, 2)), other.join):  # noqa: B023
            with pytest.raises(ValueError, match=f"begun with other settings or clips.*{said}"):
                step()
    work = Preparation(Synthetic(8, seconds=0.1), tmp_path / "out", shard_size=2)
    with pytest.raises(ValueError, match="parts: 2, now 3"):
        work.do(Part(2, 3))
    with pytest.raises(ValueError, match="parts: 2, now 1"):
        prepare(Synthetic(8, seconds=0.1), tmp_path / "out", shard_size=2)


def test_files_of_a_list_that_was_lost_in_a_race_are_made_anew(tmp_path):
    """Two machines with other lists begin at once, so that neither sees what the other began."""
    wrong, right = (Synthetic(8, seconds=0.1, seed=seed) for seed in (1, 0))
    Preparation(wrong, tmp_path / "wrong", shard_size=2).do(Part(1, 2))
    Preparation(right, tmp_path / "out", shard_size=2).do(Part(2, 2))
    for path in (*(tmp_path / "wrong").glob("0*"), tmp_path / "wrong" / "parts" / "1-of-2"):
        path.rename(tmp_path / "out" / path.relative_to(tmp_path / "wrong"))
    work = Preparation(right, tmp_path / "out", shard_size=2)
    with pytest.raises(ValueError, match=r"part 1/2 done with .*content.*remove \S*1-of-2 and do"):
        work.join()
    for path in (tmp_path / "out" / "parts" / "1-of-2").iterdir():
        path.unlink()
    work.do(Part(1, 2))
    work.join()
    prepare(right, tmp_path / "one", shard_size=2)
    assert same(tmp_path / "one", tmp_path / "out")


def test_bad_clips_of_all_parts_are_counted_and_listed_at_the_merge(tmp_path, capsys):
    """One bad clip is free: in each part, and not in all of them together."""
    root = folder(tmp_path / "in", 9, ["0bad.wav", "4bad.wav", "8bad.wav"])
    command = [
        "--source=folder",
        f"--root={root}",
        "--shard-size=2",
        f"--output={tmp_path / 'out'}",
    ]
    for number in (1, 2, 3):
        verb.main([*command, f"--part={number}/3"])
    assert capsys.readouterr().out.count("1 of them skipped") == 3
    with pytest.raises(ValueError, match="3 of 12 clips could not be read"):
        verb.main([*command, "--merge"])
    listed = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["0bad.wav", "4bad.wav", "8bad.wav"]
    verb.main([*command, "--merge", "--max-bad-share=0.25"])
    assert "9 clips in" in capsys.readouterr().out
    verb.main([*command[:3], f"--output={tmp_path / 'one'}", "--max-bad-share=0.25"])
    assert same(tmp_path / "one", tmp_path / "out")


def test_a_part_with_too_many_bad_clips_stops_by_itself(tmp_path):
    root = folder(tmp_path / "in", 4, ["0bad.wav", "0worse.wav"])
    work = Preparation(Folder(str(root)), tmp_path / "out", shard_size=1)
    with pytest.raises(ValueError, match="2 of 6 clips could not be read"):
        work.do(Part(1, 2))
    listed = tmp_path / "out" / "parts" / "1-of-2" / "skipped.txt"
    assert len(listed.read_text().splitlines()) == 2
    with pytest.raises(ValueError, match="part 1/2 is missing.*part 2/2 is missing"):
        work.join()


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_file_that_is_not_whole_is_named_at_the_merge(tmp_path, harm):
    work = Preparation(Synthetic(8, seconds=0.1), tmp_path / "out", shard_size=2)
    work.do(Part(1, 2))
    work.do(Part(2, 2))
    path = tmp_path / "out" / "00002.array_record"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"00002.array_record: missing or cut, though part 2/2"):
        work.join()
    assert not (tmp_path / "out" / "index.json").exists()
    shutil.rmtree(tmp_path / "out" / "parts" / "2-of-2")
    work.do(Part(2, 2))
    work.join()
    prepare(Synthetic(8, seconds=0.1), tmp_path / "one", shard_size=2)
    assert same(tmp_path / "one", tmp_path / "out")


def test_a_merge_of_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="out: no part is there: run the command with --part 1/N"):
        Preparation(Synthetic(8, seconds=0.1), tmp_path / "out").join()
    assert not (tmp_path / "out").exists()


SLOW = """
import sys, time
from ssl_audio.data.preparation import Preparation
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.storage.division import Part

class Slow(Synthetic):
    def __getitem__(self, i):
        time.sleep(0.01)
        return super().__getitem__(i)

Preparation(Slow(60, seconds=0.1), sys.argv[1], shard_size=3, workers=1).do(Part(2, 2))
"""


def test_a_killed_part_goes_on_and_a_part_in_work_is_refused(tmp_path):
    root = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(root)],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(verb.__file__).parents[2])},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(list(root.glob("0*.json"))) < 2 and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    source = Synthetic(60, seconds=0.1)
    work = Preparation(source, root, shard_size=3)
    child.send_signal(signal.SIGSTOP)  # alive, and holds the part
    with pytest.raises(ValueError, match=f"process {child.pid} on .*It does part 2/2; wait"):
        work.do(Part(2, 2))
    assert work.do(Part(1, 2)) == {"clips": 30, "bad": 0}
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = min(path for path in root.glob("0*.json") if path.stem >= "00010")
    before = kept.with_suffix(".array_record").stat().st_mtime_ns
    with pytest.raises(ValueError, match=f"part 2/2 is missing: begun by process {child.pid} on"):
        work.join()
    work.do(Part(2, 2))
    assert kept.with_suffix(".array_record").stat().st_mtime_ns == before
    work.join()
    prepare(source, tmp_path / "one", shard_size=3)
    assert same(tmp_path / "one", root)


def test_the_work_ends_when_another_has_taken_it_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.Lock, "_beat", lambda held: setattr(held, "lost", "another has it"))
    work = Preparation(Synthetic(8, seconds=0.1), tmp_path / "out", shard_size=2)
    with pytest.raises(RuntimeError, match="1-of-2: another has it. This run ends"):
        work.do(Part(1, 2))


def test_into_an_object_store(tmp_path, monkeypatch, capsys):
    store = bucket.install(monkeypatch, tmp_path)
    monkeypatch.setattr(lock, "POLL", 0.01)
    root = folder(tmp_path / "in", 9, ["bad.wav"])
    command = ["--source=folder", f"--root={root}", "--shard-size=2"]
    verb.main([*command, f"--output={tmp_path / 'one'}"])
    verb.main([*command, "--output=gs://bucket/alone"])
    for number in (2, 1):
        verb.main([*command, "--output=gs://bucket/many", f"--part={number}/2"])
    (left,) = (name for name in store if name.endswith("2-of-2/done.json"))
    kept = store.pop(left)
    with pytest.raises(ValueError, match="gs://bucket/many/parts: part 2/2 is missing"):
        verb.main([*command, "--output=gs://bucket/many", "--merge"])
    store[left] = kept
    verb.main([*command, "--output=gs://bucket/many", "--merge"])
    assert "9 clips in gs://bucket/many, 1 skipped" in capsys.readouterr().out
    for name in ("alone", "many"):
        found = {
            key.rpartition("/")[2]: bytes(o.getvalue()) for key, o in store.items() if name in key
        }
        wanted = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
        assert found == wanted
    far, near = Shards("gs://bucket/many"), Shards(str(tmp_path / "one"))
    assert all(np.array_equal(far[i]["audio"], near[i]["audio"]) for i in range(9))
    assert len(json.loads((tmp_path / "one" / "index.json").read_text())["shards"]) == 5


def test_tfds_is_written_on_one_machine(tmp_path, capsys):
    command = ["--source=synthetic", "--tfds=mine", f"--output={tmp_path}"]
    for option in ("--part=1/2", "--merge", "--engine=ray"):
        with pytest.raises(SystemExit):
            verb.main([*command, option])
        assert "--tfds writes on one machine" in capsys.readouterr().err
