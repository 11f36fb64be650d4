"""Train and test on every fold: ssl-audio folds --folds 1-5 --config finetune:ARG --workdir W

Each fold is a run of its own, in W/fold1, W/fold2, …, of the config with the argument fold=1, fold=2, …
The config's evaluator `test` scores it. The same command continues after an
interruption; finished folds are kept, and those of another config are refused.
"""

import argparse
import json
import logging
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio import config, config_files, slots
from ssl_audio.storage import atomic, opened

log = logging.getLogger("ssl_audio")

# Options that scores depend on, but for places, which may move, and what does not change a number.
MATTERS = re.compile(
    r"(objective|data|seed|warm_start|adapt|optim|accumulate|evals\.test)\..*|seed|accumulate|steps|adapt"
    r"|checkpoint\.best"
)
MOVES = re.compile(
    r"data\.(workers|threads|max_bad_share)|evals\.test\.(batch_size|max_bad_share)"
    r"|(data|evals\.test)\.(.*\.)?(root|path|data_dir)"
)


def numbers(text: str) -> list[int]:
    """Return the folds that "1-5" or "1,3" means."""
    if re.fullmatch(r"\d+-\d+", text):
        first, last = map(int, text.split("-"))
        found = list(range(first, last + 1))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        found = sorted({int(part) for part in text.split(",")})
    else:
        found = []
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}': wanted 1-5 or 1,3")
    return found


def fold(options: Any, workdir: pathlib.Path) -> dict[str, Any] | None:
    """Train and test one fold unless that is done; return its scores, or None when it was stopped.

    Raises:
      ValueError: the config has no evaluator `test` that classifies; the fold is done, with another config;
        what `train` raises.
    """
    done = workdir / "result.json"
    if done.exists():
        _check_same(options, workdir, done)
        return opened.json_file(done, "the scores of a fold; remove it to train the fold again")
    with slots.trusting(slots.packages(options)):  # the workdir is this very config's
        return _fold(options, workdir, done)


def _check_same(options: Any, workdir: pathlib.Path, done: pathlib.Path) -> None:
    """Raise ValueError where the scores of a fold are of another config than this one."""
    from ssl_audio.storage import written
    from ssl_audio.train import changes

    if not written.is_run(workdir):
        return
    both = (_unnamed(config.plain(some)) for some in (written.read(workdir), options))
    wrong = [
        f"{path}: {old!r}, now {new!r}"
        for path, (old, new) in changes.differences(*both).items()
        if MATTERS.fullmatch(path)
        and not MOVES.fullmatch(path)
        and not (changes.NAMES.fullmatch(path) and changes.UNSET in (old, new))
    ]
    if wrong:
        more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(
            f"{done}: the scores of a run of another config. {'; '.join(wrong[:8])}{more}. Use another "
            "--workdir, or the old values, or remove the file to go on with this run and score it again."
        )


def _unnamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose sources have numbers for names, as those are of folders, which may move."""
    data = dict(options.get("data") or {})
    names = {name: str(i) for i, name in enumerate(sorted(data.get("sources") or {}))}
    for key in ("sources", "weights"):
        if isinstance(data.get(key), Mapping):
            data[key] = {names.get(name, name): value for name, value in data[key].items()}
    return {**options, "data": data}


def _fold(options: Any, workdir: pathlib.Path, done: pathlib.Path) -> dict[str, Any] | None:
    from ssl_audio.eval import classify
    from ssl_audio.storage import checkpoint
    from ssl_audio.train.loop import train
    from ssl_audio.train.run import Run

    run = config.make(Run, options).numbered()
    test = run.evals.get("test")
    if not isinstance(test, classify.Classify):
        raise ValueError("config.evals.test: wanted kind='classify', to score the fold with.")
    needs = getattr(run.objective, "needs", ())
    train(options, workdir)
    total = config.duration(run.steps, total=0, epoch=run.data.epoch_steps)
    if checkpoint.steps(workdir)[-1] < total:
        return None
    result: dict[str, Any] = {}
    for which in ("last", "best") if run.checkpoint.best else ("last",):
        step = "best" if which == "best" else None
        params, _ = checkpoint.load_params(workdir, step)
        extra = checkpoint.load_extra(workdir, needs, step)
        found = test.predict(run.objective, params, extra, run.sharding.mesh())
        result[which] = classify.scores(
            found.logits, found.labels, multilabel=test.source.info.multilabel
        )
        if which == "last":
            found.save(workdir / "predictions.npz")
    atomic.write(done, json.dumps(result))
    return result


def table(results: Mapping[int, Mapping[str, Mapping[str, float]]]) -> str:
    """Return the scores as text: a row per fold, then their mean and standard deviation."""
    columns, rows, notes = averaged(results)
    lines = ["  ".join(["fold", *(f"{which} {name:>9}" for which, name in columns)])]
    for label, row in rows:
        cells = (
            f"{v:{len(w) + 1 + max(9, len(n))}.4f}" for v, (w, n) in zip(row, columns, strict=True)
        )
        lines.append("  ".join([f"{label:>4}", *cells]))
    return "\n".join([*lines, *notes])


def averaged(
    results: Mapping[Any, Mapping[str, Mapping[str, float]]],
) -> tuple[list[tuple[str, str]], list[tuple[str, np.ndarray]], list[str]]:
    """Return columns, (which, name); a row per fold, then mean and deviation; and what must be said of them.

    A fold whose test clips are not of two kinds has no AUC, for example: its NaN is no part of the mean.
    """
    first = next(iter(results.values()))
    columns = [(which, name) for which in first for name in first[which]]
    values = np.array([[float(r[w][name]) for w, name in columns] for r in results.values()])
    there = ~np.isnan(values)
    known = np.where(there, values, 0.0)
    count = np.where(there.any(0), there.sum(0), np.nan)
    mean = known.sum(0) / count
    with np.errstate(invalid="ignore"):  # d' of perfect folds is infinite
        std = np.sqrt((np.where(there, values - mean, 0.0) ** 2).sum(0) / count)
    rows = [*((str(fold), row) for fold, row in zip(results, values, strict=True))]
    notes = [
        f"{which} {name}: of {int(n)} of {len(values)} folds; the others have none"
        for (which, name), n in zip(columns, there.sum(0), strict=True)
        if n < len(values)
    ]
    return columns, [*rows, ("mean", mean), ("std", std)], notes


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio folds`."""
    made = config_files.with_config("folds", __doc__, workdir=True)
    made.add_argument(
        "--folds", required=True, type=numbers, metavar="1-5", help="which folds: 1-5, or 1,3"
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, run the folds, write the table and the report per class."""
    args, _ = config_files.parse(parser(), argv)
    from ssl_audio.distributed import processes
    from ssl_audio.eval import classify
    from ssl_audio.eval.classify import Predictions
    from ssl_audio.train.run import Run

    processes.start(args.workdir)
    workdir = pathlib.Path(args.workdir).resolve()
    results: dict[int, Any] = {}
    options = None
    for number in args.folds:
        log.info("fold %d of %s", number, ", ".join(map(str, args.folds)))
        _, options = config_files.parse(parser(), argv, argument=f"fold={number}")
        with slots.trusting(args.trust):
            result = fold(options, workdir / f"fold{number}")
        if result is None:
            return
        results[number] = result
    if not processes.is_lead():
        return
    found = [Predictions.load(workdir / f"fold{n}" / "predictions.npz") for n in results]
    whole = Predictions(
        *(np.concatenate([vars(part)[name] for part in found]) for name in vars(found[0]))
    )
    info = config.make(Run, options).numbered().evals["test"].source.info
    names = info.labels or tuple(map(str, range(whole.labels.shape[1])))
    classify.report(whole, names, workdir, multilabel=info.multilabel)
    text = table(results)
    atomic.write(workdir / "folds.json", json.dumps(results, indent=1))
    atomic.write(workdir / "folds.txt", text + "\n")
    print(text)
    print(f"{workdir}: folds.json folds.txt classes.csv confusion.png")
