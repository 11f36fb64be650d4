"""Reading clips ahead of need, with threads or processes, and what to do about those that cannot be read.

Evaluation and embedding iterate `examples`; `pipeline.py` reads its batches with `read_ahead`.
"""

import contextlib
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.data.ahead import in_order
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.source import Example, Source

log = logging.getLogger(__name__)

SHARED = "/dev/shm"  # through which worker processes hand over what they read
PAGE = 4096  # bytes


def examples(
    source: Source,
    *,
    numbers: Sequence[int] | None = None,
    threads: int = 8,
    bad: dict[str, str] | None = None,
    max_bad_share: float = 0.01,
) -> Iterator[tuple[int, Example]]:
    """Yield (i, source[i]) in order, once, reading ahead, without the clips that cannot be read.

    Args:
      source: where from.
      numbers: which clips; default: all.
      threads: that read ahead; 0: none.
      bad: filled with the id and cause of each clip left out.
      max_bad_share: ValueError above this share of them; unless it is 0, one is free.
    """
    bad = {} if bad is None else bad
    numbers = range(len(source)) if numbers is None else numbers
    attempt = functools.partial(_attempt, source, numbers)
    found = in_order(attempt, len(numbers), threads, ahead=32)
    with contextlib.closing(found):
        for i, result in zip(numbers, found, strict=True):
            if isinstance(result, str):
                name = source.meta(i)["id"]
                bad[name] = result
                log.warning("skipped %s: %s", name, result)
                check_share(bad, len(numbers), max_bad_share)
            else:
                yield i, result


def check_share(bad: Mapping[str, str], read: int, max_share: float) -> None:
    """Raise ValueError when the bad clips exceed a share of those read (one is free, unless 0)."""
    if len(bad) <= (max(1.0, max_share * read) if max_share else 0):
        return
    few = "; ".join(list(bad.values())[:5])
    raise ValueError(
        f"{len(bad)} of {read} clips could not be read, more than max_bad_share={max_share:g}: "
        f"{few}{'; …' if len(bad) > 5 else ''}. Repair or remove them, or raise max_bad_share."
    )


def check_shared_memory(workers: int, need: int) -> None:
    """Raise ValueError when worker processes would run out of shared memory, of which they die unnamed.

    `need`: bytes that they keep ready together.
    """
    if not workers or not os.path.isdir(SHARED):
        return
    free = shutil.disk_usage(SHARED).free
    if free < need:
        raise ValueError(
            f"data.workers: {workers} processes hand over batches in {SHARED}: they need {need / 2**20:.0f} "
            f"MiB and {free / 2**20:.0f} MiB are free. Give it more (docker run --shm-size=…), or set "
            "data.workers=0 and read with data.threads, or a smaller data.batch_size."
        )


def _attempt(source: Source, numbers: Sequence[int], k: int) -> Example | str:
    try:
        return source[numbers[k]]
    except DecodeError as error:
        return str(error)


def read_ahead(
    read: Callable[[int], Any], positions: range, workers: int, threads: int, ahead: int
) -> Any:
    """Return a closable iterator of read(position) in order, from threads or processes."""
    import grain  # imports jax: only those who read pay

    options = grain.ReadOptions(threads, max(ahead, threads) if threads else 0)
    data = grain.MapDataset.range(positions.start, positions.stop, positions.step).map(read)
    data = data.to_iter_dataset(options)
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain asks absl, also in programs that do not use it
            flags.FLAGS.mark_as_parsed()
        data = data.mp_prefetch(
            grain.MultiprocessingOptions(workers, per_worker_buffer_size=max(1, ahead // workers))
        )
    return iter(data)


def reading(
    source: Any,
    read: list[int],
    *,
    desc: str = "",
    bad: dict[str, str],
    max_bad_share: float,
    numbers: Sequence[int] | None = None,
) -> Iterator[Any]:
    """Yield the audio of a source under a progress bar; note in `read` which clips it was.

    A clip that comes in pieces ends early where it cannot be read on, and is in `bad` then.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from ssl_audio.data.reading import check_share, examples

    def pieces(audio: Iterator[np.ndarray], id: str) -> Iterator[np.ndarray]:
        samples = 0
        try:
            for piece in audio:
                samples += len(piece)
                bar.set_postfix_str(f"{samples / source.rate / 3600:.2f} h of {id}")
                yield piece
        except DecodeError as error:
            bad[id] = str(error)
            log.warning("skipped %s: %s", id, error)

    numbers = range(len(source)) if numbers is None else numbers
    with (
        tqdm(
            total=len(source),
            initial=len(source) - len(numbers),
            unit="clip",
            desc=desc or None,
            dynamic_ncols=True,
        ) as bar,
        logging_redirect_tqdm(),
    ):
        # All of the source is judged, and clips are found bad here too: so the check is here.
        for i, example in examples(source, numbers=numbers, bad=bad, max_bad_share=1.0):
            check_share(bad, len(source), max_bad_share)
            read.append(i)
            audio = example["audio"]
            yield audio if isinstance(audio, np.ndarray) else pieces(audio, example["id"])
            bar.update()
        check_share(bad, len(source), max_bad_share)
        bar.update(len(source) - bar.n)
