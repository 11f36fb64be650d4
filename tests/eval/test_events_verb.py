"""`ssl-audio events`: formats and where they go, settings of classes, truth, files that cannot be read."""

import csv
import importlib.util
import json
import os

import numpy as np
import pytest
import soundfile
from encoders import drawn

from ssl_audio.config import build
from ssl_audio.data import annotations
from ssl_audio.eval import event_files, events
from ssl_audio.inference import event_scores
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.events import Segment
from ssl_audio.storage import exported
from ssl_audio.storage.partial_results import Parts

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a model of two classes and three recordings, one of them damaged."""
    made = tmp_path_factory.mktemp("events")
    frames = dict(kind="event_entries:Events", samples=10_480, frames=8, hop=1280, centre=760.0,
                  classes=2, names=("owl", "wren"))  # fmt: skip
    config = dict(
        objective=dict(
            kind="frame_tagging",
            frontend=dict(kind="fbank", bins=16, frames=64),
            tokenizer=dict(kind="patchify", width=4, patch=(16, 8), stride=(16, 8)),
            encoder=dict(kind="identity"),
            head=dict(kind="classify:Frames", classes=2),
        ),
        data=dict(entries=dict(audio=frames)),
    )
    objective = build(config["objective"], "objectives")
    exported.write(
        made / "model", drawn(objective, Classifier(objective, {}, config).blank()), config
    )
    rng = np.random.default_rng(0)
    for name in ("a/x.wav", "b/x.wav", "b/y.wav"):
        path = made / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, RATE), RATE)
    (made / "sounds/b/y.wav").write_bytes(b"RIFF")
    return made


def run(folder, *more):
    paths = [str(folder / "sounds")]
    events.main(["--checkpoint", str(folder / "model"), "--max-bad-share", "0.5", *more, *paths])


def test_a_table_of_all_and_a_file_for_each(folder, tmp_path, capsys):
    out = tmp_path / "out.csv"
    run(folder, "--output", str(out), "--threshold", "0", "--class", "wren:threshold=1,low=1")
    said = capsys.readouterr().out
    assert "out.csv: 2 events in 2 recordings; 1 of 3 skipped" in said and "y.wav" in said
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(r["start"], r["end"], r["label"]) for r in rows] == [
        ("0.000000", "1.000000", "owl")
    ] * 2
    table = annotations.read(out)
    assert sorted(table) == [str(folder / "sounds/a/x.wav"), str(folder / "sounds/b/x.wav")]
    run(folder, "--output", str(tmp_path / "tables"), "--format", "raven", "--threshold", "0")
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.txt"))
    assert files == ["tables/a/x.selections.txt", "tables/b/x.selections.txt"]
    found = annotations.of_recording(tmp_path / files[0])
    assert [e[:3] for e in found] == [(0.0, 1.0, "owl"), (0.0, 1.0, "wren")] and found[
        0
    ].high == 8000


def test_settings_of_classes_and_what_is_refused(folder, tmp_path):
    table = tmp_path / "classes.csv"
    table.write_text("label,threshold,min-gap\nowl,0.9,\nwren,,0.25\n")
    assert dict(events._of_table(str(table))) == {
        "owl": {"threshold": 0.9},
        "wren": {"min_gap": 0.25},
    }
    assert events._of_option("a:b:low=0.1,min-length=2") == ("a:b", {"low": 0.1, "min_length": 2.0})
    for text in ("owl", "owl:treshold=1", "owl:low=x"):
        with pytest.raises(ValueError, match="wanted NAME:SETTING=NUMBER"):
            events._of_option(text)
    for more, said in (
        (
            ["--output", str(tmp_path / "o.csv"), "--class", "emu:low=0"],
            "no such class; it has owl, wren",
        ),
        (
            ["--output", str(tmp_path / "o.selections.txt")],
            "there are 3: give a folder, and --format raven",
        ),
        (["--output", str(tmp_path / "o")], "wanted a name that ends in .csv"),
        (["--output", str(tmp_path / "o.csv"), "--format", "raven"], "its ending means csv"),
        (["--output", str(tmp_path), "--format", "csv"], "a table is one file"),
        (["--output", str(tmp_path / "o.csv"), "--window", "1", "--hop", "2"], "up to the window"),
        (["--output", str(tmp_path / "o.csv"), "--window", "1", "--hop", "0"], "hop above 0"),
        (["--output", str(tmp_path / "o.csv"), "--window", "1", "--smooth", "1"], "of frames"),
        (["--output", str(tmp_path / "o.csv"), "--join", "nearest"], "give --window too"),
        (["--output", str(tmp_path / "o.csv"), "--threshold", "2"], "got 2 for owl, wanted 0 to 1"),
    ):
        with pytest.raises(ValueError, match=said):
            run(folder, *more)
    for more in (
        [],
        ["--truth", "t.csv", "--collar", "nan"],
        ["--truth", "t.csv", "--collar", "-1"],
    ):
        with pytest.raises(SystemExit):
            events.main(["--checkpoint", "x", *more, "sounds"])


def test_how_windows_are_joined_is_heard_without_their_length_too(folder, tmp_path, monkeypatch):
    asked = []

    def hear(classifier, clips, rules, windows, **how):
        asked.append(windows)
        return iter(())

    monkeypatch.setattr(event_scores, "usual_windows", lambda _: event_scores.Windows(1.0, 0.25))
    monkeypatch.setattr(event_scores, "hear", hear)
    for join in ("mean", "nearest"):
        with pytest.raises(ValueError, match="could be read"):
            run(folder, "--output", str(tmp_path / "o.csv"), "--join", join)
    assert [w.join for w in asked] == ["mean", "nearest"]
    with pytest.raises(ValueError, match="of frames"):
        run(folder, "--output", str(tmp_path / "o.csv"), "--smooth", "1")


def test_a_name_that_is_not_utf_8_costs_no_events(folder, tmp_path, capsys):
    name = os.fsencode(tmp_path) + b"/n\xff.wav"
    with open(name, "wb") as file:
        file.write((folder / "sounds/a/x.wav").read_bytes())
    out = tmp_path / "o.csv"
    how = ["--checkpoint", str(folder / "model"), "--threshold", "0"]
    events.main([*how, "--output", str(out), os.fsdecode(name)])
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["label"] for row in rows] == ["owl", "wren"] and "n\\xff.wav" in rows[0]["path"]


def test_metrics_that_cannot_be_written_are_refused_before_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(annotations, "needs", lambda package, what: None)
    (tmp_path / "t.csv").write_text(f"path,start,end,label\n{folder}/sounds/a/x.wav,0,1,owl\n")
    with pytest.raises(ValueError, match="it is a folder"):
        run(folder, "--truth", str(tmp_path / "t.csv"), "--metrics", str(tmp_path))


def test_the_truth(folder, tmp_path, capsys, caplog):
    if importlib.util.find_spec("sed_scores_eval") is None:
        pytest.skip("metrics of events NOT tested: pip install 'ssl_audio[events]'")
    truth = tmp_path / "truth.csv"
    # By the name of the file where the path is another; two recordings have the name x.wav.
    truth.write_text(
        f"path,start,end,label\n{folder}/sounds/a/x.wav,0,1,owl\nelsewhere/z.wav,0,1,owl\n"
    )
    report = tmp_path / "metrics.json"
    run(folder, "--truth", str(truth), "--threshold", "0", "--metrics", str(report))
    said = capsys.readouterr().out
    assert "as mean of the 1 of 2 classes that occur" in said
    found = json.loads(report.read_text())
    assert (found["right"], found["wrong"], found["missed"], found["f1_macro"]) == (1, 1, 0, 1.0)
    assert "1 of its 2 recordings were not given" in caplog.text
    assert "2 of 3 recordings are not in it" in caplog.text


def test_a_killed_search_goes_on_with_the_recordings_that_are_left(folder, tmp_path, monkeypatch):
    true, searched = event_scores.hear, []

    def counted(*args, **how):
        for found in true(*args, **how):
            searched.append(found[0])
            yield found

    def killed(*args, **how):
        yield next(true(*args, **how))
        raise KeyboardInterrupt

    how = ["--threshold", "0", "--class", "wren:threshold=0.4"]
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    run(folder, *how, "--output", str(whole))
    assert not whole.with_name("whole.csv.parts").exists()
    monkeypatch.setattr(event_scores, "hear", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, *how, "--output", str(out))
    assert not out.exists() and list((tmp_path / "out.csv.parts").glob("*.part"))
    monkeypatch.setattr(event_scores, "hear", counted)
    with pytest.raises(ValueError, match="an interrupted run with other settings.*rules"):
        run(folder, "--threshold", "0.1", "--output", str(out))
    run(folder, *how, "--output", str(out))
    assert len(searched) == 1 and out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "out.csv.parts").exists()


def test_what_is_kept_comes_back_with_its_bits(tmp_path):
    heard = event_scores.Heard(None, keep=True)
    heard.events = [Segment(1, 0.1, 1 / 3, 0.7), Segment(0, 2.0, 2.5, 1e-9)]
    heard.duration = 100_000.123456789
    edges = np.array([0, 100_001, 100_000_000_007])
    heard._pieces = [
        (edges[:2], np.float32([[0.1, 0.2]])),
        (edges[1:], np.float32([[0.3, np.nan]])),
    ]
    parts = Parts(tmp_path, {})
    events._Found.keep(parts, "a", heard, True)
    events._Found.keep(parts, "b", heard, False)
    parts.write()
    found, bare = (events._Found.of(Parts(tmp_path, {}), id) for id in "ab")
    assert found.duration == bare.duration == heard.duration and bare.scores is None
    assert [e[:4] for e in found.events(("owl", "wren"))] == [
        (0.1, 1 / 3, "wren", 0.7), (2.0, 2.5, "owl", 1e-9)
    ]  # fmt: skip
    np.testing.assert_array_equal(found.scores[:, 0], heard.edges)
    np.testing.assert_array_equal(found.scores[:-1, 1:].astype(np.float32), heard.values)


def test_no_two_recordings_have_one_file(tmp_path):
    names = ["a.wav", "a.flac", "a.wav.ogg", "b.wav", "c/a.wav"]
    files = event_files._names(tmp_path, "raven", [f"/sound/{name}" for name in names])
    wanted = ["a.wav", "a.flac", "a.wav.ogg", "b", "c/a"]
    assert files == [tmp_path / f"{name}.selections.txt" for name in wanted]


def test_the_truth_is_never_replaced(folder, tmp_path):
    truth = tmp_path / "truth"
    truth.mkdir()
    (truth / "x.txt").write_text("0.5\t1.0\towl\n")
    (truth / "x.wav").write_bytes((folder / "sounds/a/x.wav").read_bytes())
    table = tmp_path / "t.csv"
    table.write_text(f"path,start,end,label\n{truth / 'x.wav'},0.5,1.0,owl\n")
    before = {path: path.read_bytes() for path in (truth / "x.txt", table)}
    sound = str(truth / "x.wav")
    for more in (
        ["--truth", str(truth), "--output", str(truth), "--format", "audacity"],
        ["--truth", str(table), "--output", str(table)],
        ["--truth", str(table), "--metrics", str(table)],
        ["--truth", str(table), "--output", str(tmp_path / "o.csv"), "--metrics", str(tmp_path / "o.csv")],
    ):  # fmt: skip
        with pytest.raises(ValueError, match="for something else, too, and would replace it"):
            events.main(["--checkpoint", str(folder / "model"), *more, sound])
    assert {path: path.read_bytes() for path in before} == before
