"""Events in files: read as they come, refused where they cannot be meant, read back by other programs."""

import csv
import io
import pathlib

import numpy as np
import pytest
import soundfile

from ssl_audio.data import annotations
from ssl_audio.data.annotated import Recordings, united
from ssl_audio.data.annotations import Event

RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    "1\tWaveform 1\t1\t1.5\t2.25\t0\t8000\tEATO\n"
    "1\tSpectrogram 1\t1\t1.5\t2.25\t0\t8000\tEATO\n"
    "2\tSpectrogram 1\t1\t0.5\t0.75\t2878.2\t4049.0\tAMRE\n"
)
EVENTS = [Event(0.5, 1.25, "a dog", 0.75), Event(1.0, 2.0, "cat;1", 1.0), Event(3.0, 3.5, "a dog")]


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "head",
    [
        "path,start,end,label",
        "filename,onset,offset,event_label",
        "File,Start (s),End (s),Common name",
    ],
)
def test_tables_by_the_names_that_programs_give_their_columns(tmp_path, head):
    rows = "x/a.wav,0.5,1,dog\nx/a.wav,0.1,0.2,cat\nb.wav,,,\n"
    found = annotations.read(text(tmp_path / "t.csv", f"{head}\n{rows}"))
    a, b = (str(tmp_path / name) for name in ("x/a.wav", "b.wav"))
    assert found == {a: [Event(0.1, 0.2, "cat"), Event(0.5, 1.0, "dog")], b: []}
    assert annotations.labels(found) == ("cat", "dog")


def test_raven_counts_a_selection_once_and_takes_the_column_that_is_named(tmp_path):
    path = text(tmp_path / "a.Table.1.selections.txt", RAVEN)
    found = annotations.of_recording(path, "Species")
    assert found == [
        Event(0.5, 0.75, "AMRE", None, 2878.2, 4049.0),
        Event(1.5, 2.25, "EATO", None, 0.0, 8000.0),
    ]
    with pytest.raises(ValueError, match=r"no column 'Annotation'.*High Freq \(Hz\), Species"):
        annotations.of_recording(path)
    text(path, RAVEN.replace("2\tSpectrogram", "1\tSpectrogram"))
    with pytest.raises(ValueError, match="line 4: got selection 1 twice"):
        annotations.of_recording(path, "Species")


def test_audacity_with_lines_of_frequencies(tmp_path):
    lines = (
        "0.500000\t1.000000\ta dog\n\\\t1000.0\t2000.0\n0.1\t0.2\tcat\twith tab\n\\\t-1.0\t-1.0\n"
    )
    found = annotations.of_recording(text(tmp_path / "a.txt", lines))
    assert found == [
        Event(0.1, 0.2, "cat\twith tab"),
        Event(0.5, 1.0, "a dog", None, 1000.0, 2000.0),
    ]
    assert annotations.of_recording(text(tmp_path / "none.txt", "")) == []
    raven = "\t".join(["Selection", *annotations._RAVEN, "Annotation"]) + "\n"
    assert annotations.of_recording(text(tmp_path / "empty.txt", raven)) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0,5\t1,0\tdog\n", "line 1: got '0,5', wanted a number. Write a point for the comma"),
        ("0.5\t0.5\tdog\n", "line 1: got 0.5 to 0.5 s, wanted an end after the start. A point has"),
        ("0.5\t1\t\n", "line 1: label: got nothing"),
        ("-1\t1\tdog\n", "line 1: start: got -1 s"),
        ("nan\t1\tdog\n", "line 1: got nan"),
        ("\\\t1\t2\n", "line 1: got .*a label, then its frequencies"),
        ("onset offset\n", "line 1: got 'onset offset', wanted start, end and label with tabs"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path, content, said):
    with pytest.raises(ValueError, match=said):
        annotations.of_recording(text(tmp_path / "a.txt", content))


def test_tables_that_cannot_be_understood(tmp_path):
    for content, said in (
        ("path,start,ende,label\na,0,1,x\n", "one for the end: end, offset.*Is 'ende' meant"),
        ("path,start,end,label\na,0,,x\n", "line 2: end: got nothing, wanted seconds"),
        ("path,start,end,label\n,0,1,x\n", "line 2: path: got nothing, wanted a path"),
        ("path,start,end,label\na,0,1,\n", "line 2: label: got nothing"),
    ):
        with pytest.raises(ValueError, match=said):
            annotations.read(text(tmp_path / "t.csv", content))
    with pytest.raises(ValueError, match="got '.doc', wanted a table"):
        annotations.read(text(tmp_path / "t.doc", ""))


def sounds(folder, *names, seconds=1.0):
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        soundfile.write(folder / name, np.zeros(int(8000 * seconds), np.float32), 8000)


def test_a_folder_of_recordings_with_files_beside_them(tmp_path):
    sounds(tmp_path, "a.wav", "b.wav", "nobody_listened.wav")
    text(tmp_path / "a.selections.txt", RAVEN)
    text(tmp_path / "b.txt", "")
    found = annotations.read(tmp_path, "Species")
    assert {pathlib.Path(path).name: len(some) for path, some in found.items()} == {
        "a.wav": 2,
        "b.wav": 0,
    }
    text(tmp_path / "a.txt", "0\t1\tx\n")
    with pytest.raises(ValueError, match=r"a.selections.txt and a.txt describe it: keep one"):
        annotations.read(tmp_path, "Species")
    sounds(tmp_path / "c", "c.wav")
    with pytest.raises(ValueError, match="got 1 recordings and no such file"):
        annotations.read(tmp_path / "c")


def written(kind, events, name="x.wav"):
    return annotations.written(kind, events, rate=16_000, duration=4.0, name=name)


@pytest.mark.parametrize("kind", ["raven", "audacity"])
def test_what_is_written_is_read_back(tmp_path, kind):
    path = text(tmp_path / f"x{annotations.ENDINGS[kind]}", written(kind, EVENTS))
    found = annotations.of_recording(path)
    assert [e[:3] for e in found] == [e[:3] for e in EVENTS]
    if kind == "raven":
        assert [(e.score, e.low, e.high) for e in found[:2]] == [(0.75, 0, 8000), (1, 0, 8000)]
    assert annotations.of_recording(text(path, written(kind, []))) == []
    annotations.check_labels(kind, ["a dog", "cat;1"])
    with pytest.raises(ValueError, match="wanted a name without tabs"):
        annotations.check_labels(kind, ["a\tdog"])


def test_the_table_is_read_back(tmp_path):
    lines = io.StringIO()
    table = csv.writer(lines)
    table.writerows(
        [annotations.HEAD, *annotations.rows("a.wav", EVENTS), *annotations.rows("b.wav", [])]
    )
    found = annotations.read(text(tmp_path / "t.csv", lines.getvalue()))
    assert found == {str(tmp_path / "a.wav"): EVENTS, str(tmp_path / "b.wav"): []}


def test_formats_by_the_name_of_a_file():
    names = ["a.csv", "a.selections.txt", "a.TXT", "a.jams", "a.wav", "folder"]
    assert [annotations.format_of(n) for n in names] == ["csv", "raven", "audacity", "jams", "", ""]


def test_crowsetta_reads_what_is_written_for_raven(tmp_path):
    crowsetta = pytest.importorskip(
        "crowsetta", reason="Raven's tables NOT read by another: pip install crowsetta"
    )
    path = text(tmp_path / "x.selections.txt", written("raven", EVENTS))
    boxes = crowsetta.formats.bbox.Raven.from_file(path).to_bbox()
    assert [(b.onset, b.offset, b.label, b.low_freq, b.high_freq) for b in boxes] == [
        (e.start, e.end, e.label, 0.0, 8000.0) for e in EVENTS
    ]


def test_crowsetta_reads_what_is_written_for_audacity(tmp_path):
    crowsetta = pytest.importorskip(
        "crowsetta", reason="Audacity's labels NOT read by another: pip install crowsetta"
    )
    path = text(tmp_path / "x.txt", written("audacity", EVENTS))
    found = crowsetta.formats.seq.AudSeq.from_file(path).to_seq()
    assert found.onsets_s.tolist() == [e.start for e in EVENTS]
    assert found.labels.tolist() == [e.label for e in EVENTS]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonschema, which jams calls
def test_jams_reads_what_is_written_for_it(tmp_path):
    jams = pytest.importorskip("jams", reason="JAMS NOT tested: pip install 'ssl_audio[events]'")
    path = text(tmp_path / "x.jams", written("jams", EVENTS, "x.wav"))
    found = jams.load(str(path), strict=True)
    assert (found.file_metadata.duration, found.file_metadata.title) == (4.0, "x.wav")
    (some,) = found.search(namespace="tag_open")
    assert [(o.time, o.time + o.duration, o.value, o.confidence) for o in some.data] == [
        e[:4] for e in EVENTS
    ]


def test_recordings_whole_and_in_stretches(tmp_path):
    sounds(tmp_path, "a.wav", seconds=2.4)
    sounds(tmp_path, "b.wav", seconds=0.5)
    rows = "a.wav,0.5,1.25,dog\na.wav,1.0,1.5,dog\na.wav,0.9,2.3,cat\nb.wav,,,\n"
    table = text(tmp_path / "t.csv", f"path,start,end,label\n{rows}")
    whole = Recordings(str(table), rate=8000)
    assert (len(whole), whole.info.labels, whole.info.multilabel) == (2, ("cat", "dog"), True)
    # Events of one class that overlap are one.
    assert whole[0]["events"] == ((0.5, 1.5, 1), (0.9, 2.3, 0)) and whole[0]["label"] == (0, 1)
    assert whole[1]["events"] == () and whole[1]["label"] == ()
    cut = Recordings(str(table), rate=8000, seconds=1.0)
    assert [len(cut[i]["audio"]) for i in range(3)] == [8000, 11_200, 4000]
    assert cut[0]["events"] == ((0.5, 1.0, 1), (0.9, 1.0, 0))
    assert np.allclose(cut[1]["events"], [(0.0, 0.5, 1), (0.0, 1.3, 0)])
    assert cut.meta(1)["id"].endswith("a.wav#1") and cut.digest() != whole.digest()
    with pytest.raises(ValueError, match="label 'dog' is not one of cat"):
        len(Recordings(str(table), labels=("cat",)))
    assert united([(0, 1, 0), (1, 2, 0), (0.5, 0.7, 1), (5, 6, 0)]) == (
        (0, 2, 0),
        (0.5, 0.7, 1),
        (5, 6, 0),
    )


def test_a_row_has_one_label_and_a_table_its_commas(tmp_path):
    table = tmp_path / "a.jsonl"
    table.write_text('{"path": "a.wav", "start": 0, "end": 1, "label": ["x", "y"]}\n')
    with pytest.raises(ValueError, match=r"line 1: label: got .*x.*y.*, wanted one name"):
        annotations.read(table)
    table = tmp_path / "b.csv"
    table.write_text("path;start;end;label\na.wav;0;1;x\n")
    with pytest.raises(ValueError, match="separated by ';'"):
        annotations.read(table)


def test_events_behind_the_end_are_not_lost_without_a_word(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    table = tmp_path / "t.csv"
    table.write_text("path,start,end,label\na.wav,0.5,1.5,x\na.wav,1,2,x\na.wav,250,900,y\n")
    source = Recordings(str(table), seconds=1.0)
    assert source.meta(0)["events"] == ((0.5, 1.0, 0),) and "2 of 3 events begin" in caplog.text
    table.write_text("path,start,end,label\na.wav,250,900,y\n")
    with pytest.raises(ValueError, match=r"a.wav: 250 s, of 1.000 s\); wanted seconds"):
        len(Recordings(str(table), seconds=1.0))


def test_a_package_that_lacks_another_is_told_from_one_that_is_missing(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text(
        "import warnings\nwarnings.warn('old')\nimport pkg_gone\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        RuntimeError, match=r"X needs half_there \(No module named 'pkg_gone'\): pip install"
    ):
        annotations.needs("half_there", "X")


def test_a_column_of_splits(tmp_path):
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    table = tmp_path / "t.csv"
    rows = ["a.wav,0,1,x,train", "b.wav,0,1,y,test", "a.wav,0.5,1,y,train", "c.wav,,,,train"]
    table.write_text("\n".join(["path,start,end,label,split", *rows]))
    every, train = Recordings(str(table)), Recordings(str(table), split="train")
    assert [every.meta(i)["split"] for i in range(3)] == ["train", "test", "train"]
    assert [train.meta(i)["id"][-5:] for i in range(len(train))] == ["a.wav", "c.wav"]
    assert train.info.labels == ("x", "y")
    with pytest.raises(ValueError, match="no recording has split='dev'; there are test, train"):
        len(Recordings(str(table), split="dev"))
    table.write_text("\n".join(["path,start,end,label,split", *rows, "a.wav,0,1,x,test"]))
    with pytest.raises(ValueError, match=r"line 6: split: got 'test', wanted 'train'"):
        len(Recordings(str(table)))
