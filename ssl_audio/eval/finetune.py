"""Train a classifier of your own labels: ssl-audio finetune --data D --pretrained RUN --workdir W

The same command continues a run that was killed or stopped. It is `ssl-audio train --config
finetune:data=D,pretrained=RUN` with a report at the end.
"""

import argparse
import csv
import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_audio import config_files, slots, startup

log = logging.getLogger("ssl_audio")

ARGUMENTS = (
    "data", "pretrained", "validation", "test", "by", "share", "fold", "seconds", "steps", "batch",
    "max_bad_share", "adapt", "rank", "keep_head",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio finetune`."""
    made = startup.parser("finetune", __doc__)
    made.add_argument(
        "--data",
        required=True,
        metavar="PLACE",
        help="labelled clips: a folder with a sub-folder for each class (or train/CLASS and test/CLASS); a "
        "table with columns `path` and `label` (or `labels`: several, a;b); what `ssl-audio prepare` wrote",
    )
    made.add_argument(
        "--pretrained", required=True, metavar="RUN",
        help="the encoder to begin from: a run, or an exported or converted folder",
    )  # fmt: skip
    made.add_argument("--workdir", required=True, help="where the run keeps all it writes")
    made.add_argument("--validation", metavar="PLACE", help="clips to choose the best step by")
    made.add_argument("--test", metavar="PLACE", help="clips to test on")
    made.add_argument(
        "--share", type=startup.share,
        help="of the clips, for validation where the data has no split for it; 0: none; default: 0.2",
    )  # fmt: skip
    made.add_argument(
        "--by", metavar="COLUMN+…",
        help="columns whose clips are kept together in it; default: those named group, recording, "
        "speaker, session, site or individual",
    )  # fmt: skip
    made.add_argument("--fold", type=int, help="the test, where the data has a column `fold`")
    made.add_argument(
        "--seconds", type=float, help="of a clip; default: as long as the clips are, at most 10"
    )
    made.add_argument("--steps", help="a number of steps or of epochs, 20ep; default: ten epochs")
    made.add_argument("--batch", type=int, help="clips of a step; default: 16")
    made.add_argument(
        "--adapt", choices=("lora", "head"),
        help="freeze the encoder: learn low-rank adapters of its matrices and the head, or the head alone",
    )  # fmt: skip
    made.add_argument(
        "--keep-head", action="store_true", default=None,
        help="begin from the head of RUN too, a run of this verb on the same classes",
    )  # fmt: skip
    made.add_argument("--rank", type=int, help="with --adapt lora: of the adapters; default: 8")
    made.add_argument(
        "--max-bad-share", type=startup.share, help="of missing and unreadable files; default: 0.01"
    )
    made.add_argument(
        "--config.PATH", metavar="VALUE", help="override one option, as --config.optim.lr=1e-4"
    )
    startup.add_trust(made)
    return made


def finish(options: Any, workdir: pathlib.Path) -> dict[str, dict[str, float]]:
    """Score what was trained, calibrate it on the validation clips and write the report of a run.

    Writes calibration.json, predictions.npz, classes.csv, confusion.png and report.html beside config.json.

    Args:
      options: the config of a run that has been trained to its end.
      workdir: of the run.

    Returns:
      Part → name → score.
    """
    from ssl_audio import config
    from ssl_audio.distributed import processes
    from ssl_audio.eval import classify, report
    from ssl_audio.inference import calibration
    from ssl_audio.storage import atomic, checkpoint, written
    from ssl_audio.train.run import Run

    run = config.make(Run, options).numbered()
    params, read = checkpoint.load_params(workdir)
    step = checkpoint.chosen(workdir, None, read)[1][-1]
    mesh, found, scores = run.sharding.mesh(), {}, {}
    several = run.objective.criterion != "softmax"
    for part in ("validation", "test"):
        if part in run.evals:
            found[part] = run.evals[part].predict(run.objective, params, {}, mesh)
            scores[part] = classify.scores(
                found[part].logits, found[part].labels, multilabel=several
            )
    if not processes.is_lead():
        return scores
    names = written.labels(written.read(workdir))
    (workdir / calibration.NAME).unlink(missing_ok=True)  # of other parameters
    if "validation" in found:
        fit_calibration(found["validation"], several, workdir, step)
    for part, values in scores.items():
        print(f"{part}: {len(found[part].ids)} clips; {said(values, len(names))}")
    last = next(iter(reversed(found.values())), None)
    if last is not None:
        last.save(workdir / "predictions.npz")
        classify.report(last, names, workdir, multilabel=several)
        print(aligned((workdir / "classes.csv").read_text(encoding="utf-8")))
    atomic.write(workdir / "report.html", report.report(workdir))
    print(f"{workdir}: report.html" + (" classes.csv predictions.npz" if found else ""))
    print(f"next: ssl-audio predict --checkpoint {workdir} FILES --output scores.csv")
    return scores


def aligned(table: str) -> str:
    """Return a small CSV in columns."""
    rows = list(csv.reader(table.splitlines()))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(row))
        for row in (list(zip(row, wide, strict=True)) for row in rows)
    )


def said(scores: Mapping[str, float], classes: int) -> str:
    """Return scores in words; means over classes say over how many they are."""
    from ssl_audio.eval.metrics import COUNTS

    def means(name: str) -> str:
        if name in ("accuracy", "micro_mAP", "lwlrap"):
            return ""
        over = int(scores["AUC_classes" if name in ("AUC", "d_prime") else "classes"])
        return (
            f" (over {over} of {classes} classes)" if over < classes else f" (over {over} classes)"
        )

    return ", ".join(
        f"{name.replace('_', ' ')} {value:z.3f}{means(name)}"
        for name, value in scores.items()
        if name not in COUNTS
    )


def fit_calibration(found: Any, several: bool, workdir: pathlib.Path, step: int) -> None:
    """Write the calibration of a run that fits its validation clips, unless they are too few."""
    from ssl_audio.eval import calibrate

    try:
        made = dataclasses.replace(calibrate.fit(found.logits, found.labels, several), step=step)
    except ValueError as error:
        log.warning("not calibrated: %s", error)
        return
    made.write(workdir)
    before, after = (
        calibrate.quality(logits, found.labels, several)["ECE"]
        for logits in (found.logits, made(found.logits))
    )
    log.info(
        "calibrated on %d validation clips: scores are %.1f %% off as they were, %.1f %% now",
        made.clips, 100 * before, 100 * after,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]] | None:
    """Parse the command line, train, report; return the scores, or None when it was stopped."""
    args, options = config_files.parse_for(parser(), argv, "finetune", ARGUMENTS)
    from ssl_audio import config, versions
    from ssl_audio.distributed import processes
    from ssl_audio.storage import checkpoint
    from ssl_audio.train.loop import train
    from ssl_audio.train.run import Run

    workdir = pathlib.Path(args.workdir).resolve()
    processes.start(workdir)
    same = dict(line.split(" = ", 1) for line in config.text(options).splitlines())
    same |= versions.code()
    with slots.trusting(args.trust), processes.joined(same, shared=workdir):
        train(options, workdir)
        run = config.make(Run, options)
        total = config.duration(run.steps, total=0, epoch=run.data.epoch_steps)
        if checkpoint.steps(workdir)[-1] < total:
            return None
        return finish(options, workdir)
