"""Lists of ids: what a table says, what a batch holds of it, and what is refused."""

import itertools

import numpy as np
import pytest

from ssl_audio.data.containers import DecodeError
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.sequences import Chains, Items, Sequences, chain, vocabulary


def test_lists_in_one_row_and_in_many_are_the_same(tmp_path):
    (tmp_path / "a.csv").write_text("id,items,label\np,x; y;x,rock\nq,z,jazz\n")
    (tmp_path / "b.csv").write_text("id,item,label\np,x,rock\nq,z,jazz\np,y,rock\np,x,rock\n")
    (tmp_path / "c.jsonl").write_text(
        '{"id": "p", "items": ["x", "y", "x"], "label": "rock"}\n'
        '{"id": "q", "items": ["z"], "label": "jazz"}\n'
    )
    for name in ("a.csv", "b.csv", "c.jsonl"):
        source = Sequences(str(tmp_path / name))
        assert source.info.labels == ("jazz", "rock")
        found = [(source.meta(i)["items"], source.meta(i)["label"]) for i in range(len(source))]
        assert found == [(("x", "y", "x"), 1), (("z",), 0)], name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,items\np,\n", "line 2: items"),
        ("id,items\np,a\np,b\n", "line 3: id: 'p' is that of an earlier list"),
        ("id,item\np,\n", "line 2: item"),
        ("id,songs\np,a\n", "item"),
        ("id,item,label\np,a,x\np,b,y\n", "line 3: label: got 'y', wanted 'x'"),
    ],
)
def test_rows_that_cannot_be_understood_are_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        len(Sequences(str(tmp_path / "a.csv")))


def test_zeros_are_values(tmp_path):
    lines = [
        f'{{"id": {i}, "items": [1, {i}], "label": {i % 3}, "weight": {i % 2}}}' for i in range(6)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = Sequences(str(tmp_path / "a.jsonl"))
    metas = [source.meta(i) for i in range(6)]
    assert [m["label"] for m in metas] == [0, 1, 2, 0, 1, 2] and source.info.labels == (
        "0",
        "1",
        "2",
    )
    assert [m["weight"] for m in metas] == [0, 1, 0, 1, 0, 1] and metas[0]["id"] == "0"
    (tmp_path / "b.csv").write_text("id,item,label\np,a,\np,b,x\n")  # said once
    assert Sequences(str(tmp_path / "b.csv")).meta(0)["label"] == 0


def test_parts_and_labels_keep_their_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("items,label,split\na,x,train\nb,y,test\n")
    test = Sequences(str(tmp_path / "a.csv"), split="test")
    assert test.info.labels == ("x", "y") and test.meta(0)["label"] == 1  # not 0: as in training
    with pytest.raises(ValueError, match="there are test, train"):
        len(Sequences(str(tmp_path / "a.csv"), split="other"))


def test_a_batch_has_numbers_and_zeros_behind_them():
    entry = Items(length=4, names=("a", "b", "c"))
    rng = np.random.default_rng(0)
    found = entry.draw({"id": "p", "items": ("c", "b")}, rng)
    assert found["items"].tolist() == [2, 1, 0, 0] and found["items_length"] == 2
    cut = Items(length=2, names=("a", "b", "c"), crop="random")
    drawn = {tuple(cut.draw({"id": "p", "items": "abc"}, rng)["items"]) for _ in range(20)}
    assert drawn == {(0, 1), (1, 2)}


def test_unknown_ids_are_refused_or_left_out(tmp_path):
    with pytest.raises(ValueError, match="item 'z' is not among the 1"):
        Items(names=("a",)).numbers(["a", "z"], "list p")
    (tmp_path / "ids.txt").write_text("b\na\n")
    entry = Items(file=str(tmp_path / "ids.txt"), unknown="skip")
    assert entry.numbers(["a", "z", "b"], "list p").tolist() == [1, 0]
    with pytest.raises(DecodeError, match="none of its 2"):
        entry.numbers(["x", "y"], "list p")
    with pytest.raises(ValueError, match="'a' is there twice"):
        _ = Items(names=("a", "a")).known


def test_the_most_frequent_come_first():
    lists = [("b", "a"), ("b", "c"), ("a", "b")]
    assert vocabulary(lists) == ("b", "a", "c") and vocabulary(lists, 2) == ("b", "a")


def test_chains_are_what_they_say():
    rng = np.random.default_rng(0)
    circles = np.arange(12).reshape(3, 4)
    chances = dict(follow=1.0, stray=0.0)
    assert chain(circles, 1, 6, rng=rng, opens=1.0, **chances) == [4, 5, 6, 7, 4, 5]
    begun = [chain(circles, 1, 2, rng=rng, opens=0.0, **chances) for _ in range(40)]
    assert {tuple(one) for one in begun} == {(4, 5), (5, 6), (6, 7), (7, 4)}
    source = Chains(size=60, follow=0.8, stray=0.1)
    other = Chains(size=60, follow=0.8, stray=0.1, seed=1)
    assert source.meta(3) == Chains(size=60, follow=0.8, stray=0.1).meta(3) != other.meta(3)
    lists = [source.meta(i)["items"] for i in range(60)]
    after = {pair for one in lists for pair in itertools.pairwise(one)}
    assert len(after) < 60 * 60 / 4  # an order, not any pair
    pipeline = Pipeline({"lists": source}, 4, {"items": Items(20, source.names)}, threads=0)
    batch = next(iter(pipeline.batches()))
    assert batch["items"].shape == (4, 20) and batch["items_length"].min() >= 10
