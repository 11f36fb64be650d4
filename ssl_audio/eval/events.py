"""Find events with onset and offset: ssl-audio events --checkpoint RUN --output OUT PATH…

OUT: a table .csv of all recordings (path, start, end, label, score), or one recording's .selections.txt
(Raven), .txt (labels of Audacity) or .jams; a folder with --format for many. A model that was trained on
events is asked for its frames, any other classifier for windows. --truth says how good the events are.
"""

import argparse
import collections
import csv
import dataclasses
import io
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssl_audio import startup
from ssl_audio.data import annotations, channels, tables
from ssl_audio.data.annotations import ENDINGS, Event
from ssl_audio.data.decode import printable, stated_rate
from ssl_audio.data.reading import reading
from ssl_audio.eval.event_metrics import COLLAR
from ssl_audio.inference.inputs import Paths
from ssl_audio.storage import atomic, opened

SETTINGS = ("threshold", "low", "min_length", "min_gap")  # of a class

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio events`."""
    made = startup.parser("events", __doc__)
    made.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders of them")
    made.add_argument("--checkpoint", required=True, metavar="RUN", help="a trained classifier")
    made.add_argument("--step", type=int, help="which checkpoint; default: the newest")
    made.add_argument("--output", metavar="OUT", help="a file, or with --format a folder")
    made.add_argument("--format", choices=sorted(ENDINGS), help="default: by the name of OUT")
    made.add_argument("--window", type=float, help="s; default: the frames, or the training length")
    made.add_argument("--hop", type=float, help="s; default: a quarter of the window")
    made.add_argument(
        "--join", choices=("mean", "nearest"),
        help="score of a moment: the mean of the windows over it (default), or that of the one centred "
        "nearest",
    )  # fmt: skip
    made.add_argument(
        "--smooth", type=float,
        help="s; of frames: their scores become the median over so long; default 0.5",
    )  # fmt: skip
    made.add_argument(
        "--threshold", type=float,
        help="which scores must reach somewhere in an event; default: the calibrated ones, or 0.5",
    )  # fmt: skip
    made.add_argument("--low", type=float, help="and everywhere; default: half of the threshold")
    made.add_argument("--min-length", type=float, help="s; default 0. Shorter events are left out")
    made.add_argument("--min-gap", type=float, help="s; default 0. Shorter gaps are closed, first")
    made.add_argument(
        "--class", action="append", default=[], dest="own", metavar="NAME:threshold=0.7,…",
        help="settings of one class; may be repeated",
    )  # fmt: skip
    made.add_argument("--classes", metavar="TABLE", help="settings by column, `label` among them")
    made.add_argument("--truth", metavar="TABLE", help="or a folder: print F1, errors and PSDS")
    made.add_argument("--collar", type=float, default=COLLAR, help="s; of the F1; default 0.2")
    made.add_argument("--metrics", metavar="FILE.json", help="write what --truth gives")
    made.add_argument(
        "--column", default=annotations.COLUMN, help="of Raven tables in --truth with the labels"
    )
    made.add_argument(
        "--channels", choices=channels.CHANNELS, default="average", help="how they become one"
    )
    made.add_argument(
        "--max-bad-share", type=startup.share, default=0.01, help="of unreadable files"
    )
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, find events and write them."""
    made = parser()
    args = made.parse_args(argv)
    if not (args.output or args.truth):
        made.error("--output or --truth: say what to do with the events")
    if args.metrics and not args.truth:
        made.error("--metrics: there are none without --truth")
    if args.hop is not None and args.window is None:
        made.error("--hop: of windows; give --window too")
    if not 0 <= args.collar < math.inf:
        made.error(f"--collar: got {args.collar:g}, wanted seconds, 0 or more")
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    from ssl_audio.inference.classifier import Classifier
    from ssl_audio.inference.event_scores import SMOOTH, Windows, hear, usual_windows
    from ssl_audio.inference.load import load

    truth = annotations.read(args.truth, args.column) if args.truth else None
    if truth is not None:
        annotations.needs("sed_scores_eval", "--truth")
    classifier = load(args.checkpoint, args.step, trust=args.trust)
    if not isinstance(classifier, Classifier):
        raise ValueError(
            f"{args.checkpoint}: {classifier!r} is no classifier; wanted a run of finetune or events."
        )
    windows = usual_windows(classifier)
    if args.window is not None:
        windows = Windows(args.window, args.window / 4 if args.hop is None else args.hop)
    if windows is None and args.join is not None:
        raise ValueError("--join: of windows, and this model has frames; give --window too.")
    if windows is not None and args.smooth is not None:
        raise ValueError("--smooth: of frames; windows that overlap are smooth by --join mean.")
    if windows is not None and args.join is not None:
        windows = dataclasses.replace(windows, join=args.join)
    labels = classifier.labels
    rules = _rules(args, classifier)
    source = Paths(tuple(args.paths), classifier.rate, args.channels)
    ids = [source.meta(i)["id"] for i in range(len(source))]
    paths = [source.clips[i].path for i in range(len(source))]
    output = _Output(args.output, args.format, paths, labels) if args.output else None
    if args.metrics:  # before the long work
        atomic.check(pathlib.Path(args.metrics))
    known = _matched(paths, truth, args.truth) if truth is not None else {}
    how = "frames" if windows is None else f"windows of {windows.window:g} s, hop {windows.hop:g} s"
    log.info("%d recordings, %d classes, by %s", len(ids), len(labels), how)

    bad: dict[str, str] = {}
    read: list[int] = []
    found: dict[int, list[Event]] = {}
    durations, scores = {}, {}
    clips = reading(source, read, bad=bad, max_bad_share=args.max_bad_share)
    smooth = SMOOTH if args.smooth is None else args.smooth
    keep = truth is not None
    for number, heard in hear(classifier, clips, rules, windows, smooth=smooth, keep=keep):
        i = read[number]
        if not heard.finite:
            bad[ids[i]] = f"{ids[i]}: its scores are not finite"
            log.warning("skipped %s", bad[ids[i]])
        if ids[i] in bad:
            continue
        found[i] = [Event(e.start, e.end, labels[e.label], e.score) for e in heard.events]
        durations[paths[i]] = heard.duration
        if paths[i] in known:
            scores[paths[i]] = heard.edges, heard.values
        if output:
            output.add(i, found[i], heard.duration)
    if not found:
        raise ValueError(f"none of the {len(ids)} files could be read.")
    if output:
        output.finish(found)
    _tell(found, bad, ids, source, output)
    if truth is not None:
        _compare(args, known, {paths[i]: e for i, e in found.items()}, durations, scores, labels)


def _rules(args: argparse.Namespace, classifier: Any) -> list[Any]:
    """Return the rule of each class: the command's, over the calibrated thresholds, and its own."""
    from ssl_audio.inference.events import Rule, rules

    usual = Rule(**{k: v for k in SETTINGS if (v := getattr(args, k)) is not None})
    own: dict[str, dict[str, float]] = collections.defaultdict(dict)
    calibrated = classifier.calibration.thresholds if classifier.calibration else ()
    if args.threshold is None:
        for label, threshold in zip(classifier.labels, calibrated, strict=False):
            own[label]["threshold"] = threshold
    for label, settings in (*_of_table(args.classes), *map(_of_option, args.own)):
        own[label] |= settings
    made = rules(classifier.labels, usual, own)
    for label, rule in zip(classifier.labels, made, strict=True):
        if rule.threshold > 1:
            got = f"{rule.threshold:g} for {label}"
            raise opened.error("threshold", got, "0 to 1, which is where scores lie")
    return made


def _of_option(text: str) -> tuple[str, dict[str, float]]:
    """Return the class and the settings of "NAME:threshold=0.7,min-gap=0.1"."""
    name, colon, rest = text.rpartition(":")
    found = {}
    for part in rest.split(","):
        key, _, value = part.strip().partition("=")
        key = key.replace("-", "_")
        try:
            if not colon or key not in SETTINGS:
                raise ValueError(key)
            found[key] = float(value)
        except ValueError:
            wanted = f"NAME:SETTING=NUMBER,… with settings {', '.join(SETTINGS)}"
            raise opened.error("--class", repr(text), wanted) from None
    return name, found


def _of_table(place: str | None) -> Iterator[tuple[str, dict[str, float]]]:
    if place is None:
        return
    path, told = pathlib.Path(place), False
    for row in tables.read(path, need=("label",)):
        named = {key: key.replace("-", "_") for key in row}
        if not told:
            tables.tell_unused(named.values(), ("label", *SETTINGS), place)
            told = True
        values = {n: row.number(key, float) for key, n in named.items() if n in SETTINGS}
        yield row["label"].strip(), {n: v for n, v in values.items() if v is not None}


class _Output:
    """Writes events: one table of all recordings at the end, or a file of each when it is done."""

    def __init__(self, place: str, kind: str | None, paths: Sequence[str], labels: Sequence[str]):
        self.place, self._paths = pathlib.Path(place).expanduser(), paths
        named = annotations.format_of(self.place.name)
        folder = not named or self.place.is_dir()
        if folder and kind is None:
            endings = ", ".join(ENDINGS.values())
            raise ValueError(
                f"--output {place}: wanted a name that ends in {endings}, or a folder and --format."
            )
        if named and kind not in (None, named) and not folder:
            raise ValueError(f"--output {place}: its ending means {named}, but --format is {kind}.")
        self._kind = kind or named
        if folder and self._kind == "csv":
            raise ValueError(
                f"--output {place}: a table is one file: give it a name that ends in .csv."
            )
        if not folder and self._kind != "csv" and len(paths) > 1:
            raise ValueError(
                f"--output {place}: {self._kind} has a file for each recording, and there are {len(paths)}: "
                f"give a folder, and --format {self._kind}."
            )
        annotations.check_labels(self._kind, labels)
        if self._kind == "jams":
            annotations.needs("jams", "JAMS")
        self._files = _names(self.place, self._kind, paths) if folder else [self.place] * len(paths)
        if folder:
            atomic.check_folder(self.place)
        else:
            atomic.check(self.place)

    def add(self, i: int, events: Sequence[Event], duration: float) -> None:
        """Write a recording's file, where each has its own."""
        if self._kind == "csv":
            return
        rate = stated_rate(self._paths[i])
        name = printable(os.path.basename(self._paths[i]))
        text = annotations.written(self._kind, events, rate=rate, duration=duration, name=name)
        self._files[i].parent.mkdir(parents=True, exist_ok=True)
        atomic.write(self._files[i], text)

    def finish(self, found: Mapping[int, Sequence[Event]]) -> None:
        """Write the table of all."""
        if self._kind != "csv":
            return
        lines = io.StringIO()
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(annotations.HEAD)
        folder = self.place.absolute().parent
        for i in sorted(found):
            # As every table that this package reads: relative to the table's folder.
            path = self._paths[i]
            path = path if os.path.isabs(path) else os.path.relpath(path, folder)
            table.writerows(annotations.rows(printable(path), found[i]))
        atomic.write(self.place, lines.getvalue())


def _names(folder: pathlib.Path, kind: str, paths: Sequence[str]) -> list[pathlib.Path]:
    """Return the file of each recording in a folder: below the folders that tell them apart."""
    parents = [os.path.dirname(os.path.abspath(path)) for path in paths]
    above = os.path.commonpath(parents)
    inside = [
        pathlib.Path(os.path.relpath(parent, above), pathlib.Path(path).stem)
        for parent, path in zip(parents, paths, strict=True)
    ]
    times = collections.Counter(inside)
    ending = ENDINGS[kind]
    return [
        folder / f"{stem if times[stem] == 1 else stem.with_name(pathlib.Path(path).name)}{ending}"
        for stem, path in zip(inside, paths, strict=True)
    ]


def _matched(
    paths: Sequence[str], truth: Mapping[str, list[Event]], where: str
) -> dict[str, list[Event]]:
    """Return the truth of each recording: by path, or else by the name of the file where that is clear."""
    whole = {os.path.realpath(path): events for path, events in truth.items()}
    names = collections.Counter(os.path.basename(path) for path in truth)
    by_name = {os.path.basename(p): e for p, e in truth.items() if names[os.path.basename(p)] == 1}
    ours = collections.Counter(map(os.path.basename, paths))
    found = {}
    for path in paths:
        name = os.path.basename(path)
        if (events := whole.get(os.path.realpath(path))) is not None:
            found[path] = events
        elif name in by_name and ours[name] == 1:
            found[path] = by_name[name]
    if not found:
        few = ", ".join(list(truth)[:3])
        raise ValueError(f"{where}: names none of the {len(paths)} recordings; it has {few}, …")
    if left := len(paths) - len(found):
        log.warning(
            "%s: %d of %d recordings are not in it, and do not count", where, left, len(paths)
        )
    if left := len(truth) - len(found):
        log.warning("%s: %d of its %d recordings were not given", where, left, len(truth))
    return found


def _tell(
    found: Mapping[int, Sequence[Event]],
    bad: Mapping[str, str],
    ids: Sequence[str],
    source: Paths,
    output: _Output | None,
) -> None:
    number = sum(map(len, found.values()))
    where = f"{output.place}: " if output else ""
    print(f"{where}{number} events in {len(found)} recordings; {len(bad)} of {len(ids)} skipped")
    for cause in bad.values():
        print(f"skipped {cause}")
    if source.info.left_out:
        print(f"left out: {source.info.left_out}")


def _compare(
    args: argparse.Namespace,
    known: Mapping[str, list[Event]],
    found: Mapping[str, list[Event]],
    durations: Mapping[str, float],
    scores: Mapping[str, Any],
    labels: Sequence[str],
) -> None:
    """Print how good the events are, and write it."""
    from ssl_audio.eval.event_metrics import measure

    both = [path for path in known if path in found]
    metrics = measure(
        {path: found[path] for path in both},
        {path: known[path] for path in both},
        durations,
        labels,
        {path: scores[path] for path in both},
        collar=args.collar,
    )
    print("\n".join(metrics.lines()))
    if args.metrics:
        atomic.write(pathlib.Path(args.metrics), json.dumps(metrics.as_dict(), indent=1) + "\n")
