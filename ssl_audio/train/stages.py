"""Train stages that need each other's results: ssl-audio stages --config openbeats:data=DIR --workdir RUNS

A config that names STAGES is trained with stage=…, each with previous=… the stage before, for --rounds
of them; the last stage is the first one's. RUNS/0_encoder, RUNS/0_tokenizer, RUNS/1_encoder, …
The same command continues after an interruption.
"""

import argparse
import importlib.util
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from ssl_audio import config, config_files, slots

log = logging.getLogger("ssl_audio")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio stages`."""
    made = config_files.with_config("stages", __doc__, workdir=True)
    made.add_argument(
        "--rounds", type=int, default=2, help="times the first stage is trained; default: 2"
    )
    return made


def main(argv: Sequence[str] | None = None) -> list[pathlib.Path]:
    """Parse the command line and train all stages; return their workdirs.

    Raises:
      ValueError: the config has no stages.
    """
    args, _ = config_files.parse(parser(), argv)
    names = stages(config_files.locate(args.config.partition(":")[0]))
    if args.rounds < 1:
        raise ValueError(f"--rounds {args.rounds}: wanted 1 or more.")
    from ssl_audio.distributed import processes
    from ssl_audio.storage import checkpoint
    from ssl_audio.train.loop import train
    from ssl_audio.train.run import Run

    root, done = pathlib.Path(args.workdir).resolve(), []
    processes.start(args.workdir)
    trust = set(args.trust)  # of the runs of before, which this very command wrote
    for number in range((args.rounds - 1) * len(names) + 1):
        stage = names[number % len(names)]
        workdir = root / f"{number // len(names)}_{stage}"
        before = f",previous={done[-1]}" if done else ""
        with slots.trusting(trust):
            _, options = config_files.parse(parser(), argv, argument=f"stage={stage}{before}")
            log.info("%s", workdir)
            train(options, workdir)
            run = config.make(Run, options)
        trust |= slots.packages(options)
        done.append(workdir)
        total = config.duration(run.steps, total=0, epoch=run.data.epoch_steps)
        if checkpoint.steps(workdir)[-1] < total:  # asked to stop; the same command goes on
            break
    return done


def stages(path: pathlib.Path) -> tuple[str, ...]:
    """Return the stages that a config file names.

    Raises:
      ValueError: it names none.
    """
    spec = importlib.util.spec_from_file_location("stages_of_config", path)
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not getattr(module, "STAGES", ()):
        raise ValueError(f"{path}: this config names no STAGES to train in turn.")
    return tuple(module.STAGES)
