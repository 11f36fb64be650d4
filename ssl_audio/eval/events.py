"""Find events with onset and offset: ssl-audio events --checkpoint RUN --output OUT PATH…

OUT: a table .csv of all recordings (path, start, end, label, score), or one recording's .selections.txt
(Raven), .txt (labels of Audacity) or .jams; a folder with --format for many. A model that was trained on
events is asked for its frames, any other for windows. --truth: how good they are. It goes on after a kill.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import logging
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data import annotations, channels, event_tables, tables
from ssl_audio.data.annotations import ENDINGS, Event
from ssl_audio.data.reading import check_share, reading
from ssl_audio.eval.event_files import Output
from ssl_audio.eval.event_metrics import COLLAR
from ssl_audio.inference import kinds, resumable
from ssl_audio.inference.inputs import Paths
from ssl_audio.storage import atomic, opened
from ssl_audio.storage.partial_results import Joined, Parts

SETTINGS = ("threshold", "low", "min_length", "min_gap")  # of a class

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio events`."""
    made = startup.parser("events", __doc__)
    made.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders of them")
    made.add_argument("--checkpoint", required=True, metavar="RUN", help="a trained classifier")
    made.add_argument(
        "--query", action="append", default=[], metavar="TEXT",
        help="of a run of finelap: what to listen for, in words; may be repeated",
    )  # fmt: skip
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
    made.add_argument(
        "--truth",
        metavar="TABLE",
        help="or a folder: print F1 of events and segments, errors, PSDS",
    )
    made.add_argument("--collar", type=float, default=COLLAR, help="s; of the F1; default 0.2")
    made.add_argument("--metrics", metavar="FILE.json", help="write what --truth gives")
    made.add_argument(
        "--column", default=annotations.COLUMN, help="of Raven tables in --truth with the labels"
    )
    channels.add_option(made)
    startup.add_bad_share(made)
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
    if any(not text.strip() for text in args.query):
        made.error("--query: got an empty text, wanted words")
    if args.hop is not None and args.window is None:
        made.error("--hop: of windows; give --window too")
    if not 0 <= args.collar < math.inf:
        made.error(f"--collar: got {args.collar:g}, wanted seconds, 0 or more")
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    from ssl_audio.inference.event_scores import SMOOTH, Windows, hear, usual_windows
    from ssl_audio.inference.load import load

    truth = event_tables.read(args.truth, args.column) if args.truth else None
    if truth is not None:
        annotations.needs("sed_scores_eval", "--truth")
    classifier = load(args.checkpoint, args.step, trust=args.trust)
    if args.query:
        kinds.check(classifier, "when", f"--query, --checkpoint {args.checkpoint}")
        classifier = classifier.listening(list(dict.fromkeys(args.query)))
    kinds.check(classifier, "events", f"--checkpoint {args.checkpoint}")
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
    output = Output(args.output, args.format, paths, labels) if args.output else None
    if args.metrics:  # before the long work
        atomic.check(pathlib.Path(args.metrics).expanduser(), args.truth)
    if args.truth and output:
        of_truth = pathlib.Path(args.truth).expanduser()
        files = of_truth.rglob("*") if of_truth.is_dir() else [of_truth]
        atomic.apart(output.files, [*files, args.metrics])
    known = _matched(paths, truth, args.truth) if truth is not None else {}
    how = "frames" if windows is None else f"windows of {windows.window:g} s, hop {windows.hop:g} s"
    log.info("%d recordings, %d classes, by %s", len(ids), len(labels), how)

    smooth = SMOOTH if args.smooth is None else args.smooth
    keep = {i for i, path in enumerate(paths) if path in known}
    compute = functools.partial(
        _find, classifier, source, ids, args.max_bad_share, keep,
        functools.partial(hear, rules=rules, windows=windows, smooth=smooth, keep=bool(keep)),
    )  # fmt: skip

    def write(parts: Parts | Joined, bad: Mapping[str, str], lost: int) -> None:
        kept = {i: _Found.of(parts, id) for i, id in enumerate(ids) if id in parts.finished}
        if not kept:
            raise ValueError(f"none of the {len(ids)} files could be read.")
        found = {i: recording.events(labels) for i, recording in kept.items()}
        if output:
            output.write(found, {i: recording.duration for i, recording in kept.items()})
        where = f"{output.place}: " if output else ""
        count = sum(map(len, found.values()))
        print(f"{where}{count} events in {len(found)} recordings; {len(bad)} of {len(ids)} skipped")
        resumable.tell(bad, source.info.left_out, lost)
        if truth is not None:
            _compare(args, {i: known[paths[i]] for i in keep if i in kept}, kept, found, labels)

    settings = {
        "checkpoint": resumable.digest(classifier),
        "rules": [dataclasses.asdict(rule) for rule in rules],
        "windows": windows and dataclasses.asdict(windows),
        "smooth": smooth,
        "channels": args.channels,
        "truth": sorted(ids[i] for i in keep),
    }
    work = resumable.Work(
        ids, settings, compute, write, args.max_bad_share, "recordings", "searched", paths
    )
    with contextlib.ExitStack() as stack:
        if output is None:  # nothing is kept where nothing is written
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()), "parts")
        else:
            folder = output.parts
        resumable.run_whole(work, folder)


@dataclasses.dataclass(frozen=True)
class _Found:
    """What was found in a recording, as partial results keep it: float64 as two float32 numbers each."""

    duration: float  # s
    rows: np.ndarray  # float64 [n, 4]: class, start and end (s), score of each event
    scores: (
        np.ndarray | None
    )  # float64 [M + 1, 1 + C]: edges (s), and the scores from each to the next

    @classmethod
    def of(cls, parts: Parts | Joined, id: str) -> "_Found":
        values = parts.vector(id).view(np.float64)
        pieces = [piece.view(np.float64) for piece in parts.frames(id)]
        scores = np.concatenate(pieces) if pieces else None
        return cls(float(values[0]), values[1:].reshape(-1, 4), scores)

    @staticmethod
    def keep(parts: Parts, id: str, heard: Any, scores: bool) -> None:
        """Put down what was heard in a recording, and its scores along time where they are wanted."""
        if scores:
            values = np.full((len(heard.edges), 1 + heard.values.shape[1]), np.nan)
            values[:, 0], values[:-1, 1:] = heard.edges, heard.values
            parts.add_frames(id, values.view(np.float32))
        rows = [
            heard.duration,
            *(x for e in heard.events for x in (e.label, e.start, e.end, e.score)),
        ]
        parts.finish(id, np.array(rows, np.float64).view(np.float32))

    def events(self, labels: Sequence[str]) -> list[Event]:
        return [Event(a, b, labels[int(label)], score) for label, a, b, score in self.rows.tolist()]


def _find(
    classifier: Any,
    source: Paths,
    ids: Sequence[str],
    max_bad_share: float,
    keep: Collection[int],
    hear: Callable[..., Iterator[tuple[int, Any]]],
    parts: Parts,
    left: Sequence[int],
    total: int,
    check: resumable.Check,
) -> dict[str, str]:
    """Find the events in the recordings `left`; return those that could not be read, and why."""
    bad: dict[str, str] = {}
    read: list[int] = []
    clips = reading(source, read, bad=bad, max_bad_share=max_bad_share, numbers=left, total=total)
    try:
        for number, heard in hear(classifier, clips):
            check()
            i = read[number]
            if not heard.finite:
                bad[ids[i]] = f"{ids[i]}: its scores are not finite"
                log.warning("skipped %s", bad[ids[i]])
                check_share(bad, total, max_bad_share)
            if ids[i] not in bad:
                _Found.keep(parts, ids[i], heard, i in keep)
    finally:
        parts.write()
    return bad


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


def _compare(
    args: argparse.Namespace,
    truth: Mapping[int, list[Event]],
    kept: Mapping[int, _Found],
    found: Mapping[int, list[Event]],
    labels: Sequence[str],
) -> None:
    """Print how good the events are, by the number of their recording, and write it."""
    from ssl_audio.eval.event_metrics import measure

    scores = {str(i): kept[i].scores for i in truth}
    metrics = measure(
        {str(i): found[i] for i in truth},
        {str(i): events for i, events in truth.items()},
        {str(i): kept[i].duration for i in truth},
        labels,
        {i: (s[:, 0], s[:-1, 1:].astype(np.float32)) for i, s in scores.items() if s is not None},
        collar=args.collar,
    )
    print("\n".join(metrics.lines()))
    if args.metrics:
        atomic.write(
            pathlib.Path(args.metrics).expanduser(), json.dumps(metrics.as_dict(), indent=1) + "\n"
        )
