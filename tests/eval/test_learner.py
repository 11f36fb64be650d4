"""The few-shot loop's learner: what it learns from labels, what it asks for, what it keeps."""

import time

import encoders
import numpy as np
import pytest

import ssl_audio
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval.learner import LIKENESS, START, Learner

CLASSES, PER, WIDTH = 4, 30, 24
TRUTH = np.repeat(np.arange(CLASSES), PER)
NAMES = ["siren", "dog bark", "10", "9"]


def blobs(spread=0.4, seed=0):
    rng = np.random.default_rng(seed)
    corners = 3 * rng.standard_normal((CLASSES, WIDTH))
    return (corners[TRUTH] + spread * rng.standard_normal((len(TRUTH), WIDTH))).astype(np.float32)


def taught(x, rows):
    learner = Learner(x)
    for i in rows:
        learner.set(int(i), NAMES[TRUTH[i]])
    return learner


def test_it_learns_and_unlearns():
    learner = taught(blobs(), range(0, len(TRUTH), 10))
    assert learner.classes == ["9", "10", "dog bark", "siren"]  # numbers by size, then names
    scores = learner.scores()
    assert scores.shape == (len(TRUTH), CLASSES)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert [learner.classes[k] for k in scores.argmax(1)] == [NAMES[y] for y in TRUTH]
    before = dict(learner.labels)
    learner.set(0, "a new class")
    assert learner.scores().shape[1] == CLASSES + 1
    learner.set(0, None)
    learner.set(0, NAMES[0])
    assert learner.labels == before and np.array_equal(learner.scores(), scores)


def test_with_no_or_one_class_nothing_is_known():
    learner = Learner(blobs())
    assert learner.scores().shape == (len(TRUTH), 0) and learner.classes == []
    assert len(set(learner.next(7))) == 7
    learner.set(3, "only")
    assert np.array_equal(learner.scores(), np.ones((len(TRUTH), 1)))
    assert 3 not in learner.next(len(TRUTH), "highest", "only")


@pytest.mark.parametrize("how", ["uncertain", "highest", "random"])
def test_what_to_label_next_is_new_and_never_twice(how):
    learner = taught(blobs(), range(0, len(TRUTH), 8))
    for count in (0, 1, 10, 10_000):
        found = learner.next(count, how, NAMES[1] if how == "highest" else None)
        assert len(found) == len(set(found)) == min(count, len(TRUTH) - len(learner.labels))
        assert not set(found) & set(learner.labels)


def test_the_uncertain_lie_between_classes_and_are_not_alike():
    x = blobs(0.1)
    middle = (x[TRUTH == 0].mean(0) + x[TRUTH == 1].mean(0)) / 2
    other = (x[TRUTH == 2].mean(0) + x[TRUTH == 3].mean(0)) / 2
    rng = np.random.default_rng(1)
    doubtful = [m + 0.01 * rng.standard_normal((10, WIDTH)) for m in (middle, other)]
    learner = taught(np.concatenate([x, *doubtful]), range(0, len(TRUTH), 6))
    first, last = sorted(learner.next(2))
    assert len(TRUTH) <= first < len(TRUTH) + 10 <= last  # one of each heap


def test_the_highest_are_of_the_class_and_not_the_same_sound_again():
    x = blobs()
    x = np.concatenate([x, np.repeat(x[TRUTH == 1][:1], 20, axis=0)])
    learner = taught(x, range(3, len(TRUTH), 6))
    found = learner.next(10, "highest", NAMES[1])
    assert all(i >= len(TRUTH) or TRUTH[i] == 1 for i in found)
    same = sum(1 for i in found if np.array_equal(x[i], x[-1]))
    assert same == 1, f"cosine above {LIKENESS}"


def test_the_first_labels_are_asked_for_in_the_densest_places():
    x = np.concatenate([blobs(0.1), 40 * np.eye(WIDTH)[:2]])  # and two outliers
    learner = Learner(x)
    asked = learner.next(CLASSES)
    assert sorted(TRUTH[[i for i in asked if i < len(TRUTH)]]) != [0, 0, 0, 0]
    for i in learner.next(6):
        learner.set(i, "?" if i >= len(TRUTH) else NAMES[TRUTH[i]])
    assert set(NAMES) <= set(learner.classes)  # every heap was met
    assert len(learner.labels) < START
    # What is like something with a label waits.
    again = {TRUTH[i] for i in learner.next(2) if i < len(TRUTH)}
    assert len(again) <= 2 and not set(learner.next(2)) & set(learner.labels)


def test_random_choice_follows_the_seed():
    asked = [Learner(blobs(), seed=seed).next(5, "random") for seed in (1, 1, 2)]
    assert asked[0] == asked[1] != asked[2]


def test_what_it_is_not_told_rightly_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Learner(np.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        Learner(np.full((3, 2), np.nan))
    learner = taught(blobs(), [0, 40])
    for call, said in (
        (lambda: learner.set(len(TRUTH), "x"), "wanted 0 to 119"),
        (lambda: learner.set(0, "  "), "wanted text"),
        (lambda: learner.next(3, "best"), "wanted one of uncertain, highest, random"),
        (lambda: learner.next(3, "highest"), "wanted a label that was given: dog bark, siren"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_ten_thousand_vectors_are_learned_well_within_a_second():
    rng = np.random.default_rng(0)
    learner = Learner(rng.standard_normal((10_000, 768), np.float32))
    for i in range(200):
        learner.set(i, f"class {i % 10}")
    learner.scores()  # the libraries are imported
    learner.set(0, "class 1")
    began = time.process_time()
    learner.scores()
    learner.next(10)
    assert time.process_time() - began < 0.5


def test_what_was_learned_is_a_classifier(tmp_path):
    encoder = encoders.encoder(frames=24)
    source = Synthetic(size=24, seconds=0.4)
    clips = [source[i]["audio"] for i in range(len(source))]
    vectors = encoder.embed(clips, encoder.rate, layer=0, pool="rows")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    learner = Learner(vectors)
    learner.set(0, "one")
    with pytest.raises(ValueError, match="got one, wanted two"):
        learner.save(tmp_path / "probe", encoder)
    for i in range(12):
        learner.set(i, source.info.labels[source.meta(i)["label"]])
    learner.save(tmp_path / "probe", encoder, dict(pool="rows", layer=0, window=None))
    model = ssl_audio.load(tmp_path / "probe")
    assert list(model.labels) == learner.classes
    found = np.concatenate([model.scores(clip, encoder.rate).values for clip in clips])
    np.testing.assert_allclose(found, learner.scores(), atol=1e-5)


def test_where_all_is_labelled_nothing_is_asked_for():
    learner = Learner(np.random.default_rng(0).normal(size=(24, 4)))
    for i in range(24):
        learner.set(i, "ab"[i % 2])
    assert all(
        learner.next(3, *how) == [] for how in (("uncertain",), ("random",), ("highest", "a"))
    )
    learner.set(0, None)
    assert learner.next(0) == [] and learner.next(3) == [0]
    for wrong in (5, "", " "):
        with pytest.raises(ValueError, match="wanted text"):
            learner.set(1, wrong)
    with pytest.raises(ValueError, match="vector: got 1.5"):
        learner.set(1.5, "a")
