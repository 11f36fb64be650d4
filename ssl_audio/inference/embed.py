"""Embed audio files: ssl-audio embed --checkpoint RUN --output out.parquet PATH…

Parquet: a row (id, embedding) per file, or per row of --csv with its columns; with --frames also
out.frames.parquet, a row (id, time in ms, features) per patch column. Or .npz: ids [n], embedding [n, D'],
frames [sum T', rows * D], times [sum T'], offsets [n + 1] of each file's frames. It goes on after a kill.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data import channels
from ssl_audio.data.reading import check_share, reading
from ssl_audio.inference import inputs, resumable
from ssl_audio.inference.pooling import PADS, POOLS, SPECIAL, Features, Pooled
from ssl_audio.storage import atomic, columns, division
from ssl_audio.storage.partial_results import Joined, Parts
from ssl_audio.storage.remote import Remote, place

if TYPE_CHECKING:
    from ssl_audio.inference.encoder import Encoder

ROWS = 1024  # embeddings written together
OURS = "embedding"  # the column of vectors

log = logging.getLogger(__name__)


class _Kept(Pooled):
    """Pools a clip, and hands its frames on."""

    def __init__(self, rows: int, pool: str, parts: Parts, id: str):
        super().__init__(rows, pool)
        self._keep = functools.partial(parts.add_frames, id)

    def add(self, features: Features) -> None:
        super().add(features)
        self._keep(features[0])


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio embed`."""
    made = startup.parser("embed", __doc__)
    inputs.add_options(made)
    made.add_argument("--checkpoint", required=True, metavar="RUN", help="a workdir of train")
    made.add_argument("--step", type=int, help="which checkpoint; default: the newest")
    made.add_argument("--output", required=True, help="a file .npz or .parquet")
    made.add_argument("--layer", type=int, default=-1, help="0, 1, …; -1: after the last norm")
    made.add_argument("--pool", choices=(*POOLS, SPECIAL), default="mean")
    made.add_argument(
        "--pad", choices=PADS, help="what becomes of a clip's end; default: the model's"
    )
    made.add_argument("--frames", action="store_true", help="also features of each patch column")
    channels.add_option(made)
    startup.add_bad_share(made)
    startup.add_trust(made)
    division.add_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, embed and write."""
    args = parser().parse_args(argv)
    if args.frames and args.pool == SPECIAL:
        parser().error("--pool special is of tokens that are no frames; run it without --frames")
    inputs.check_options(parser(), args)
    division.check(parser(), args)
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks, or the part of it that `args.part` names."""
    output = _possible(place(args.output))
    if (folder := resumable.begin(__name__, args, output)) is None:
        return
    from ssl_audio.inference.load import load

    encoder = inputs.with_batch_size(
        load(args.checkpoint, args.step, trust=args.trust).encoder, args
    )
    encoder.readout(args.layer, args.pool)
    if args.csv:
        table = inputs.of_csv(args.csv, args.root)
        source: inputs.Pieces = inputs.Asked(table, encoder.rate, args.channels)
        columns = _carried(table.columns)
    else:
        source, columns = inputs.Paths(tuple(args.paths), encoder.rate, args.channels), {}
    keys = [source.meta(i)["id"] for i in range(len(source))]
    names = ("layer", "pool", "frames", "batch_size", "channels", "pad")
    work = resumable.Work(
        keys,
        {"checkpoint": resumable.digest(encoder), **{name: getattr(args, name) for name in names}},
        functools.partial(_embed, encoder, source, keys, args=args),
        functools.partial(
            _write, encoder, source, keys, columns, output=output, frames=args.frames
        ),
        args.max_bad_share,
        files=[clip.path for clip in source.clips],
    )
    resumable.run(work, args, folder)


def _write(
    encoder: Encoder,
    source: inputs.Pieces,
    keys: Sequence[str],
    given: Mapping[str, Sequence[Any]],
    parts: Parts | Joined,
    bad: Mapping[str, str],
    lost: int,
    *,
    output: pathlib.Path | Remote,
    frames: bool,
) -> None:
    """Write the tables and say what is in them; `lost`: files in which averaging channels loses much."""
    finished = parts.finished
    done = [i for i, key in enumerate(keys) if key in finished]
    if not done:
        raise ValueError(f"none of the {len(keys)} files could be read.")
    kept = [keys[i] for i in done]
    table = {name: [inputs.text(cells[i]) for i in done] for name, cells in given.items()}
    names = [a or b for a, b in zip(table.pop("id", kept), kept, strict=True)]
    if output.suffix == ".npz":
        with atomic.file(output) as file:
            columns.write_npz(file, _columns(encoder, parts, kept, names, frames))
    else:
        if frames:
            with atomic.file(output.with_suffix(".frames.parquet")) as file:
                columns.write_parquet(file, _frame_rows(encoder, parts, kept, names))
        with atomic.file(output) as file:
            columns.write_parquet(file, _clip_rows(parts, kept, names, table))
    width = len(parts.vector(kept[0]))
    print(
        f"{output}: embedding {len(done)} x {width}; {len(keys) - len(done)} of {len(keys)} files skipped"
    )
    resumable.tell(bad, source.info.left_out, lost)


def _embed(
    encoder: Encoder,
    source: inputs.Pieces,
    keys: Sequence[str],
    parts: Parts,
    left: Sequence[int],
    total: int,
    check: resumable.Check,
    *,
    args: argparse.Namespace,
) -> dict[str, str]:
    """Embed the clips `left`; return those that could not be read, and why."""
    bad: dict[str, str] = {}
    read: list[int] = []
    layer, rows, pool = encoder.readout(args.layer, args.pool)

    def collect(number: int) -> Pooled:
        if args.frames:
            return _Kept(rows, pool, parts, keys[read[number]])
        return Pooled(rows, pool)

    clips = reading(
        source, read, bad=bad, max_bad_share=args.max_bad_share, numbers=left, total=total
    )
    try:
        for number, pooled in encoder.stream(clips, (layer,), collect, pad=args.pad):
            key = keys[read[number]]
            check()
            if key in bad:
                continue
            if np.isfinite(pooled[0]).all():
                parts.finish(key, pooled[0])
                continue
            bad[key] = f"{key}: its embedding is not finite"
            log.warning("skipped %s", bad[key])
            check_share(bad, len(keys), args.max_bad_share)
    finally:
        parts.write()
    return bad


def _carried(given: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return a table's columns under the names that they have beside the embedding."""
    name = OURS
    while name in given:
        name += "_"
    if name != OURS:
        log.warning("column %r is the model's: the table's is called %r", OURS, name)
    return {name if column == OURS else column: cells for column, cells in given.items()}


def _possible(path: pathlib.Path | Remote) -> pathlib.Path | Remote:
    """Return the output's path, having seen that it can be written."""
    if path.suffix not in (".npz", ".parquet"):
        raise ValueError(f"--output {path}: wanted a name that ends in .npz or .parquet.")
    columns.check_parquet(path)
    atomic.check(path)
    return path


def _columns(
    encoder: Encoder,
    parts: Parts | Joined,
    keys: Sequence[str],
    ids: Sequence[str],
    frames: bool,
) -> dict[str, columns.Column]:
    vectors = (parts.vector(key)[None] for key in keys)
    shape = len(keys), len(parts.vector(keys[0]))
    found = {
        "ids": columns.column(ids),
        OURS: columns.Column(shape, np.dtype(np.float32), vectors),
    }
    if frames:
        lengths = [parts.length(key) for key in keys]
        shape = sum(lengths), next(parts.frames(keys[0])).shape[1]
        pieces = itertools.chain.from_iterable(map(parts.frames, keys))
        found["frames"] = columns.Column(shape, np.dtype(np.float32), pieces)
        found["offsets"] = columns.column(np.cumsum([0, *lengths]))
        times = map(encoder.times, lengths)
        found["times"] = columns.Column(shape[:1], np.dtype(np.float64), times)
    return found


def _clip_rows(
    parts: Parts | Joined,
    keys: Sequence[str],
    ids: Sequence[str],
    given: Mapping[str, Sequence[str]],
) -> Iterator[dict[str, Any]]:
    for first in range(0, len(keys), ROWS):
        some = slice(first, first + ROWS)
        yield {
            "id": ids[some],
            **{name: cells[some] for name, cells in given.items()},
            OURS: np.stack([parts.vector(key) for key in keys[some]]),
        }


def _frame_rows(
    encoder: Encoder, parts: Parts | Joined, keys: Sequence[str], ids: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for key, id in zip(keys, ids, strict=True):
        times, first = encoder.times(parts.length(key)), 0
        for frames in parts.frames(key):
            last = first + len(frames)
            yield {"id": [id] * len(frames), "time": times[first:last], "features": frames}
            first = last
