"""Probing tasks and recommendation: perfect vectors get 1, vectors without an order cannot know it."""

import numpy as np
import pytest

from ssl_audio.data.sequences import Chains, Items, Sequences
from ssl_audio.eval import sequences
from ssl_audio.inference.sequences import Sif, mean

SOURCE = Chains(size=120)
LISTS = [SOURCE.meta(i)["items"] for i in range(len(SOURCE))]
LABELS = [SOURCE.meta(i)["label"] for i in range(len(SOURCE))]
TASKS = sequences.tasks(LISTS, LABELS)
NUMBERS = {name: number for number, name in enumerate(SOURCE.names)}
TABLE = np.random.default_rng(0).standard_normal((60, 16))


def numbers(lists):
    return [np.array([NUMBERS[name] for name in one]) for one in lists]


def test_the_tasks_are_what_they_say():
    assert set(TASKS) == {"genre", "order", "swap", "length", "content"}
    for name in ("order", "swap"):
        task = TASKS[name]
        half = len(task.lists) // 2
        assert task.chance == 0.5 and (task.groups[:half] == task.groups[half:]).all()
        for one, other in zip(task.lists[:half], task.lists[half:], strict=True):
            assert list(one) != list(other) and sorted(one) == sorted(other)
    half = len(TASKS["swap"].lists) // 2
    for one, other in zip(TASKS["swap"].lists[:half], TASKS["swap"].lists[half:], strict=True):
        (first, second) = [i for i in range(len(one)) if one[i] != other[i]]
        assert second == first + 1
    content = TASKS["content"]
    for one, own in zip(content.lists, content.classes, strict=True):
        others = [c for c in range(10) if c != own and _has(one, content, c)]
        assert not others


def _has(one, content, number):
    """Tell whether a list has what all lists of another class have in common."""
    some = [set(a) for a, c in zip(content.lists, content.classes, strict=True) if c == number]
    common = set.intersection(*some) if len(some) > 3 else set()
    return bool(common) and common <= set(one)


def test_perfect_vectors_are_always_right_and_random_ones_are_not():
    for name, task in TASKS.items():
        hot = np.eye(task.classes.max() + 1)[task.classes]
        assert sequences.probe(hot, task) == 1, name
    noise = np.random.default_rng(0).standard_normal((len(TASKS["order"].lists), 4))
    assert abs(sequences.probe(noise, TASKS["order"]) - 0.5) < 0.2


def test_means_know_the_genre_and_not_the_order():
    baselines = mean([TABLE[one] for one in numbers(TASKS["genre"].lists)])
    assert sequences.probe(baselines, TASKS["genre"]) > 0.9
    for name in ("order", "swap"):
        both = mean([TABLE[one] for one in numbers(TASKS[name].lists)])
        assert abs(sequences.probe(both, TASKS[name]) - 0.5) < 0.03


def test_frequent_items_and_the_common_direction_count_less():
    lists = [np.array([0, i]) for i in range(1, 9)]
    table = np.eye(9) + 1.0
    sif = Sif(table, lists)
    shares = np.array([8, *[1] * 8]) / 16
    weighted = [(1e-3 / (1e-3 + shares[one]))[:, None] * table[one] for one in lists]
    raw = np.stack([some.mean(0) for some in weighted])
    common = np.linalg.svd(raw, full_matrices=False)[2][0]
    assert np.allclose(sif(lists), raw - np.outer(raw @ common, common))
    assert np.abs(sif(lists) @ common).max() < 1e-9


def test_neighbours_recommend_what_they_have():
    lists = [("a", "b", "c"), ("a", "b", "d"), ("x", "y", "z"), ("x", "y", "w")]

    def embed(some):
        return np.array([[1.0, 0.0] if set(one) & {"a", "b"} else [0.0, 1.0] for one in some])

    found = sequences.recommendation(
        embed, lists, [0, 0, 1, 1], [("a", "b", "d"), ("x", "y")], [0, 1], count=2, neighbours=2
    )
    assert found["hit"] == 1.0 and found["genre_precision"] == 1.0 and found["popular"] < 1
    # y is in both lists, and of w and z w is named first.
    missed = sequences.recommendation(
        embed, lists, [0] * 4, [("x", "z")], [None], count=2, neighbours=2
    )
    assert missed == {"hit": 0.0, "popular": 0.0}
    with pytest.raises(ValueError, match="no query has two different items"):
        sequences.recommendation(embed, lists, [0] * 4, [("a",)], [0])


def test_every_class_is_learned_from():
    lists = [(f"{i}",) for i in range(12)]
    classes = np.array([0] * 10 + [1, 2])
    task = sequences.Task(lists, classes, np.arange(12))
    for seed in range(8):
        assert sequences.probe(np.eye(3)[classes], task, seed) == 1
    assert sequences.tasks([("a", "b"), ("c",)], [0, 1]) == {}
    assert "genre" in sequences.tasks([("a", "b"), ("c",), ("d",)], [0, 1, 1])


def test_lists_are_judged_without_what_training_leaves_out(tmp_path):
    rows = ["id,label,items", "1,x,a;b;new", "2,y,new;other", "3,y,b;a;b", "4,x,a;b;b"]
    (tmp_path / "lists.csv").write_text("\n".join(rows))
    source = Sequences(str(tmp_path / "lists.csv"))
    judge = sequences.SequenceTasks(source, Items(names=("a", "b"), unknown="skip"))
    judge.check(None, None)
    assert judge.lists == ([("a", "b"), ("b", "a", "b"), ("a", "b", "b")], [0, 1, 0])
    with pytest.raises(ValueError, match="list 0: item 'new' is not among the 2"):
        sequences.SequenceTasks(source, Items(names=("a", "b"))).check(None, None)
    with pytest.raises(ValueError, match="no list has an item that is known"):
        sequences.SequenceTasks(source, Items(names=("c",), unknown="skip")).check(None, None)


def test_equal_lists_are_on_one_side():
    lists = [["a", "b", "c"], ["b", "c", "d"], ["a", "b", "c"], ["c", "d", "a"]] * 5
    for name, task in sequences.tasks(lists, [0, 1, 0, 1] * 5).items():
        same = task.groups[:, None] == task.groups[None]
        for i, one in enumerate(task.lists):
            equal = np.array([list(one) == list(other) for other in task.lists])
            assert same[i][equal].all() or name in ("order", "swap")
        assert name != "genre" or len(set(task.groups.tolist())) == 3
