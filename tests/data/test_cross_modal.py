"""Triplets that another modality chose, and pictures with labelled pixels."""

import csv

import numpy as np
import pytest
import soundfile

from ssl_audio.data import cross_modal
from ssl_audio.data.entries import Audio
from ssl_audio.data.pictures import Image
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.pixels import IGNORED, Drawn, Pixels
from ssl_audio.data.source import Manifest
from ssl_audio.eval.segmentation import matched, mean_iou


def test_the_nearest_and_the_clusters():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 0.1, (20, 3)) for c in (0, 5, 10)])
    nearest, cluster = cross_modal.chosen(x, 3)
    for i in range(60):
        distance = ((x - x[i]) ** 2).sum(1)
        distance[i] = np.inf
        assert nearest[i] == distance.argmin()
    assert [len(set(cluster[k : k + 20])) for k in (0, 20, 40)] == [1, 1, 1]
    with pytest.raises(ValueError, match="clusters: got 61"):
        cross_modal.chosen(x, 61)


def test_positives_are_the_nearest_and_negatives_of_another_cluster(tmp_path):
    levels = [0.1, 0.12, 0.5, 0.52, 0.8, 0.82]  # a clip is known by its level
    for number, level in enumerate(levels):
        soundfile.write(tmp_path / f"{number}.wav", np.full(400, level), 16_000)
    paths = [f"{number}.wav" for number in range(6)]
    rows = cross_modal.rows(paths, np.array(levels)[:, None], 3)
    with open(tmp_path / "t.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    cut = Audio(400)
    entries = {"audio": cut, "triplet": cross_modal.CrossModal(cut, negatives=2)}
    pipeline = Pipeline({"t": Manifest(str(tmp_path / "t.csv"))}, 12, entries, threads=0)
    batch = next(iter(pipeline.batches()))
    level = {name: batch[name][..., 200] for name in batch if name.startswith("audio")}
    assert np.allclose(np.abs(level["audio"] - level["audio_positive"]), 0.02, atol=1e-3)
    assert (np.abs(level["audio_negative"] - level["audio"][:, None]) > 0.1).all()


def test_pixels_beyond_the_classes_are_not_labelled():
    entry = Pixels(Image(8, channels=1, mean=(0.5,), std=(0.5,)), 3)
    labels = np.full((8, 8), 255)
    labels[0], labels[1], labels[2] = 2, -1, 3
    example = {"id": "p", "image": np.zeros((8, 8), np.uint8), "pixels": labels}
    found = entry.draw(example, np.random.default_rng(0))
    assert found["pixels"][0].tolist() == [2] * 8 and (found["pixels"][1:] == IGNORED).all()
    drawn = Drawn(size=4, side=40, classes=5, labelled=0.05)
    share = np.mean([drawn[i]["pixels"] >= 0 for i in range(4)])
    assert 0 < share < 0.25 and (drawn[1]["image"] == Drawn(size=9)[1]["image"]).all()


def test_intersections_and_the_best_names_of_clusters():
    true = np.array([0, 0, 1, 1, -1, 2])
    found = np.array([0, 1, 1, 1, 0, 2])
    scores = mean_iou(found, true, 4)  # the fourth class occurs nowhere
    assert np.isclose(scores["mIoU"], (1 / 2 + 2 / 3 + 1) / 3) and scores["accuracy"] == 0.8
    assert matched(np.array([7, 7, 4, 4, 4, 9]), np.array([1, 1, 0, 0, 1, 2]), 3) == {
        4: 0,
        7: 1,
        9: 2,
    }
