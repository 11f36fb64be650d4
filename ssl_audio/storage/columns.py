"""Columns that need not fit in memory, written block after block to .npz or Parquet files.

Called by `inference/embed.py` and `predict.py`. NumPy's and pyarrow's own readers read them.
"""

import itertools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np

GROUP = 2**25  # bytes in a row group, about


class Column(NamedTuple):
    """An array in blocks: along its first axis, one after the other."""

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Iterable[np.ndarray]


def check_parquet(path: Any) -> None:
    """Raise RuntimeError if a file is to be Parquet, and pyarrow is not installed."""
    if path.suffix != ".parquet":
        return
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise RuntimeError(
            f"--output {path} needs pyarrow: pip install 'ssl_audio[parquet]', or another ending."
        ) from None


def column(values: Any) -> Column:
    """Return an array as a column of one block."""
    values = np.asarray(values)
    return Column(values.shape, values.dtype, [values])


def write_npz(file: IO[bytes], columns: Mapping[str, Column]) -> None:
    """Write what `numpy.savez` would."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, (shape, dtype, blocks) in columns.items():
            descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(entry, header)
                for block in blocks:
                    entry.write(np.ascontiguousarray(block, dtype).data.cast("B"))


def write_parquet(file: IO[bytes], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, given in blocks: column name → array [n] or [n, D]; "id" → list of text.

    A two-dimensional array becomes a column of fixed-size lists. Blocks are gathered to row groups of
    about 32 MiB.
    """
    import pyarrow
    import pyarrow.parquet

    def arrow(values: Any) -> Any:
        if np.ndim(values) < 2:
            return pyarrow.array(values)
        return pyarrow.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])

    def tables() -> Iterator[Any]:
        for block in rows:
            yield pyarrow.table({name: arrow(values) for name, values in block.items()})

    blocks = tables()
    first = next(blocks)
    options: Any = {"use_dictionary": ["id"]}  # the same text in many rows; numbers hardly repeat
    with pyarrow.parquet.ParquetWriter(file, first.schema, **options) as writer:
        gathered, size = [], 0
        for table in itertools.chain([first], blocks):
            gathered.append(table)
            size += table.nbytes
            if size >= GROUP:
                writer.write_table(pyarrow.concat_tables(gathered))
                gathered, size = [], 0
        if gathered:
            writer.write_table(pyarrow.concat_tables(gathered))
