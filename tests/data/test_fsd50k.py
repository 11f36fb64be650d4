"""FSD50K against a tiny tree with the folders, headers and names of the real one; labels and ontologies."""

import json
import logging

import pytest
import soundfile
from fsd50k import CHILDREN, CLIPS, VOCABULARY, mid, ontology, row, tables, tree

from ssl_audio.__main__ import module
from ssl_audio.data import hierarchy
from ssl_audio.data.sets.fsd50k import Fsd50k
from ssl_audio.data.shards import Shards
from ssl_audio.eval import inputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the real layout; not to be changed."""
    root = tmp_path_factory.mktemp("whole")
    tree(root)
    raw = root / "FSD50K.metadata/collection"
    raw.mkdir(parents=True)
    for part, more in (("dev", "Yip,/m/07r_k2n"), ("eval", "Owl,/m/09d5_")):
        names = sorted([*VOCABULARY, more.split(",")[0]])
        lines = [f"{i},{n},{VOCABULARY.get(n, more.split(',')[1])}" for i, n in enumerate(names)]
        (raw / f"vocabulary_collection_{part}.csv").write_text("\n".join(lines) + "\n")
    dev = ["64760,Electric_guitar,/m/02sgy", '16399,"Bark,Yip","/m/05tny_,/m/07r_k2n"', "345111,,"]
    (raw / "collection_dev.csv").write_text("\n".join(["fname,labels,mids", *dev]) + "\n")
    held = ["37199,Owl,/m/09d5_", f"175151,{row('Tap,Growling')}"]
    (raw / "collection_eval.csv").write_text("\n".join(["fname,labels,mids", *held]) + "\n")
    (root / "FSD50K.metadata/dev_clips_info_FSD50K.json").write_text("{}")
    (root / "FSD50K.doc").mkdir()
    return root


def labels(source):
    names = source.info.labels
    metas = [source.meta(i) for i in range(len(source))]
    return {meta["id"]: {names[n] for n in meta["label"]} for meta in metas}


def test_the_tables_and_their_splits(whole):
    source = Fsd50k(str(whole))
    want = {name: set(said.split(",")) for c in CLIPS.values() for name, (_, said, _) in c.items()}
    assert labels(source) == want and source.info.labels == tuple(VOCABULARY)
    splits = {split: list(labels(Fsd50k(str(whole), split))) for split in ("train", "val", "eval")}
    assert splits == {"train": ["64760", "16399"], "val": ["345111"], "eval": ["37199", "175151"]}
    assert list(labels(Fsd50k(str(whole), "dev"))) == ["64760", "16399", "345111"]
    assert source.meta(0)["split"] == "train" and source.meta(4)["split"] == "eval"
    inputs.check(source, len(VOCABULARY))
    assert source.info.multilabel and "doi:" in source.info.citation and "zenodo" in source.info.url
    with pytest.raises(ValueError, match="split: got 'test', wanted one of dev, train, val, eval"):
        Fsd50k(str(whole), "test")


def test_clips_of_any_length_at_the_rate_of_the_baselines(whole):
    source = Fsd50k(str(whole), rate=22_050)
    lengths = [len(source[i]["audio"]) for i in range(len(source))]
    assert lengths == [6615, 50715, 22050, 661_500, 11_025]


def test_what_people_said_before_it_was_propagated(whole):
    source = Fsd50k(str(whole), labels="collection")
    assert len(source.info.labels) == len(VOCABULARY) + 2 and "Owl" in source.info.labels
    assert labels(source) == {  # 345111 has no label
        "64760": {"Electric_guitar"}, "16399": {"Bark", "Yip"},
        "37199": {"Owl"}, "175151": {"Tap", "Growling"},
    }  # fmt: skip
    assert [source.meta(i)["split"] for i in range(4)] == ["train", "train", "eval", "eval"]
    assert Fsd50k(str(whole), "val", labels="ground_truth").meta(0)["id"] == "345111"
    with pytest.raises(ValueError, match="no clip of 'val'"):
        len(Fsd50k(str(whole), "val", labels="collection"))


def test_the_copy_on_the_hub(tmp_path):
    source = Fsd50k(tree(tmp_path, "labels", "clips/{}"), "eval")
    assert list(labels(source)) == ["37199", "175151"] and len(source[1]["audio"]) == 8000


def test_parts_of_the_sound(tmp_path, caplog):
    root = tree(tmp_path)
    (tmp_path / "FSD50K.dev_audio/16399.wav").unlink()
    # Converted to save space.
    audio, rate = soundfile.read(tmp_path / "FSD50K.dev_audio/64760.wav")
    (tmp_path / "FSD50K.dev_audio/64760.wav").unlink()
    soundfile.write(tmp_path / "FSD50K.dev_audio/64760.flac", audio, rate)
    with caplog.at_level(logging.WARNING):
        assert len(Fsd50k(root)) == 5
    assert "1 of 5 clips have no file (dev/16399): they count as unreadable" in caplog.text
    assert "zip -s 0 FSD50K.dev_audio.zip" in caplog.text
    source = Fsd50k(root, partial=True)
    assert list(labels(source)) == ["64760", "345111", "37199", "175151"]
    assert len(source[0]["audio"]) == 4800
    for path in (tmp_path / "FSD50K.eval_audio").iterdir():
        path.unlink()
    assert len(Fsd50k(root, "dev")) == 3
    with pytest.raises(ValueError, match=r"none of 2 clips has a file in .*FSD50K.eval_audio"):
        len(Fsd50k(root, "eval"))
    (tmp_path / "FSD50K.eval_audio").rmdir()
    message = r"no such folder: .*eval_audio. join the parts .*; set split to read one part alone"
    with pytest.raises(ValueError, match=message):
        len(Fsd50k(root))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("dev.csv", "Doorbell,Door", "Doorbel,Door", r"dev.csv, line 4: labels: got 'Doorbel'"),
        ("dev.csv", "345111", "64760", r"dev.csv, line 4: fname: got 64760 again"),
        ("dev.csv", ",val", ",valid", r"dev.csv, line 4: split: got 'valid', wanted train or val"),
        ("dev.csv", ",train", ",", r"dev.csv, line 2: split: got '', wanted train or val"),
        ("dev.csv", "mids,split", "mids,part", r"dev.csv, line 1: no column 'split'"),
        ("eval.csv", "fname", "file", r"eval.csv, line 1: no column 'fname'"),
        ("vocabulary.csv", "11,Tap", "12,Tap", r"line 12: number: got 12, and 11 classes before"),
        ("vocabulary.csv", "11,Tap", "11,Bark", "class Bark twice"),
        ("vocabulary.csv", "/m/07qcpgn", "/m/02dgv", "/m/02dgv for Door and for Tap"),
        ("vocabulary.csv", "0,Animal", "number,name,mid\n0,Animal", "line 1: number: got 'number'"),
    ],
)
def test_damaged_tables_are_named(tmp_path, file, old, new, message):
    tables(tmp_path)
    path = tmp_path / "FSD50K.ground_truth" / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        len(Fsd50k(str(tmp_path), "train" if "split" in message else ""))


def test_other_identifiers_are_told(tmp_path, caplog):
    tree(tmp_path)
    path = tmp_path / "FSD50K.ground_truth/dev.csv"
    path.write_text(path.read_text().replace("/m/0bt9lr", "/m/xxxx"))
    assert len(labels(Fsd50k(str(tmp_path)))) == 5
    assert "1 clips have other identifiers than the vocabulary gives their labels" in caplog.text


def test_children_imply_parents(tmp_path, caplog):
    root = tree(tmp_path)
    ontology(tmp_path / "ontology.json", CHILDREN)
    assert not Fsd50k(root).gaps and len(Fsd50k(root)) == 5 and not caplog.text
    short = {
        "dev": {
            "64760": (0, "Electric_guitar", "train"),
            "16399": (0, "Bark,Domestic_animals_and_pets", "train"),
            "345111": (0, "Bark", "val"),
        },
        "eval": CLIPS["eval"] | {"175151": (0, "Tap,Growling", "")},
    }
    tables(tmp_path, short)
    source = Fsd50k(root)
    assert labels(source)["345111"] == {"Bark"}  # reported, and as it was
    assert (
        "4 clips have labels without those that they imply: Bark without Animal (2)" in caplog.text
    )
    assert "and 2 other pairs; parents='add' adds them" in caplog.text
    assert set(source.gaps) == {
        ("Bark", "Animal", 2), ("Bark", "Dog", 2), ("Bark", "Domestic_animals_and_pets", 1),
        ("Domestic_animals_and_pets", "Animal", 1), ("Electric_guitar", "Musical_instrument", 1),
        ("Electric_guitar", "Music", 1), ("Growling", "Animal", 1),
    }  # fmt: skip
    whole = labels(Fsd50k(root, parents="add"))
    dog = {"Dog", "Domestic_animals_and_pets", "Animal"}
    assert whole == {
        "64760": {"Electric_guitar", "Musical_instrument", "Music"},
        "16399": {"Bark", *dog}, "345111": {"Bark", *dog},
        # Musical instrument or thing; door or other impact; dog, cat or roaring cat: nobody knows.
        "37199": {"Bell"}, "175151": {"Tap", "Growling", "Animal"},
    }  # fmt: skip
    caplog.clear()
    assert len(Fsd50k(root, parents="ignore")) == 5 and not caplog.text


def test_prepared_with_what_labels_imply(tmp_path):
    root = tree(tmp_path / "set")
    ontology(tmp_path / "set/ontology.json", CHILDREN)
    short = CLIPS["dev"] | {"16399": (0, "Bark", "train")}
    tables(tmp_path / "set", CLIPS | {"dev": short})
    argv = ["--source=sets.fsd50k", f"--root={root}", f"--output={tmp_path / 'shards'}"]
    module("prepare").main([*argv, "--set=split=train", "--set=parents=add"])
    made = Shards(str(tmp_path / "shards"))
    assert labels(made)["16399"] == {"Bark", "Dog", "Domestic_animals_and_pets", "Animal"}


def test_an_ontology_is_named_or_found(tmp_path, whole):
    with pytest.raises(ValueError, match=r"no ontology.json in .*AudioSet's .* ontology=PATH"):
        len(Fsd50k(str(whole), parents="add"))
    with pytest.raises(ValueError, match="no ontology.json"):
        _ = Fsd50k(str(whole)).gaps
    ontology(tmp_path / "mine.json", CHILDREN)
    raw = Fsd50k(
        str(whole), labels="collection", ontology=str(tmp_path / "mine.json"), parents="add"
    )
    assert labels(raw)["175151"] == {"Tap", "Growling", "Animal"}
    with pytest.raises(ValueError, match=r"none.json: no such file; wanted an ontology"):
        len(Fsd50k(str(whole), ontology="none.json"))


def test_what_is_no_ontology_is_refused(tmp_path):
    path = tmp_path / "ontology.json"
    good = {"id": "a", "name": "A", "child_ids": ["b"]}
    other = {"id": "b", "name": "B", "child_ids": []}
    for found, message in (
        ({"a": 1}, "wanted an ontology"),
        ([{"id": "a", "name": "A"}], "wanted an ontology"),
        ([good], "a child 'b' that is no class"),
        ([good, other, other], "'b' twice"),
        ([good, {**other, "child_ids": ["a"]}], "a circle of classes above 'A', 'B'"),
    ):
        path.write_text(json.dumps(found))
        with pytest.raises(ValueError, match=message):
            hierarchy.read(path)
    path.write_text(json.dumps([good, other]))
    with pytest.raises(ValueError, match="none of the 1 classes"):
        hierarchy.read(path).implied(["c"])
    assert hierarchy.read(path).implied(["b", "x", "a"]) == ((2,), (), ())


def test_a_class_under_several_implies_what_they_share(tmp_path):
    ontology(tmp_path / "o.json", CHILDREN)
    found = hierarchy.read(tmp_path / "o.json")
    assert found.ancestors(mid("Growling")) == {mid("Animal")}
    assert found.ancestors(mid("Doorbell")) == found.ancestors(mid("Bell")) == frozenset()
    assert mid("Music") in found.ancestors(mid("Electric_guitar"))
