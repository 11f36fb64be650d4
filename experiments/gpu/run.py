"""Run the parts in the order of their worth, each in a process of its own; write JSON and a table.

Called by run.sh. `python -m experiments.gpu.run --part NAME --out DIR` runs one part here.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
# part: s it may take. One that dies goes on in a new process, after the measurement that killed it.
PARTS = {
    "machine": 60,
    "check": 110,
    "scan": 90,
    "attention": 50,
    "steps-ssast": 90,
    "steps-ssamba": 120,
    "curve": 150,
    "trace": 90,
}
TOTAL = 410  # s
LEAST = 15  # s worth starting a part for
RESTARTS = 3  # of a part
NO_GPU = 2  # exit status of a part
DRY = 10  # times as long, since little machines try the script
PACKAGES = "jax jaxlib jax-cuda13-plugin flax optax numpy torch nvidia-cudnn-cu13".split()


def main() -> None:
    """Parse the command line; run one part here, or all of them in processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the results")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--resume", type=pathlib.Path, help="results.jsonl of an earlier run")
    parser.add_argument("--total", type=float, default=TOTAL, help="s for everything")
    parser.add_argument("--dry", action="store_true", help="tiny, on a CPU: tests this script")
    parser.add_argument("--part", choices=PARTS, help="run this one, in this process")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        run_part(args.part, args.out, args.dry)
        return
    wanted = args.only.split(",")
    if wrong := [name for name in wanted if name not in PARTS]:
        parser.error(f"--only {wrong[0]}: wanted some of {', '.join(PARTS)}")
    if args.resume:
        resume(args.resume, args.out / "results.jsonl")
    end = time.monotonic() + args.total * (DRY if args.dry else 1)
    for name in PARTS:
        if name in wanted:
            run_in_process(name, args, end)
    write(args.out)


def resume(path: pathlib.Path, into: pathlib.Path) -> None:
    """Take over what an earlier run has measured; what failed there is tried again."""
    from experiments.gpu.measuring import lines

    good = [line for line in lines(path) if "begun" not in line and "error" not in line]
    into.write_text("".join(json.dumps(line) + "\n" for line in good))


def run_in_process(name: str, args: argparse.Namespace, end: float) -> None:
    """Run a part in processes of their own until it is through or its time is up."""
    part_end = min(end, time.monotonic() + PARTS[name] * (DRY if args.dry else 1))
    command = [sys.executable, "-m", "experiments.gpu.run", "--part", name, "--out", str(args.out)]
    for _ in range(1 + RESTARTS):
        left = part_end - time.monotonic()
        if left < LEAST:
            note(args.out, name, "not run, or not to its end: no time left")
            return
        print(f"== {name}: {left:.0f} s at most", flush=True)
        process = subprocess.Popen(
            [*command, *(["--dry"] if args.dry else [])], cwd=ROOT, start_new_session=True
        )
        try:
            status = process.wait(timeout=left)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # Whatever is left of its process group, a compiler's or profiler's child included.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        if status == NO_GPU:
            sys.exit(NO_GPU)
        if status == 0:
            return
        note(
            args.out, name, "stopped: its time is up" if status is None else f"ended with {status}"
        )
        write(args.out)


def note(out: pathlib.Path, part: str, text: str) -> None:
    """Add a remark on a part to the results."""
    with open(out / "results.jsonl", "a") as file:
        file.write(json.dumps(dict(part=part, device="", labels={}, note=text)) + "\n")
    print(f"== {part}: {text}", flush=True)


def run_part(name: str, out: pathlib.Path, dry: bool) -> None:
    """Run a part in this process."""
    import jax

    from experiments.gpu import attention, measuring, scan, steps

    limit = 90.0 if name in ("machine", "check", "scan", "attention") else 140.0
    limit *= DRY if dry else 1
    results = measuring.Results(out / "results.jsonl", name, dry, limit)
    if not dry and jax.default_backend() != "gpu":
        print(f"jax sees no GPU but {results.device}: install 'jax[cuda13]', or try --dry.")
        sys.exit(NO_GPU)
    kind, _, encoder = name.partition("-")
    if kind == "machine":
        with results.measurement() as row:
            if row is not None:
                row.update(machine(), **measuring.ceilings(dry))
    elif kind == "steps":
        steps.steps(encoder, results)
    else:
        run = {"check": scan.check, "scan": scan.scan, "attention": attention.attention}
        run |= {"curve": steps.curve, "trace": steps.trace}
        run[kind](results)


def machine() -> dict[str, Any]:
    """Return what the numbers are taken on."""
    import jax

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "-"
    try:
        query = "name,driver_version,memory.total,clocks.sm,clocks.max.sm"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        found = f"nvidia-smi: {error}"
    return dict(
        gpu=found,
        compute_capability=getattr(jax.devices()[0], "compute_capability", None),
        python=platform.python_version(),
        processors=os.cpu_count(),
        versions=versions,
    )


def write(out: pathlib.Path) -> None:
    """Write results.json and table.md from results.jsonl, and print the table."""
    from experiments.gpu.measuring import lines
    from experiments.gpu.table import table

    rows = [line for line in lines(out / "results.jsonl") if "begun" not in line]
    (out / "results.json").write_text(json.dumps(rows, indent=1))
    text = table(rows, list(PARTS))
    (out / "table.md").write_text(text)
    print(text, flush=True)


if __name__ == "__main__":
    main()
