"""Batches of clips from any source: what the host can feed, and how much of a second of audio it costs."""

import argparse

from ssl_audio import config
from ssl_audio.bench.measure import Row
from ssl_audio.data import places
from ssl_audio.data.pipeline import Pipeline


def options(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--data", default="synthetic", help="as data= of the configs")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds-each", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--threads", default="0,8", help="that read ahead; several with commas")
    parser.add_argument("--workers", default="0", help="processes; several with commas")


def rows(args: argparse.Namespace) -> list[Row]:
    """Return a row for each number of threads and processes: one batch a call."""
    found = []
    given = places.sources(args.data)
    for workers in map(int, args.workers.split(",")):
        for threads in map(int, args.threads.split(",")):
            sources = {name: config.build(at, "data") for name, at in given.items()}
            pipeline = Pipeline(
                sources,
                batch_size=args.batch,
                samples=round(16_000 * args.seconds_each),
                threads=threads,
                workers=workers,
            )
            batches = pipeline.batches()
            labels = {"source": args.data, "workers": workers, "threads": threads}
            found.append(Row(labels, lambda b=batches: next(b), items=args.batch))
    return found
