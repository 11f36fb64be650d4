"""Does a run depend on how the selective scan was compiled? Losses of one training in several forms.

Run from the repository: python experiments/speed/build_losses.py --steps 20
Exits with 1 where a loss is further from that of the first form than --within says, or where a form gives
the same bits throughout, so that nothing was compared. Other arguments, such as --config.optim.lr=1e-3, go
to the training.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

# Name -> what replaces -O3 and -march=native for the C++ compiler; xla: without it.
FORMS = {
    "native": "-O3 -march=native",
    "portable": "-O2",
    "plain": "-O1 -ffp-contract=off",
    "xla": "",
}


def run(form, args, more, workdir):
    """Train in a process of its own; return the losses."""
    own = {"SSL_AUDIO_SCAN": "xla" if form == "xla" else "cpp"}
    own["SSL_AUDIO_CACHE"] = str(workdir / "cache")
    command = [sys.executable, __file__, "--form", form, "--workdir", str(workdir / "run")]
    command += ["--config", args.config, "--steps", str(args.steps), *more]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    lines = (workdir / "run/metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def train(args, more):
    """Train in this process, the scan compiled in one form."""
    from ssl_audio.__main__ import main
    from ssl_audio.layers.scan import cpp, native

    if args.form != "xla":
        native.NATIVE = "-w"  # says nothing new
        kept = tuple(option for option in cpp.OPTIONS if not option.startswith("-O"))
        cpp.OPTIONS = (*kept, *FORMS[args.form].split())
    options = [f"--config.steps={args.steps}", "--config.record.every=1"]
    options += ["--config.record.logger=none", "--config.record.progress=False"]
    main(["train", "--config", args.config, "--workdir", args.workdir, *options, *more])


def main():
    """Train in every form, compare with the first and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", default=",".join(FORMS), help="of " + ", ".join(FORMS))
    parser.add_argument("--config", default="ssamba:runlocal")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--within", type=float, default=1e-6, help="relative")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    parser.add_argument("--workdir", help=argparse.SUPPRESS)
    args, more = parser.parse_known_args()
    if args.workdir:
        return train(args, more)
    forms, found, failed = args.forms.split(","), {}, False
    with tempfile.TemporaryDirectory() as folder:
        for number, form in enumerate(forms):
            workdir = pathlib.Path(folder, str(number))
            workdir.mkdir()
            found[form] = run(form, args, more, workdir)
    first = found[forms[0]]
    for form, losses in found.items():
        pairs = list(zip(first, losses, strict=True))
        worst = max(abs(a - b) / abs(a) for a, b in pairs)
        equal = sum(a == b for a, b in pairs)
        print(
            f"{form:8} {len(losses)} steps, last loss {losses[-1]:.7f}, furthest {worst:.1e}, "
            f"{equal} losses with the same bits"
        )
        # Two forms that never differ would be one.
        failed |= worst > args.within or (form != forms[0] and equal == len(losses))
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
