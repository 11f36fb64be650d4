"""What the page is of: an index, a run with one, a table; and what is said of everything else."""

import json

import numpy as np
import pytest
from pages import unit, write_index

from ssl_audio.explore import collection, groups, projection
from ssl_audio.storage import columns


def test_an_index_and_its_nearest_rows(place):
    found = collection.read(place)
    assert len(found) == 12 and found.rows[0].path.endswith("low0.wav") and found.rows[0].end == 1.0
    near = found.like(found.vectors[5], 4)
    assert near[0] == (5, pytest.approx(1, abs=1e-5)) and {row for row, _ in near} == {4, 5, 6, 7}
    assert [score for _, score in near] == sorted((s for _, s in near), reverse=True)
    assert found.beside("map.npz") == place / "map.npz"
    assert found.numbers[found.rows[3].path, 0.0, 1.0] == 3


def test_a_run_shows_the_index_in_it_or_says_how_to_make_one(place, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"objective": {"kind": "mae"}}))
    with pytest.raises(ValueError, match=r"no index in it yet.*search index --checkpoint .*run"):
        collection.read(run)
    place.rename(run / "index")
    assert collection.read(run).place == run / "index"


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_a_table_of_embeddings(ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"out{ending}"
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    ids = [f"sounds/{i}.wav" for i in range(5)]
    with path.open("wb") as file:
        if ending == ".npz":
            some = {"ids": columns.column(ids), "embedding": columns.column(vectors)}
            columns.write_npz(file, some)
        else:
            columns.write_parquet(file, [{"id": ids, "embedding": vectors}])
    found = collection.read(path)
    assert found.rows[2] == (str(tmp_path / "sounds/2.wav"), 0.0, None)
    np.testing.assert_allclose(found.vectors, unit(vectors), rtol=1e-6)
    assert found.beside("map.npz") == tmp_path / "out.map.npz"
    with pytest.raises(ValueError, match="--checkpoint RUN names it"):
        found.of_sound(b"RIFF")
    with pytest.raises(ValueError, match="audio-text model such as CLAP"):
        found.of_words("a dog")


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda p: None, "nothing there"),
        (lambda p: p.mkdir(), "no index there; make one"),
        (lambda p: p.write_text("x"), "neither an index nor a table"),
        (lambda p: np.savez(p.with_suffix(".npz"), ids=["a"]), "columns ids"),
        (lambda p: p.with_suffix(".parquet").write_bytes(b"PAR1junk"), "cannot be read"),
        (
            lambda p: np.savez(p.with_suffix(".npz"), ids=["a"], embedding=np.full((1, 2), np.nan)),
            "not finite",
        ),
    ],
    ids=["missing", "empty folder", "text", "no embedding", "damaged", "NaN"],
)
def test_what_cannot_be_shown_is_said_in_one_line(damage, said, tmp_path):
    path = tmp_path / "thing"
    damage(path)
    path = next(iter(tmp_path.glob("thing.*")), path)
    with pytest.raises(ValueError, match=said) as error:
        collection.read(path)
    assert "thing" in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_index_is_named(place):
    file = next(place.glob("vectors-*"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="vectors-"):
        collection.read(place)


def test_a_map_keeps_kinds_apart_and_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 150)
    vectors = unit(np.eye(16)[kinds] + 0.05 * rng.normal(size=(150, 16)))
    path = tmp_path / "map.npz"
    first = projection.Projection(vectors, path)
    first.run()
    found = first.map
    assert first.state["done"] and first.state["stage"] == "done"
    assert first.state["version"] == 2  # the principal components came before
    inside = [np.linalg.norm(found.points[kinds == k].std(axis=0)) for k in range(3)]
    middles = np.stack([found.points[kinds == k].mean(axis=0) for k in range(3)])
    apart = np.linalg.norm(middles - np.roll(middles, 1, axis=0), axis=1)
    assert apart.min() > 2 * max(inside)
    assert all(len(set(kinds[found.clusters == c])) == 1 for c in set(found.clusters))
    again = projection.Projection(vectors, path)
    again.run()
    assert again.state["version"] == 1 and np.array_equal(again.map.points, found.points)
    # Other vectors, or a damaged file: computed anew.
    other = projection.Projection(vectors[::-1].copy(), path, "pca")
    other.run()
    assert other.map is not None and not np.array_equal(other.map.points, found.points)
    path.write_bytes(b"PK\x03\x04 junk")
    other.run()
    assert other.state["done"] and len(np.load(path)["points"]) == 150


def test_rows_are_placed_about_landmarks(monkeypatch):
    monkeypatch.setattr(projection, "LANDMARKS", 60)
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 300)
    vectors = unit(np.eye(16)[kinds] + 0.05 * rng.normal(size=(300, 16)))
    said = []
    found = projection.compute(vectors, say=lambda stage, share: said.append((stage, share)))
    middles = np.stack([np.median(found.points[kinds == k], axis=0) for k in range(3)])
    nearest = np.linalg.norm(found.points[:, None] - middles, axis=-1).argmin(axis=1)
    assert (nearest == kinds).mean() > 0.98
    assert [share for _, share in said] == sorted(share for _, share in said)
    assert said[-1][0] == "placing 300 rows"


def test_umap_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(RuntimeError, match=r"ssl_audio\[umap\]"):
        projection.Projection(np.eye(3, dtype=np.float32), tmp_path / "map.npz", "umap")


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_have_a_map(rows):
    found = projection.compute(unit(np.random.default_rng(0).normal(size=(rows, 4))))
    assert found.points.shape == (rows, 2) and np.isfinite(found.points).all()


def test_write_index_is_read_back(tmp_path):
    rows = [("/a.wav", 0, 1), ("/a.wav", 1, 2), ("/b.wav", 0, 0.5)]
    write_index(tmp_path / "i", rows, unit(np.eye(3)))
    assert [tuple(row) for row in collection.read(tmp_path / "i").rows] == rows


def test_folders_of_one_name_are_told_apart_by_what_differs():
    rows = [collection.Row(f"/far/up/{part}/dog/1.wav", 0.0, 1.0) for part in ("train", "test")]
    assert groups.folders(rows).names == ("test/dog", "train/dog")
    rows = [collection.Row(f"/far/up/{name}/1.wav", 0.0, 1.0) for name in ("dog", "cat")]
    assert groups.folders(rows).names == ("cat", "dog")
