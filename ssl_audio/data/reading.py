"""Reading clips ahead of need, with threads or processes, and what to do about those that cannot be read.

Evaluation and embedding iterate `examples`; `pipeline.py` reads its batches with `read_ahead`.
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data import open_files
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.prefetch import in_order
from ssl_audio.data.shared_arrays import sharing
from ssl_audio.data.source import Example, Source

log = logging.getLogger(__name__)

SHARED = "/dev/shm"  # through which worker processes hand over what they read
PAGE = 4096  # bytes
_DEATH = re.compile(r"terminated unexpectedly with exit code (-?\d+)")


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
    open_files.raise_limit()
    attempt = functools.partial(_attempt, source, numbers)
    found = in_order(attempt, len(numbers), threads, ahead=32)
    with contextlib.closing(found):
        for i, result in zip(numbers, found, strict=True):
            if isinstance(result, str):
                name = source.meta(i)["id"]
                bad[name] = result
                log.warning("skipped %s", named(name, result))
                check_share(bad, len(numbers), max_bad_share)
            else:
                yield i, result


def named(name: str, cause: str) -> str:
    """Return why a clip was left out, with its name, which most causes begin with."""
    return cause if cause.startswith(name) else f"{name}: {cause}"


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
    read: Callable[[int], Any],
    positions: range,
    workers: int,
    threads: int,
    ahead: int,
    together: int = 1,
) -> Generator[Any, None, None]:
    """Yield read(position) in order, from threads or processes.

    Args:
      read: called once for each position.
      positions: which, one after the other.
      workers: processes.
      threads: of each process.
      ahead: so many are read ahead.
      together: so many one after the other are read by the same thread. Handing one over costs about as
        much as reading a second of prepared sound; more than that, and the first come later.
    """
    import grain  # imports jax: only those who read pay

    open_files.raise_limit()
    groups = -(-len(positions) // together)
    ahead = max(1, ahead // together)
    options = grain.ReadOptions(threads, max(ahead, threads) if threads else 0)
    group: Callable[[int], Any] = functools.partial(_group, read, positions, together)
    data = grain.MapDataset.range(groups).map(_Sent(group) if workers else group)
    data = data.to_iter_dataset(options)
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain asks absl, also in programs that do not use it
            flags.FLAGS.mark_as_parsed()
        data = data.mp_prefetch(
            grain.MultiprocessingOptions(workers, per_worker_buffer_size=max(1, ahead // workers))
        )
    with contextlib.closing(iter(data)) as found, _named_death():
        for some in found:
            yield from some


@contextlib.contextmanager
def _named_death() -> Iterator[None]:
    """Say what may have ended a worker process, and what to do; Grain only knows that one is gone.

    Likewise where there are too many open files to receive what one has read.
    """
    try:
        yield
    except OSError as error:
        open_files.check(error, SHARED)
        raise
    except RuntimeError as error:
        if (status := _DEATH.search(str(error))) is None:
            raise
        number = int(status[1])
        how = (
            f"was ended by {signal.Signals(-number).name}" if number < 0 else f"ended with {number}"
        )
        hint = (
            " (by the system where memory ran out? see dmesg)" if number == -signal.SIGKILL else ""
        )
        raise RuntimeError(
            f"data.workers: a process that reads clips {how}{hint}. Nothing is lost but the steps since the "
            "last checkpoint: the same command goes on. If it happens again, set fewer data.workers, or "
            "data.workers=0 and read with data.threads."
        ) from error


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however that happened.

    Grain's wait for word from it, for ever, and hold shared memory meanwhile.
    """
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


class _Sent:
    """A function for worker processes: what it knows of the clips is shared with them, not copied."""

    def __init__(self, function: Callable[[int], Any]):
        import cloudpickle  # as Grain itself

        with sharing():
            self._content = cloudpickle.dumps(function)
        self._keep: Any = function  # whose memory the workers look at
        self._function: Any = None
        self._lock = threading.Lock()

    def __call__(self, number: int) -> Any:
        with self._lock:
            if self._function is None:
                _end_with_parent()
                startup.tune_cpu()  # as commands do; a process of its own does not inherit it
                self._function = pickle.loads(self._content)
        return self._function(number)

    def __getstate__(self) -> dict[str, Any]:
        return {"_content": self._content, "_keep": None, "_function": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def _group(read: Callable[[int], Any], positions: range, together: int, number: int) -> list[Any]:
    return [read(position) for position in positions[number * together : (number + 1) * together]]


def reading(
    source: Any,
    read: list[int],
    *,
    desc: str = "",
    bad: dict[str, str],
    max_bad_share: float,
    numbers: Sequence[int] | None = None,
    total: int | None = None,
    quiet: bool = False,
) -> Iterator[Any]:
    """Yield the audio of a source under a progress bar of `total` clips; note in `read` which clips it was.

    `quiet`: without the bar.

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
            log.warning("skipped %s", named(id, str(error)))

    numbers = range(len(source)) if numbers is None else numbers
    total = len(source) if total is None else total
    with (
        tqdm(
            total=total,
            initial=total - len(numbers),
            unit="clip",
            desc=desc or None,
            dynamic_ncols=True,
            disable=quiet,
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
        bar.update(total - bar.n)
