"""Say in words what is heard in files: ssl-audio caption --checkpoint RUN --output captions.csv PATH…

A row per file: path and text, a table that `train` reads. --truth TABLE (path, text): how many have exactly
its words, and what aac-metrics measures; without a PATH its files are captioned. It goes on after a kill.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data import channels, tables
from ssl_audio.data.reading import reading
from ssl_audio.inference import kinds, resumable
from ssl_audio.inference.inputs import Paths
from ssl_audio.storage import atomic, opened
from ssl_audio.storage.partial_results import Joined, Parts

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio caption`."""
    made = startup.parser("caption", __doc__)
    made.add_argument("paths", nargs="*", metavar="PATH", help="audio files or folders of them")
    made.add_argument("--checkpoint", required=True, metavar="RUN", help="a run of config caption")
    made.add_argument("--step", type=int, help="which checkpoint; default: the newest")
    made.add_argument("--output", required=True, metavar="FILE.csv", help="the table")
    made.add_argument(
        "--truth", metavar="TABLE", help="path and text: say how good the captions are"
    )
    made.add_argument("--metrics", metavar="FILE.json", help="write what --truth gives")
    channels.add_option(made)
    startup.add_bad_share(made)
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, caption and write."""
    args = parser().parse_args(argv)
    if args.metrics and not args.truth:
        parser().error("--metrics: there are none without --truth")
    if not args.paths and not args.truth:
        parser().error("PATH: which files? Or --truth TABLE, which names some")
    if pathlib.Path(args.output).suffix != ".csv":
        parser().error(f"--output {args.output}: wanted a name that ends in .csv")
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks.

    Raises:
      ValueError: a model that makes no captions; a truth of other files, or without words.
    """
    from ssl_audio.inference.load import load

    output = pathlib.Path(args.output).expanduser()
    atomic.check(output, args.truth, args.metrics)  # before the long work
    if args.metrics:
        atomic.check(pathlib.Path(args.metrics).expanduser(), args.truth)
    truth = _truth(args.truth) if args.truth else None
    model = load(args.checkpoint, args.step, trust=args.trust)
    kinds.check(model, "captioner", f"--checkpoint {args.checkpoint}")
    source = Paths(tuple(args.paths or truth or ()), model.rate, args.channels)
    ids = [source.meta(i)["id"] for i in range(len(source))]
    known = None if truth is None else _matched(ids, truth, args.truth)

    def write(parts: Parts | Joined, bad: Mapping[str, str], lost: int) -> None:
        said = {
            id: model.words_of(parts.vector(id)[1:].astype(int).tolist())
            for id in ids
            if id in parts.finished
        }
        if not said:
            raise ValueError(f"none of the {len(ids)} files could be read.")
        _write(output, said)
        print(f"{output}: {len(said)} captions; {len(bad)} of {len(ids)} skipped")
        resumable.tell(bad, source.info.left_out, lost)
        if known is not None:
            _compare(args, {id: text for id, text in said.items() if id in known}, known)

    work = resumable.Work(
        ids,
        {"checkpoint": resumable.digest(model), "channels": args.channels},
        functools.partial(_caption, model, source, ids, args.max_bad_share),
        write,
        args.max_bad_share,
        what="files",
        did="captioned",
        files=[clip.path for clip in source.clips],
    )
    resumable.run_whole(work, output.with_name(output.name + ".parts"))


def _caption(
    model: Any,
    source: Paths,
    ids: Sequence[str],
    max_bad_share: float,
    parts: Parts,
    left: Sequence[int],
    total: int,
    check: resumable.Check,
) -> dict[str, str]:
    """Caption the files `left`; return those that could not be read, and why."""
    bad: dict[str, str] = {}
    read: list[int] = []
    clips = reading(source, read, bad=bad, max_bad_share=max_bad_share, numbers=left, total=total)
    try:
        for number, said in model.numbers(clips):
            check()
            # Their count first: nothing said is a vector, too. Numbers of words are exact as float32.
            i = read[int(number)]
            parts.finish(ids[i], np.array([len(said), *said], np.float32))
    finally:
        parts.write()
    return bad


def _write(output: pathlib.Path, said: Mapping[str, str]) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "text"))
    for path, words in said.items():
        table.writerow((os.path.relpath(path, output.parent), words))
    atomic.write(output, text.getvalue())


def _truth(place: str) -> dict[str, list[str]]:
    """Return the captions of each file in a table, by its path."""
    found: dict[str, list[str]] = {}
    folder = pathlib.Path(place).expanduser().parent
    for row in tables.read(pathlib.Path(place).expanduser(), need=("path", "text")):
        texts = row["text"] if isinstance(row["text"], list) else [row["text"]]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            got = opened.short(row["text"])
            raise opened.error(f"{row.where}: text", got, "a caption; in JSON also several")
        if part := [key for key in ("start", "end") if row.get(key) and row.number(key, float)]:
            got = f"{part[0]} {row[part[0]]}"
            raise opened.error(
                row.where, got, "whole files, which are captioned", "Cut them first."
            )
        if not (isinstance(row["path"], str) and row["path"].strip()):
            raise opened.error(f"{row.where}: path", opened.short(row["path"]), "a file")
        found.setdefault(os.path.realpath(folder / row["path"]), []).extend(texts)
    return found


def _matched(
    ids: Sequence[str], truth: Mapping[str, list[str]], where: str
) -> dict[str, list[str]]:
    """Return the captions of each file that has some."""
    known = {id: truth[path] for id in ids if (path := os.path.realpath(id)) in truth}
    if not known:
        few = ", ".join(list(truth)[:3])
        raise ValueError(f"{where}: names none of the {len(ids)} files; it has {few}, …")
    if left := len(ids) - len(known):
        log.warning("%s: %d of %d files are not in it, and do not count", where, left, len(ids))
    if left := len(truth) - len(set(map(os.path.realpath, known))):
        log.warning("%s: %d of its %d files were not given", where, left, len(truth))
    return known


def _compare(
    args: argparse.Namespace, said: Mapping[str, str], truth: Mapping[str, list[str]]
) -> None:
    """Print how good captions are, and write it."""
    from ssl_audio.eval import captions

    found = captions.measured(list(said.values()), [truth[id] for id in said])
    found |= {"clips": len(said), "different": len(set(said.values()))}
    wide = max(map(len, found))
    print("\n".join(f"{name:{wide}}  {value:.4g}" for name, value in found.items()))
    if args.metrics:
        atomic.write(pathlib.Path(args.metrics).expanduser(), json.dumps(found, indent=1) + "\n")
