#!/usr/bin/env bash
# datasets: `take(n)` for validation and `skip(n)` for training share most clips once hosts, workers or epochs count.
#
# Expected: of a stream, `take(100)` are the first 100 clips and `skip(100)` all others, whoever reads them: the page
#   on streaming offers the two to split a dataset.
# Happens: where the stream is divided, by `split_dataset_by_node`, `shard` or the workers of PyTorch's DataLoader, n is
#   divided too: of 4 hosts each skips 25 clips of its own file. Validation read by one process then shares 75 of
#   100 clips with training on 4 hosts and 50 on 2, none on 3 (4 files cannot be divided by 3, each host reads all
#   and keeps every third), and as many clips are in neither. With validation divided as well nothing is shared, but
#   its 100 clips are others on each number of hosts: 25 of 4 hosts' are among those of one process.
#   The page also advises to shuffle before the split and to call `set_epoch` in each epoch: the split is then drawn
#   anew in each epoch. Here 18 of 100 clips are trained on in the second epoch, 59 after ten.
#   The number of clips is right in all cases, and nothing warns.
# Matters: validation that is read in one process while training is divided is the usual case, and the score then tells
#   how well clips are remembered; scores of runs on other numbers of hosts or workers are of other clips. Split by
#   file, or by a hash of the clip's name in `filter`; or take and skip after `split_dataset_by_node` and no workers.
# Versions: datasets 5.2.0, pyarrow 26.0.1; Python 3.12.
# Source: datasets/iterable_dataset.py (SkipExamplesIterable and TakeExamplesIterable: shard_data_sources,
#   split_number), meant so in https://github.com/huggingface/datasets/pull/6965; the documentation's page
#   stream.mdx ("Split dataset", "Reshuffle") says nothing of either; for epochs
#   https://github.com/huggingface/datasets/issues/5435, closed.
# Output seen (three numbers: clips trained on, of these in validation, in neither):
#   one process: trained, shared, in neither: (300, 0, 0)
#   2 hosts, validation in one process: (300, 50, 50)
#   2 hosts, validation divided too: (300, 0, 0)
#   2 hosts, of that in one process's: 50
#   3 hosts: (300, 0, 0), (300, 0, 0), 100
#   4 hosts: (300, 75, 75), (300, 0, 0), 25
#   shard in 4: (300, 75, 75)
#   2 hosts, take(50) and skip(50) after the division: (300, 0, 0)
#   shuffled, validation clips trained on in epochs 0 to 9: [0, 18, 19, 20, 20, 18, 18, 16, 19, 16], in all 59
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 || exit 2
cat > look.py <<'PY'
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node

datasets.disable_progress_bars()
changed = []
NAMES = [f"{number}.parquet" for number in range(4)]
for number, name in enumerate(NAMES):
    pq.write_table(pa.table({"clip": range(100 * number, 100 * number + 100)}), name)


def clips(stream):
    return [row["clip"] for row in stream]


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if seen != wanted:
        changed.append(label)


def about(training, validation):
    """Return how many clips are trained on, shared with validation, and in neither."""
    return len(training), len(set(training) & validation), 400 - len(set(training) | validation)


data = datasets.load_dataset("parquet", data_files=NAMES, split="train", streaming=True)
alone = set(clips(data.take(100)))
expect("one process: trained, shared, in neither", about(clips(data.skip(100)), alone), (300, 0, 0))
for hosts, shared in ((2, 50), (3, 0), (4, 75)):

    def divided(stream, hosts=hosts):
        return [clip for rank in range(hosts) for clip in clips(split_dataset_by_node(stream, rank, hosts))]

    own, training = set(divided(data.take(100))), divided(data.skip(100))
    expect(f"{hosts} hosts, validation in one process", about(training, alone), (300, shared, shared))
    expect(f"{hosts} hosts, validation divided too", about(training, own), (300, 0, 0))
    expect(f"{hosts} hosts, of that in one process's", len(own & alone), 100 - shared)
workers = [clip for index in range(4) for clip in clips(data.skip(100).shard(4, index))]
expect("shard in 4", about(workers, alone), (300, 75, 75))
parts = [split_dataset_by_node(data, rank, 2) for rank in range(2)]
kept = {clip for part in parts for clip in clips(part.take(50))}
after = [clip for part in parts for clip in clips(part.skip(50))]
expect("2 hosts, take(50) and skip(50) after the division", about(after, kept), (300, 0, 0))

shuffled = data.shuffle(seed=42, buffer_size=50)
training, validation, seen, each = shuffled.skip(100), set(clips(shuffled.take(100))), set(), []
for epoch in range(10):
    training.set_epoch(epoch)
    trained = clips(training)
    seen |= set(trained)
    each.append(len(validation & set(trained)))
print(f"shuffled, validation clips trained on in epochs 0 to 9: {each}, in all {len(validation & seen)}")
if each[0] != 0 or min(each[1:]) < 5 or len(validation & seen) < 50:
    changed.append("shuffled")
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 venv/bin/python look.py
