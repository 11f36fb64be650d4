"""An index for other programs, read back by their own readers."""

import importlib.util
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from ssl_audio.inference import index as indexes
from ssl_audio.inference import search

pytest.importorskip("faiss", reason="pip install 'ssl_audio[search]'")
FILES, WIDTH = 30, 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return an index of two segments of each of 30 files in two folders."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2 * FILES, WIDTH)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    versions = [f"/sounds/{'ab'[i % 2]}/{i}.wav|1|1" for i in range(FILES)]
    starts = np.tile([0.0, 2.5], FILES)
    file = np.repeat(np.arange(FILES, dtype=np.int32), 2)
    about = {"checkpoint": "/runs/m", "digest": "d", "words": False, "token": "t"}
    about["settings"] = {"pool": "mean", "layer": -1, "window": None}
    rows = indexes.Rows(versions, file, starts, starts + 5)
    return indexes.write(tmp_path_factory.mktemp("index"), about, rows, WIDTH, [x])


def export(made, to, out):
    search.main(["export", f"--index={made.folder}", f"--to={to}", str(out)])


def test_embedding_atlas(made, tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pip install 'ssl_audio[parquet]'")
    import pyarrow.parquet

    out = tmp_path / "map.parquet"
    export(made, "embedding-atlas", out)
    assert f"embedding-atlas {out} --vector vector --text id" in capsys.readouterr().out
    table = pyarrow.parquet.read_table(out)
    assert table.column_names == ["id", "path", "folder", "start", "end", "vector"]
    first = table.slice(3, 1).to_pylist()[0]
    assert first.pop("vector") == made.vectors[3].tolist()
    assert first == {
        "id": "/sounds/b/1.wav#2.5", "path": "/sounds/b/1.wav", "folder": "b", "start": 2.5, "end": 7.5
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"map\.csv: wanted a name that ends in \.parquet"):
        export(made, "embedding-atlas", tmp_path / "map.csv")


def test_windows_late_in_a_recording_have_names_of_their_own(tmp_path):
    pytest.importorskip("pyarrow", reason="pip install 'ssl_audio[parquet]'")
    import pyarrow.parquet

    starts = np.array([0.0, 12_345.65, 12_345.7, 123_456.5, 1_234_567.25])
    rows = indexes.Rows(["/sounds/year.wav|1|1"], np.zeros(5, np.int32), starts, starts + 0.1)
    about = {"checkpoint": "/runs/m", "digest": "d", "words": False, "token": "t", "settings": {}}
    (tmp_path / "late").mkdir()
    late = indexes.write(tmp_path / "late", about, rows, 2, [np.ones((5, 2), np.float32)])
    export(late, "embedding-atlas", tmp_path / "map.parquet")
    names = pyarrow.parquet.read_table(tmp_path / "map.parquet")["id"].to_pylist()
    times = ["0", "12345.65", "12345.7", "123456.5", "1234567.25"]
    assert names == [f"/sounds/year.wav#{time}" for time in times]


@pytest.mark.slow
def test_embedding_atlas_reads_it(made, tmp_path):
    """Its own command loads the table, and packs the page; its projection takes the vectors."""
    if importlib.util.find_spec("embedding_atlas") is None:
        pytest.skip("Embedding Atlas NOT tested: pip install embedding-atlas")
    export(made, "embedding-atlas", tmp_path / "map.parquet")
    page = tmp_path / "page.zip"
    code = """
import sys
import numpy as np
import narwhals
from embedding_atlas import cli, projection
table = cli.load_datasets([sys.argv[1]])
vectors = projection._to_canonical_vector(narwhals.from_native(table)["vector"])
assert np.shape(vectors) == (60, 24), np.shape(vectors)
cli.main()
"""
    # The projection itself (UMAP) compiles for minutes.
    arguments = [tmp_path / "map.parquet", "--text=id", "--disable-projection"]
    command = [sys.executable, "-c", code, *arguments, f"--export-application={page}"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(page) as packed:
        (name,) = [name for name in packed.namelist() if name.endswith("dataset.parquet")]
        (tmp_path / "d.parquet").write_bytes(packed.read(name))
    import pyarrow.parquet

    found = pyarrow.parquet.read_table(tmp_path / "d.parquet")
    assert found.num_rows == 2 * FILES
    assert {"id", "path", "vector"} <= set(found.column_names)


def test_perch_hoplite_reads_it(made, tmp_path, capsys):
    pytest.importorskip("perch_hoplite", reason="pip install 'ssl_audio[hoplite]'")
    from perch_hoplite.agile import source_info
    from perch_hoplite.db import sqlite_usearch_impl as hoplite

    out = tmp_path / "db"
    export(made, "perch-hoplite", out)
    assert "SQLiteUSearchDB.create" in capsys.readouterr().out
    db = hoplite.SQLiteUSearchDB.create(str(out), readonly=True)
    assert db.count_embeddings() == 2 * FILES and db.get_embedding_dim() == WIDTH
    for number in (1, 17, 60):  # ids from 1
        window, row = db.get_window(number), made.rows[number - 1]
        assert list(window.offsets) == [row.start, row.end]
        name = db.get_recording(window.recording_id).filename
        assert f"/sounds/{name}" == row.path
        vector = db.get_embedding(number)
        np.testing.assert_allclose(vector, made.vectors[number - 1], atol=1e-3)
        found = db.search(made.vectors[number - 1].astype(np.float16), 5)
        best = max(found.search_results, key=lambda hit: hit.sort_score)
        assert best.window_id == number
    sources = source_info.AudioSources.from_config_dict(db.get_metadata("audio_sources"))
    assert sources.audio_globs[0].base_path == "/sounds"
    assert db.get_metadata("model_config").model_config.checkpoint == "/runs/m"
    with pytest.raises(ValueError, match="got a place that is taken, wanted a new folder"):
        export(made, "perch-hoplite", out)


def test_a_missing_library_is_named(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "perch_hoplite.db", None)
    monkeypatch.setitem(sys.modules, "perch_hoplite", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ssl_audio\[hoplite\]'"):
        export(made, "perch-hoplite", tmp_path / "db")
    assert not list(tmp_path.iterdir())
