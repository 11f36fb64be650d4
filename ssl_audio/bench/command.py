"""Time a part: python -m ssl_audio bench scan|step|inference|input, each with its own --help.

Prints a table, medians of interleaved rows; "ratio" is to the first row of a group, "x floor" to what
the device would need for the bytes and matrix products alone. --check compares ratios with a past run.
"""

import argparse
import sys
from typing import Any

from ssl_audio.bench import encoders, input, measure, scan

BENCHMARKS = {
    "scan": (scan.options, scan.rows),
    "step": (encoders.step_options, encoders.step_rows),
    "inference": (encoders.inference_options, encoders.inference_rows),
    "input": (input.options, input.rows),
}


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        prog="ssl-audio bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_subparsers(dest="what", required=True)
    for name, (options, _) in BENCHMARKS.items():
        one = what.add_parser(name)
        options(one)
        one.add_argument("--repeats", type=int, default=7)
        one.add_argument("--seconds", type=float, default=60, help="3 repeats are made at least")
        one.add_argument("--json", help="also write the rows to this file")
        one.add_argument("--figure", help="also draw them along their tokens or length")
        one.add_argument("--check", metavar="JSON", help="fail where a ratio has risen since then")
        one.add_argument("--slack", type=float, default=1.5, help="by more than this factor")
    args = parser.parse_args(argv)
    records = measure.measure(BENCHMARKS[args.what][1](args), args.repeats, args.seconds)
    found = measure.machine()
    print(", ".join(f"{k} {v}" for k, v in found.items() if k != "flags"))
    print(measure.table(records), flush=True)
    if args.json:
        measure.save(records, args.json)
    if args.figure:
        along = [k for k in ("tokens", "length") if records and k in records[0]]
        if not along:
            raise ValueError(f"--figure: {args.what} has one length only; try scan or inference.")
        measure.figure(records, along[0], args.figure)
    if args.check:
        worse = measure.check(records, args.check, args.slack)
        for line in worse:
            print(f"worse: {line}", file=sys.stderr)
        if worse:
            raise SystemExit(1)
    return records
