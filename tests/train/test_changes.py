"""What of a config may change between two starts: logged and kept; what may not: refused by name."""

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest

from ssl_audio.data.beside import Beside
from ssl_audio.data.clips import Clip
from ssl_audio.data.entries import Audio
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.source import Files, SourceInfo
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.storage import checkpoint
from ssl_audio.train import changes

OPTIONS = {
    "objective": {"kind": "mae", "encoder": {"depth": 4}, "reconstruct": 10.0},
    "data": {
        "kind": "pipeline", "batch_size": 8, "seed": 0, "workers": 0, "threads": 8, "max_bad_share": 0.01,
        "sources": {"a": {"kind": "source:Folder", "root": "/here/a"}}, "weights": {"a": 1.0},
        "entries": {"audio": {"kind": "entries:Audio", "samples": 16_000}},
    },
    "optim": {"lr": 1e-3, "clip": 0.0, "steps_at": (1, 2), "average": 0.0, "rates": {}},
    "steps": "10ep", "seed": 0, "accumulate": 1, "evals": {}, "record": {"every": 50},
    "checkpoint": {"every": "5%"}, "warm_start": {"encoder": {"path": "/runs/a"}},
}  # fmt: skip
CLIPS = {"a": {"clips": 400, "content": "1234"}}


def changed(path, value):
    made = copy.deepcopy(OPTIONS)
    *folders, leaf = path.split(".")
    place = made
    for folder in folders:
        place = place[folder]
    place[leaf] = value
    return made


@pytest.fixture
def run(tmp_path):
    """Return the workdir of a run that has saved step 40."""
    changes.begin(OPTIONS, tmp_path, CLIPS)
    folder = tmp_path / "checkpoints/40/meta"
    folder.mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps({"data": CLIPS}))
    assert checkpoint.steps(tmp_path) == [40]
    return tmp_path


def history(workdir):
    path = workdir / changes.HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optim.lr", 1e-4), ("optim.clip", 1.0), ("optim.steps_at", (3, 4)), ("optim.rates", {"^head/": 3.0}),
        ("data.max_bad_share", 0.5), ("data.workers", 4), ("data.threads", 2), ("steps", 900),
        ("accumulate", 2), ("evals", {"test": {"kind": "classify"}}), ("record.every", 1),
        ("checkpoint.every", 7), ("data.sources.a.root", "/there/a"),
    ],
)  # fmt: skip
def test_what_may_change_changes_and_is_kept(run, caplog, path, value):
    caplog.set_level("INFO")
    changes.begin(changed(path, value), run, CLIPS)
    assert f"changed at step 40: {path}" in caplog.text
    (line,) = history(run)
    assert line["step"] == 40 and len(line["changed"]) == 1
    ((name, (old, new)),) = line["changed"].items()
    assert name.startswith(path) and old != new
    written = json.loads((run / "config.json").read_text())
    assert changes.differences(written, changed(path, value)) == {}
    changes.begin(changed(path, value), run, CLIPS)  # the same again says nothing
    assert len(history(run)) == 1
    changes.begin(OPTIONS, run, CLIPS)
    assert len(history(run)) == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("objective.encoder.depth", 5), ("objective.reconstruct", 1.0), ("objective.new", 1), ("seed", 1),
        ("data.batch_size", 16), ("data.seed", 1), ("data.entries.audio.samples", 8000), 
        ("data.mixup", 0.5),        ("data.sources.a.kind", "synthetic"), ("data.weights.a", 2.0),
        ("data.sources.b", {"kind": "synthetic"}),        ("warm_start.encoder.path", "/runs/b"),
    ],
)  # fmt: skip
def test_what_decides_shapes_or_batches_is_refused_by_name(run, path, value):
    before = (run / "config.json").read_text()
    with pytest.raises(
        ValueError, match=f"{run}: holds a run of another config, at step 40. {path}"
    ) as e:
        changes.begin(changed(path, value), run, CLIPS)
    assert ", now " in str(e.value) and "\n" not in str(e.value)
    assert (run / "config.json").read_text() == before and not history(run)


def test_an_average_is_on_or_off_from_the_first_step(run):
    with pytest.raises(ValueError, match=r"optim.average: 0.0, now 0.9 \(a mean of the parameters"):
        changes.begin(changed("optim.average", 0.9), run, CLIPS)


def test_a_workdir_without_a_checkpoint_holds_no_run(tmp_path):
    changes.begin(OPTIONS, tmp_path, CLIPS)
    (tmp_path / "checkpoints").mkdir()
    changes.begin(changed("objective.encoder.depth", 5), tmp_path, CLIPS)
    assert json.loads((tmp_path / "config.json").read_text())["objective"]["encoder"]["depth"] == 5


def test_the_same_data_may_move_and_take_another_name_but_not_be_another(run):
    moved = copy.deepcopy(OPTIONS)
    moved["data"]["sources"] = {"copy": {"kind": "source:Folder", "root": "/there/copy"}}
    moved["data"]["weights"] = {"copy": 1.0}
    with pytest.raises(ValueError, match="data.sources"):
        changes.begin(moved, run, {"copy": {"clips": 402, "content": "5678"}})
    other = {"a": {"clips": 402, "content": "5678"}}
    with pytest.raises(
        ValueError, match=r"data.sources.a.root: .* \(another collection: 400 clips, now 402"
    ):
        changes.begin(changed("data.sources.a.root", "/there/a"), run, other)
    changes.begin(moved, run, {"copy": CLIPS["a"]})
    assert list(history(run)[0]["changed"]) == ["data.sources.copy.root"]


def test_a_folder_that_has_lost_a_bad_file_goes_on_with_a_warning(run, caplog):
    changes.begin(OPTIONS, run, {"a": {"clips": 399, "content": "9"}})
    assert "data.sources.a: 400 clips when the run began, 399 now" in caplog.text
    assert list(history(run)[0]["changed"]) == ["data.sources.a"]


@pytest.mark.parametrize("before", ["xla", None], ids=["other", "of a version that wrote none"])
def test_another_implementation_is_noted(run, monkeypatch, before):
    meta = {"data": CLIPS} | ({"implementations": {"scan": before}} if before else {})
    monkeypatch.setattr(changes.checkpoint, "meta", lambda workdir: meta)
    changes.begin(OPTIONS, run, CLIPS, {"scan": "cpp"})
    line = json.loads((run / changes.HISTORY).read_text().splitlines()[-1])
    assert line["changed"] == {"implementation of scan": [before or "not known", "cpp"]}


def test_hours_are_told_where_all_clips_state_them(tmp_path):
    class Some(Files):
        rate = 16_000

        def __init__(self, *ends):
            self.ends = ends

        def scan(self):
            return SourceInfo("some"), [
                Clip(f"{e}.wav", str(e), start=1.0, end=e) for e in self.ends
            ]

    assert changes.hours(Some(11.0, 21.0)) == pytest.approx(30 / 3600)
    assert changes.hours(Some(11.0, None)) is None and changes.hours(object()) is None


def test_a_checkpoint_names_the_sources_beside_too():
    rest = Pipeline(
        {"b": Synthetic(size=4, seconds=0.1)}, batch_size=2, entries={"audio": Audio(800)}
    )
    here = {"a": Synthetic(size=6, seconds=0.1)}
    data = Beside(here, batch_size=2, entries=rest.entries, beside={"more": rest})
    run: Any = SimpleNamespace(data=data)
    found = changes.about(run)["sources"]
    assert found.keys() == data.collections().keys() == {"a", "more.b"}
    assert found["more.b"]["licence"] == "CC0 1.0"


def test_a_run_from_before_names_were_written_goes_on(run):
    label = {"kind": "entries:Labels", "classes": 2}
    before = changed("data.entries.label", label)
    changes.begin(before, run / "labelled", CLIPS)
    named = changed("data.entries.label", label | {"names": ("cat", "dog")})
    folder = run / "labelled/checkpoints/40/meta"
    folder.mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps({"data": CLIPS}))
    changes.begin(named, run / "labelled", CLIPS)
    (line,) = history(run / "labelled")
    assert line["changed"] == {"data.entries.label.names": ["not set", ["cat", "dog"]]}
    other = changed("data.entries.label", label | {"names": ("dog", "cat")})
    with pytest.raises(ValueError, match="data.entries.label.names: .*the stream of batches"):
        changes.begin(other, run / "labelled", CLIPS)


def test_what_is_beside_may_move_and_its_name_with_it(tmp_path):
    def options(name, root, threads=8, batch=8):
        few = {"kind": "few_labels", "source": {"kind": "source:Folder", "root": root}}
        other = {
            "kind": "pipeline",
            "batch_size": batch,
            "threads": threads,
            "sources": {name: few},
        }
        return changed("data", OPTIONS["data"] | {"kind": "beside", "beside": {"more": other}})

    known = CLIPS | {"more.b": {"clips": 90, "content": "5678"}}
    changes.begin(options("b", "/here/b"), tmp_path, known)
    folder = tmp_path / "checkpoints/40/meta"
    folder.mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps({"data": known}))
    changes.begin(options("b", "/there/b", threads=2), tmp_path, known)
    moved = CLIPS | {"more.c": known["more.b"]}
    changes.begin(options("c", "/there/c", threads=2), tmp_path, moved)
    paths = [sorted(line["changed"]) for line in history(tmp_path)]
    source = "data.beside.more.sources.{}.source.root"
    assert paths == [[source.format("b"), "data.beside.more.threads"], [source.format("c")]]
    other = CLIPS | {"more.b": {"clips": 91, "content": "x"}}
    with pytest.raises(
        ValueError, match=r"sources.b.source.root: .*another collection: 90 clips, now 91"
    ):
        changes.begin(options("b", "/else/b", threads=2), tmp_path, other)
    with pytest.raises(ValueError, match=r"data.beside.more.batch_size: 8, now 9"):
        changes.begin(options("c", "/there/c", threads=2, batch=9), tmp_path, moved)
