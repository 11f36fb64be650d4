"""Clusters of clips: whitening, k-means, the table and who reads it, agreement with classes."""

import csv
import io
import types

import numpy as np
import pytest
import soundfile
from sklearn.metrics import normalized_mutual_info_score

from ssl_audio import config
from ssl_audio.data.source import Folder
from ssl_audio.inference import kmeans
from ssl_audio.inference.clip_clusters import Clusters, agreement, clustered, table, used, whitened


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    return rng.standard_normal((200, 12)) @ rng.standard_normal((12, 12)) + 5


def test_whitened_components_are_uncorrelated_and_of_one_variance(x, monkeypatch):
    with monkeypatch.context() as patch:  # before they are brought to length 1
        patch.setattr(np.linalg, "norm", lambda a, axis, keepdims: np.ones((len(a), 1)))
        found = whitened(x, 5)
    assert found.shape == (200, 5)
    np.testing.assert_allclose(np.cov(found.T), np.eye(5), atol=1e-9)
    # The first components: no other directions vary more.
    spread = np.linalg.svd(x - x.mean(0), compute_uv=False)
    heard = np.linalg.svd(found.T @ (x - x.mean(0)) / 199, compute_uv=False)
    np.testing.assert_allclose(heard, spread[:5] / np.sqrt(199), rtol=1e-6)
    unit = whitened(x, 5)
    np.testing.assert_allclose(unit, found / np.linalg.norm(found, axis=1)[:, None], atol=1e-12)


def test_no_more_components_than_vary():
    rng = np.random.default_rng(1)
    flat = np.repeat(rng.standard_normal((50, 3)), 2, axis=1)  # rank 3
    assert whitened(flat, 128).shape == (50, 3)
    assert whitened(rng.standard_normal((4, 9)), 128).shape == (4, 3)
    assert np.isfinite(whitened(np.ones((5, 4)), 2)).all()


def test_every_vector_goes_to_the_nearest_of_the_means_and_the_seed_decides(x):
    data = whitened(x, 6)
    labels, cosines = clustered(data, 4, iterations=100, seed=3)
    means = np.stack([data[labels == n].mean(0) for n in range(4)])
    nearest = np.argmin(((data[:, None] - means[None]) ** 2).sum(-1), 1)
    np.testing.assert_array_equal(labels, nearest)
    want = [data[i] @ means[n] / np.linalg.norm(means[n]) for i, n in enumerate(labels)]
    np.testing.assert_allclose(cosines, want, atol=1e-9)
    assert np.array_equal(clustered(data, 4, seed=3)[0], clustered(data, 4, seed=3)[0])


def test_agreement_is_that_of_scikit_learn_and_of_the_definitions():
    labels, classes = [0, 0, 1, 1, 2, 2, 7], [5, 5, 5, 3, 3, 3, 5]
    found = agreement(labels, classes)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(classes, labels))
    assert found["accuracy"] == pytest.approx(4 / 7)  # two of 5 in cluster 0, two of 3 in 2
    assert found["purity"] == pytest.approx(6 / 7)
    assert agreement([4, 4, 9], [0, 0, 1]) == dict(nmi=1.0, accuracy=1.0, purity=1.0)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Return a folder of two classes of tones."""
    root = tmp_path_factory.mktemp("sounds")
    for n in range(8):
        place = root / ("low" if n < 4 else "high") / f"{n}.wav"
        place.parent.mkdir(exist_ok=True)
        time = np.arange(8000) / 16_000
        tone = 0.3 * np.sin(2 * np.pi * (300 if n < 4 else 3000 + 40 * n) * time)
        soundfile.write(place, tone, 16_000)
    return root


def test_the_table_is_sorted_and_is_read_as_labels(sounds, tmp_path):
    source = Folder(str(sounds))
    labels = np.array([1, 0, 1, 0, 0, 0, 1])
    cosines = np.array([0.5, 0.9, 0.7, 0.1, 0.3, 0.2, 0.6])
    text = table(source, Clusters(np.array([0, 1, 2, 3, 5, 6, 7]), labels, cosines))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["label"] for row in rows] == ["cluster_0"] * 4 + ["cluster_1"] * 3
    assert [float(row["cosine"]) for row in rows] == [0.9, 0.3, 0.2, 0.1, 0.7, 0.6, 0.5]
    assert rows[0]["class"] == source.info.labels[source.meta(1)["label"]]
    (tmp_path / "labels.csv").write_text(text)
    read = config.build(dict(kind="source:Manifest", path=str(tmp_path / "labels.csv")), "data")
    assert read.info.labels == ("cluster_0", "cluster_1") and len(read) == 7
    heard, row = read[0], rows[0]
    assert heard["id"] == row["id"] == source.meta(1)["id"]
    np.testing.assert_array_equal(heard["audio"], source[1]["audio"])


def test_fewer_clusters_than_were_asked_for_are_told(x, caplog):
    few = np.repeat(x[:3], 5, axis=0)
    labels, _ = clustered(few, 7)
    assert used(labels, 7, "clips") == 3
    assert "4 of 7 clusters are empty: the clips have no more than about 3" in caplog.text
    caplog.clear()
    assert used(clustered(few, 3)[0], 3, "clips") == 3 and not caplog.text


def test_clips_that_are_no_files_cannot_be_named():
    source = config.build(dict(kind="synthetic", size=4), "data")
    found = Clusters(np.arange(4), np.zeros(4, int), np.zeros(4))
    with pytest.raises(ValueError, match="synthetic is no collection of sound files"):
        table(source, found)


class Pitch:
    """Stands for an encoder: the strongest lines of a clip's spectrum."""

    rate = 16_000


def test_the_command_clusters_by_the_features(sounds, tmp_path, monkeypatch, capsys):
    def features(encoder, view, layers, pool):
        assert (view, layers, pool) == ("pooled", (-1,), "mean")

        def extract(clips):
            for number, audio in enumerate(clips):
                spectrum = np.abs(np.fft.rfft(audio[:4096]))
                yield number, spectrum[None, :1024].astype(np.float32)

        return extract

    from ssl_audio.inference import load, probe

    monkeypatch.setattr(probe, "features", features)
    model = types.SimpleNamespace(encoder=Pitch())
    monkeypatch.setattr(load, "load", lambda *_, **__: model)
    out = tmp_path / "labels.csv"
    given = ["--clips", "--checkpoint", "RUN", "--data", str(sounds), "--whiten", "2"]
    kmeans.main([*given, "--out", str(out)])
    said = capsys.readouterr().out
    assert "8 clips in 2 clusters of" in said and "nmi" in said
    first = out.read_bytes()
    kmeans.main([*given, "--out", str(out)])
    assert out.read_bytes() == first
    with pytest.raises(ValueError, match="8 clips for 9 clusters"):
        kmeans.main([*given, "--codes", "9", "--out", str(out)])
    with pytest.raises(ValueError, match="for something else, too, and would replace it"):
        kmeans.main([*given[:3], "--data", str(out), "--out", str(out)])
    assert out.read_bytes() == first
    for wrong, message in (
        (["--out", str(tmp_path / "folder")], "wanted a table"),
        (["--out", str(out), "--codes", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit):
            kmeans.main([*given, *wrong])
        assert message in capsys.readouterr().err
    for option in (["--whiten", "2"], ["--pool", "mean"]):  # tokens are neither pooled nor whitened
        with pytest.raises(SystemExit):
            kmeans.main(
                [
                    "--checkpoint",
                    "RUN",
                    "--data",
                    str(sounds),
                    "--codes",
                    "2",
                    "--out",
                    "x",
                    *option,
                ]
            )
        assert "they go with --clips" in capsys.readouterr().err
