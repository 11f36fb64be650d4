"""Train stages that need each other's results: ssl-audio stages --config openbeats:data=DIR --workdir RUNS

A config that names STAGES is trained with stage=…, each with previous=… the stage before, for --rounds
of them; the last stage is the first one's. RUNS/0_encoder, RUNS/0_tokenizer, RUNS/1_encoder, … One with a
function `stages` goes through them once: RUNS/1_teacher, RUNS/2_labels.csv, … The same command continues.
"""

import argparse
import functools
import importlib.util
import json
import logging
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ssl_audio import config, config_files, slots

log = logging.getLogger("ssl_audio")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio stages`."""
    made = config_files.with_config("stages", __doc__, workdir=True)
    made.add_argument("--rounds", type=int, help="times the first stage is trained; default: 2")
    return made


def main(argv: Sequence[str] | None = None) -> list[pathlib.Path]:
    """Parse the command line and go through all stages; return what they wrote.

    Raises:
      ValueError: the config has no stages, or goes through them once and not in rounds.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    overrides = [word for word in argv if word.startswith(("--config.", "--noconfig."))]
    args = parser().parse_args([word for word in argv if word not in overrides])
    place, _, argument = args.config.partition(":")
    try:
        stages = plan(config_files.locate(place), argument, args.rounds)
    except ValueError as error:
        parser().error(f"--config: {error}")
    from ssl_audio.distributed import processes
    from ssl_audio.storage import checkpoint
    from ssl_audio.train.loop import train
    from ssl_audio.train.run import Run

    root, done = pathlib.Path(args.workdir).resolve(), []
    processes.start(args.workdir)
    trust = set(args.trust)  # of the runs of before, which this very command wrote
    for name, stage in stages:
        where, previous = root / name, str(done[-1]) if done else ""
        log.info("%s", where)
        done.append(where)
        if callable(stage):
            # In every process, also where the file is there: they would lose count of each other.
            processes.from_lead(functools.partial(_file, stage, previous, where))
            continue
        before = f"previous={config.escaped(previous)}" if previous else ""
        with slots.trusting(trust):
            given = ",".join(filter(None, (stage, before)))
            try:
                options = config_files.load(f"{place}:{given}", overrides)
            except ValueError as error:
                parser().error(f"--config: {error}")
            train(options, where)
            run = config.make(Run, options)
        trust |= slots.packages(options)
        total = config.duration(run.steps, total=0, epoch=run.data.epoch_steps)
        if checkpoint.steps(where)[-1] < total:  # asked to stop; the same command goes on
            break
    return done


Stage = str | Callable[[str, pathlib.Path], Any]


def _file(stage: Callable[[str, pathlib.Path], Any], previous: str, where: pathlib.Path) -> str:
    """Have a stage write its file, where it is not there yet, and beside it what it was made with.

    Raises:
      ValueError: it is there, and was made with other arguments.
    """
    from ssl_audio.storage import atomic

    note = where.with_name(f"{where.name}.made_with")
    now = json.dumps(getattr(stage, "args", ()), default=str) + "\n"
    # A file has its name only when it is complete.
    if not where.exists():
        atomic.check(where)
        atomic.write(note, now)
        stage(previous, where)
    elif note.exists() and (before := note.read_text()) != now:
        raise ValueError(
            f"{where} was made with {before.strip()}; now the arguments are {now.strip()}. Take another "
            "--workdir, or delete this file and the stages after it to make them anew."
        )
    return str(where)


def plan(path: pathlib.Path, argument: str, rounds: int | None) -> list[tuple[str, Stage]]:
    """Return the stages of a config in turn: what each writes, and how.

    Args:
      path: of the config file. It has STAGES, or `stages(argument)`: name → argument for a training, to
        which previous=… is added, or a function (previous, path) that writes a file there.
      argument: of the config.
      rounds: how often the first of STAGES is trained; None: not said.

    Raises:
      ValueError: it names none, or rounds do not fit.
    """
    spec = importlib.util.spec_from_file_location("stages_of_config", path)
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    with config_files.naming(path):
        spec.loader.exec_module(module)
    if hasattr(module, "stages"):
        if rounds is not None:
            raise ValueError(f"{path}: it goes through its stages once; leave out --rounds.")
        found = module.stages(argument)
        return [
            (f"{number + 1}_{name}", stage) for number, (name, stage) in enumerate(found.items())
        ]
    names, rounds = tuple(getattr(module, "STAGES", ())), 2 if rounds is None else rounds
    if not names:
        raise ValueError(f"{path}: this config names no STAGES to train in turn.")
    if rounds < 1:
        raise ValueError(f"--rounds {rounds}: wanted 1 or more.")
    turns = [(n // len(names), names[n % len(names)]) for n in range((rounds - 1) * len(names) + 1)]
    given = f"{argument}," if argument else ""
    return [(f"{number}_{name}", f"{given}stage={name}") for number, name in turns]
