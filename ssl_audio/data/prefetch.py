"""Reading ahead with threads of this process, for those who read each clip once.

Training reads with Grain (`reading.read_ahead`), whose import alone takes longer than embedding a clip.
"""

import collections
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_order(
    read: Callable[[int], T], count: int, threads: int, ahead: int
) -> Generator[T, None, None]:
    """Yield read(0), read(1), … read(count - 1).

    Args:
      read: called once for each; what it raises, comes in its turn.
      count: how many.
      threads: that read; 0: none, each is read when it is asked for.
      ahead: most that are read, or being read, and not yet asked for.
    """
    if not threads:
        yield from map(read, range(count))
        return
    waiting: collections.deque[Future[T]] = collections.deque()
    pool = ThreadPoolExecutor(threads, "read")
    try:
        for number in range(count):
            waiting.append(pool.submit(read, number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
