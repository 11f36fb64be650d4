"""Labels in a CSV: on disk at once, shared by pages, a manifest for training, nothing of others lost."""

import os
import subprocess
import sys

import pytest

from ssl_audio.data.source import Manifest
from ssl_audio.explore import collection
from ssl_audio.explore.labels import Labels


@pytest.fixture
def opened(place):
    shown = collection.read(place)

    def make(path=place / "labels.csv"):
        return Labels(path, shown.rows, shown.numbers)

    return make


def test_a_label_is_on_disk_when_it_is_set_and_another_page_sees_it(opened, place):
    mine, theirs = opened(), opened()
    assert mine.set(0, "hum") is None
    low = place.parent / "sounds/low/low0.wav"
    assert (place / "labels.csv").read_text() == f"path,start,end,label\n{low},0,1,hum\n"
    seen = theirs.version
    assert theirs.refresh() > seen and theirs.of == {0: "hum"}
    theirs.set(5, "beep, high")
    mine.refresh()
    assert mine.of == {0: "hum", 5: "beep, high"} and mine.classes == ["hum", "beep, high"]


def test_a_label_changes_and_goes_and_other_lines_stay(opened, place):
    path = place / "labels.csv"
    path.write_text("path,start,end,label,who\n/elsewhere.wav,0,1,dog,ann\nlow,,,,\n")
    labels = opened()
    assert labels.others == 1
    labels.set(2, "hum")
    assert labels.set(2, "drone") == "hum" and labels.of == {2: "drone"}
    assert labels.set(2, None) == "drone" and labels.of == {}
    assert path.read_text() == "path,start,end,label,who\n/elsewhere.wav,0,1,dog,ann\nlow,,,,\n"
    assert labels.set(2, None) is None


def test_the_file_is_a_manifest(opened, place):
    labels = opened()
    for number, label in ((0, "hum"), (4, "beep"), (1, "hum"), (8, "hiss")):
        labels.set(number, label)
    source = Manifest(str(place / "labels.csv"))
    assert source.info.labels == ("beep", "hiss", "hum")
    assert [source.meta(i)["label"] for i in range(4)] == [2, 0, 2, 1]
    assert source[0]["audio"].shape == (16_000,)


def test_a_line_that_a_kill_has_cut_is_ended_first(opened, place):
    labels = opened()
    labels.set(0, "hum")
    with (place / "labels.csv").open("a") as file:
        file.write("/cut/off.wav,0")
    labels.set(1, "hum")
    assert labels.of == {0: "hum", 1: "hum"}
    assert (place / "labels.csv").read_text().splitlines()[2] == "/cut/off.wav,0"


WRITER = """
import sys
from ssl_audio.explore import collection
from ssl_audio.explore.labels import Labels
shown = collection.read(sys.argv[1])
labels = Labels(shown.beside("labels.csv"), shown.rows, shown.numbers)
for i in range(40):
    labels.set(int(sys.argv[2]) + i % 6, f"{sys.argv[2]}-{i // 6}")
"""


def test_two_programs_label_at_once(place):
    both = [subprocess.Popen([sys.executable, "-c", WRITER, place, first]) for first in ("0", "6")]
    assert [process.wait(120) for process in both] == [0, 0]
    shown = collection.read(place)
    labels = Labels(place / "labels.csv", shown.rows, shown.numbers)
    wanted = {f: {f + i: f"{f}-{6 if i < 4 else 5}" for i in range(6)} for f in (0, 6)}
    assert labels.of == wanted[0] | wanted[6] and labels.others == 0
    assert len((place / "labels.csv").read_text().splitlines()) == 13


def test_faults_name_the_file(opened, place, tmp_path):
    with pytest.raises(ValueError, match=r"labels.txt: wanted a name that ends in .csv"):
        opened(tmp_path / "labels.txt")
    path = tmp_path / "two.csv"
    path.write_text("path,label\n/a.wav,dog\n")
    with pytest.raises(ValueError, match=r"two.csv: got no column start, end"):
        opened(path).set(0, "dog")
    path.write_bytes(b"path,start,end,label\n/a.wav,0,1,caf\xe9\n")
    with pytest.raises(ValueError, match="two.csv.*not UTF-8"):
        opened(path)
    for label in ("", "  ", "x" * 201):
        with pytest.raises(ValueError, match="1 to 200 characters"):
            opened().set(0, label)
    assert opened().set(0, " two\n words ") is None and opened().of == {0: "two words"}


@pytest.mark.skipif(os.name == "nt", reason="names of files are bytes on POSIX systems only")
def test_a_name_that_no_table_can_hold(tmp_path):
    rows = [collection.Row(os.fsdecode(b"/sounds/caf\xe9.wav"), 0.0, 1.0)]
    labels = Labels(tmp_path / "labels.csv", rows, {collection.key(*rows[0]): 0})
    with pytest.raises(ValueError, match="not UTF-8"):
        labels.set(0, "dog")
    assert not labels.path.exists()


@pytest.mark.parametrize(
    "head",
    [
        "path,start,end,label",
        " path, start, end, label",
        "\n\npath,start,end,label",
        "\ufeffpath,start,end,label",
    ],
)
def test_a_table_of_another_program_is_read_as_it_is_written(opened, place, head):
    path, mark = place / "labels.csv", ", " if ", " in head else ","
    low = place.parent / "sounds/low"
    rows = [(low / "low0.wav", 0, 1, "hum"), (low / "low1.wav", 0, 1, "  ")]
    path.write_text("\n".join([head, *(mark.join(map(str, row)) for row in rows)]))
    labels = opened()
    assert labels.of == {0: "hum"}  # a blank is no label
    assert labels.set(0, "drone") == "hum" and labels.set(1, "hum") is None
    assert labels.of == opened().of == {0: "drone", 1: "hum"}
    assert labels.set(0, None) == "drone" and opened().of == {1: "hum"}


def test_a_table_that_was_damaged_meanwhile_changes_nothing(opened, place):
    labels = opened()
    labels.set(0, "hum")
    labels.set(1, "hum")
    path, before, version = place / "labels.csv", labels.of, labels.version
    good = path.read_text()
    path.write_text(good + 'a.wav,0,1,"cut\n')
    with pytest.raises(ValueError, match="no CSV"):
        labels.refresh()
    assert labels.of is before and labels.of == {0: "hum", 1: "hum"} and labels.version == version
    path.write_text(good)
    assert labels.refresh() > version and labels.of == before
