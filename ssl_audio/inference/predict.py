"""Classify audio files: ssl-audio predict --checkpoint RUN --output scores.csv PATH… | --csv table.csv

A row per file, or per row of the table with its columns, in the order asked; with --window a row per window
with its start and end (s). Columns: predicted (the label, or all from their threshold on), score, the
probability of each class, and error: why a row has none. The same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import logging
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data import channels
from ssl_audio.inference import inputs, kinds, predictions, resumable
from ssl_audio.inference.pooling import PADS
from ssl_audio.storage import atomic, columns, division
from ssl_audio.storage.partial_results import Joined, Parts
from ssl_audio.storage.remote import Remote, place

if TYPE_CHECKING:
    from ssl_audio.inference.classifier import Classifier

ROWS = 1024  # of the output, written together
KEPT = 256  # windows of a clip that are kept together
TIMES = 4  # float32 numbers that two float64 times take

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio predict`."""
    made = startup.parser("predict", __doc__)
    inputs.add_options(made)
    made.add_argument(
        "--checkpoint", required=True, metavar="RUN", help="a workdir of train, or a folder"
    )
    made.add_argument("--step", type=_step, help='which checkpoint, or "best"; default: the newest')
    made.add_argument("--output", required=True, help="a file .csv or .parquet")
    made.add_argument(
        "--window", type=_seconds, metavar="S", help="a row per window of so many seconds"
    )
    made.add_argument(
        "--hop", type=_seconds, metavar="S", help="from window to window; default: --window"
    )
    made.add_argument(
        "--top", type=int, metavar="K", help="the K highest in place of a column per class"
    )
    made.add_argument(
        "--threshold",
        type=startup.share,
        metavar="P",
        help="probability from which on a class counts",
    )
    made.add_argument(
        "--pad", choices=PADS, help="what becomes of the end of a short clip; default: the model's"
    )
    channels.add_option(made)
    startup.add_trust(made)
    division.add_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, classify and write."""
    args = parser().parse_args(argv)
    inputs.check_options(parser(), args)
    if args.hop and not args.window:
        parser().error("--hop is from one window to the next: give --window too")
    division.check(parser(), args)
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks, or the part of it that `args.part` names."""
    output = _possible(place(args.output))
    if (folder := resumable.begin(__name__, args, output)) is None:
        return
    # First: it is quick, and its mistakes are the usual ones.
    table = inputs.of_csv(args.csv, args.root) if args.csv else inputs.of_paths(args.paths)
    from ssl_audio.inference.load import load

    model = load(args.checkpoint, args.step, trust=args.trust)
    kinds.check(model, "classifier", f"--checkpoint {args.checkpoint}")
    model = inputs.with_batch_size(model, args)
    options = predictions.Options(args.window, args.hop, args.pad, args.top, args.threshold)
    options.check(model)
    source = inputs.Asked(table, model.rate, args.channels)
    layout = predictions.Layout(model, options, tuple(table.columns))
    names = ("window", "hop", "pad", "batch_size", "channels")
    work = resumable.Work(
        table.keys,
        {
            "checkpoint": resumable.digest(model),
            "list": table.digest,
            **{name: getattr(args, name) for name in names},
        },
        functools.partial(_classify, model, source, options),
        functools.partial(_write, layout, table, output),
        max_bad_share=1.0,
        what="rows",
        did="classified",
        files=[clip.path for clip in table.clips],
    )
    resumable.run(work, args, folder)


def _classify(
    classifier: Classifier,
    source: inputs.Asked,
    options: predictions.Options,
    parts: Parts,
    left: Sequence[int],
    total: int,
    check: resumable.Check,
) -> dict[str, str]:
    """Classify the rows `left`; return those that could not be read, and why."""
    bad: dict[str, str] = {}
    waiting: dict[int, list[np.ndarray]] = {}
    counts: dict[int, int] = {}
    try:
        for number, row in predictions.stream(classifier, source, left, bad, options, total=total):
            check()
            key, rows = source.table.keys[number], waiting.setdefault(number, [])
            # As they are, calibration aside: it may change without anything being computed anew.
            times = np.array([row.start, row.end], np.float64).view(np.float32)
            rows.append(np.concatenate([times, row.logits]))
            counts[number] = counts.get(number, 0) + 1
            if row.last or len(rows) == KEPT:
                parts.add_frames(key, np.stack(waiting.pop(number)))
            if row.last:
                parts.finish(key, np.array([counts.pop(number)], np.float32))
    finally:
        parts.write()
    return bad


def _write(
    layout: predictions.Layout,
    table: inputs.Table,
    output: pathlib.Path | Remote,
    parts: Parts | Joined,
    bad: Mapping[str, str],
    lost: int,
) -> None:
    """Write the table and say what is in it; `lost`: files in which averaging channels loses much."""
    rows = [0]

    def counted() -> Iterator[dict[str, Any]]:
        for block in _blocks(layout, table, parts, bad):
            rows[0] += len(block[layout.names[-1]])
            yield block

    with atomic.file(output) as file:
        if output.suffix == ".parquet":
            columns.write_parquet(file, counted())
        else:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text)
            writer.writerow([*layout.carried, *layout.names])
            for block in counted():
                writer.writerows(zip(*map(_cells, block.values()), strict=True))
            text.detach()
    failed = sum(key in bad for key in table.keys)
    print(f"{output}: {rows[0]} rows of {len(table)} asked; {failed} could not be read")
    resumable.tell(bad, table.left_out, lost)
    if failed == len(table):
        raise ValueError(f"none of the {failed} rows could be read: see the column 'error'.")


def _blocks(
    layout: predictions.Layout, table: inputs.Table, parts: Parts | Joined, bad: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the whole table by columns, some rows at a time."""
    finished, classes = parts.finished, layout.classifier.classes
    segments = predictions.Segments(classes)

    def block() -> dict[str, Any]:
        given = {
            name: [inputs.text(table.columns[name][i]) for i in segments.numbers]
            for name in layout.carried
        }
        return given | segments.columns(layout)

    for i, key in enumerate(table.keys):
        begin = table.clips[i].start
        # One piece for a row that failed, too, so that many of them do not gather.
        for some in parts.frames(key) if key in finished else (None,):
            if some is None:
                segments.fail(i, bad[key])
            else:
                times = np.ascontiguousarray(some[:, :TIMES]).view(np.float64) + begin
                for (start, end), logits in zip(times, some[:, TIMES:], strict=True):
                    segments.add(i, start, end, logits)
            if len(segments) >= ROWS:
                yield block()
                segments = predictions.Segments(classes)
    if len(segments):
        yield block()


def _cells(values: Any) -> list[str]:
    """Return a column as text: probabilities with six digits, times in microseconds."""
    if not isinstance(values, np.ndarray):
        return values
    form = "{:.6g}" if values.dtype == np.float32 else "{:.6f}"
    texts = map(form.format, values.tolist())
    if values.dtype == np.float32:
        return ["" if text == "nan" else text for text in texts]
    return ["" if text == "nan" else text.rstrip("0").rstrip(".") for text in texts]


def _possible(path: pathlib.Path | Remote) -> pathlib.Path | Remote:
    """Return the output's path, having seen that it can be written."""
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--output {path}: wanted a name that ends in .csv or .parquet.")
    columns.check_parquet(path)
    atomic.check(path)
    return path


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted seconds, above 0")
    return value


def _step(text: str) -> int | str:
    if text != "best" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f'got {text!r}, wanted a number of a step, or "best"')
    return text if text == "best" else int(text)
