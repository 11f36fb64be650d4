"""Clips in columns are the clips that went in, in little memory, which processes share."""

import csv
import os
import pickle
import random
import statistics
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from ssl_audio.data import mixture, tables
from ssl_audio.data.clip_columns import digest
from ssl_audio.data.clips import Clip, Clips
from ssl_audio.data.entries import Audio
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.shared_arrays import SharedArrays, sharing
from ssl_audio.data.source import Files, Manifest, SourceInfo, coded_labels, content

ODD = [
    Clip(
        "/d/a.wav", "a.wav", 3, 1, "train", "words", ("x", "y"), (), 0.5, {"k": [1, None]}, 1.5, 2
    ),
    Clip("/d/é/b.wav", "b", (0, 2)),
    Clip("/d/\udce9.wav", "\\xe9", (), None, "", ("a", "b"), None, ("n",), 0.0, {}, 0.0, 3.5),
    Clip("/d/a.wav", "a.wav#7", None, 0, "\0odd", "\0", weight=1 / 3),
    Clip("/d/c.wav", "c.wav", True, 2**40, "train"),
]


class Fixed(Files):
    """A source of given clips."""

    def __init__(self, clips, rate=16_000):
        self.given, self.rate = clips, rate

    def scan(self):
        return SourceInfo("fixed"), self.given


def table(path, rows, labels="dog;cat"):
    """Write a manifest of many rows."""
    rng = random.Random(0)
    with open(path, "w") as file:
        file.write("path,labels,start\n")
        for i in range(rows):
            file.write(
                f"unbalanced_train/{i % 100:02d}/Y{i:011d}.wav,{labels};{rng.choice('abcdefg')},{i % 3}\n"
            )
    return Manifest(str(path))


@pytest.mark.parametrize("clips", [ODD, ODD[:1], ODD[1:2], ODD[4:] * 3, []])
@pytest.mark.parametrize("shared", [True, False])
def test_they_are_what_went_in(clips, shared):
    made = Clips.of(clips)
    with sharing() if shared else open(os.devnull):
        again = pickle.loads(pickle.dumps(made))
    for found in (made, again):
        assert list(found) == clips and len(found) == len(clips)
        assert [type(a.label) for a in found] == [type(b.label) for b in clips]
        assert found[1:] == clips[1:] and [found[-1]] == clips[-1:] if clips else not found[:]
        assert found.digest(8000) == digest({"rate": 8000, **clip.meta()} for clip in clips)
    with pytest.raises(IndexError, match=f"of {len(clips)}"):
        made[len(clips)]


def test_some_of_them_are_kept_in_their_order():
    kept = Clips.of(ODD * 20).kept(np.array([0, 2, 3, 50, 99]))
    wanted = [(ODD * 20)[i] for i in (0, 2, 3, 50, 99)]
    assert list(kept) == wanted and list(kept.kept(np.array([1, 4]))) == [wanted[1], wanted[4]]
    assert kept.digest(1) == digest({"rate": 1, **clip.meta()} for clip in wanted)
    codes, values = kept.columns.coded("split")
    assert [values[code] for code in codes] == [clip.split for clip in wanted]


def test_paths_that_are_their_names_are_kept_once():
    clips = [Clip(f"/data/set/{i}.wav", f"{i}.wav") for i in range(100)]
    made = Clips.of(clips)
    assert list(made) == clips and made.root == "/data/set/" and "id" not in made.columns.arrays


def test_what_cannot_be_kept_is_named():
    with pytest.raises(TypeError, match="cannot be kept with a clip"):
        Clips.of([Clip("a.wav", "a", columns={"k": object()})])
    assert Clips.of([Clip("a.wav", "a", np.int64(3))])[0].label == 3  # pyright: ignore


def test_digests_are_those_of_earlier_versions(tmp_path):
    rows = "d/a.wav,x;é,,,p\nb.wav,,1,2.5,\n" * 2
    (tmp_path / "m.csv").write_text(f"path,labels,start,end,site\n{rows}")
    row = '{"path": "a.wav", "label": 2, "text": ["u", "ü"], "weight": 1, "k": {"z": [1.5, null]}}'
    (tmp_path / "m.jsonl").write_text(f'{row}\n{{"path": "b.wav"}}\n', encoding="utf-8")
    found = [content(Manifest(str(tmp_path / name))) for name in ("m.csv", "m.jsonl")]
    assert [text[:16] for text in found] == ["7d4fc930e2638b16", "650eb0704cffab85"]
    assert content(Fixed(ODD[1:3])) == digest({"rate": 16_000, **clip.meta()} for clip in ODD[1:3])


def test_a_manifest_takes_few_bytes_and_little_more_time_than_its_text(tmp_path):
    rows = 20_000
    path = tmp_path / "m.csv"
    table(path, rows)
    text, whole, metas, digests = [], [], [], []
    for _ in range(3):
        begun = time.process_time()
        with open(path, newline="") as file:
            assert sum(1 for _ in csv.reader(file)) == rows + 1
        text.append(time.process_time() - begun)
        source = Manifest(str(path))
        begun = time.process_time()
        assert len(source) == rows
        whole.append(time.process_time() - begun)
        begun = time.process_time()
        wanted = digest(source.meta(i) for i in range(0, rows, 8))
        metas.append(8 * (time.process_time() - begun))
        begun = time.process_time()
        assert source.digest() != wanted
        digests.append(time.process_time() - begun)
    assert source.clips.columns.arrays.nbytes <= 60 * rows  # objects of Python took 600
    # Row by row it was 18 times the time of the text, by column 4; the digest half, now a sixth.
    assert statistics.median(whole) < 9 * statistics.median(text)
    assert statistics.median(digests) < statistics.median(metas) / 3


def test_nothing_looks_at_every_clip_to_balance_and_to_compare(tmp_path, monkeypatch):
    looked = []
    meta = Files.meta
    monkeypatch.setattr(Files, "meta", lambda self, i: (looked.append(i), meta(self, i))[1])
    source = table(tmp_path / "m.csv", 3000)
    pipeline = Pipeline(
        {"a": source, "b": source}, 4, {"audio": Audio(16)}, balanced=True, weights={"a": 1, "b": 2}
    )
    pipeline.check()
    pipeline.collections()
    assert len(looked) < 10


def test_a_subclass_that_changes_what_is_known_is_asked_for_each_clip(tmp_path):
    class Fewer(Manifest):
        def meta(self, i):
            return {k: v for k, v in super().meta(i).items() if k != "label" or i % 2}

    table(tmp_path / "m.csv", 10)
    source = Fewer(str(tmp_path / "m.csv"))
    codes, values = coded_labels(source)
    assert [values[code] is None for code in codes] == [True, False] * 5
    assert content(source) == digest(source.meta(i) for i in range(10)) != source.digest()


def test_a_subclass_may_choose_among_the_clips_with_a_list(tmp_path):
    class First(Manifest):
        @property
        def clips(self):
            return super().clips[:3]

    table(tmp_path / "m.csv", 10)
    source = First(str(tmp_path / "m.csv"))
    assert len(source) == len(coded_labels(source)[0]) == 3
    assert content(source) == digest(source.meta(i) for i in range(3))


def test_columns_count_from_the_end_and_have_one(tmp_path):
    for columns in (Clips.of(ODD).columns, Clips.of(ODD * 2).kept(np.arange(5)).columns):
        assert [columns.row(i) for i in (-1, -5, 4)] == [4, 0, 4]
        for i in (5, -6):
            with pytest.raises(IndexError, match=f"clip {i} of 5"):
                columns.get("id", i)
    assert Clips.of(ODD[3:4]).columns.get("text", -1) == "\0"


def test_weights_have_the_bits_of_the_rule(tmp_path):
    source = table(tmp_path / "m.csv", 5000)
    labels = [source.meta(i)["label"] for i in range(5000)]
    rarity = 1000.0 / (np.bincount([n for some in labels for n in some]) + 0.01)
    wanted = np.array([sum(rarity[n] for n in some) for some in labels])
    np.testing.assert_array_equal(mixture.balanced([coded_labels(source)]), wanted)


def test_balanced_draws_are_those_of_earlier_versions():
    labels = [0, 1, (0, 1), None, 2, 0, 0]
    values = list(dict.fromkeys(labels))
    chances = mixture.balanced([(np.array([values.index(label) for label in labels]), values)])
    draws = mixture.Draws((7,), chances=chances, seed=3)
    assert [draws[k] for k in range(12)] == [0, 4, 4, 1, 2, 1, 4, 4, 5, 1, 4, 4]


def test_few_passes_are_kept_and_none_is_sent():
    draws = mixture.Draws((50, 20), (1.0, 2.0), seed=1)
    wanted = [draws[k] for k in range(5000)]
    assert {len(some) for some in draws._orders._kept.values()} == {2}
    again = pickle.loads(pickle.dumps(draws))
    assert not again._orders._kept and [again[k] for k in range(5000)] == wanted


@pytest.mark.parametrize("size", [1, 3])
def test_tables_mean_the_same_in_blocks_of_any_size(tmp_path, monkeypatch, size):
    rows = (
        'path,label,end,note\na.wav,"x\ny",1,p\n\nb.wav,z\n,,,\nc.wav, x,,"1\r\n2"\nd.wav,z,2,q\n'
    )
    (tmp_path / "m.csv").write_bytes(rows.encode())
    lines = ('{"path": "a.wav", "label": 1}', "", '{"path": "b.wav", "label": 1.0, "k": 1}')
    lines += ('{"path": "c.wav", "label": true}', "")
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    sources = [lambda n=name: Manifest(str(tmp_path / n)) for name in ("m.csv", "m.jsonl")]
    whole = [list(make().clips) for make in sources]
    monkeypatch.setattr(tables, "BLOCK", size)
    assert [list(make().clips) for make in sources] == whole
    assert [clip.columns for clip in whole[0]] == [
        {"note": "p"},
        None,
        {"note": "1\r\n2"},
        {"note": "q"},
    ]
    assert sources[1]().info.labels == ("1", "True")
    (tmp_path / "m.csv").write_bytes(rows.replace("d.wav,z,2", "d.wav,z,-2").encode())
    with pytest.raises(ValueError, match="line 9: end: wanted 0 or more, got -2"):
        len(sources[0]())


linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux")


@linux
def test_other_processes_look_at_the_same_memory(tmp_path):
    array = np.arange(8 * 2**20, dtype=np.float64)  # 64 MiB
    made = SharedArrays({"a": array, "none": array[:0], "b": array[:7].astype(np.uint8)})
    with sharing():
        (tmp_path / "sent").write_bytes(pickle.dumps(made))
    assert (tmp_path / "sent").stat().st_size < 2000 < len(pickle.dumps(made))
    code = """
        import pickle, sys
        import ssl_audio.data.shared_arrays

        def private():
            lines = [line.split() for line in open("/proc/self/smaps_rollup")]
            return sum(int(line[1]) for line in lines if line[0].startswith("Private")) / 1024

        before = private()
        found = pickle.load(open(sys.argv[1], "rb"))
        print(float(found["a"].sum()), found["none"].shape, found["b"].tolist(), private() - before < 8)
        try:
            found["a"][0] = 1
        except ValueError:
            print("read only")
        """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "sent")]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.stdout.splitlines() == [
        f"{array.sum()} (0,) [0, 1, 2, 3, 4, 5, 6] True",
        "read only",
    ], said.stderr
    before = len(os.listdir("/proc/self/fd"))
    del made
    assert len(os.listdir("/proc/self/fd")) < before
    said = subprocess.run(command, capture_output=True, text=True)
    assert "does not reach what process" in said.stderr and "Set data.workers=0" in said.stderr
