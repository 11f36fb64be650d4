"""Batches of clips from any source: what the host can feed, and how much of a second of audio it costs."""

import argparse

from ssl_audio import config
from ssl_audio.bench.measure import Row
from ssl_audio.data import places
from ssl_audio.data.entries import Audio
from ssl_audio.data.pipeline import Pipeline


def rows(args: argparse.Namespace) -> list[Row]:
    """Return a row for each number of threads and processes: one batch a call."""
    found = []
    given = places.sources(args.data)
    for workers in map(int, args.workers.split(",")):
        for threads in map(int, args.threads.split(",")):
            sources = {name: config.build(at, "data") for name, at in given.items()}
            pipeline = Pipeline(
                sources,
                args.batch,
                dict(audio=Audio(round(16_000 * args.seconds_each))),
                threads=threads,
                workers=workers,
            )
            batches = pipeline.batches()
            labels = {"source": args.data, "workers": workers, "threads": threads}
            found.append(Row(labels, lambda b=batches: next(b), items=args.batch))
    return found
