"""A million vectors in an index: time and memory to write, to open, to ask and to add; see docs/search.md.

python experiments/search/large.py 1000000 192 FOLDER
"""

import json
import pathlib
import resource
import sys
import time

import numpy as np

from ssl_audio.inference import approximate, index
from ssl_audio.inference.index import Index, Rows

BLOCK, SEGMENTS = 50_000, 5


def vectors(count: int, width: int, seed: int) -> np.ndarray:
    """Return unit vectors [count, width] in 3000 clusters of a curved space of 24 dimensions, with noise."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    centres = fixed.standard_normal((3000, 24))
    lift = fixed.standard_normal((24, width)) / 5
    x = centres[rng.integers(0, 3000, count)] + 0.6 * rng.standard_normal((count, 24))
    x = np.tanh(x @ lift) + 0.15 * rng.standard_normal((count, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def said(what: str, began: tuple[float, float]) -> None:
    """Print the time since `began`, and the most memory so far."""
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {wall:.1f} s, {cpu:.1f} s of processors, peak {peak:.2f} GiB", flush=True)


def now() -> tuple[float, float]:
    """Return wall and processor time."""
    return time.perf_counter(), time.process_time()


def main(count: int, width: int, folder: pathlib.Path) -> None:
    """Write, open, ask, add."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"checkpoint": "none", "digest": "none", "words": False, "settings": {}}

    def rows(n: int) -> Rows:
        versions = [f"/sounds/{i // 1000}/{i}.wav|1|1" for i in range(-(-n // SEGMENTS))]
        number = np.arange(n, dtype=np.int32)
        start = 5.0 * (number % SEGMENTS)
        return Rows(versions, number // SEGMENTS, start, start + 10)

    def blocks(n: int):
        for first in range(0, n, BLOCK):
            yield vectors(min(BLOCK, n - first), width, first)

    began = now()
    made = index.write(folder, {**about, "token": "a"}, rows(count), width, blocks(count))
    said(f"written, {count} x {width}", began)
    print(approximate.said(made.approximate) if made.approximate else "exact")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name}: {path.stat().st_size / 2**20:.0f} MiB")
    began = now()
    made = Index(folder)
    said("opened", began)
    asked, before = vectors(100, width, 1), []
    for exact in (False, True):
        times, found = [], []
        for vector in asked[: 20 if exact else None]:
            began = now()
            found.append([hit.path for hit in made.query(vector, 10, exact=exact)])
            times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        wall, cpu = 1000 * np.median(times, axis=0)
        print(f"query, exact {exact}: median {wall:.2f} ms, {cpu:.2f} ms of processors")
        if exact:
            same = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, before, strict=False)])
            print(f"of ten files of new vectors the approximate search had {same:.3f}")
        before = found
    more = vectors(10_000, width, 2)

    def added():
        for first in range(0, count, BLOCK):
            yield made.vectors[first : first + BLOCK]
        yield more

    began = now()
    total = count + len(more)
    made = index.write(folder, {**about, "token": "b"}, rows(total), width, added(), made)
    said("10,000 added", began)
    print(json.dumps(made.approximate))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3]))
