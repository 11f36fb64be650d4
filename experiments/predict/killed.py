"""Classify 10,000 rows of ESC-10 with `ssl-audio predict`, killed twice in between; check what comes out.

    python experiments/predict/killed.py FOLDER

The model is small and has random weights: it is the rows that count. 9,000 different excerpts of 1 s, 1,000
rows that repeat some of them, and three files that do not exist, in a shuffled order.
"""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio.data import entries
from ssl_audio.data.decode import decode
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.load import load
from ssl_audio.storage import exported

RATE = 16_000
ROWS, REPEATED, MISSING = 10_000, 1000, 3
KILL_AT = (3000, 6500)  # rows that are finished


def main() -> None:
    """Make model and table, run, kill, go on, check."""
    folder = pathlib.Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(folder / "model")
    wanted = write_table(folder / "rows.csv", ROWS)
    write_table(folder / "few.csv", ROWS // 10)
    few = run(folder, "few", None)
    peaks = [run(folder, "rows", kill_at) for kill_at in (*KILL_AT, None)]
    check(folder, wanted, load(model))
    print(f"peak memory: {few} MiB with {ROWS // 10} rows, {peaks[-1]} MiB with {ROWS}")


def make_model(folder: pathlib.Path) -> pathlib.Path:
    """Write a classifier of ten classes that hears 1 s."""
    frames, bins = 96, 128
    grid = bins // 16, frames // 16
    width = 64
    objective: dict[str, Any] = dict(
        kind="tagging",
        frontend=dict(kind="fbank", frames=frames),
        tokenizer=dict(kind="patchify", width=width, patch=(16, 16), stride=(16, 16)),
        encoder=dict(
            kind="stack",
            width=width,
            depth=2,
            block=dict(kind="blocks:PreNorm", mixer=dict(kind="attention", heads=4), mlp=2.0),
            positions=dict(kind="positions:Learned", grid=grid),
        ),
        head=dict(kind="classify:Classifier", classes=10),
    )
    names = tuple(f"class {i}" for i in range(10))
    data = entries.clips(RATE)
    data["entries"]["label"] = dict(kind="entries:Labels", classes=10, names=names)
    config = dict(objective=objective, data=data)
    built: Any = configs.build(objective, "objectives")
    blank = Classifier(built, {}, config).blank()
    params, _ = jax.jit(built.init)(jax.random.key(0), blank)
    return exported.write(folder, jax.tree.map(lambda x: 3 * np.asarray(x), params), config)


def write_table(path: pathlib.Path, rows: int) -> list[list[str]]:
    """Write a table of so many rows; return them."""
    audio = pathlib.Path(os.environ["SSL_AUDIO_SHARED"], "data/esc10/audio")
    files = sorted(audio.iterdir())
    rng = np.random.default_rng(0)
    different = rows - REPEATED * rows // ROWS - MISSING
    found = [
        [f"{files[i % len(files)]}", f"{0.15 * (i // len(files)):.2f}"] for i in range(different)
    ]
    found += [[str(audio / f"missing{i}.wav"), "0"] for i in range(MISSING)]
    found += [found[i] for i in rng.integers(different, size=rows - len(found))]
    order = rng.permutation(rows)
    table = [[f"r{i}", *found[k], f"{float(found[k][1]) + 1:.2f}"] for i, k in enumerate(order)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "path", "start", "end"], *table])
    return table


def run(folder: pathlib.Path, name: str, kill_at: int | None) -> int:
    """Run the command, kill it once so many rows are finished; return its peak memory, MiB."""
    output = folder / f"{name}.scores.csv"
    given = ["--checkpoint", folder / "model", "--csv", folder / f"{name}.csv", "--output", output]
    command = [sys.executable, "-m", "ssl_audio", "predict", *map(str, given)]
    with open(folder / "said.txt", "w", encoding="utf-8") as said:
        child = subprocess.Popen(command, stdout=said, stderr=said)
        while kill_at is not None and finished(output) < kill_at:
            time.sleep(0.2)
            if child.poll() is not None:
                raise RuntimeError(f"ended before {kill_at} rows: see {said.name}")
        if kill_at is not None:
            child.send_signal(signal.SIGKILL)
        _, status, used = os.wait4(child.pid, 0)
    peak = used.ru_maxrss // 1024
    left = finished(output)
    if kill_at is None and status:
        raise RuntimeError(f"ended with {status}: see {folder / 'said.txt'}")
    what = f"killed with {left} rows finished" if kill_at else "ended"
    print(f"{name}: {what}, {used.ru_utime + used.ru_stime:.0f} s of processor time, {peak} MiB")
    for line in (folder / "said.txt").read_text(encoding="utf-8").splitlines():
        if "finished before" in line or "rows of" in line:
            print(f"  {line[line.rfind(chr(13)) + 1 :].strip()}")
    return peak


def finished(output: pathlib.Path) -> int:
    """Return how many rows lie in the folder of partial results."""
    count = 0
    for part in output.with_name(f"{output.name}.parts").glob("*.part"):
        with open(part, "rb") as file:
            count += sum(entry[0] == "vector" for entry in json.loads(file.readline()))
    return count


def check(folder: pathlib.Path, wanted: list[list[str]], model: Classifier) -> None:
    """Compare what came out with what was asked; 50 rows are computed again by themselves."""
    with open(folder / "rows.scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(wanted), len(rows)
    same = [[row[key] for key in ("id", "path", "start", "end")] for row in rows] == wanted
    assert same, "another order, or other columns"
    seen: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        values = [row[name] for name in ("predicted", *model.labels, "error")]
        assert seen.setdefault((row["path"], row["start"]), values) == values, row["id"]
    failed = [row for row in rows if row["error"]]
    assert {pathlib.Path(row["path"]).exists() for row in failed} <= {False}
    missing = [row for row in rows if not pathlib.Path(row["path"]).exists()]
    assert failed == missing
    good = [row for row in rows if not row["error"]]
    worst = 0.0
    for row in good[:: len(good) // 50]:
        audio = decode(row["path"], RATE, float(row["start"]), float(row["end"]))
        values = model.scores(audio, RATE).values[0]
        worst = max(
            worst, *(abs(v - float(row[n])) for v, n in zip(values, model.labels, strict=True))
        )
    assert worst < 1e-6, worst
    left = sorted(path.name for path in folder.iterdir())
    assert "rows.scores.csv.parts" not in left
    print(
        f"{len(rows)} rows in, {len(rows)} rows out, in order; {len(seen)} different; {len(failed)} failed"
    )
    print(f"50 rows computed alone: {worst:.1e} from the table at most (it has six digits)")


if __name__ == "__main__":
    main()
