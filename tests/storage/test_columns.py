import numpy as np
import pytest

from ssl_audio.storage import columns

VALUES = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_npz_is_read_by_numpy(tmp_path):
    pieces = (VALUES[i : i + 4] for i in (0, 4))
    given = {
        "ids": columns.column(["a", "bcd"]),
        "frames": columns.Column((6, 2), np.dtype(np.float32), pieces),
    }
    with open(tmp_path / "a.npz", "wb") as file:
        columns.write_npz(file, given)
    found = np.load(tmp_path / "a.npz", allow_pickle=False)
    assert found["ids"].tolist() == ["a", "bcd"]
    assert found["frames"].dtype == np.float32 and np.array_equal(found["frames"], VALUES)


@pytest.mark.parametrize(("group", "groups"), [(1, 3), (2**25, 1)])
def test_parquet_gathers_blocks_in_row_groups(tmp_path, monkeypatch, group, groups):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(columns, "GROUP", group)
    blocks = (
        {"id": ["x"] * 2, "t": VALUES[i : i + 2, 0], "x": VALUES[i : i + 2]} for i in (0, 2, 4)
    )
    with open(tmp_path / "a.parquet", "wb") as file:
        columns.write_parquet(file, blocks)
    found = parquet.ParquetFile(tmp_path / "a.parquet")
    assert found.num_row_groups == groups
    table = found.read()
    assert table["id"].to_pylist() == ["x"] * 6
    assert np.array_equal(table["t"].to_numpy(), VALUES[:, 0])
    assert np.array_equal(table["x"].to_pylist(), VALUES)
