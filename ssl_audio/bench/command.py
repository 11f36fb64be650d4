"""Time a part: ssl-audio bench scan|step|inference|input|peers, each with its own --help.

Prints a table, medians of interleaved rows; "ratio" is to the first row of a group, "x floor" to what
the device would need for the bytes and matrix products alone. --check compares ratios with a past run.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from ssl_audio import startup


def _scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--implementation",
        default="auto,associative,chunked,torch",
        help="of auto, reference, xla, cpp, pallas_gpu, pallas_tpu (layers/scan), associative, chunked, "
        "torch",
    )
    parser.add_argument("--length", default="512,2048", help="tokens; several with commas")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--memory", type=float, default=4.0, help="GB of temporaries not to exceed")
    parser.add_argument(
        "--whole",
        action="store_true",
        help="with softplus, bias, skip and gate, as layers use it; of the layers/scan ones only",
    )


def _step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder", default="ssast,ssamba", help="names in presets/patch_encoders.py"
    )
    parser.add_argument("--size", default="tiny", help="tiny, small, base; several with commas")
    parser.add_argument("--frames", type=int, default=1024, help="of 10 ms (default %(default)s)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--depth", type=int, help="layers, if not the published number")
    parser.add_argument("--dtype", default="float32", help="of the mixers; or bfloat16")
    parser.add_argument("--remat", default="dots", help="of a layer: none, dots, full")
    parser.add_argument(
        "--torch",
        action="store_true",
        help="also time the encoder alone, fitted to noise, here and in PyTorch",
    )
    parser.add_argument("--compile", action="store_true", help="with --torch: compiled, too")


def _inference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder",
        default="ssamba,ssast:implementation=plain,ssast:implementation=blockwise",
        help='names in presets/patch_encoders.py, with ":option=value" for the mixer',
    )
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--tokens", default="512,2048,8192", help="several with commas")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--depth", type=int, help="layers, if not the published number")
    parser.add_argument("--dtype", default="float32", help="of the mixers; or bfloat16")
    parser.add_argument("--memory", type=float, default=4.0, help="GB not to exceed")
    parser.add_argument("--torch", action="store_true", help="also time them in PyTorch")


def _input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="synthetic", help="as data= of the configs")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds-each", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--threads", default="0,8", help="that read ahead; several with commas")
    parser.add_argument("--workers", default="0", help="processes; several with commas")


def _peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--part", default="embed,frontend,input,step", help="some of these; default: all"
    )
    parser.add_argument(
        "--size", default="tiny", help="of AST and of the encoders: tiny, small, base"
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="of short sounds; default: 32 files of noise at 44.1 kHz"
    )
    parser.add_argument("--files", type=int, default=32, help="of the folder; 16 or more")
    parser.add_argument("--encoder", default="ssast,ssamba", help="for steps: as in `bench step`")
    parser.add_argument("--frames", type=int, default=1024, help="for steps, of 10 ms")
    parser.add_argument("--batch", type=int, default=2, help="for steps")
    parser.add_argument("--depth", type=int, help="for steps: layers, if not the published number")


BENCHMARKS = {
    "scan": (_scan, "the selective scan, forward and with gradients, beside other formulations"),
    "step": (_step, "forward passes and training steps of encoders on clips"),
    "inference": (_inference, "encoders over ever longer sequences"),
    "input": (_input, "batches of clips: what the host can feed"),
    "peers": (_peers, "the same work with other libraries (extra `peers`)"),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio bench`."""
    made = startup.parser("bench", __doc__)
    what = made.add_subparsers(dest="what", required=True)
    for name, (options, about) in BENCHMARKS.items():
        one = what.add_parser(name, help=about, description=about)
        options(one)
        one.add_argument("--repeats", type=int, default=7)
        one.add_argument("--seconds", type=float, default=60, help="3 repeats are made at least")
        one.add_argument("--json", help="also write the rows to this file")
        one.add_argument("--figure", help="also draw them along their tokens or length")
        one.add_argument("--check", metavar="JSON", help="fail where a ratio has risen since then")
        one.add_argument("--slack", type=float, default=1.5, help="by more than this factor")
    return made


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parse the command line and measure."""
    args = parser().parse_args(argv)
    from ssl_audio.bench import encoders, input, measure, peers, scan

    rows = {
        "scan": scan.rows,
        "step": encoders.step_rows,
        "inference": encoders.inference_rows,
        "input": input.rows,
        "peers": peers.rows,
    }
    wanted = rows[args.what](args)
    if not wanted:
        raise ValueError(f"{args.what}: nothing to measure, all of it was left out: see above.")
    records = measure.measure(wanted, args.repeats, args.seconds)
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
