"""A few labelled clips and the rest without labels: disjoint, balanced, the same each time; errors."""

import collections

import numpy as np
import pytest

from ssl_audio.data.few_labels import FewLabels
from ssl_audio.data.source import SourceInfo, coded_labels, content
from ssl_audio.data.synthetic import SOUNDS, Synthetic

SOURCE = Synthetic(
    size=12 * 20 + 6, seconds=0.01
)  # 21 clips of half of the classes, 20 of the others


class Listed:
    """A source of given labels; sound is of no interest."""

    info = SourceInfo("listed", ("a", "b"))

    def __init__(self, *labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def meta(self, i):
        found = {"id": str(i), "rate": 16_000}
        return found if self.labels[i] is None else found | {"label": self.labels[i]}

    def __getitem__(self, i):
        return self.meta(i) | {"audio": np.full(3, i, np.float32)}


def ids(source):
    return [source.meta(i)["id"] for i in range(len(source))]


@pytest.mark.parametrize(
    ("how", "of_each"), [({"per_class": 3}, 3), ({"share": 0.1}, 2), ({"share": 0.01}, 1)]
)
def test_parts_share_no_clip_and_classes_are_balanced(how, of_each):
    labelled, rest = (FewLabels(SOURCE, part, **how) for part in ("labelled", "unlabelled"))
    assert sorted(ids(labelled) + ids(rest)) == sorted(ids(SOURCE))
    counts = collections.Counter(labelled.meta(i)["label"] for i in range(len(labelled)))
    assert [counts[n] for n in range(12)] == [of_each] * 12
    codes, values = labelled.coded_labels()
    assert [values[c] for c in codes] == [labelled.meta(i)["label"] for i in range(len(labelled))]
    assert ids(FewLabels(SOURCE, "labelled", **how)) == ids(labelled)
    other = FewLabels(SOURCE, "labelled", **how, seed=1)
    assert ids(other) != ids(labelled) and content(other) != content(labelled)
    assert labelled.info.labels == rest.info.labels == tuple(SOUNDS) and rest.rate == 16_000


def test_the_unlabelled_part_hides_labels_and_nothing_else():
    rest = FewLabels(SOURCE, "unlabelled", per_class=3)
    every = {SOURCE.meta(i)["id"]: SOURCE[i] for i in range(len(SOURCE))}
    for example in (rest[0], rest.open(0), rest[len(rest) - 1]):
        whole = every[example["id"]]
        assert example.keys() == whole.keys() - {"label"}
        np.testing.assert_array_equal(example["audio"], whole["audio"])
    assert "label" not in rest.meta(0)
    codes, values = coded_labels(rest)
    assert len(codes) == len(rest) and {values[c] for c in codes} == {None}


def test_clips_without_a_label_are_unlabelled():
    source = Listed(0, None, 1, 0, None, 1)
    assert set(ids(FewLabels(source, "unlabelled", per_class=1))) > {"1", "4"}
    assert ids(FewLabels(source, "labelled", share=1.0)) == ["0", "2", "3", "5"]


@pytest.mark.parametrize(
    ("source", "how", "message"),
    [
        (Listed(0, 0, 1), dict(per_class=2), "class 'b' has 1 clips, wanted 2 labelled"),
        (Listed(0, 1), dict(per_class=1, part="unlabelled"), "all 2 clips are labelled"),
        (Listed(None, None), dict(per_class=1), "no clip has a label"),
        (Listed((0, 1), (1,)), dict(per_class=1), "several labels each"),
    ],
)
def test_what_a_collection_cannot_give_is_refused(source, how, message):
    with pytest.raises(ValueError, match=message):
        len(FewLabels(source, **{"part": "labelled"} | how))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(part="rest", share=0.1), "got 'rest', wanted labelled or unlabelled"),
        (dict(part="labelled"), "got 0 and 0; wanted one of them"),
        (dict(part="labelled", share=0.5, per_class=2), "got 0.5 and 2; wanted one"),
        (dict(part="labelled", share=1.5), "wanted 0 to 1"),
        (dict(part="labelled", per_class=-1), "at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        FewLabels(SOURCE, **how)
