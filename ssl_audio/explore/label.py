"""Label sounds where it helps most, and keep what was learned: ssl-audio label PLACE --labels labels.csv

PLACE: an index, or a folder of sound, of which an index is made first with --checkpoint. Opens the page of
`explore` with a classifier that learns from every label. With --suggest N it prints what to label next.
"""

import argparse
import collections
import contextlib
import csv
import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from ssl_audio.data.decode import printable
from ssl_audio.eval.learner import HOWS
from ssl_audio.explore import command
from ssl_audio.inference.pooling import POOLS, SPECIAL
from ssl_audio.storage import written

INDEXES = ("index.json", "rows.json")  # the newest form, and the one of before
COLUMNS = ("path", "start", "end", "guess", "probability")

log = logging.getLogger("ssl_audio")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio label`."""
    made = command.parser("label", __doc__)
    made.add_argument(
        "--index", metavar="DIR",
        help="for a folder of sound: where its index is kept; default: beside the labels, NAME.index",
    )  # fmt: skip
    made.add_argument(
        "--window", type=float, metavar="S",
        help="for a folder of sound: seconds that one label is for; default: as long as training clips",
    )  # fmt: skip
    made.add_argument(
        "--pool", choices=(*POOLS, SPECIAL),
        help="for a folder of sound: see `search index`",
    )  # fmt: skip
    made.add_argument(
        "--suggest", type=int, metavar="N", help="print N to label next as CSV, no page"
    )
    made.add_argument(
        "--how", choices=HOWS, default=HOWS[0], help="with --suggest: which; see the page"
    )
    made.add_argument("--class", dest="label", metavar="NAME", help="of --how highest")
    made.add_argument(
        "--save", metavar="PROBE", help="folder for the classifier that the labels give; at the end"
    )
    return made


def main(argv: Sequence[str] | None = None) -> list[int] | None:
    """Parse the command line; open the page, or print what to label next and return its rows."""
    args = parser().parse_args(argv)
    if args.suggest is not None and args.suggest < 1:
        parser().error(f"--suggest {args.suggest}: wanted at least 1")
    if (args.how == "highest") != (args.label is not None):
        parser().error("--how highest and --class NAME go together")
    if args.suggest is None and args.how != HOWS[0]:
        parser().error("--how is of --suggest; the page has buttons")
    _indexed(args)
    if args.save:
        _can_save(args)
    if args.suggest is not None:
        return _suggest(args)
    from ssl_audio.eval.learner import Learner

    try:
        command.serve(args, Learner)
    except KeyboardInterrupt:
        if not args.save:
            raise
    if args.save:
        _save(args, _learner(args)[1])
    return None


def _indexed(args: argparse.Namespace) -> None:
    """Let `args.place` be an index or a table: of a folder of sound make one, or bring it up to date."""
    place = pathlib.Path(args.place).expanduser()
    sound = place.is_dir() and not written.is_run(place)
    if not sound or any((place / name).is_file() for name in INDEXES):
        for option in ("index", "window", "pool"):
            if getattr(args, option) is not None:
                parser().error(f"--{option} is for a folder of sound; {place} is none")
        return
    if not (args.checkpoint and args.labels):
        parser().error(
            f"{place}: a folder of sound; it takes --checkpoint RUN and --labels FILE.csv"
        )
    from ssl_audio.inference import search

    index = args.index or str(pathlib.Path(args.labels).with_suffix(".index"))
    how = [] if args.window is None else ["--window", str(args.window)]
    how += [] if args.pool is None else ["--pool", args.pool]
    trust = [word for name in args.trust for word in ("--trust", name)]
    made = ["index", "--checkpoint", args.checkpoint, "--index", index, *how, *trust, str(place)]
    with contextlib.redirect_stdout(sys.stderr):  # the table goes to stdout
        search.run(search.parser().parse_args(made))
    args.place = index


def _learner(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return the collection, a learner that has its labels, and the labels."""
    from ssl_audio.eval.learner import Learner
    from ssl_audio.explore import collection, labels

    shown = collection.read(args.place, args.checkpoint, args.trust)
    path = pathlib.Path(args.labels).expanduser() if args.labels else shown.beside("labels.csv")
    given = labels.Labels(path.absolute(), shown.rows, shown.numbers)
    learner = Learner(shown.vectors, seed=len(given.of))  # other clips at random after each label
    for number, label in given.of.items():
        learner.set(number, label)
    if given.others:
        log.warning("%s: %d labels are of no row of %s", given.path, given.others, shown.place)
    return shown, learner, given


def _suggest(args: argparse.Namespace) -> list[int]:
    shown, learner, given = _learner(args)
    rows = learner.next(args.suggest, args.how, args.label)
    scores, classes = learner.scores(), learner.classes
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        path, start, end = shown.rows[row]
        guess: tuple[str, ...] = ("", "")
        if len(classes) > 1:
            best = int(scores[row].argmax())
            guess = classes[best], f"{scores[row, best]:.3f}"
        times = (f"{start:.3f}", "" if end is None else f"{end:.3f}")
        table.writerow((printable(path), *times, *guess))
    counts = collections.Counter(learner.labels.values())
    few = ", ".join(f"{name} {counts[name]}" for name in classes[:20])
    log.info("%s: %d of %d rows have a label: %s", given.path, len(learner.labels), len(shown), few)
    if args.save:
        _save(args, learner)
    return rows


def _can_save(args: argparse.Namespace) -> None:
    """See that there will be a probe to write, before somebody labels for an hour."""
    from ssl_audio.eval import save_probe

    place = pathlib.Path(args.place).expanduser()
    if place.is_file():
        raise ValueError(
            f"--save: {place}: a table does not say how its vectors were made; wanted an index of "
            "`ssl-audio search index`."
        )
    save_probe.check_folder(args.save)


def _save(args: argparse.Namespace, learner: Any) -> None:
    """Write the probe of the labels there are; with too few classes say so."""
    from ssl_audio.explore import collection
    from ssl_audio.inference import search
    from ssl_audio.inference.index import Index

    if len(learner.classes) < 2:
        log.warning("--save %s: nothing to save before there are labels of two classes", args.save)
        return
    shown = collection.read(args.place, args.checkpoint, args.trust)
    index = Index(shown.place)
    heard = search.open_model(index, args.trust, args.checkpoint)
    learner.save(args.save, heard.model, heard.settings)
    names = ", ".join(learner.classes)
    print(f"{args.save}: a classifier of {names}; ssl-audio predict uses it", file=sys.stderr)
