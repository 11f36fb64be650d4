"""The layout of BirdSet: events of recordings, segments of soundscapes, how many are kept."""

import csv
import json

import numpy as np
import pytest

from ssl_audio.data.sets.birdset import Birdset, curate

EVENTS = {
    "a.ogg": ("amecro", [[1.5, 2.0], [4.0, 4.5], [7.0, 8.0]], [0, 0, -1]),
    "b.ogg": ("amecro", [], []),
    "c.ogg": ("robin", [[2.0, 3.0]], [-1]),
}


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "HSN"
    place.mkdir()
    with open(place / "HSN_metadata_train.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filepath", "ebird_code", "detected_events", "event_cluster"])
        for path, (code, events, clusters) in EVENTS.items():
            table.writerow([path, code, json.dumps(events), json.dumps(clusters)])
    with open(place / "HSN_metadata_test_5s.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filepath", "ebird_code_multilabel", "start_time", "end_time"])
        table.writerow(["s.ogg", json.dumps(["robin", "wren"]), "10", "15"])
        table.writerow(["s.ogg", "[]", "15", "20"])
    return tmp_path


def test_training_clips_are_events_of_the_largest_cluster(root):
    source = Birdset(str(root))
    assert source.info.labels == ("amecro", "robin", "wren") and source.info.multilabel
    found = [
        (clip.path.rpartition("/")[2], clip.label, clip.start, clip.end) for clip in source.clips
    ]
    assert found == [
        ("a.ogg", (0,), 1.5, 6.5),
        ("a.ogg", (0,), 4.0, 9.0),
        ("b.ogg", (0,), 0.0, 5.0),
        ("c.ogg", (1,), 2.0, 7.0),
    ]
    assert len(Birdset(str(root), per_recording=1)) == 3
    assert len(Birdset(str(root), per_class=1)) == 2


def test_test_segments_have_any_number_of_labels(root):
    clips = Birdset(str(root), split="test_5s").clips
    assert [(clip.label, clip.start, clip.end) for clip in clips] == [
        ((1, 2), 10, 15),
        ((), 15, 20),
    ]
    with pytest.raises(ValueError, match="no HSN_metadata_test.parquet .or .csv. under"):
        len(Birdset(str(root), split="test"))
    with pytest.raises(ValueError, match="split: got 'valid', wanted one of train, test, test_5s"):
        Birdset(str(root), split="valid")


def test_curation_keeps_to_both_limits_and_is_the_same_every_time():
    rng = np.random.default_rng(0)
    events = [(f"r{rng.integers(30)}", f"s{rng.integers(4)}") for _ in range(400)]
    kept = curate(events, 20, 3)
    assert kept == sorted(kept) == curate(events, 20, 3) != curate(events, 20, 3, seed=1)
    for column, most in ((0, 3), (1, 20)):
        counts = np.unique([events[i][column] for i in kept], return_counts=True)[1]
        assert counts.max() == most
    assert curate(events, 0, 0) == list(range(400))
