#!/usr/bin/env bash
# Grain: a window shuffle in several workers shuffles blocks of neighbours; hosts that take slices augment alike.
#
# Expected: `WindowShuffleIterDataset(window_size=64)` mixes the records of a window, and `mp_prefetch` with more workers
#   mixes other records, as well or better: each has a window of its own. `random_map` draws its own numbers for each
#   record, on whichever host.
# Happens: every worker shuffles its slice, each N-th record, with the same seed, and the results are taken in turn. So
#   N neighbouring records stay together, in their stored order: with 4 workers each batch of 4 is 4 records in a row.
#   What is shuffled is the order of these blocks. Without workers a batch of 4 spans 40 of the window's 64.
#   random_map after to_iter_dataset takes account of the worker, and draws the same numbers for any number of workers.
#   But with a slice for each host (`dataset[host::hosts]`, the tutorial's way to shard) before random_map, the i-th
#   record of every host has the same draws, and `shuffle` after the slice gives all hosts one permutation of their
#   slices: the hosts' first records are neighbours. Shuffled and drawn before the slice, all differ.
# Matters: shards written folder by folder, or cut from long recordings, come in batches of one class or one recording
#   as soon as there are as many workers as clips in a batch; a test with num_workers=0 shows nothing. On 8 hosts a batch
#   has 8 clips of each level, crop and mask. Give the hosts other seeds, or slice last; shuffle after mp_prefetch.
# Versions: grain 0.2.18, numpy 2.4.6; Python 3.11.
# Source: Grain's shuffle.py (the window iterator's seed has no worker's number) and map.py (that of random_map has
#   one); mp_prefetch's docstring says that stateful steps may give other output with other numbers of workers, not which;
#   the basic tutorial on slicing does not speak of random_map.
# Output seen:
#   0 workers, first 8: [4, 3, 24, 8, 38, 63, 37, 62]
#   0 workers, span of a batch of 4: 40
#   4 workers, first 8: [16, 17, 18, 19, 12, 13, 14, 15]
#   4 workers, span of a batch of 4: 3
#   4 workers, all batches of 4 are neighbours in order: True
#   sliced then drawn, first 3 of each host: [[(0, 0.05), (3, 0.052), (6, 0.391)], [(1, 0.05), (4, 0.052), ...
#   sliced then shuffled, first 4 of each host: [[9, 51, 0, 45], [10, 52, 1, 46], [11, 53, 2, 47]]
#   drawn then sliced, first of each host: [(0, 0.692), (1, 0.864), (2, 0.226)]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check grain==0.2.18 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import grain
import numpy as np
from absl import flags

flags.FLAGS(["look"])  # Grain's worker processes read them
CLIPS, WINDOW = 256, 64
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def shuffled(workers):
    """The order of clips behind a window shuffle in so many processes."""
    clips = grain.MapDataset.range(CLIPS).to_iter_dataset()
    clips = grain.experimental.WindowShuffleIterDataset(clips, window_size=WINDOW, seed=1)
    if workers:
        clips = clips.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return [int(clip) for clip in clips]


def spans(order):
    """How far apart the first and last of each batch of 4 are in the stored order, at the median."""
    batches = np.asarray(order).reshape(-1, 4)
    return int(np.median(np.ptp(batches, axis=1)))


def draw(clip, generator):
    return int(clip), round(float(generator.random()), 3)


if __name__ == "__main__":
    for workers in (0, 4):
        order = shuffled(workers)
        expect(f"{workers} workers, first 8", order[:8], sorted(order) == list(range(CLIPS)))
        wide = spans(order)
        right = wide == 3 if workers else wide > 20
        expect(f"{workers} workers, span of a batch of 4", wide, right)
        if workers:
            rows = np.asarray(order).reshape(-1, workers)
            right = bool((np.diff(rows, axis=1) == 1).all() and (rows[:, 0] % workers == 0).all())
            expect(f"{workers} workers, all batches of 4 are neighbours in order", right, right)

    clips = grain.MapDataset.range(64).seed(1)
    drawn = [list(clips[host::3].random_map(draw).to_iter_dataset())[:3] for host in range(3)]
    numbers = [[number for _, number in own] for own in drawn]
    right = numbers[0] == numbers[1] == numbers[2] and len(set(numbers[0])) == 3
    expect("sliced then drawn, first 3 of each host", drawn, right)
    orders = [list(clips[host::3][:21].shuffle().to_iter_dataset())[:4] for host in range(3)]
    orders = [[int(clip) for clip in order] for order in orders]
    right = all(order == [clip + host for clip in orders[0]] for host, order in enumerate(orders))
    expect("sliced then shuffled, first 4 of each host", orders, right)
    own = [list(clips.random_map(draw)[host::3].to_iter_dataset())[0] for host in range(3)]
    expect("drawn then sliced, first of each host", own, len({number for _, number in own}) == 3)
    print("changed: " + "; ".join(changed) if changed else "as described", flush=True)
    sys.exit(bool(changed))
PY
venv/bin/python look.py 2> log || { status=$?; tail -n 5 log >&2; exit "$status"; }
