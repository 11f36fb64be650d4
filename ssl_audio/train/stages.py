"""Train stages that need each other's results: ssl-audio stages --config openbeats:data=DIR --workdir RUNS

A config that names STAGES is trained with stage=…, each with previous=… the stage before, for --rounds
of them; the last stage is the first one's. RUNS/0_encoder, RUNS/0_tokenizer, RUNS/1_encoder, … One with a
function `stages` goes through them once: RUNS/1_teacher, RUNS/2_labels.csv, … The same command continues.
"""

import argparse
import functools
import importlib.util
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
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
    args, _ = config_files.parse(parser(), argv)
    place, _, argument = args.config.partition(":")
    names, commands = plan(config_files.locate(place), argument, args.rounds)
    from ssl_audio.distributed import processes
    from ssl_audio.storage import checkpoint
    from ssl_audio.train.loop import train
    from ssl_audio.train.run import Run

    root, done = pathlib.Path(args.workdir).resolve(), []
    processes.start(args.workdir)
    trust = set(args.trust)  # of the runs of before, which this very command wrote
    for name in names:
        workdir, stage = root / name, name.partition("_")[2]
        log.info("%s", workdir)
        before = f"previous={config.escaped(str(done[-1]))}" if done else ""
        if stage in commands:
            # A file stands under its name only when it is complete.
            if not workdir.exists():
                given = ",".join(filter(None, (argument, before)))
                root.mkdir(parents=True, exist_ok=True)
                write = functools.partial(commands[stage], given, workdir)
                processes.from_lead(lambda write=write: str(write()))
            done.append(workdir)
            continue
        with slots.trusting(trust):
            given = ",".join(filter(None, (f"stage={stage}", before)))
            _, options = config_files.parse(parser(), argv, argument=given)
            train(options, workdir)
            run = config.make(Run, options)
        trust |= slots.packages(options)
        done.append(workdir)
        total = config.duration(run.steps, total=0, epoch=run.data.epoch_steps)
        if checkpoint.steps(workdir)[-1] < total:  # asked to stop; the same command goes on
            break
    return done


Command = Callable[[str, pathlib.Path], Any]


def plan(
    path: pathlib.Path, argument: str, rounds: int | None
) -> tuple[list[str], Mapping[str, Command]]:
    """Return the names under which the stages of a config write, in turn, and those that are no training.

    Args:
      path: of the config file. It has STAGES, or `stages(argument)`: name → None, or a function
        (argument with previous=…, path) that writes a file there.
      argument: of the config.
      rounds: see `main`; None: not said.

    Raises:
      ValueError: it names none, or rounds do not fit.
    """
    spec = importlib.util.spec_from_file_location("stages_of_config", path)
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if hasattr(module, "stages"):
        if rounds is not None:
            raise ValueError(f"{path}: it goes through its stages once; leave out --rounds.")
        found = module.stages(argument)
        names = [f"{number + 1}_{name}" for number, name in enumerate(found)]
        return names, {name: command for name, command in found.items() if command}
    stages, rounds = tuple(getattr(module, "STAGES", ())), 2 if rounds is None else rounds
    if not stages:
        raise ValueError(f"{path}: this config names no STAGES to train in turn.")
    if rounds < 1:
        raise ValueError(f"--rounds {rounds}: wanted 1 or more.")
    numbers = range((rounds - 1) * len(stages) + 1)
    return [f"{n // len(stages)}_{stages[n % len(stages)]}" for n in numbers], {}
