"""Embed audio files: python -m ssl_audio.embed --checkpoint RUN --output out.npz PATH…

Arrays in the file: ids [n], embedding [n, D']; with --frames also frames [sum T', rows * D], the
offsets [n + 1] at which each clip's begin, and times [sum T'], ms. Parquet has a row per clip.
"""

import argparse
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ssl_audio import config, hosts
from ssl_audio.data.source import Clip, Files, SourceInfo, audio_files
from ssl_audio.encoder import FINAL, POOLS, Encoder, load, pooling

__all__ = ["Encoder", "load", "main", "reading"]


@dataclasses.dataclass(frozen=True)
class Paths(Files):
    """Audio files, and all audio files below folders; a clip's id is its path."""

    paths: tuple[str, ...]
    rate: int

    def scan(self) -> tuple[SourceInfo, list[Clip]]:  # noqa: D102
        found: dict[str, None] = {}
        for path in map(pathlib.Path, self.paths):
            if not path.exists():
                raise ValueError(f"{path}: no such file or folder.")
            inside = audio_files(path) if path.is_dir() else [path]
            if not inside:
                raise ValueError(f"{path}: no audio file in this folder.")
            found |= dict.fromkeys(p.as_posix() for p in inside)
        return SourceInfo("paths"), [Clip(path, path) for path in found]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, embed and write."""
    parser = argparse.ArgumentParser(prog="python -m ssl_audio.embed", description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders of them")
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="a workdir of train")
    parser.add_argument("--step", type=int, help="which checkpoint; default: the newest")
    parser.add_argument("--output", required=True, help="a file .npz or .parquet")
    parser.add_argument("--layer", type=int, default=FINAL, help="0, 1, …; -1: after the last norm")
    parser.add_argument("--pool", choices=POOLS, default="mean")
    parser.add_argument("--frames", action="store_true", help="also features of each patch column")
    parser.add_argument("--max-bad-share", type=float, default=0.01, help="of unreadable files")
    args = parser.parse_args(argv)
    write = _writer(pathlib.Path(args.output))
    logging.getLogger("absl").setLevel(logging.ERROR)
    hosts.use_compilation_cache()
    encoder = load(args.checkpoint, args.step)
    encoder.check_layer(args.layer)
    source = Paths(tuple(args.paths), encoder.rate)

    bad: dict[str, str] = {}
    read, found = [], {}
    for k, features in encoder.stream(
        reading(source, read, bad=bad, max_bad_share=args.max_bad_share), (args.layer,)
    ):
        pooled = pooling(features[0], encoder.rows, args.pool)
        found[k] = (pooled, features[0] if args.frames else None)
    if not found:
        raise ValueError(f"none of the {len(source)} files could be read.")
    columns = {
        "ids": np.array([source.meta(i)["id"] for i in read]),
        "embedding": np.stack([found[k][0] for k in range(len(read))]),
    }
    if args.frames:
        frames = [found[k][1] for k in range(len(read))]
        columns["frames"] = np.concatenate(frames)
        columns["offsets"] = np.cumsum([0, *map(len, frames)])
        columns["times"] = np.concatenate([encoder.times(len(f)) for f in frames])
    write(columns)
    shape = " x ".join(map(str, columns["embedding"].shape))
    print(f"{args.output}: embedding {shape}; {len(bad)} of {len(source)} files skipped")


def reading(
    source: Any, read: list[int], *, desc: str = "", bad: dict[str, str], max_bad_share: float
) -> Iterator[np.ndarray]:
    """Yield the audio of a source under a progress bar; note in `read` which clips it was."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from ssl_audio.data.pipeline import examples

    with (
        tqdm(total=len(source), unit="clip", desc=desc or None, dynamic_ncols=True) as bar,
        logging_redirect_tqdm(),
    ):
        for i, example in examples(source, bad=bad, max_bad_share=max_bad_share):
            read.append(i)
            bar.update(i + 1 - bar.n)
            yield example["audio"]
        bar.update(len(source) - bar.n)


def _writer(path: pathlib.Path) -> Any:
    """Return a function that writes columns to `path`, having seen that this will be possible."""
    if path.suffix not in (".npz", ".parquet"):
        raise ValueError(f"--output {path}: wanted a name that ends in .npz or .parquet.")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise RuntimeError(
                f"--output {path} needs pyarrow: pip install 'ssl_audio[parquet]', or write .npz."
            ) from None
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(columns: dict[str, np.ndarray]) -> None:
        partial = path.with_name(f".{path.name}.partial")
        with open(partial, "wb") as file:
            if path.suffix == ".npz":
                np.savez(file, allow_pickle=False, **columns)
            else:
                _parquet(file, columns)
        os.replace(partial, path)

    return write


def _parquet(file: Any, columns: dict[str, np.ndarray]) -> None:
    import pyarrow
    import pyarrow.parquet

    def rows(values: np.ndarray) -> Any:
        return pyarrow.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])

    table = {"id": pyarrow.array(columns["ids"]), "embedding": rows(columns["embedding"])}
    if "frames" in columns:
        offsets = columns["offsets"]
        table["frames"] = pyarrow.LargeListArray.from_arrays(offsets, rows(columns["frames"]))
        table["times"] = pyarrow.LargeListArray.from_arrays(offsets, columns["times"])
    pyarrow.parquet.write_table(pyarrow.table(table), file)


if __name__ == "__main__":
    hosts.tune_malloc()
    config.run(main)
