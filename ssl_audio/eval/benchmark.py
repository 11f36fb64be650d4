"""Every task whose data are there: ssl-audio benchmark --checkpoint A B C --root DATA --output DIR

Prints one table with chance, number of clips and 95 % intervals, and what data are missing and where from;
writes results.jsonl, table.md and figure.png into DIR. Goes on after a kill; results that are there stay.
What fails, a checkpoint or a task, is named; the others are scored, and the command ends with 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ssl_audio import startup
from ssl_audio.storage import atomic, opened

if TYPE_CHECKING:
    from ssl_audio.eval.listening import Listening
    from ssl_audio.eval.tasks import Task

log = logging.getLogger(__name__)

RESULTS, TABLE, FIGURE = "results.jsonl", "table.md", "figure.png"
CONTROLS = ("perfect", "random", "constant")
ONE_LABEL = ("accuracy", "balanced accuracy")  # metrics that are mAP of clips with several labels
# What makes two results the same.
KEY = ("checkpoint", "task", "step", "layer", "pool", "seed", "most", "folds")

Record = dict[str, Any]


def run(
    task: Task,
    listening: Listening,
    root: str | None,
    *,
    seed: int = 0,
    most: int = 0,
    folds: Sequence[int] = (),
    control: str = "",
) -> Record:
    """Return the record of a task: its metric, chance, number, interval, or why there is none.

    Args:
      task: of `tasks.TASKS`.
      listening: a model.
      root: the folder of all data sets.
      seed: of draws.
      most: clips of each set, shared out among classes and folds; 0: all.
      folds: of the set that a task is asked of which learns nothing; (): all.
      control: in place of the model's vectors: "perfect", "random", "constant".
    """
    import numpy as np

    from ssl_audio.data.derived import Fewer
    from ssl_audio.eval import tasks
    from ssl_audio.eval.listening import Absent, Inapplicable

    protocol = task.protocol
    record: Record = dict(
        task=task.name, group=task.group, metric=protocol.metric, best=protocol.best
    )
    try:
        if lack := listening.lacks(protocol.needs):
            return record | dict(not_offered=lack)
        kept = () if protocol.learns else folds
        source = tasks.source(task.data, root, listening.rate, kept)
        if most:
            source = Fewer(source, most)
        case = protocol.case(source, listening, seed)
        if control:
            case = protocol.controlled(case, control, seed)
        outcome = protocol.score(case, seed)
        if not (outcome.chance != protocol.best and np.isfinite(outcome.value)):
            raise ValueError(
                f"{outcome.count} scored, chance {outcome.chance:g}: there is nothing to tell apart."
            )
    except Absent as error:
        return record | dict(absent=str(error))
    except Inapplicable as error:
        return record | dict(not_offered=str(error))
    except Exception as error:  # the other tasks are asked whatever becomes of this one
        log.debug("%s", task.name, exc_info=True)
        return record | dict(failed=opened.short(error))
    several = source.info.multilabel and protocol.metric in ONE_LABEL
    metric = "mAP" if several else protocol.metric
    return record | dict(
        metric=metric, value=outcome.value, chance=outcome.chance, count=outcome.count,
        low=outcome.interval[0], high=outcome.interval[1], how=protocol.about, **outcome.more,
    )  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio benchmark`."""
    made = startup.parser("benchmark", __doc__)
    made.add_argument("--checkpoint", nargs="+", default=[], metavar="RUN", help="as `load` takes")
    made.add_argument("--root", help="the folder of all data sets; --list says what it may hold")
    made.add_argument(
        "--tasks",
        default="all",
        metavar="NAME,…",
        help="names, sets, groups or patterns as esc10/*; default: all",
    )
    made.add_argument("--output", metavar="DIR", help="where results, table and figure go")
    made.add_argument(
        "--list", action="store_true", help="say which tasks there are, and their data"
    )
    made.add_argument(
        "--controls",
        action="store_true",
        help="also what perfect, random and constant vectors score: 1, chance and chance",
    )
    made.add_argument("--most", type=int, default=0, help="clips of each set; default: all")
    made.add_argument(
        "--test-folds",
        action="append",
        default=[],
        metavar="SET=5,…",
        help="of a set that models were trained on: tasks that learn nothing ask these folds alone",
    )
    made.add_argument("--layer", type=int, default=-1, help="0, 1, …; -1: after the last norm")
    made.add_argument("--pool", default="mean", help="mean, rows, stats or special")
    made.add_argument("--seed", type=int, default=0, help="of draws")
    startup.add_bad_share(made)
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> list[Record]:
    """Parse the command line, run, print and write; return the records.

    Raises:
      SystemExit: at the end, where a checkpoint or a task has failed.
    """
    args = parser().parse_args(argv)
    from ssl_audio.eval import tasks

    some = tasks.chosen(args.tasks)
    if args.list:
        for task in some:
            print(f"{task.name:28} {task.group:13} {task.protocol.metric:18} {_come(task)}")
        return []
    if not args.checkpoint and not args.controls:
        parser().error("--checkpoint: which models? (or --controls, or --list)")
    if not args.output:
        parser().error("--output: which folder do the results go into?")
    if args.root and not pathlib.Path(args.root).expanduser().is_dir():
        parser().error(f"--root {args.root}: no such folder")
    if args.most < 0 or args.seed < 0:
        parser().error(f"--most {args.most} --seed {args.seed}: wanted 0 or more")
    folds = dict(_folds(text, some) for text in args.test_folds)
    folder = pathlib.Path(args.output)
    atomic.check(folder / RESULTS)
    known = {_key(record): record for record in _read(folder / RESULTS)}
    found: list[Record] = []
    for name, listening, about in _models(args):
        for task in some:
            asked = folds.get(tasks.SETS[task.data].of or task.data, ())
            record: Record = about | dict(
                task=task.name, seed=args.seed, most=args.most,
                folds=[] if task.protocol.learns else list(asked),
            )  # fmt: skip
            if not {"value", "not_offered"} & set(known.get(key := _key(record), ())):
                control = name if name in CONTROLS and not about["step"] else ""
                try:
                    model = listening()
                except Exception as error:  # the other checkpoints are asked
                    record |= dict(group=task.group, metric=task.protocol.metric)
                    record |= dict(failed=f"it cannot be loaded: {opened.short(error)}")
                else:
                    record |= run(
                        task, model, args.root, seed=args.seed, most=args.most, folds=asked,
                        control=control,
                    )  # fmt: skip
                known[key] = record
                lines = (json.dumps(one) + "\n" for one in known.values())
                atomic.write(folder / RESULTS, "".join(lines))
                log.info("%s, %s: %s", name, task.name, _said(record))
            found.append(known[key])
    from ssl_audio.eval import benchmark_table

    text = benchmark_table.text(found)
    atomic.write(folder / TABLE, text)
    print(text)
    if any(benchmark_table.is_share(record) for record in found):
        benchmark_table.figure(found, folder / FIGURE)
    print(folder / TABLE)
    if failed := [record for record in found if "failed" in record]:
        raise SystemExit(
            f"{len(failed)} of {len(found)} not scored: {failed[0]['name']}, {failed[0]['task']}: "
            f"{failed[0]['failed']} All are in {folder / TABLE}; the same command tries them again."
        )
    return found


def _models(
    args: argparse.Namespace,
) -> Iterator[tuple[str, Callable[[], Listening], Record]]:
    """Yield name, what makes the listener (once, when first asked), and what a record says of it."""
    from ssl_audio.eval.listening import Deaf, Listener

    shared = dict(layer=args.layer, pool=args.pool)
    names = opened_names(args.checkpoint)
    for place, name in zip(args.checkpoint, names, strict=True):
        made: list[Any] = []

        def listening(place: str = place, made: list[Any] = made) -> Any:
            if not made:
                from ssl_audio.inference.load import load

                try:
                    model = load(place, trust=args.trust)
                    made.append(Listener(model, args.layer, args.pool, args.max_bad_share))
                except Exception as error:  # not tried again for every task
                    made.append(error)
            if isinstance(made[0], Exception):
                raise made[0]
            return made[0]

        yield name, listening, dict(checkpoint=place, name=name, step=_step(place), **shared)
    if args.controls:
        for name in CONTROLS:
            yield name, Deaf, dict(checkpoint=name, name=name, step=0, **shared)


def opened_names(places: Sequence[str]) -> list[str]:
    """Return short names of checkpoints: the folder's, with as many parents as tell all apart."""
    parts = [pathlib.PurePath(place).parts for place in places]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(some[-count:]) for some in parts]
        if len(set(names)) == len(names):
            return names
    return list(places)


def _step(place: str) -> int:
    """Return the newest checkpoint's step; -1 of folders that have none."""
    from ssl_audio.storage import checkpoint, hub

    return max(checkpoint.steps(hub.beside(place)), default=-1)


def _come(task: Task) -> str:
    from ssl_audio.eval import tasks

    data = tasks.SETS[task.data]
    folders = f"{data.folders[0]}: " if data.folders else f"of {data.of}: " if data.of else ""
    return folders + data.come.replace("NAME", data.folders[0] if data.folders else "")


def _folds(text: str, some: Sequence[Task]) -> tuple[str, tuple[int, ...]]:
    """Return the set and the folds of "SET=5,…"."""
    name, _, numbers = text.partition("=")
    if not all(n.strip().isdecimal() for n in numbers.split(",")):
        raise opened.error("--test-folds", repr(text), "SET=5 or SET=1,2")
    if name not in (known := {task.data for task in some}):
        raise opened.error("--test-folds", repr(name), f"one of {', '.join(sorted(known))}")
    return name, tuple(map(int, numbers.split(",")))


def _key(record: Mapping[str, Any]) -> str:
    return json.dumps([record.get(name) for name in KEY])


def _read(path: pathlib.Path) -> list[Record]:
    if not path.exists():
        return []
    lines = opened.text(path, "results of `ssl-audio benchmark`, JSON lines").splitlines()
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except json.JSONDecodeError as error:
        raise opened.error(str(path), str(error), "results of `ssl-audio benchmark`") from None


def _said(record: Record) -> str:
    if "value" in record:
        return f"{record['value']:z.3f} ({record['metric']}, chance {record['chance']:z.3f})"
    if "not_offered" in record:
        return f"does not apply: {record['not_offered']}"
    return next(str(record[k]) for k in ("absent", "failed") if k in record)
