"""A training step before and after: the selective scan in C++ by default, small parameters taken out.

Run from the repository: python experiments/speed/build_steps.py --encoder ssamba --frames 1024 --batch 2
Forms: SCAN or SCAN+out, such as xla, cpp, cpp+out; medians of steps that alternate, in one process.
"""

import argparse
import os
import statistics
import time

from ssl_audio import startup

startup.tune_cpu()

from ssl_audio.backbones import stack  # noqa: E402
from ssl_audio.bench import encoders  # noqa: E402


def row(form, args):
    """Return the row of bench/encoders.py for one form."""
    scan, _, out = form.partition("+")
    os.environ["SSL_AUDIO_SCAN"] = scan
    whole = stack.materialized
    if not out:
        stack.materialized = lambda params: params
    try:
        options = argparse.Namespace(
            size=args.size, encoder=args.encoder, frames=args.frames, batch=args.batch,
            depth=args.depth, dtype=args.dtype, remat=args.remat, torch=False,
        )  # fmt: skip
        (found,) = (r for r in encoders.step_rows(options) if r.labels["pass"] == args.work)
        return found
    finally:
        stack.materialized = whole


def main():
    """Measure and print, a line for each form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", default="xla,xla+out,cpp,cpp+out")
    parser.add_argument("--encoder", default="ssamba")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--remat", default="dots")
    parser.add_argument("--frames", type=int, default=1024, help="half as many tokens")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--work", default="train", choices=("train", "forward"))
    args = parser.parse_args()
    rows = {form: row(form, args) for form in args.forms.split(",")}
    times = {form: [] for form in rows}
    for found in rows.values():
        found.call()
    for _ in range(args.repeats):
        for form, found in rows.items():
            wall, busy = time.perf_counter(), time.process_time()
            found.call()
            times[form].append((time.process_time() - busy, time.perf_counter() - wall))
    medians = {
        form: [statistics.median(one) for one in zip(*some, strict=True)]
        for form, some in times.items()
    }
    first = next(iter(medians.values()))[0]
    for form, (busy, wall) in medians.items():
        took = rows[form].compiled_in
        print(
            f"{args.encoder}-{args.size} {args.work} {form:8} processor {busy:.3f} s, wall {wall:.3f} s, "
            f"{first / busy:.2f} times the first; compiled in {took:.1f} s; load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
