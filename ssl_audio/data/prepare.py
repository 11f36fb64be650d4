"""Decode and resample any source once: ssl-audio prepare --source … --output DIR.

The same command continues after an interruption: finished shards are kept, a partial one is redone.
"""

import argparse
import ast
import collections
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from ssl_audio import config, startup
from ssl_audio.data import shards, tfds
from ssl_audio.data.channels import CHANNELS
from ssl_audio.data.decode import DecodeError, rate_fault
from ssl_audio.data.reading import check_share
from ssl_audio.data.source import FIELDS, Example, Source, digest
from ssl_audio.storage import atomic, opened

SETTINGS = "settings.json"
SKIPPED = "skipped.txt"
RATE = 16_000  # Hz
SHORTEST = 0.01  # s; of a piece of a longer clip
_KINDS = {"folder": "source:Folder", "manifest": "source:Manifest", "shards": "shards:Shards"}


def prepare(
    source: Source,
    output: str | os.PathLike,
    *,
    seconds: float = 0.0,
    shard_size: int = 512,
    max_bad_share: float = 0.01,
    workers: int = 0,
    compress: bool = True,
) -> shards.Shards:
    """Write every clip of `source` to ArrayRecord shards in `output` and return their reader.

    Args:
      source: what to read; its rate is the shards' rate.
      output: a new folder, or one that an earlier call with the same settings began.
      seconds: clips longer than this are cut into equal pieces; 0: never.
      shard_size: clips of the source per file.
      max_bad_share: above this share of unreadable clips it stops; unless 0, one is free.
      workers: decoding threads; 0: one per processor.
      compress: smaller files (about a quarter) that take twice as long to read.

    Raises:
      ValueError: too many unreadable clips (all named in `skipped.txt`), or `output` holds
        something else.
    """
    least = f"0 (never cut), or at least {SHORTEST} s"
    _check("seconds", seconds, seconds == 0 or SHORTEST <= seconds < math.inf, least)
    _check("shard_size", shard_size, shard_size >= 1, "at least 1 clip per file")
    _check("workers", workers, workers >= 0, "0 (one per processor), or a number of threads")
    _check("max_bad_share", max_bad_share, 0 <= max_bad_share <= 1, "a share from 0 to 1")
    root = pathlib.Path(output).expanduser()
    metas = [source.meta(i) for i in range(len(source))]
    _check_rate(metas[0]["rate"])
    settings = {
        "version": 1,
        "name": source.info.name,
        "clips": len(metas),
        "content": digest(metas),
        "rate": metas[0]["rate"],
        "seconds": seconds,
        "shard_size": shard_size,
        "compress": compress,
    }
    if (channels := getattr(source, "channels", CHANNELS[0])) != CHANNELS[0]:
        settings["channels"] = channels  # shards from before this was kept are of the default
    _claim(root, settings)
    if (root / shards.INDEX).is_file():
        return shards.Shards(str(root))
    starts = range(0, len(metas), shard_size)
    parts: list[dict[str, Any]] = []
    with (
        tqdm(total=len(metas), unit="clip", desc=source.info.name) as bar,
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
    ):
        for number, start in enumerate(starts):
            done = root / f"{number:05d}.json"
            stop = min(start + shard_size, len(metas))
            if done.is_file():
                parts.append(_part(done))
                bar.update(stop - start)
            else:
                reads = _read(source, range(start, stop), pool, bar)
                parts.append(_shard(root / f"{number:05d}.array_record", reads, seconds, compress))
            bad = {name: cause for part in parts for name, cause in part["bad"].items()}
            atomic.write(
                root / SKIPPED, "".join(f"{name}\t{cause}\n" for name, cause in bad.items())
            )
            bar.set_postfix(skipped=len(bad))
            check_share(bad, len(metas), max_bad_share)
            atomic.write(done, json.dumps(parts[-1]))
    columns = {
        key: [value for part in parts for value in part["clips"][key]]
        for key in (*FIELDS, "samples")
    }
    if not columns["id"]:
        raise ValueError(f"{source.info.name}: no clip could be read; see {root / SKIPPED}")
    index = {
        "settings": settings,
        "info": dataclasses.asdict(source.info),
        "rate": settings["rate"],
        "count": len(columns["id"]),
        "shards": [
            {"file": f"{number:05d}.array_record", "count": len(part["clips"]["id"])}
            | dict(zip(("size", "sha256"), _content(root, number, part), strict=True))
            for number, part in enumerate(parts)
            if part["clips"]["id"]
        ],
        "clips": columns,
    }
    atomic.write(root / shards.INDEX, json.dumps(index))
    for number in range(len(parts)):
        (root / f"{number:05d}.json").unlink()
    return shards.Shards(str(root))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio prepare`."""
    made = startup.parser("prepare", __doc__)
    made.add_argument(
        "--source",
        required=True,
        help="folder, manifest, synthetic, sets.NAME (sets.esc, …), or tfds:NAME for a builder "
        "that TensorFlow Datasets ships (needs ssl_audio[tf])",
    )
    made.add_argument("--root", help="where it is: the folder, manifest or TFDS data folder")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="another option of the source, such as subset=esc10 or split=train",
    )
    made.add_argument("--output", required=True)
    made.add_argument("--tfds", metavar="NAME", help="write this TFDS dataset, not shards")
    made.add_argument("--rate", type=int, help="Hz; default: 16000, of shards their own")
    made.add_argument("--seconds", type=float, default=0.0, help="cut longer clips in pieces")
    made.add_argument("--max-bad-share", type=startup.share, default=0.01)
    made.add_argument("--shard-size", type=int, default=512, help="clips per file")
    made.add_argument("--workers", type=int, default=0, help="threads; 0: one per processor")
    made.add_argument("--uncompressed", action="store_true", help="larger, twice as fast to read")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, prepare, and say what came of it."""
    args = parser().parse_args(argv)
    if args.rate is not None:
        _check_rate(args.rate)
    source = _source(args.source, args.root, args.rate, args.set)
    if args.tfds:
        made = tfds.write(source, args.tfds, args.output, max_bad_share=args.max_bad_share)
        print(f"{len(made)} clips of split {made.split} in {made.name}")
        return
    made = prepare(
        source,
        args.output,
        seconds=args.seconds,
        shard_size=args.shard_size,
        max_bad_share=args.max_bad_share,
        workers=args.workers,
        compress=not args.uncompressed,
    )
    skipped = len((pathlib.Path(args.output) / SKIPPED).read_text(encoding="utf-8").splitlines())
    print(f"{len(made)} clips in {args.output}, {skipped} skipped ({SKIPPED})")
    if made.info.left_out:
        print(f"left out: {made.info.left_out}")


def _source(kind: str, root: str | None, rate: int | None, options: Sequence[str]) -> Source:
    has_rate = _KINDS.get(kind, kind).partition(":")[0] == "shards" and rate is None
    values: dict[str, Any] = {} if has_rate else {"rate": rate or RATE}
    for option in options:
        key, given, text = option.partition("=")
        if not given:
            raise ValueError(f"--set {option}: write OPTION=VALUE")
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    if kind.startswith("tfds:"):
        return tfds.stock(kind.removeprefix("tfds:"), data_dir=root or "", **values)
    if kind == "tfds":
        kind = "tfds:Tfds"
    kind = _KINDS.get(kind, kind)
    if root is not None:
        key = {"source:Manifest": "path", "tfds:Tfds": "name"}.get(kind, "root")
        values[key] = root
    return config.build({"kind": kind, **values}, "data", path="--source")


def _check(name: str, value: float, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"--{name.replace('_', '-')}: got {value}, wanted {wanted}.")


def _part(path: pathlib.Path) -> dict[str, Any]:
    """Return what an earlier call wrote about a finished shard."""
    wanted = "what `ssl-audio prepare` writes about a finished file; remove it to redo that one"
    found = opened.json_file(path, wanted)
    clips = opened.member(found, "clips", dict, path)
    opened.member(found, "bad", dict, path)
    for key in (*FIELDS, "samples"):
        opened.member(clips, key, list, path)
    return found


def _check_rate(rate: int) -> None:
    if cause := rate_fault(rate):
        raise ValueError(f"--rate: got {cause}")


def _claim(root: pathlib.Path, settings: dict[str, Any]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    path = root / SETTINGS
    if not path.is_file():
        others = [entry.name for entry in root.iterdir() if not entry.name.startswith(".")]
        if others:
            raise ValueError(f"{root}: not empty, and not begun by prepare: {others[0]}, …")
        atomic.write(path, json.dumps(settings, indent=1))
        return
    before = opened.json_file(path, "the settings that `ssl-audio prepare` writes")
    differ = [key for key in {**settings, **before} if before.get(key) != settings.get(key)]
    if differ:
        changes = ", ".join(f"{key} {before.get(key)} -> {settings.get(key)}" for key in differ)
        raise ValueError(
            f"{root} was begun with other settings or clips ({changes}): choose another folder"
        )


def _read(
    source: Source, numbers: range, pool: ThreadPoolExecutor, bar: tqdm
) -> Iterator[tuple[Example, np.ndarray | str]]:
    """Yield what is known of each clip and its audio, or why there is none, a few ahead."""

    def read(i: int) -> np.ndarray | str:
        try:
            return source[i]["audio"]
        except DecodeError as error:
            return str(error)

    waiting: collections.deque = collections.deque()
    for i in numbers:
        waiting.append((i, pool.submit(read, i)))
        if len(waiting) > 4 * (os.cpu_count() or 1):
            i, future = waiting.popleft()
            yield source.meta(i), future.result()
            bar.update()
    for i, future in waiting:
        yield source.meta(i), future.result()
        bar.update()


def _content(root: pathlib.Path, number: int, part: dict[str, Any]) -> tuple[int, str]:
    """Return size and SHA-256 of a file, which one begun by an earlier version has not noted."""
    return part.get("content") or shards.content(root / f"{number:05d}.array_record")


def _shard(
    path: pathlib.Path,
    reads: Iterator[tuple[Example, np.ndarray | str]],
    seconds: float,
    compress: bool,
) -> dict[str, Any]:
    """Write one file; return the columns of its clips and the causes of those left out."""
    clips: dict[str, list] = {key: [] for key in (*FIELDS, "samples")}
    bad: dict[str, str] = {}

    def pieces() -> Iterator[np.ndarray]:
        for meta, audio in reads:
            if isinstance(audio, str):
                bad[meta["id"]] = audio
                continue
            count = -(-len(audio) // round(seconds * meta["rate"])) if seconds else 1
            for n, piece in enumerate(np.array_split(audio, count)):
                for key in FIELDS:
                    clips[key].append(meta.get(key))
                clips["samples"].append(len(piece))
                if count > 1:
                    clips["id"][-1] = f"{meta['id']}#{n}"
                yield piece

    shards.write_records(path, pieces(), compress=compress)
    return {"clips": clips, "bad": bad, "content": shards.content(path)}
