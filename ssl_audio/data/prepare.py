"""Decode and resample any source once: ssl-audio prepare --source … --output DIR.

The same command continues after an interruption: finished shards are kept, a partial one is redone.
DIR may be an address (gs://, s3://), and the work be divided among machines.
"""

import argparse
import ast
from collections.abc import Sequence
from typing import Any

from ssl_audio import config, startup
from ssl_audio.data import tfds
from ssl_audio.data.preparation import PARTS, SKIPPED, Preparation, check_rate, prepare
from ssl_audio.data.source import Source
from ssl_audio.storage import division
from ssl_audio.storage.remote import place

__all__ = ["main", "parser", "prepare", "run"]

RATE = 16_000  # Hz
_KINDS = {"folder": "source:Folder", "manifest": "source:Manifest", "shards": "shards:Shards"}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio prepare`."""
    made = startup.parser("prepare", __doc__)
    made.add_argument(
        "--source",
        required=True,
        help="folder, manifest, arrow (Hugging Face datasets, Parquet), webdataset, synthetic, "
        "sets.NAME (sets.esc, …), or tfds:NAME for a builder "
        "that TensorFlow Datasets ships (needs ssl_audio[tf])",
    )
    made.add_argument("--root", help="where it is: the folder, the file, or the TFDS data folder")
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
    division.add_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, prepare, and say what came of it."""
    args = parser().parse_args(argv)
    if args.rate is not None:
        check_rate(args.rate)
    division.check(parser(), args)
    if args.tfds and (args.part or args.merge or args.engine):
        parser().error("--tfds writes on one machine: give no --part, --merge and --engine")
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks, or the part of it that `args.part` names."""
    if args.engine:
        folder = place(args.output) / PARTS
        return division.spread(__name__, args, folder, gpu=False)
    source = _source(args.source, args.root, args.rate, args.set)
    if args.tfds:
        made = tfds.write(source, args.tfds, args.output, max_bad_share=args.max_bad_share)
        print(f"{len(made)} clips of split {made.split} in {made.name}")
        return
    work = Preparation(
        source,
        args.output,
        seconds=args.seconds,
        shard_size=args.shard_size,
        max_bad_share=args.max_bad_share,
        workers=args.workers,
        compress=not args.uncompressed,
    )
    if args.part:
        found = work.do(args.part)
        said = "{clips} clips, {bad} of them skipped".format(**found) if found else "merged before"
        print(f"part {args.part} in {args.output}: {said}")
        return
    if not args.merge:
        work.do(division.WHOLE)
    made = work.join()
    skipped = len((place(args.output) / SKIPPED).read_text(encoding="utf-8").splitlines())
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
