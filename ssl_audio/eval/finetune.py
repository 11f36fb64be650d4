"""Train a classifier of your own labels: ssl-audio finetune --data D --pretrained RUN --workdir W

The same command continues a run that was killed or stopped. It is `ssl-audio train --config
finetune:data=D,pretrained=RUN` with a report at the end.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from ssl_audio import config_files, slots, startup

ARGUMENTS = (
    "data", "pretrained", "validation", "test", "by", "share", "fold", "seconds", "steps", "batch",
    "max_bad_share",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio finetune`."""
    made = startup.parser("finetune", __doc__)
    made.add_argument(
        "--data",
        required=True,
        metavar="PLACE",
        help="labelled clips: a folder with a sub-folder for each class (or train/CLASS and test/CLASS), a table "
        "with columns `path` and `label` (or `labels`: several, a;b), or what `ssl-audio prepare` wrote",
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
        "--max-bad-share", type=startup.share, help="of missing and unreadable files; default: 0.01"
    )
    made.add_argument(
        "--config.PATH", metavar="VALUE", help="override one option, as --config.optim.lr=1e-4"
    )
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> Any:
    """Parse the command line, train."""
    args, options = config_files.parse_for(parser(), argv, "finetune", ARGUMENTS)
    from ssl_audio import config, versions
    from ssl_audio.distributed import processes
    from ssl_audio.train.loop import train

    processes.start(args.workdir)
    same = dict(line.split(" = ", 1) for line in config.text(options).splitlines())
    same |= versions.code()
    with slots.trusting(args.trust), processes.joined(same, shared=args.workdir):
        return train(options, args.workdir)
