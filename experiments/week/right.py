"""Print the share of files whose class, the name of their folder, was predicted: right.py scores.csv."""

import csv
import pathlib
import sys

with open(sys.argv[1], newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
right = sum(row["predicted"] == pathlib.Path(row["path"]).parent.name for row in rows)
print(f"{right} of {len(rows)} right: {right / len(rows):.3f}")
