"""Retrieval scores against golden ones, ties, the modality gap, zero-shot chance levels."""

import numpy as np
import pytest
from reference import golden_files

from ssl_audio.data.source import Manifest
from ssl_audio.eval import audio_text, retrieval
from ssl_audio.eval.zero_shot import ZeroShot, zero_shot


@pytest.mark.parity
@pytest.mark.parametrize("path", golden_files("audio_text_losses*.npz"))
def test_five_captions_per_clip(path):
    data = np.load(path)
    got = retrieval.retrieval(data["ret_audio"], data["ret_text5"], 5)
    for k in (1, 5, 10):
        assert got[f"text_to_audio_R@{k}"] == pytest.approx(float(data[f"ret_t2a_R{k}"]), abs=1e-6)
        assert got[f"audio_to_text_R@{k}"] == pytest.approx(float(data[f"ret_a2t_R{k}"]), abs=1e-6)
    assert got["text_to_audio_mAP@10"] == pytest.approx(float(data["ret_t2a_mAP10"]), abs=1e-6)
    want = float(data["ret_a2t_mAP10_sorted"])
    assert got["audio_to_text_mAP@10"] == pytest.approx(want, abs=1e-6)


def test_ties_count_half():
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 2.0, 1.0, 1.0]])
    assert retrieval.ranks(scores, np.array([0, 3])).tolist() == [1.0, 1.5]
    same = np.ones((8, 4)) / 2
    found = retrieval.retrieval(same, same)
    assert found["audio_to_text_R@1"] == 1 / 8 and found["text_to_audio_median_rank"] == 4.0


def test_rows_of_one_clip_are_one_clip_with_all_captions(tmp_path, monkeypatch):
    rows = [f"{i % 4}.wav,said {i}" for i in range(8)] + ["3.wav,said 3"]
    (tmp_path / "list.csv").write_text("\n".join(["path,text", *rows]))
    source = Manifest(str(tmp_path / "list.csv"))
    numbers = np.array([0, 1, 3, 4, 5, 6, 7, 8])  # row 2 could not be read
    said = [(source.meta(int(i))["text"],) for i in numbers]
    clips, texts = retrieval.together(source, numbers, said)
    assert clips.tolist() == [0, 1, 2, 5]
    assert texts == [("said 0", "said 4"), ("said 1", "said 5"), ("said 3", "said 7"), ("said 6",)]

    class Perfect:  # knows by its number what is said of a clip
        config, text = {}, None

        def embed_text(self, texts):
            return np.eye(4)[[int(text[5:]) % 4 for text in texts]]

    every = np.arange(9)
    vectors = every, np.eye(4)[every % 4]
    vectors[1][8] = np.eye(4)[3]
    monkeypatch.setattr(ZeroShot, "vectors", lambda self, model: vectors)
    monkeypatch.setattr(audio_text.written, "samples", lambda config: 100)
    found = audio_text.captioned(Perfect(), source)
    assert found["text_to_audio_R@1"] == found["audio_to_text_R@1"] == 1


@pytest.mark.parametrize("alike", (2, 3, 4))
@pytest.mark.parametrize("per_clip", (1, 3))
def test_equal_captions_neither_help_nor_harm(alike, per_clip):
    rng = np.random.default_rng(0)
    clips = 12
    audio = np.eye(clips)[np.arange(clips) // alike]  # groups that sound and are called alike
    text = np.repeat(audio, per_clip, axis=0)
    found = retrieval.retrieval(audio, text, per_clip)
    scores, right = text @ audio.T, {k: ([], []) for k in retrieval.KS}
    owner = np.repeat(np.arange(clips), per_clip)
    for _ in range(500):
        there, back = (x + 1e-6 * rng.random(x.shape) for x in (scores, scores.T))
        for k, (forth, again) in right.items():
            forth.append(np.mean([owner[i] in row.argsort()[-k:] for i, row in enumerate(there)]))
            again.append(np.mean([i in owner[row.argsort()[-k:]] for i, row in enumerate(back)]))
    for k, (forth, again) in right.items():
        assert found[f"text_to_audio_R@{k}"] == pytest.approx(np.mean(forth), abs=0.02)
        assert found[f"audio_to_text_R@{k}"] == pytest.approx(np.mean(again), abs=0.02)
    assert found["text_to_audio_R@1"] == pytest.approx(1 / alike)


def test_perfect_random_and_constant_vectors():
    rng = np.random.default_rng(0)
    labels = np.eye(5)[np.arange(200) % 5]
    prompts = np.eye(5)
    perfect = zero_shot(labels.astype(float), prompts, labels)
    assert perfect["accuracy"] == 1 and perfect["text_to_audio_mAP"] == 1
    random = zero_shot(rng.normal(size=(200, 5)), prompts, labels)
    constant = zero_shot(np.ones((200, 5)), prompts, labels)
    assert abs(random["accuracy"] - 0.2) < 0.08 and constant["accuracy"] == 0.2


def test_the_gap_between_modalities():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 200, 8))
    together = retrieval.modality_gap(first, second)
    apart = retrieval.modality_gap(first, second + 9)
    assert together["separability"] < 0.65 and apart["separability"] == 1
    assert apart["centroid_distance"] > 20 > 1 > together["centroid_distance"]
    assert retrieval.pair_accuracy(first, first, -first) == 1
    assert retrieval.pair_accuracy(first, second, second) == 0.5


def test_few_clips_have_no_separability(caplog):
    few = np.eye(4)
    assert set(retrieval.modality_gap(few, few)) == {"centroid_distance"}
    assert "fewer than 5" in caplog.text
