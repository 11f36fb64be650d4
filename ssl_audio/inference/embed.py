"""Embed audio files: ssl-audio embed --checkpoint RUN --output out.parquet PATH…

Parquet: a row (id, embedding) per file; with --frames also out.frames.parquet, a row (id, time in
ms, features) per patch column. Or .npz: ids [n], embedding [n, D'], frames [sum T', rows * D], times
[sum T'], offsets [n + 1] of each file's frames. The same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data import channels
from ssl_audio.data.decode import blocks, printable
from ssl_audio.data.listing import AudioFiles, audio_files
from ssl_audio.data.reading import check_share, reading
from ssl_audio.data.source import Clip, Example, Files, SourceInfo
from ssl_audio.inference.pooling import PADS, POOLS, SPECIAL, Features, Pooled
from ssl_audio.storage import atomic, columns, division
from ssl_audio.storage.division import Division, Part
from ssl_audio.storage.partial_results import Joined, Parts
from ssl_audio.storage.remote import Remote, place

if TYPE_CHECKING:
    from ssl_audio.inference.encoder import Encoder

PIECE = 30.0  # s; of longer files no more than a few such pieces are in memory
ROWS = 1024  # embeddings written together

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Paths(Files):
    """Audio files, and all audio files below folders; a clip's id is its path.

    The `audio` of an example is an iterator of pieces when the file is longer than one.
    """

    paths: tuple[str, ...]
    rate: int
    channels: str = "average"  # or "first", "loudest"

    def scan(self) -> tuple[SourceInfo, list[Clip]]:  # noqa: D102
        found: dict[str, None] = {}
        listed = AudioFiles([], {})
        for path in map(pathlib.Path, self.paths):
            if not path.exists():
                raise ValueError(f"{path}: no such file or folder.")
            inside = audio_files(path) if path.is_dir() else AudioFiles([path], {})
            listed = listed + inside
            if not inside:
                left_out = f" (left out: {inside.summary})" if inside.summary else ""
                raise ValueError(f"{printable(path)}: no audio file in this folder{left_out}.")
            found |= dict.fromkeys(p.as_posix() for p in inside)
        info = SourceInfo("paths", left_out=listed.summary)
        # A name need not be UTF-8, but the text of a table must be.
        return info, list(map(Clip, found, map(printable, found)))

    def __getitem__(self, i: int) -> Example:
        path = self.clips[i].path
        begin = functools.partial(blocks, path, self.rate, seconds=PIECE, channels=self.channels)
        pieces = begin()
        audio = next(pieces)
        if next(pieces, None) is not None:
            audio = begin()  # anew: many clips are read ahead, and one that is begun holds memory
        return {"audio": audio, **self.meta(i)}


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
    made.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders of them")
    made.add_argument("--checkpoint", required=True, metavar="RUN", help="a workdir of train")
    made.add_argument("--step", type=int, help="which checkpoint; default: the newest")
    made.add_argument("--output", required=True, help="a file .npz or .parquet")
    made.add_argument("--layer", type=int, default=-1, help="0, 1, …; -1: after the last norm")
    made.add_argument("--pool", choices=(*POOLS, SPECIAL), default="mean")
    made.add_argument(
        "--pad", choices=PADS, help="what becomes of a clip's end; default: the model's"
    )
    made.add_argument("--frames", action="store_true", help="also features of each patch column")
    made.add_argument(
        "--channels", choices=channels.CHANNELS, default="average", help="how they become one"
    )
    made.add_argument(
        "--max-bad-share", type=startup.share, default=0.01, help="of unreadable files"
    )
    startup.add_trust(made)
    made.add_argument(
        "--batch-size",
        type=int,
        help="most windows encoded together; on a CPU never more than four seconds of sound, or one",
    )
    division.add_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, embed and write."""
    args = parser().parse_args(argv)
    if args.batch_size is not None and args.batch_size < 1:
        parser().error(f"--batch-size {args.batch_size}: wanted at least 1")
    if args.frames and args.pool == SPECIAL:
        parser().error("--pool special is of tokens that are no frames; run it without --frames")
    division.check(parser(), args)
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks, or the part of it that `args.part` names."""
    output = _possible(place(args.output))
    folder = output.with_name(f"{output.name}.parts")
    if args.engine:
        return division.spread(__name__, args, folder, gpu=True)
    if args.merge and not (folder / division.NAME).is_file() and output.is_file():
        print(
            f"{output}: no part is left to merge; the file stays as an earlier run or merge wrote it"
        )
        return
    from ssl_audio.inference.load import load

    encoder = load(args.checkpoint, args.step, trust=args.trust).encoder
    if args.batch_size is None:
        args.batch_size = encoder.batch_size
    encoder = dataclasses.replace(encoder, batch_size=args.batch_size)
    encoder.readout(args.layer, args.pool)
    source = Paths(tuple(args.paths), encoder.rate, args.channels)
    ids = [source.meta(i)["id"] for i in range(len(source))]
    names = ("layer", "pool", "frames", "batch_size", "channels", "pad")
    settings = {"checkpoint": digest(encoder), **{name: getattr(args, name) for name in names}}
    if args.part or args.merge:
        listed = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
        whole = {**settings, "files": len(ids), "list": listed}
        work = Division(folder, whole, args.part.of if args.part else None)
        if args.part:
            return _do(encoder, source, ids, work, settings, args)
        if not work.merged:
            _join(encoder, source, ids, work, settings, output, args)
        return work.remove()

    parts = Parts(folder, settings)
    channels.forget()
    bad = _embed(encoder, source, ids, range(len(ids)), parts, args)
    _write(encoder, source, ids, parts, bad, channels.lost(), output, args.frames)
    parts.remove()


def _do(
    encoder: Encoder,
    source: Paths,
    ids: Sequence[str],
    work: Division,
    settings: Mapping[str, Any],
    args: argparse.Namespace,
) -> None:
    """Do the part `args.part`, unless that was done."""
    part: Part = args.part
    with work.work(part) as check:
        if check is None:
            print(f"part {part}: done before")
            return
        parts, numbers = Parts(work.at(part), settings), part.share(len(ids))
        channels.forget()
        bad = _embed(encoder, source, ids, numbers, parts, args, check)
        files = sum(ids[i] in parts.finished for i in numbers)
        check()
        work.finish(part, {"files": files, "bad": bad, "lost": channels.lost()})
    print(f"part {part}: {files} files embedded, {len(bad)} skipped")


def _join(
    encoder: Encoder,
    source: Paths,
    ids: Sequence[str],
    work: Division,
    settings: Mapping[str, Any],
    output: pathlib.Path | Remote,
    args: argparse.Namespace,
) -> None:
    """Write what all parts found, in the order in which one machine would."""
    records, some = work.records(), []
    for part, record in zip(work.parts, records, strict=True):
        parts = Parts(work.at(part), settings)
        if len(parts.finished) != record["files"]:
            raise ValueError(
                f"{work.at(part)}: {len(parts.finished)} files, but part {part} had {record['files']}: "
                f"remove this folder and do the part again."
            )
        some.append(parts)
    bad = {id: cause for record in records for id, cause in record["bad"].items()}
    check_share(bad, len(ids), args.max_bad_share)
    lost = sum(record["lost"] for record in records)
    _write(encoder, source, ids, Joined(some), bad, lost, output, args.frames)


def _write(
    encoder: Encoder,
    source: Paths,
    ids: Sequence[str],
    parts: Parts | Joined,
    bad: Mapping[str, str],
    lost: int,
    output: pathlib.Path | Remote,
    frames: bool,
) -> None:
    """Write the tables and say what is in them; `lost`: files in which averaging channels loses much."""
    finished = parts.finished
    done = [id for id in ids if id in finished]
    if not done:
        raise ValueError(f"none of the {len(ids)} files could be read.")
    if output.suffix == ".npz":
        with atomic.file(output) as file:
            columns.write_npz(file, _columns(encoder, parts, done, frames))
    else:
        if frames:
            with atomic.file(output.with_suffix(".frames.parquet")) as file:
                columns.write_parquet(file, _frame_rows(encoder, parts, done))
        with atomic.file(output) as file:
            columns.write_parquet(file, _clip_rows(parts, done))
    width = len(parts.vector(done[0]))
    print(f"{output}: embedding {len(done)} x {width}; {len(bad)} of {len(ids)} files skipped")
    for cause in bad.values():
        print(f"skipped {cause}")
    if source.info.left_out:
        print(f"left out: {source.info.left_out}")
    if lost:
        print(
            f"averaging channels loses more than {channels.MOST_LOST:g} dB in {lost} of these files: "
            "--channels loudest keeps it"
        )


def _embed(
    encoder: Encoder,
    source: Paths,
    ids: Sequence[str],
    numbers: range,
    parts: Parts,
    args: argparse.Namespace,
    check: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Embed which of `numbers` `parts` does not hold yet; return the files that could not be read, and why.

    `check`: raises when the work is another's now.
    """
    finished, bad = parts.finished, {}
    read: list[int] = []
    left = [i for i in numbers if ids[i] not in finished]
    if len(left) < len(numbers):
        log.info("%d of %d files were finished before", len(numbers) - len(left), len(numbers))

    layer, rows, pool = encoder.readout(args.layer, args.pool)

    def collect(number: int) -> Pooled:
        if args.frames:
            return _Kept(rows, pool, parts, ids[read[number]])
        return Pooled(rows, pool)

    clips = reading(
        source,
        read,
        bad=bad,
        max_bad_share=args.max_bad_share,
        numbers=left,
        total=len(numbers),
    )
    try:
        for number, pooled in encoder.stream(clips, (layer,), collect, pad=args.pad):
            id = ids[read[number]]
            check()
            if id in bad:
                continue
            if np.isfinite(pooled[0]).all():
                parts.finish(id, pooled[0])
                continue
            bad[id] = f"{id}: its embedding is not finite"
            log.warning("skipped %s", bad[id])
            check_share(bad, len(ids), args.max_bad_share)
    finally:
        parts.write()
    return bad


def _possible(path: pathlib.Path | Remote) -> pathlib.Path | Remote:
    """Return the output's path, having seen that it can be written."""
    if path.suffix not in (".npz", ".parquet"):
        raise ValueError(f"--output {path}: wanted a name that ends in .npz or .parquet.")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise RuntimeError(
                f"--output {path} needs pyarrow: pip install 'ssl_audio[parquet]', or write .npz."
            ) from None
    atomic.check(path)
    return path


def digest(encoder: Any) -> str:
    """Return what differs between checkpoints, wherever they lie."""
    import jax

    found = hashlib.sha256(json.dumps(encoder.config, sort_keys=True, default=str).encode())
    for values in jax.tree.leaves(encoder.params):
        found.update(np.ravel(values).view(np.uint8).data)
    return found.hexdigest()[:16]


def _columns(
    encoder: Encoder, parts: Parts | Joined, ids: Sequence[str], frames: bool
) -> dict[str, columns.Column]:
    vectors = (parts.vector(id)[None] for id in ids)
    shape = len(ids), len(parts.vector(ids[0]))
    found = {
        "ids": columns.column(ids),
        "embedding": columns.Column(shape, np.dtype(np.float32), vectors),
    }
    if frames:
        lengths = [parts.length(id) for id in ids]
        shape = sum(lengths), next(parts.frames(ids[0])).shape[1]
        pieces = itertools.chain.from_iterable(map(parts.frames, ids))
        found["frames"] = columns.Column(shape, np.dtype(np.float32), pieces)
        found["offsets"] = columns.column(np.cumsum([0, *lengths]))
        times = map(encoder.times, lengths)
        found["times"] = columns.Column(shape[:1], np.dtype(np.float64), times)
    return found


def _clip_rows(parts: Parts | Joined, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(ids), ROWS):
        some = ids[first : first + ROWS]
        yield {"id": some, "embedding": np.stack([parts.vector(id) for id in some])}


def _frame_rows(
    encoder: Encoder, parts: Parts | Joined, ids: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for id in ids:
        times, first = encoder.times(parts.length(id)), 0
        for frames in parts.frames(id):
            last = first + len(frames)
            yield {"id": [id] * len(frames), "time": times[first:last], "features": frames}
            first = last
