"""Clips inside larger files: data of Hugging Face `datasets` written with pyarrow, tars of WebDataset."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data import places
from ssl_audio.data.arrow import Arrow
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.labelled import Labelled
from ssl_audio.data.prepare import main as prepare
from ssl_audio.data.shards import Shards
from ssl_audio.data.webdataset import Webdataset
from ssl_audio.eval import evaluate

RATE = 16_000
NAMES = ["cat", "dog", "rain"]


def sound(i):
    return (0.3 * np.sin(2 * np.pi * (200 + 90 * i) * np.arange(1600 + 400 * i) / RATE)).astype(
        "f4"
    )


def flac(i):
    file = io.BytesIO()
    soundfile.write(file, sound(i), RATE, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def heard(source, i, wanted):
    np.testing.assert_allclose(source[i]["audio"], sound(wanted), atol=1e-5)


# --- Hugging Face datasets


@pytest.fixture(scope="module")
def arrow():
    return pytest.importorskip("pyarrow", reason="pip install 'ssl_audio[parquet]'")


def features(**more):
    found = {
        "audio": {"sampling_rate": RATE, "_type": "Audio"},
        "label": {"names": NAMES, "_type": "ClassLabel"},
        "caption": {"dtype": "string", "_type": "Value"},
        "speaker": {"names": ["x", "y"], "_type": "ClassLabel"},
    }
    return found | more


def table(pyarrow, numbers, embedded=True, folder="/gone", **columns):
    rows = {
        "audio": pyarrow.array(
            [
                {"bytes": flac(i) if embedded else None, "path": f"{folder}/{i}.flac"}
                for i in numbers
            ],
            pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        ),
        "label": [i % 3 if i < 5 else -1 for i in numbers],
        "caption": [f"sound {i}" for i in numbers],
        "speaker": [i % 2 for i in numbers],
        **columns,
    }
    about = json.dumps({"info": {"features": features()}})
    return pyarrow.table(rows).replace_schema_metadata({"huggingface": about})


def saved(pyarrow, folder, *parts, split=None):
    """Write what `save_to_disk` does."""
    folder.mkdir(parents=True)
    files = []
    for k, numbers in enumerate(parts):
        name = f"data-{k:05d}-of-{len(parts):05d}.arrow"
        made = table(pyarrow, numbers)
        with (
            pyarrow.OSFile(str(folder / name), "wb") as sink,
            pyarrow.ipc.new_stream(sink, made.schema) as writer,
        ):
            writer.write_table(made, max_chunksize=2)
        files.append({"filename": name})
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": split}))
    (folder / "dataset_info.json").write_text(
        json.dumps({"features": features(), "license": "cc0"})
    )
    return folder


def test_a_folder_of_save_to_disk(arrow, tmp_path):
    root = saved(arrow, tmp_path / "set", [0, 1, 2, 3], [4, 5])
    assert places.source(str(root)) == dict(kind="arrow", root=str(root))
    source = config.build(places.source(str(root)), "data")
    assert len(source) == 6 and source.info.labels == tuple(NAMES) and source.info.licence == "cc0"
    for i in (5, 0, 4, 3):
        heard(source, i, i)
    assert source.meta(4) == {
        "rate": RATE, "id": "4.flac", "label": 1, "text": "sound 4", "columns": {"speaker": "x"}
    }  # fmt: skip
    assert "label" not in source.meta(5)  # -1: unknown
    codes, values = source.coded_labels()
    assert [values[code] for code in codes] == [0, 1, 2, 0, 1, None]
    copy = pickle.loads(pickle.dumps(source))
    heard(copy, 5, 5)
    assert copy.digest() == source.digest() and len(pickle.dumps(source)) < 20_000
    other = Arrow(str(root), label="speaker")
    assert other.info.labels == ("x", "y") and other.meta(3)["label"] == 1
    assert Arrow(str(root), label="-").meta(0).get("label") is None


def test_splits_of_a_folder(arrow, tmp_path):
    root = tmp_path / "both"
    saved(arrow, root / "train", [0, 1])
    saved(arrow, root / "test", [2])
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert places.source(str(root))["kind"] == "arrow"
    assert [Arrow(str(root)).meta(i)["split"] for i in range(3)] == ["train", "train", "test"]
    heard(Arrow(str(root), split="test"), 0, 2)
    with pytest.raises(ValueError, match="no clip has split='dev'.*test, train"):
        len(Arrow(str(root), split="dev"))


def test_parquet_with_bytes_and_with_paths(arrow, tmp_path):
    import pyarrow.parquet

    folder = tmp_path / "data"
    folder.mkdir()
    for split, numbers in (("train", [0, 1, 2, 3]), ("test", [4])):
        path = folder / f"{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(table(arrow, numbers), path, row_group_size=2)
    for place in (folder, tmp_path):
        source = config.build(places.source(str(place)), "data")
        assert isinstance(source, Arrow) and len(source) == 5
        by_split = {source.meta(i)["id"]: source.meta(i)["split"] for i in range(5)}
        assert by_split == {"4.flac": "test", **{f"{i}.flac": "train" for i in range(4)}}
        heard(source, 3, 2)
        heard(source, 0, 4)
    # As to_parquet writes it: no bytes, paths of another machine.
    path = tmp_path / "paths.parquet"
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    (sounds / "1.flac").write_bytes(flac(1))
    pyarrow.parquet.write_table(table(arrow, [1, 2], embedded=False), path)
    assert places.source(str(path), 8000) == dict(kind="arrow", root=str(path), rate=8000)
    with pytest.raises(DecodeError, match=r"paths\.parquet, row 1: no bytes, and no file /gone/2"):
        Arrow(str(path))[1]
    heard(Arrow(str(path), files=str(sounds)), 0, 1)
    pyarrow.parquet.write_table(table(arrow, [1], embedded=False, folder=str(sounds)), path)
    heard(Arrow(str(path)), 0, 1)


def test_columns_of_other_kinds(arrow, tmp_path):
    """No metadata of `datasets`; labels as texts, lists, and what cannot be one."""
    import pyarrow.parquet

    def written(**columns):
        plain = table(arrow, [0, 1, 2], **columns).drop_columns(["label"])
        if "label" in columns:
            plain = plain.append_column("label", arrow.array(columns["label"]))
        pyarrow.parquet.write_table(plain.replace_schema_metadata(None), tmp_path / "t.parquet")
        return Arrow(str(tmp_path / "t.parquet"))

    several = written(label=[["b", "a"], [], ["b"]], fold=[1, 2, 1])
    assert several.info.multilabel and several.info.labels == ("a", "b")
    assert [several.meta(i)["label"] for i in range(3)] == [(0, 1), (), (1,)]
    assert len(Arrow(several.root, folds=(1,))) == 2
    assert written(label=[10, 9, 10]).info.labels == ("9", "10")
    with pytest.raises(ValueError, match=r"t\.parquet, row 1: got label 0\.5, wanted a name"):
        len(written(label=[0.0, 0.5, 1.0]))
    assert written(label=[2.0, None, 1.0]).meta(1).get("label") is None
    without = table(arrow, [0]).drop_columns(["audio"])
    pyarrow.parquet.write_table(without, tmp_path / "none.parquet")
    with pytest.raises(
        ValueError,
        match=r"no such column in label .*cast_column.* divide arrays of int16 by 32768 before",
    ):
        len(Arrow(str(tmp_path / "none.parquet")))
    with pytest.raises(ValueError, match="audio: got 'sound', wanted a column of audio"):
        len(Arrow(several.root, audio="sound"))


def test_tables_that_would_be_misread_are_refused(arrow, tmp_path):
    """Classes in another order, zeros and ones for all classes, sound of another kind, no rows."""
    import pyarrow.parquet

    root = tmp_path / "several"
    root.mkdir()

    def written(name, made):
        pyarrow.parquet.write_table(made, root / f"{name}.parquet")
        return Arrow(str(root))

    first = table(arrow, [0, 1, 2])
    written("a", first)
    other = first.schema.metadata[b"huggingface"].replace(NAMES[0].encode(), b"another")
    with pytest.raises(ValueError, match=r"b\.parquet: label: got classes another.*in their order"):
        len(written("b", first.replace_schema_metadata({"huggingface": other})))
    texts = first.set_column(0, "audio", arrow.array(["x.wav"] * 3))
    with pytest.raises(
        ValueError, match=r"b\.parquet: audio: got string, wanted what .*a\.parquet"
    ):
        len(written("b", texts))
    assert len(written("b", first.slice(0, 0))) == 3  # a shard without rows
    with pytest.raises(ValueError, match="its files hold no rows"):
        len(written("a", first.slice(0, 0)))
    (root / "b.parquet").unlink()
    plain = first.drop_columns(["label"]).replace_schema_metadata(None)
    hot = plain.append_column("label", arrow.array([[0, 1, 0], [1, 0, 1], [0, 0, 0]]))
    with pytest.raises(ValueError, match=r"row 0: got label \[0, 1, 0\].*Zeros and ones"):
        len(written("a", hot))
    pairs = plain.append_column("label", arrow.array([[0, 1], [1], []]))
    assert written("a", pairs).meta(0)["label"] == (0, 1)
    numbers = first.append_column("text", arrow.array([1, 2, 3]))
    gaps = numbers.append_column("fold", arrow.array([1.0, float("nan"), 2.0]))
    made = written("a", gaps.append_column("split", arrow.array(["dev", "train", "mine"])))
    with pytest.raises(ValueError, match="text: got 1, wanted a text"):
        len(made)
    made = Arrow(str(root), text="-")
    assert [made.meta(i).get("split") for i in range(3)] == ["validation", "train", "mine"]
    assert [made.meta(i).get("fold") for i in range(3)] == [1, None, 2]


def test_damaged_data_is_named(arrow, tmp_path):
    root = saved(arrow, tmp_path / "set", [0, 1], [2])
    part = root / "data-00001-of-00002.arrow"
    whole = part.read_bytes()
    for content in (whole[:700], b"junk", b""):
        part.write_bytes(content)
        with pytest.raises(ValueError, match="data-00001-of-00002.arrow: got what cannot be read"):
            len(Arrow(str(root)))
    part.unlink()
    with pytest.raises(ValueError, match=r"data-00001.*no such file, which state\.json names"):
        len(Arrow(str(root)))
    (root / "state.json").write_text('{"_data_files": [{"filename": "../../x.arrow"}]}')
    with pytest.raises(ValueError, match="wanted the name of a file in the same folder"):
        len(Arrow(str(root)))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"x\.parquet: got what cannot be read"):
        len(Arrow(str(tmp_path / "x.parquet")))
    with pytest.raises(ValueError, match=r"Arrow\.root: got .*, wanted a folder that save_to_disk"):
        len(Arrow(str(tmp_path / "sounds")))


# --- WebDataset


def tar(path, members):
    with tarfile.open(path, "w") as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_AUDIO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for k, split in enumerate(("train", "train", "test")):
        members = []
        for i in (2 * k, 2 * k + 1):
            about = {"text": f"sound {i}", "fold": i % 2, "speaker": f"s{i}", "more": [1]}
            members += [(f"a/{i:03d}.flac", flac(i)), (f"a/{i:03d}.cls", str(i % 3).encode())]
            members += [(f"a/{i:03d}.json", json.dumps(about).encode())]
        tar(folder / f"{split}-{k:06d}.tar", [("__info__", b"x"), *members, ("README", b"y")])
    return folder


def test_a_folder_of_tars(shards, tmp_path):
    assert places.source(str(shards)) == dict(kind="webdataset", root=str(shards))
    source = config.build(places.source(str(shards)), "data")
    assert len(source) == 6 and source.info.labels == ("0", "1", "2")
    order = [int(source.meta(i)["id"][-3:]) for i in range(6)]
    assert order == [4, 5, 0, 1, 2, 3]  # tars by name
    for i in (5, 0, 3):
        heard(source, i, order[i])
    assert source.meta(3) == {
        "rate": RATE, "id": "a/001", "label": 1, "fold": 1, "split": "train", "text": "sound 1",
        "columns": {"speaker": "s1"},
    }  # fmt: skip
    assert (
        len(Webdataset(f"{shards}/train-*.tar")) == 4 and len(Webdataset(str(shards), "test")) == 2
    )
    copy = pickle.loads(pickle.dumps(source))
    assert "_listed" not in vars(copy)
    heard(copy, 2, 0)
    assert copy.digest() == source.digest()
    # The list of members is made once; a tar that changed is listed again.
    assert len(list((tmp_path / "cache/webdataset").glob("*.json"))) == 3
    tar(shards / "train-000000.tar", [("x.wav", b""), ("x.cls", b"9")])
    assert len(Webdataset(str(shards))) == 5
    with pytest.raises(DecodeError, match=r"train-000000\.tar: x: .*empty file"):
        Webdataset(str(shards), "train")[0]


def test_names_with_dots(tmp_path):
    """The format ends a sample's name at the first dot, so these two are one sample of two sounds."""
    members = [(f"clip1.{i}s.flac", flac(i)) for i in (5, 7)]
    path = tar(tmp_path / "a.tar", [*members, ("clip1.7s.txt", b"seven")])
    with pytest.raises(
        ValueError, match=r"sample 'clip1': got 2 sounds \(.5s.flac, .7s.flac\).*keys=last"
    ):
        len(Webdataset(str(path)))
    source = Webdataset(str(path), keys="last")
    assert [source.meta(i)["id"] for i in range(2)] == ["clip1.5s", "clip1.7s"]
    assert source.meta(1)["text"] == "seven" and "text" not in source.meta(0)
    heard(source, 1, 7)
    heard(Webdataset(str(path), audio="7s.flac"), 0, 7)
    with pytest.raises(ValueError, match=r"Webdataset\.keys: got 'all', wanted first or last"):
        Webdataset(str(path), keys="all")


def test_members_of_odd_tars(tmp_path):
    """A name that comes again later, a hard link, macOS' files beside, a label that is nearly a number."""
    some = [("x.flac", flac(0)), ("y.flac", flac(1)), ("y.cls", b"--5"), ("x.flac", flac(2))]
    path = tar(tmp_path / "a.tar", [("._x.flac", b"junk"), *some])
    with tarfile.open(path, "a") as made:
        link = tarfile.TarInfo("z.flac")
        link.type, link.linkname = tarfile.LNKTYPE, "y.flac"
        made.addfile(link)
    source = Webdataset(str(path), keys="last")
    ids = [source.meta(i)["id"] for i in range(len(source))]
    assert ids == ["a.tar/x:x", "a.tar/y:y", "a.tar/x:x#2", "a.tar/z:z"]
    for i, wanted in enumerate((0, 1, 2, 1)):
        heard(source, i, wanted)
    assert source.info.labels == ("--5",)


def test_a_tar_that_was_cut_is_named(tmp_path):
    whole = tar(tmp_path / "a.tar", [(f"{i}.flac", flac(i)) for i in range(3)]).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as made:
        second, third = made.getmembers()[1:]
    cut = tmp_path / "cut.tar"
    for size, said in (
        (third.offset_data + 100, "in 2.flac"),
        (third.offset, "after 1.flac, no end mark"),  # where `webdataset` ends in silence
        (third.offset + 100, "after 1.flac"),
        (second.offset, "after 0.flac, no end mark"),
    ):
        cut.write_bytes(whole[:size])
        with pytest.raises(
            ValueError, match=rf"cut\.tar: got a tar that was cut \({said}.*cut=True"
        ):
            len(Webdataset(str(cut)))
        assert len(Webdataset(str(cut), cut=True)) == (1 if size == second.offset else 2)
    for content, said in ((b"junk" * 300, "got .*a tar of samples"), (b"\x1f\x8b", "compressed")):
        cut.write_bytes(content)
        with pytest.raises(ValueError, match=rf"cut\.tar: .*{said}"):
            len(Webdataset(str(cut)))
    with pytest.raises(ValueError, match=r"samples of \.txt, wanted some with sound"):
        len(Webdataset(str(tar(cut, [("a.txt", b"x")]))))
    with pytest.raises(ValueError, match=r"Webdataset\.root: got .*nowhere, wanted a tar"):
        len(Webdataset(str(tmp_path / "nowhere")))
    bad = tar(cut, [("a.flac", flac(0)), ("a.json", b"{")])
    with pytest.raises(ValueError, match=r"cut\.tar: a\.json: got damaged JSON"):
        len(Webdataset(str(bad)))
    assert len(Webdataset(str(tar(cut, [("a.flac", b"x"), ("b.txt", b"y")])))) == 1


def test_prepare_reads_both(arrow, shards, tmp_path):
    root = saved(arrow, tmp_path / "set", [0, 1], [2])
    for kind, where, count in (("arrow", root, 3), ("webdataset", shards, 6)):
        out = tmp_path / kind
        prepare([f"--source={kind}", f"--root={where}", f"--output={out}", "--workers=1"])
        made = Shards(str(out))
        assert len(made) == count and made.info.labels
        np.testing.assert_allclose(made[1]["audio"], sound([1, 5][kind == "webdataset"]), atol=1e-4)


def test_their_labels_are_a_users_own(arrow, shards, tmp_path):
    """`finetune:data=…` and `evaluate --set` divide them as other data."""
    root = saved(arrow, tmp_path / "set", [0, 1, 2, 3, 4, 6, 7, 9])
    rows = [(Arrow(str(root)), "speaker"), (Webdataset(str(shards)), "speaker")]
    for source, column in rows:
        made = Labelled(source, by=(column,), share=0.3)
        groups = {made.meta(i)["columns"][column]: set() for i in range(len(made))}
        for i in range(len(made)):
            groups[made.meta(i)["columns"][column]].add(made.meta(i)["split"])
        assert all(len(parts) == 1 for parts in groups.values())
        assert made.info.labels == source.info.labels
    assert evaluate._source("arrow", {"kind": "arrow"}, str(root), RATE).meta(0)["label"] == 0
