#!/usr/bin/env bash
# webdataset: shuffled shards come in the same order in every epoch, and deterministic resampling never reads some.
#
# Expected: `WebDataset(urls, shardshuffle=8)` draws an order of the shards in each epoch; so does `detshuffle=True`,
#   which counts epochs for it; `ResampledShards(urls, deterministic=True)` draws other shards in each epoch.
# Happens: the order of shardshuffle is drawn once, when the dataset is made, with a seed or without: all epochs of a
#   run have one order, in one process or many. detshuffle, and deterministic resampling with `with_epoch`, draw anew
#   in one process; with workers of a DataLoader they give the same epoch each time unless persistent_workers=True.
#   Of 8 shards, 20 epochs of two workers that resample as many clips as there are then read the clips of 5 shards
#   and never the others; in one process, or with persistent workers, all are read.
# Why: `WebDataset` sets a seed of its own where none is given, and the shuffle makes a new generator of it in each
#   epoch; the counter of epochs of the other two lives in the copy of the dataset that a worker gets and that goes
#   with it, so each epoch is number 0.
# Matters: `.shuffle(n)` of samples (drawn anew) hides it: it mixes only neighbours of one and the same order of
#   shards, so corpora that were packed after each other meet in the same way in every epoch. Clips that resampling
#   leaves out are lost to training for good, in silence. Use persistent_workers=True with detshuffle=True or
#   resampling, or give each epoch a new list of urls.
# Versions: webdataset 1.0.2, torch 2.13.0, numpy 2.4.6; Python 3.12.
# Source: webdataset/compat.py (self.seed), filters.py (_shuffle, detshuffle.run), shardlists.py
#   (ResampledShards.__iter__: self.epoch); https://github.com/webdataset/webdataset/pull/502 (July 2026) and
#   https://github.com/webdataset/webdataset/issues/172 (2022), both open.
# Output seen:
#   shardshuffle, datasets made anew agree: False
#   shardshuffle, 0 workers, epochs agree: True   (2 workers: True; 2 kept: True)
#   detshuffle, 0 workers, epochs agree: False   (2 workers: True; 2 kept: False)
#   resampled, 0 workers, shards read in 20 epochs of 200 clips: [0, 1, 2, 3, 4, 5, 6, 7]
#   resampled, 2 workers, shards read in 20 epochs of 200 clips: [1, 2, 4, 5, 7]
#   resampled, 2 kept workers, shards read in 20 epochs of 200 clips: [0, 1, 2, 3, 4, 5, 6, 7]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH WDS_SEED
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check webdataset==1.0.2 torch==2.13.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import webdataset
from torch.utils.data import DataLoader

SHARDS, EACH, EPOCHS = 8, 25, 20
URLS = f"{{0000..{SHARDS - 1:04}}}.tar"
changed = []
for shard in range(SHARDS):
    with webdataset.TarWriter(f"{shard:04}.tar") as writer:
        for clip in range(shard * EACH, shard * EACH + EACH):
            writer.write({"__key__": f"{clip:06}", "cls": clip})


def resampled(clips):
    """Return a pipeline that reads `clips` clips in each worker's epoch, shards drawn with replacement."""
    return webdataset.DataPipeline(
        webdataset.ResampledShards(URLS, seed=1, deterministic=True),
        webdataset.tarfile_to_samples(),
        webdataset.decode(),
        webdataset.to_tuple("cls"),
    ).with_epoch(clips)


def shuffled(**options):
    return webdataset.WebDataset(URLS, **options).decode().to_tuple("cls")


def epochs(data, workers, count=3):
    """Return the clips of `count` epochs; workers "2 kept" live through all of them."""
    number, kept = int(workers[0]), workers.endswith("kept")
    loader = DataLoader(data, batch_size=None, num_workers=number, persistent_workers=kept)
    return [[int(clip) for (clip,) in loader] for _ in range(count)]


def expect(label, seen, wanted):
    print(f"{label}: {seen}", flush=True)
    if seen != wanted:
        changed.append(label)


if __name__ == "__main__":
    first = epochs(shuffled(shardshuffle=SHARDS), "0", 1)[0]
    others = [epochs(shuffled(shardshuffle=SHARDS), "0", 1)[0] for _ in range(5)]
    expect("shardshuffle, datasets made anew agree", all(other == first for other in others), False)
    for workers in ("0", "2", "2 kept"):
        one = epochs(shuffled(shardshuffle=SHARDS), workers, 5)
        expect(f"shardshuffle, {workers} workers, epochs agree", all(epoch == one[0] for epoch in one), True)
    for workers, agree in (("0", False), ("2", True), ("2 kept", False)):
        one = epochs(shuffled(shardshuffle=SHARDS, detshuffle=True), workers, 5)
        expect(f"detshuffle, {workers} workers, epochs agree", all(epoch == one[0] for epoch in one), agree)
    clips = SHARDS * EACH
    for workers in ("0", "2", "2 kept"):
        one = epochs(resampled(clips // max(1, int(workers[0]))), workers, EPOCHS)
        read = {clip // EACH for epoch in one for clip in epoch}
        print(f"resampled, {workers} workers, shards read in {EPOCHS} epochs of {clips} clips: {sorted(read)}")
        if (len(read) < SHARDS) != (workers == "2"):
            changed.append(f"resampled, {workers} workers")
    print("changed: " + "; ".join(changed) if changed else "as described")
    sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
