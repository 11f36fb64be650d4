"""Tables that people really have: blanks, commas, other columns, other encodings."""

import logging

import numpy as np
import pytest
import soundfile

from ssl_audio.data.entries import Audio, Labels
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.source import Folder, Manifest, Renumbered


def manifest(tmp_path, text, name="m.csv", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Manifest(str(path), **options)


def tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.full(1600, 0.1), 16_000)
    return Folder(str(root))


def names(source):
    found = [source.meta(i).get("label") for i in range(len(source))]
    return [None if n is None else source.info.labels[n] for n in found]


@pytest.mark.parametrize("header", ["path, label", " path ,label ", "\ufeffpath,label"])
def test_blanks_and_a_byte_order_mark_do_not_hide_a_column(tmp_path, header):
    source = manifest(tmp_path, f"{header}\na.wav, dog\nb.wav,dog \nc.wav,cat\n")
    assert source.info.labels == ("cat", "dog") and names(source) == ["dog", "dog", "cat"]
    assert source.meta(0)["id"] == "a.wav"


def test_blanks_behind_commas_are_no_part_of_a_path_if_the_header_has_them(tmp_path):
    source = manifest(tmp_path, "label, path\ndog, a.wav\n")
    assert source.clips[0].path == str(tmp_path / "a.wav")


def test_several_labels_are_split_at_commas_where_no_semicolon_is(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = manifest(tmp_path, 'path,labels\na.wav,"b, a"\nb.wav,c\n')
    assert source.info.labels == ("a", "b", "c") and source.meta(0)["label"] == (0, 1)
    assert "split at commas" in caplog.text
    mixed = manifest(tmp_path, 'path,labels\na.wav,"Chatter, babble; b"\nb.wav,"Chatter, babble"\n')
    assert mixed.info.labels == ("Chatter, babble", "b")
    known = manifest(
        tmp_path, 'path,labels\na.wav,"Chatter, babble"\n', labels=("b", "Chatter, babble")
    )
    assert known.meta(0)["label"] == (1,)


def test_other_columns_are_kept_and_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = manifest(tmp_path, "path,lable,weather\na.wav,dog,rain\n")
    assert source.meta(0)["columns"] == {"lable": "dog", "weather": "rain"}
    assert "not used: lable, weather" in caplog.text and "'lable' for 'label'?" in caplog.text
    assert len(Manifest(str(tmp_path / "m.csv"))) == 1  # as another part of the data does
    assert caplog.text.count("not used") == 1


def test_tabs_separate_a_tsv(tmp_path):
    assert names(manifest(tmp_path, "path\tlabel\na.wav\tbig dog\n", "m.tsv")) == ["big dog"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.wav,caf\xe9\n".encode("latin-1"), "not UTF-8 .byte 0xe9 at 20"),
        ("path,label\n".encode("utf-16"), "not UTF-8"),
        (b"PAR1\x15\x04", "got Parquet, wanted text: save it as .csv"),
        (b"PK\x03\x04", "got a spreadsheet or zip, wanted text"),
        ("path;label\na.wav;dog\n", "no column 'path'.*separated by ';'"),
        ("Path,label\na.wav,dog\n", "no column 'path'.*is 'path' meant"),
        ("path,label,label \na.wav,dog,cat\n", "column 'label' is there twice"),
        ("path,label\na.wav,Chatter, babble\n", "line 2: 3 fields, but 2 columns"),
        ("\n\npath,start\na.wav,x\n", "line 4: start: got 'x'"),
        ('path,label\na.wav,"dog\n', "line 2: got what is no CSV"),
        ("path,label,labels\na.wav,dog,cat\n", "both 'label' and 'labels'"),
        ("path,start\na.wav,-1\n", "line 2: start: wanted 0 or more"),
        ("path,start,end\na.wav,2,1\n", "line 2: end: wanted more than start"),
        ("path,end\na.wav,nan\n", "line 2: end: got .nan., wanted a finite number"),
        ("path,fold\na.wav,1.5\n", "line 2: fold: got .1.5., wanted a whole number"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"m\.csv.*{message}"):
        len(manifest(tmp_path, text))


def test_folds_of_a_table_made_by_pandas(tmp_path):
    assert manifest(tmp_path, "path,fold\na.wav,2.0\nb.wav,\n").meta(0)["fold"] == 2


def test_folders_and_manifests_number_classes_alike(tmp_path):
    files = [f"{n}/a.wav" for n in ("10", "2", "1", "0", "b", "B2", "-1")]
    source = tree(tmp_path / "tree", *files)
    rows = "".join(f"{file},{file.split('/')[0]}\n" for file in files)
    assert source.info.labels == ("-1", "0", "1", "2", "10", "B2", "b")
    assert manifest(tmp_path, "path,label\n" + rows).info.labels == source.info.labels


def test_parts_of_a_collection_are_splits_and_not_classes(tmp_path):
    source = tree(
        tmp_path / "t", "Train/dog/1.wav", "Train/cat/1.wav", "val/cat/2.wav", "test/dog/1.wav"
    )
    assert source.info.labels == ("cat", "dog") and names(source) == ["cat", "dog", "dog", "cat"]
    splits = [source.meta(i)["split"] for i in range(4)]
    assert splits == ["train", "train", "test", "validation"]
    flat = tree(tmp_path / "flat", "train/1.wav", "test/2.wav")
    assert flat.info.labels == () and names(flat) == [None, None]
    assert tree(tmp_path / "other", "train/1.wav", "plane/1.wav").info.labels == ("plane", "train")


def test_labels_are_numbered_by_their_names(tmp_path):
    trained = ("bird", "cat", "dog")
    test = Renumbered(manifest(tmp_path, "path,label\na.wav,dog\nb.wav,bird\n"), trained)
    assert [test.meta(i)["label"] for i in range(2)] == [2, 0] and test.info.labels == trained
    many = Renumbered(manifest(tmp_path, "path,labels\na.wav,dog;bird\n"), trained)
    assert many.meta(0)["label"] == (0, 2)
    with pytest.raises(ValueError, match="classes 'cow' are not among those of training, 'bird'"):
        Renumbered(manifest(tmp_path, "path,label\na.wav,cow\n"), trained)


def test_sources_that_number_their_classes_differently_are_refused(tmp_path):
    one = tree(tmp_path / "one", "cat/1.wav", "dog/1.wav")
    two = tree(tmp_path / "two", "cow/1.wav", "dog/1.wav")
    data = dict(sources={"one": one, "two": two}, batch_size=2, threads=0)
    sound = {"audio": Audio(1600)}
    with pytest.raises(ValueError, match=r"sources\.two.*in one of them only: cat, cow"):
        Pipeline(entries=sound | {"label": Labels(2)}, **data).batches()
    next(Pipeline(entries=sound, **data).batches())  # without labels they may differ
