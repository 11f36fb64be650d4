"""Each verb is given broken files of every kind: one line that names the file or field, and no traceback."""

import json
import re
import shutil
import struct

import encoders
import numpy as np
import pytest
import soundfile

from ssl_audio import startup
from ssl_audio.__main__ import VERBS, module
from ssl_audio.storage import exported

pytestmark = pytest.mark.entry
JUNK = bytes(range(256)) * 8
HUGE = 10**12


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def header(data, **more):
    """Return a safetensors file with arrays of four bytes, whatever its header says."""
    text = json.dumps(
        {name: dict(dtype="F32", shape=[1], data_offsets=[0, 4]) for name in data} | more
    )
    return struct.pack("<Q", len(text)) + text.encode() + bytes(4)


# Broken things: name → what becomes of a whole folder. By kind; `VERB` says who takes which kind.
CONFIGS = {
    "empty": b"",
    "blanks": b" \n",
    "cut": b'{"objective": {"kind": "masked',
    "junk": JUNK,
    "list": b"[1, 2]",
    "number": b"3",
    "no keys": b"{}",
    "no kind": b'{"objective": {}}',
    "null": b"null",
    "deep": b"[" * 100_000,
    "long": b'{"objective": ' + b"9" * 5000 + b"}",
    "objective": {"objective": 3},
    "no objective": {"objective": None},
    "data": {"data": [1]},
    "entries": {"data.entries": 7},
    "audio": {"data.entries.audio": "x"},
    "samples": {"data.entries.audio.samples": HUGE},
    "samples text": {"data.entries.audio.samples": "many"},
    "optim": {"optim": "sgd"},
    "evals": {"evals": [3]},
    "kind number": {"objective.kind": 3},
    "kind empty": {"objective.kind": ""},
    "kind none": {"objective.encoder.kind": None},
    "kind list": {"objective.frontend.kind": ["fbank"]},
    "kind unknown": {"objective.frontend.kind": "fbankk"},
    "kind strange": {"objective.frontend.kind": "payload:Boom"},
    "kind random": {"objective.masking.kind": "random"},
    "option": {"objective.encoder.dpeth": 3},
    "depth": {"objective.encoder.depth": HUGE},
    "depth large": {"objective.encoder.depth": 2_000_000},
    "depth none": {"objective.encoder.depth": 0},
    "depth text": {"objective.encoder.depth": "two"},
    "width": {"objective.encoder.width": -3},
    "width zero": {"objective.encoder.width": 0},
    "block": {"objective.encoder.block": {"a": 1}},
    "block list": {"objective.encoder.block": [1]},
    "block text": {"objective.encoder.block": "blocks:PreNorm"},
    "encoder": {"objective.encoder": None},
    "heads": {"objective.encoder.block.mixer.heads": 0},
    "patch": {"objective.tokenizer.patch": 16},
    "patch text": {"objective.tokenizer.patch": ["a", "b"]},
    "patch three": {"objective.tokenizer.patch": [1, 2, 3]},
    "patch zero": {"objective.tokenizer.patch": [0, 0]},
    "grid": {"objective.encoder.positions.grid": [3, 3]},
    "hop": {"objective.frontend.hop": 0},
    "window": {"objective.frontend.window": HUGE},
    "bins": {"objective.frontend.bins": 10**9},
    "mean huge": {"objective.frontend.mean": 10**400},
    "mean none": {"objective.frontend.mean": None},
    "nan": {"objective.frontend.std": float("nan")},
    "rate": {"objective.frontend.rate": -1},
    "mlp": {"objective.encoder.block.mlp": "four"},
}
NUMBERS = {  # large, but numbers: they may load
    "mean": {"objective.frontend.mean": HUGE},
    "eps": {"objective.encoder.final_norm": {"kind": "norms:LayerNorm", "eps": HUGE}},
}
PARAMS = {
    "empty": b"",
    "junk": JUNK,
    "tree": header(["a", "a/b"]),
    "tree turned": header(["a/b", "a"]),
    "others": header(["a"]),
    "overlap": header([], a=dict(dtype="F32", shape=[9], data_offsets=[0, 4])),
    "type": header([], a=dict(dtype="X9", shape=[1], data_offsets=[0, 4])),
    "length": struct.pack("<Q", 2**60) + b"{}",
}
INDEXES = {
    "cut": b'{"info": {"na',
    "empty object": b"{}",
    "empty": b"",
    "list": b"[]",
    "info": {"info": 3},
    "labels": {"info.labels": "dog"},
    "rate": {"rate": "fast"},
    "rate below": {"rate": -1},
    "clips": {"clips": []},
    "column": {"clips.fold": [1]},
    "shards": {"shards": {}},
    "shard": {"shards": [3]},
    "file": {"shards": [{"file": "../x", "count": 3}]},
    "count": {"shards": [{"file": "00000.array_record", "count": -3}]},
    "gone": {"shards": [{"file": "gone.array_record", "count": 3}]},
}
ROWS = {
    "empty": b"",
    "object": b"{}",
    "checkpoint": b'{"checkpoint": 3, "rows": []}',
    "rows": b'{"checkpoint": "x", "rows": [[1]]}',
    "more": b'{"checkpoint": "x", "rows": [["a", 0, 1]]}',
}
MANIFESTS = {
    "empty.csv": b"",
    "header.csv": b"path\n",
    "column.csv": b"file\na.wav\n",
    "junk.csv": b"path,label\n" + JUNK,
    "latin.csv": "path,label\n\xe9.wav,x\n".encode("latin-1"),
    "number.csv": b"path,fold\na.wav,x\n",
    "quote.csv": b'path,label\n"a.wav,x\n',
    "junk.jsonl": JUNK,
    "cut.jsonl": b'{"path": "a.wa',
    "list.jsonl": b"[1]\n",
}
SOUNDS = {
    "empty.wav": b"",
    "junk.wav": JUNK,
    "riff.wav": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "junk.flac": b"fLaC" + JUNK,
    "junk.ogg": b"OggS" + JUNK,
    "junk.mp3": b"ID3" + JUNK,
    "text.wav": b"this is text",
}
WEIGHTS = {
    "empty.npz": b"",
    "junk.npz": JUNK,
    "array.npz": None,  # an .npy of that name
    "objects.npz": None,
    "empty.safetensors": b"",
    "junk.safetensors": JUNK,
    "other.xyz": b"?",
    "hf/config.json": b"{",
}
RESULTS = {  # in a workdir, for report
    "metrics.jsonl": [b"x\n", b"[1]\n", b'{"loss": 1}\n', b'{"step": "a"}\n', JUNK],
    "folds.json": [b"", b"[]", b"{}", b'{"1": {"last": {"accuracy": "x"}}}', b'{"1": 3}'],
    "versions.json": [b"", b"[]"],
    "evals/s.jsonl": [b"x\n", b"3\n", b'{"fold": "mean"}\n'],
    "predictions.npz": [b"", JUNK, "array", "other"],
}
SETS = {
    "audioset": "class_labels_indices.csv eval_segments.csv",
    "esc": "meta/esc50.csv",
    "urbansound8k": "metadata/UrbanSound8K.csv",
    "fsd50k": "FSD50K.ground_truth/vocabulary.csv FSD50K.ground_truth/dev.csv",
}
TABLES = [
    b"",
    JUNK,
    b'a,b,"c',
    b"\xef\xbb\xbfx,y\n1,2\n",
    b"1\n",
    b"index,mid,display_name\nx,y,z\n",
]
# Verbs that read no such file: what they take is said on the command line alone. Of explore: tests/explore.
NOTHING = ("bench", "compile-scan", "configs", "explore", "push")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a folder with a model, a clip, and what else is whole."""
    root = tmp_path_factory.mktemp("whole")
    model = encoders.encoder()
    exported.write(root / "model", model.params, json.loads(json.dumps(model.config)))
    (root / "model/rows.json").write_text('{"checkpoint": "x", "rows": []}')
    rng = np.random.default_rng(0)
    soundfile.write(root / "clip.wav", rng.normal(0, 0.1, 8000), 16_000)
    module("prepare").main(
        ["--source=synthetic", "--set=size=3", "--set=seconds=0.1", f"--output={root / 'shards'}"]
    )
    return root


def changed(folder, file, change):
    """Put bytes in the place of a file, or change fields of its JSON."""
    if isinstance(change, bytes):
        put(folder / file, change)
        return
    found = json.loads((folder / file).read_text())
    for where, value in change.items():
        *parents, last = where.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    (folder / file).write_text(json.dumps(found))


def run(verb, argv, capsys):
    """Return what a verb says when it ends with an error, one line; None: it does not."""
    try:
        startup.run(lambda: module(verb).main([str(part) for part in argv]))
    except SystemExit as stop:
        if stop.code in (None, 0):
            return None
        said = stop.code if isinstance(stop.code, str) else capsys.readouterr().err.splitlines()[-1]
        assert "Traceback" not in said and "unforeseen" not in said, said
        assert len(said.splitlines()) == 1, said
        return said
    return None


def named(said, *names):
    assert said is not None and any(str(name) in said for name in names), (names, said)


def fields(change):
    return [] if isinstance(change, bytes) else [key.rpartition(".")[2] for key in change]


def model_calls(folder, out):
    """Return verb → the command lines that load a model's folder."""
    text = f"--config=finetune:task=esc10,root=R,pretrained={folder}"
    return {
        "embed": [f"--checkpoint={folder}", f"--output={out}/a.npz", folder.parent / "clip.wav"],
        "predict": [f"--checkpoint={folder}", f"--output={out}/a.csv", folder.parent / "clip.wav"],
        "events": [f"--checkpoint={folder}", f"--output={out}/a.csv", folder.parent / "clip.wav"],
        "caption": [f"--checkpoint={folder}", f"--output={out}/a.csv", folder.parent / "clip.wav"],
        "separate": [
            f"--checkpoint={folder}",
            f"--output={out}/parts",
            folder.parent / "clip.wav",
            "--classes=a",
        ],
        "label": [folder.parent, f"--checkpoint={folder}", "--suggest=1", f"--labels={out}/a.csv"],
        "finetune": ["--data=synthetic", f"--pretrained={folder}", f"--workdir={out}"],
        "evaluate": [f"--checkpoint={folder}", "--set=synthetic"],
        "export": [f"--checkpoint={folder}", f"--out={out}", "--to=ssast"],
        "kmeans": ["--data=synthetic", "--codes=2", f"--out={out}", f"--checkpoint={folder}"],
        "zero-shot": [f"--checkpoint={folder}", "--set=synthetic"],
        "search": ["index", f"--checkpoint={folder}", f"--index={out}", folder.parent / "clip.wav"],
        "train": [text, f"--workdir={out}"],
        "preview": [text],
        "stages": [f"--config=unfused:task=esc10,root=R,teacher={folder}", f"--workdir={out}"],
        "folds": [text, f"--workdir={out}", "--folds=1"],
        "judge": [
            f"--generated={folder.parent}",
            f"--recorded={folder.parent}",
            f"--embedding={folder}",
            f"--output={out}/a.json",
        ],
        "benchmark": [f"--checkpoint={folder}", "--tasks=synthetic/knn", f"--output={out}"],
        "gallery": [f"--checkpoint={folder}", f"--manifest={out}/a.csv", "--ask=text"],
        "generate": ["a dog", f"--checkpoint={folder}", f"--output={out}"],
        "report": [folder, "--set=synthetic"],
        "convert": ["--from=ssast", f"--checkpoint={folder}", f"--out={out}"],
    }


LOADS = (
    "embed",
    "predict",
    "caption",
    "separate",
    "events",
    "label",
    "evaluate",
    "kmeans",
    "zero-shot",
    "search",
    "judge",
    "benchmark",
    "gallery",
    "generate",
)
READS = ("train", "finetune", "preview", "stages", "folds", "export", "report", "convert")
# What no verb that reads a config but builds nothing of it can see.
SEEN = ("empty", "no keys", "no kind", "blanks",
        "cut", "junk", "list", "number", "null", "deep", "long", "objective", "data",
        "no objective", "entries", "audio", "optim", "evals", "kind number", "kind empty", "kind none",
        "kind list", "kind strange")  # fmt: skip


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    (tmp_path / "out").mkdir()
    return tmp_path / "copy"


def test_every_verb_is_tried():
    tried = {*LOADS, *READS, "prepare", *NOTHING}
    assert tried == set(VERBS)
    things = (CONFIGS, NUMBERS, PARAMS, INDEXES, ROWS, MANIFESTS, SOUNDS, WEIGHTS)
    assert sum(map(len, things)) >= 60


@pytest.mark.parametrize("verb", ["embed", *READS])
def test_a_broken_config_is_named(verb, copy, tmp_path, capsys):
    whole = (copy / "model/config.json").read_bytes()
    for name, change in CONFIGS.items():
        if verb not in LOADS and name not in SEEN:
            continue
        put(copy / "model/config.json", whole)
        changed(copy / "model", "config.json", change)
        said = run(verb, model_calls(copy / "model", tmp_path / "out")[verb], capsys)
        assert said is not None, (verb, name)
        named(said, copy / "model")
        if verb == "embed" and fields(change):
            parents = [where for key in change for where in key.split(".")[1:]]
            named(said, *fields(change), *parents)


@pytest.mark.parametrize("verb", LOADS[1:])
def test_every_other_verb_that_loads_says_the_same(verb, copy, tmp_path, capsys):
    """They share `load`: some of each kind."""
    whole = (copy / "model/config.json").read_bytes()
    for name in ("empty", "junk", "kind number", "depth", "block", "kind strange"):
        put(copy / "model/config.json", whole)
        changed(copy / "model", "config.json", CONFIGS[name])
        named(
            run(verb, model_calls(copy / "model", tmp_path / "out")[verb], capsys), copy / "model"
        )


def test_large_numbers_are_numbers(copy, tmp_path, capsys):
    whole = (copy / "model/config.json").read_bytes()
    for change in NUMBERS.values():
        put(copy / "model/config.json", whole)
        changed(copy / "model", "config.json", change)
        said = run("embed", model_calls(copy / "model", tmp_path / "out")["embed"], capsys)
        assert said is None or str(copy) in said


@pytest.mark.parametrize("verb", [*LOADS, "export"])
def test_broken_parameters_are_named(verb, copy, tmp_path, capsys):
    some = PARAMS if verb in ("embed", "export") else {k: PARAMS[k] for k in ("junk", "tree")}
    for name, content in some.items():
        put(copy / "model/model.safetensors", content)
        said = run(verb, model_calls(copy / "model", tmp_path / "out")[verb], capsys)
        named(said, copy / "model")
        assert "wanted" in said or name in ("others",), said


def test_broken_shards_are_named(copy, tmp_path, capsys):
    pytest.importorskip("array_record")
    whole = (copy / "shards/index.json").read_bytes()
    for change in INDEXES.values():
        put(copy / "shards/index.json", whole)
        changed(copy / "shards", "index.json", change)
        argv = ["--source=shards", f"--root={copy / 'shards'}", f"--output={tmp_path / 'p'}"]
        shutil.rmtree(tmp_path / "p", ignore_errors=True)
        said = run("prepare", argv, capsys)
        named(said, copy / "shards")
        named(said, *fields(change), "index.json", "gone")
    put(copy / "shards/index.json", whole)
    put(copy / "shards/00000.array_record", JUNK)
    shutil.rmtree(tmp_path / "p", ignore_errors=True)
    named(run("prepare", argv, capsys), copy / "shards", tmp_path / "p")


def test_a_broken_index_is_named(copy, capsys):
    faiss = pytest.importorskip("faiss")
    folder = copy / "model"
    faiss.write_index(faiss.IndexFlatIP(4), str(folder / "vectors.faiss"))
    for content in ROWS.values():
        put(folder / "rows.json", content)
        named(run("search", ["query", f"--index={folder}", "dog"], capsys), folder)
    put(folder / "rows.json", b'{"checkpoint": "x", "rows": []}')
    for made in (faiss.IndexFlatL2(4), faiss.IndexHNSWFlat(4, 8), JUNK, b"", None):
        (folder / "vectors.faiss").unlink(missing_ok=True)
        if isinstance(made, bytes):
            put(folder / "vectors.faiss", made)
        elif made is not None:
            faiss.write_index(made, str(folder / "vectors.faiss"))
        said = run("search", ["query", f"--index={folder}", "dog"], capsys)
        named(said, folder / "vectors.faiss")


def test_broken_manifests_and_banks_are_named(copy, tmp_path, capsys):
    for name, content in MANIFESTS.items():
        put(copy / name, content)
        argv = ["--source=manifest", f"--root={copy / name}", f"--output={tmp_path / 'p'}"]
        named(run("prepare", argv, capsys), copy / name, tmp_path / "p/skipped.txt")
        shutil.rmtree(tmp_path / "p", ignore_errors=True)
    from ssl_audio.data import banks

    for content in (b"", JUNK, b"[]", b"3", b'{"a": 3}', b'{"a": {"train": 3}}'):
        put(copy / "bank.json", content)
        with pytest.raises(ValueError, match=r"bank\.json: got"):
            banks.bank.__wrapped__(str(copy / "bank.json"))


def test_broken_sounds_are_named(copy, tmp_path, capsys):
    for name, content in SOUNDS.items():
        put(copy / "sounds" / name, content)
    said = run("prepare", ["--source=folder", f"--root={copy / 'sounds'}",
                           f"--output={tmp_path / 'p'}"], capsys)  # fmt: skip
    named(said, *SOUNDS)
    for name in SOUNDS:
        argv = model_calls(copy / "model", tmp_path / "out")["embed"]
        argv[-1] = copy / "sounds" / name
        named(run("embed", argv, capsys), name, "none of the 1 files")


@pytest.mark.parametrize("set_name", SETS)
@pytest.mark.parametrize("content", TABLES, ids=range(len(TABLES)))
def test_broken_tables_of_data_sets_are_named(set_name, content, tmp_path, capsys):
    for broken in SETS[set_name].split():
        root = tmp_path / "set"
        shutil.rmtree(root, ignore_errors=True)
        for other in SETS[set_name].split():
            put(root / other, content if other == broken else b"index,mid,display_name\n0,/m/x,y\n")
        put(root / "clip.wav", b"")
        argv = [f"--source=sets.{set_name}", f"--root={root}", f"--output={tmp_path / 'p'}"]
        argv += ["--set=segments=eval"] if set_name == "audioset" else []
        said = run("prepare", argv, capsys)
        named(said, root)


def test_audioset_reads_marks_and_names_cut_lines(tmp_path):
    from ssl_audio.data.sets.audioset import Audioset

    put(tmp_path / "class_labels_indices.csv",
        b'\xef\xbb\xbfindex,mid,display_name\n0,/m/a,"A, b"\n1,/m/b,B\n')  # fmt: skip
    start = b"\xef\xbb\xbf# c\n# YTID, start_seconds\n"
    row = b'abcdefghijk, 0.000, 10.000, "/m/a,/m/b"\n'
    put(tmp_path / "eval_segments.csv", start + row)
    soundfile.write(tmp_path / "abcdefghijk.wav", np.zeros(160), 16_000)
    source = Audioset(str(tmp_path), segments="eval")
    assert source.info.labels == ("A, b", "B") and source.meta(0)["label"] == (0, 1)
    for end, words in (
        (b"bbbbbbbbbbb, 0.000, 1", r"eval_segments\.csv, line 4: positive_labels: got only YTID"),
        (b'bbbbbbbbbbb, 0.0, 1.0, "/m/a', r"eval_segments\.csv, line \d: got what is no CSV"),
        (
            b'bbbbbbbbbbb, 0.0, 1.0, "/m/q"\n',
            r"line 4: positive_labels: got '/m/q', wanted one of 2",
        ),
    ):
        put(tmp_path / "eval_segments.csv", start + row + end)
        with pytest.raises(ValueError, match=words):
            len(Audioset(str(tmp_path), segments="eval"))


def test_broken_weights_are_named(copy, tmp_path, capsys):
    folder = copy / "weights"
    for name, content in WEIGHTS.items():
        put(folder / name, content or b"")
    with open(folder / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with open(folder / "objects.npz", "wb") as file:
        np.savez(file, a=np.array([{}], object))
    put(folder / "hf/model.safetensors", header(["a"]))
    for name in WEIGHTS:
        place = folder / name if not name.startswith("hf") else folder / "hf"
        argv = ["--from=ssast", f"--checkpoint={place}", f"--out={tmp_path / 'o'}"]
        named(run("convert", argv, capsys), place)


def test_broken_torch_files_are_named(tmp_path, capsys):
    pytest.importorskip("torch")
    for content in (b"", JUNK, b"PK\x03\x04" + JUNK):
        put(tmp_path / "a.pth", content)
        argv = ["--from=ssast", f"--checkpoint={tmp_path / 'a.pth'}", f"--out={tmp_path / 'o'}"]
        named(run("convert", argv, capsys), tmp_path / "a.pth")


@pytest.mark.parametrize("file", RESULTS)
def test_broken_results_are_named(file, copy, capsys):
    for content in RESULTS[file]:
        path = copy / "model" / file
        put(path, content if isinstance(content, bytes) else b"")
        if content == "array":
            with open(path, "wb") as opened:
                np.save(opened, np.zeros(3))
        elif content == "other":
            with open(path, "wb") as opened:
                np.savez(opened, ids=np.zeros(3), logits=np.zeros((2, 4)), labels=np.zeros((3, 4)))
        named(run("report", [copy / "model"], capsys), path)


@pytest.mark.parametrize(
    "option", ["--seconds=inf", "--seconds=1e-9", "--seconds=nan", "--seconds=-1", "--shard-size=-1",
               "--shard-size=0", "--workers=-2", "--max-bad-share=nan", "--max-bad-share=-1",
               "--max-bad-share=7", "--rate=0", "--rate=-5", "--rate=999999999"],
)  # fmt: skip
def test_numbers_of_prepare_are_checked(option, tmp_path, capsys):
    argv = ["--source=synthetic", "--set=size=3", f"--output={tmp_path / 'p'}", option]
    said = run("prepare", argv, capsys)
    named(said, option.partition("=")[0])
    assert re.search("got .*, wanted ", said) and not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["ssast:size=huge"], "size 'huge': wanted one of tiny"),
        (["ssast:runlocal", "--config.objectiv.x=1"], "no 'objectiv'. Did you mean 'objective'?"),
        (["ssast:runlocal", "--config.objective.encoder.block={'a': 1}"], "config.objective.encoder.block"),
        (["ssast:runlocal", f"--config.objective.encoder.depth={HUGE}"], "encoder.depth"),
        (["ssast:runlocal", "--config.objective.encoder.depth=3000"], "depth is 3000"),
        (["ssast:runlocal", "--config.objective.tokenizer.patch=(8,)"], "tokenizer.patch"),
        (["ssast:runlocal", "--config.objective.kind=3"], "objective.kind"),
        (["finetune:runlocal", "--config.data.entries.label.classes=3"], "head.classes"),
        (["finetune:runlocal", "--config.objective.head.classes=3"], "data.entries.label.classes"),
        (["finetune:runlocal", "--config.objective.encoder.block.mixer.heads=0"], "heads=0"),
        (["finetune:runlocal", "--config.objective.tokenizer.width=7"], "config.objective"),
    ],
)  # fmt: skip
def test_arguments_of_a_config_are_named(argv, words, capsys):
    said = run("preview", ["--no-compile", f"--config={argv[0]}", *argv[1:]], capsys)
    named(said, words)


def test_lists_of_a_runs_config_can_be_overridden(copy):
    from ssl_audio import config_files

    place = f"finetune:task=esc10,root=R,pretrained={copy / 'model'}"
    made = config_files.load(place, ["--config.objective.tokenizer.stride=(16,16)"])
    assert tuple(made.objective.tokenizer.stride) == (16, 16)


def test_a_part_of_an_interrupted_run_that_is_broken_is_named(tmp_path):
    from ssl_audio.storage.partial_results import Parts

    for name, content in (
        ("settings.json", b""), ("settings.json", b"[]"), ("0000-000000.part", JUNK),
        ("0000-000000.part", b""), ("0000-000000.part", b'[["vector", "a", 0, [9]]]\n'),
        ("0000-000000.part", b"[3]\n"), ("x.part", b"[]\n"),
    ):  # fmt: skip
        folder = tmp_path / "parts"
        shutil.rmtree(folder, ignore_errors=True)
        put(folder / "settings.json", b"{}")
        put(folder / name, content)
        with pytest.raises(ValueError, match=re.escape(str(folder / name))):
            Parts(folder, {})
