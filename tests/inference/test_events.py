"""Scores along time → events: against a plain loop, at edges by hand, in pieces as in one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.inference import events
from ssl_audio.inference.events import Rule, Rules, Segment, Segmenter, Timeline


def plain(edges, values, rule):
    """Return the events of one class by the definition, value after value."""
    low = rule.threshold / 2 if rule.low is None else rule.low
    runs = []
    for a, b, value in zip(edges[:-1], edges[1:], values, strict=True):
        if not value >= low:
            continue
        if runs and runs[-1][1] == a:
            runs[-1] = (runs[-1][0], b, max(runs[-1][2], value))
        else:
            runs.append((a, b, value))
    joined = []
    for a, b, peak in runs:
        if peak < rule.threshold:
            continue
        if joined and a - joined[-1][1] < round(rule.min_gap * 1e6):
            joined[-1] = (joined[-1][0], b, max(joined[-1][2], peak))
        else:
            joined.append((a, b, peak))
    return [(a, b, p) for a, b, p in joined if b - a >= round(rule.min_length * 1e6)]


SCORES = st.sampled_from([0.0, 0.2, 0.25, 0.4, 0.5, 0.5000001, 0.75, 1.0, float("nan")])
RULE = st.builds(
    Rule,
    threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    low=st.sampled_from([None, 0.0]),
    min_length=st.sampled_from([0.0, 0.1, 0.2, 0.3]),
    min_gap=st.sampled_from([0.0, 0.1, 0.2, 0.3]),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_events_are_those_of_the_definition_in_any_pieces(data):
    classes = data.draw(st.integers(1, 3))
    rule = [data.draw(RULE) for _ in range(classes)]
    count = data.draw(st.integers(1, 12))
    steps = data.draw(
        st.lists(st.sampled_from([1, 50_000, 100_000]), min_size=count, max_size=count)
    )
    edges = np.cumsum([0, *steps])
    row = st.lists(SCORES, min_size=classes, max_size=classes)
    values = np.array(data.draw(st.lists(row, min_size=count, max_size=count)))
    wanted = sorted(
        (a / 1e6, k, b / 1e6, p)
        for k in range(classes)
        for a, b, p in plain(edges.tolist(), values[:, k], rule[k])
    )
    found = events.segments((edges, values), Rules.of(rule))
    assert [(s.start, s.label, s.end, s.score) for s in found] == wanted
    segmenter, some = Segmenter(Rules.of(rule)), []
    cuts = sorted(data.draw(st.sets(st.integers(1, count))) | {0, count})
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
        some += segmenter.add(edges[a : b + 1], values[a:b])
        assert len(segmenter._open.label) <= 2 * classes + sum(r.min_gap > 0 for r in rule) * count
    assert sorted([*some, *segmenter.finish()], key=lambda s: (s.start, s.label)) == found


def test_lengths_and_gaps_at_their_limits_are_exact():
    def found(values, **rule):
        scores = np.array(values, float)[:, None]
        edges = events.ticks(np.arange(len(values) + 1) * 0.1)  # 0.3 - 0.1 is not 0.2 in floats
        some = events.segments((edges, scores), Rules.of([Rule(**rule)]))
        return [(s.start, s.end) for s in some]

    assert found([0, 1, 1, 0], min_length=0.2) == [(0.1, 0.3)]
    assert found([0, 1, 1, 0], min_length=0.200001) == []
    assert found([1, 0, 0, 1], min_gap=0.2) == [(0, 0.1), (0.3, 0.4)]
    assert found([1, 0, 0, 1], min_gap=0.200001) == [(0, 0.4)]
    # Gaps are closed first: two events too short are one that is long enough.
    assert found([1, 0, 1], min_gap=0.15, min_length=0.3) == [(0, 0.3)]
    assert found([0.3, 0.6, 0.3, 0.2], threshold=0.5, low=0.3) == [(0, 0.3)]
    assert found([0.3, 0.3], threshold=0.5, low=0.3) == []


def test_an_event_waits_for_one_that_may_join_it():
    segmenter = Segmenter(Rules.of([Rule(0.5, 0.2, 0.0, 0.25)]))
    assert segmenter.add(np.array([0, 100_000]), np.array([[0.9]])) == []
    # What follows 0.2 s later is above `low`, and may still reach the threshold.
    assert segmenter.add(np.array([300_000, 900_000]), np.array([[0.3]])) == []
    assert segmenter.add(np.array([900_000, 1_000_000]), np.array([[0.8]])) == []
    assert segmenter.finish() == [Segment(0, 0.0, 1.0, 0.9)]


def test_memory_does_not_grow_with_the_recording():
    segmenter, rng = Segmenter(Rules.of([Rule(min_gap=0.3)] * 4)), np.random.default_rng(0)
    for k in range(200):
        edges = np.arange(51) * 100_000 + k * 5_000_000
        segmenter.add(edges, rng.random((50, 4)))
        assert len(segmenter._open.label) < 12


def covering(starts, ends, values, moment):
    over = [v for a, b, v in zip(starts, ends, values, strict=True) if a <= moment < b]
    return np.mean(over) if over else np.nan


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_timeline_is_the_mean_of_the_windows_over_each_moment(data):
    count, hop = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([0.1, 0.25, 1.0]))
    size = data.draw(st.sampled_from([0.1, 0.3, 1.0]))
    starts = np.arange(count) * hop
    ends = np.minimum(starts + size, starts[-1] + size * data.draw(st.sampled_from([0.5, 1.0])))
    values = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    line, pieces, at = Timeline("mean"), [], 0
    for cut in [*sorted(data.draw(st.sets(st.integers(1, count)))), count]:
        pieces.append(line.add(starts[at:cut], ends[at:cut], values[at:cut, None]))
        at = cut
    pieces.append(line.finish())
    edges = [e for some, _ in pieces for e in some[1:]]
    found = np.concatenate([v for _, v in pieces])[:, 0]
    assert edges == sorted(set(edges)) and edges[-1] == events.ticks(ends).max()
    middle = (np.array([0, *edges[:-1]]) + edges) / 2e6
    wanted = np.array([covering(starts, ends, values, t) for t in middle])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_by_the_nearest_window_a_score_holds_around_its_centre():
    starts, ends = np.arange(4) * 0.5, np.minimum(np.arange(4) * 0.5 + 1, 2.4)
    values = np.array([0.1, 0.9, 0.8, 0.2])[:, None]
    line = Timeline("nearest")
    some = [line.add(starts[:1], ends[:1], values[:1]), line.add(starts[1:], ends[1:], values[1:])]
    some.append(line.finish())
    edges = np.concatenate([e[:1] if i == 0 else [] for i, (e, _) in enumerate(some)])
    edges = np.concatenate([edges, *(e[1:] for e, _ in some)]) / 1e6
    assert edges.tolist() == [0, 0.75, 1.25, 1.725, 2.4]
    assert np.concatenate([v for _, v in some])[:, 0].tolist() == [0.1, 0.9, 0.8, 0.2]


def test_rules_of_classes_and_what_is_refused():
    found = events.rules(["a", "b"], Rule(0.5, min_gap=0.1), {"b": dict(threshold=0.7)})
    assert found == [Rule(0.5, min_gap=0.1), Rule(0.7, min_gap=0.1)]
    with pytest.raises(ValueError, match="class 'c': the model has no such class; it has a, b"):
        events.rules(["a", "b"], Rule(), {"c": {}})
    with pytest.raises(ValueError, match="class 'b': low: got 0.9, wanted at most the threshold"):
        events.rules(["a", "b"], Rule(), {"b": dict(low=0.9)})
    with pytest.raises(ValueError, match="min-gap: got -1"):
        Rule(min_gap=-1)
    with pytest.raises(ValueError, match="in order"):
        Timeline().add([1.0, 0.0], [2.0, 3.0], np.zeros((2, 1)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.sampled_from([1, 3, 5, 9]), st.data())
def test_the_median_in_any_pieces_is_that_of_the_whole(count, size, data):
    values = np.random.default_rng(count).random((count, 2)).astype(np.float32)
    edges, half = np.arange(count + 1) * 10, size // 2
    index = np.arange(-half, count + half) % (2 * count)
    wide = np.concatenate([values, values[::-1]])[index]
    wanted = np.stack([np.median(wide[i : i + size], axis=0) for i in range(count)])
    smooth, found = events.Median(size), []
    cuts = sorted(data.draw(st.sets(st.integers(1, count))) | {0, count})
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
        found.append(smooth.add(edges[a : b + 1], values[a:b]))
        assert len(smooth._values) <= b - a + 2 * size
    found.append(smooth.finish())
    np.testing.assert_array_equal(np.concatenate([v for _, v in found]), wanted)
    ends = [e for some, v in found if len(v) for e in some[1:]]
    assert ends == edges[1:].tolist()
    with pytest.raises(ValueError, match="an odd number"):
        events.Median(4)
