"""Train anything: ssl-audio train --config ssamba --workdir runs/ssamba

The same command continues a run that was killed or stopped.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

from ssl_audio import config, config_files, slots, versions
from ssl_audio.train import record


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio train`."""
    made = config_files.with_config("train", __doc__, workdir=True)
    made.add_argument("--profile", type=record.span, metavar="FIRST:LAST", help="trace these steps")
    made.add_argument(
        "--compiled", type=pathlib.Path, metavar="FOLDER",
        help="where `ssl-audio preview --save` put the compiled step; used if it fits",
    )  # fmt: skip
    return made


def main(argv: Sequence[str] | None = None) -> Mapping[str, float]:
    """Parse the command line and train."""
    args, options = config_files.parse(parser(), argv)
    from ssl_audio.distributed import processes
    from ssl_audio.train.loop import train

    processes.start(args.workdir)
    same = dict(line.split(" = ", 1) for line in config.text(options).splitlines())
    same |= versions.code()
    with slots.trusting(args.trust), processes.joined(same, shared=args.workdir):
        return train(options, args.workdir, profile=args.profile, compiled=args.compiled)
