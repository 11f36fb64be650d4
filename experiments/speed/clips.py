"""Simulate millions of clips over few real files: start, memory, first batch, a killed worker.

A table is made whose rows name real files by way of many links to their folder, so that all paths differ. For
each number of clips and each tree of the source code a process of its own opens it, draws from it and reads
batches with worker processes; a worker is killed last. The trees take turns, so that their ratios hold on a
machine that others use too.

    python experiments/speed/clips.py --audio DIR --clips 1000,2000000 --tree . --tree ../before
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

ENDINGS = (".ogg", ".wav", ".flac")
CLASSES = 527


def table(folder: pathlib.Path, audio: pathlib.Path, clips: int, several: bool) -> pathlib.Path:
    """Write a manifest of so many clips, with the classes of AudioSet's size, and return its path."""
    files = sorted(p.name for p in audio.iterdir() if p.suffix in ENDINGS)
    path = folder / f"{'labels' if several else 'label'}_{clips}.csv"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, CLASSES + 1)
    drawn = rng.choice(CLASSES, (clips, 3), p=chance / chance.sum())
    counts = rng.choice([1, 2, 3], clips, p=[0.45, 0.4, 0.15]) if several else np.ones(clips, int)
    with open(path, "w", encoding="utf-8") as file:
        file.write("path,labels,start\n" if several else "path,label,start\n")
        for i, (labels, count) in enumerate(zip(drawn.tolist(), counts.tolist(), strict=True)):
            link = folder / f"{i // len(files):05d}"
            if i % len(files) == 0 and not link.exists():
                link.symlink_to(audio.resolve(), target_is_directory=True)
            names = ";".join(f"/m/{label:05x}" for label in labels[:count])
            file.write(f"{link.name}/{files[i % len(files)]},{names},{i % 3}\n")
    return path


def index(folder: pathlib.Path, clips: int, several: bool) -> pathlib.Path:
    """Make prepared shards of so many clips, 512 a file, of which all but the first are links to it."""
    from ssl_audio.data.prepare import prepare
    from ssl_audio.data.synthetic import Synthetic

    root = folder / f"shards_{clips}_{int(several)}"
    if (root / "done").exists():
        return root
    prepare(Synthetic(512, seconds=1.0), root)
    found = json.loads((root / "index.json").read_text())
    (first,) = found["shards"]
    files, rest = divmod(clips, 512)
    counts = [512] * files + [rest] * (rest > 0)
    found["shards"] = [
        first | {"file": f"{i:05d}.array_record", "count": n} for i, n in enumerate(counts)
    ]
    for shard in found["shards"][1:]:
        (root / shard["file"]).symlink_to(first["file"])
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=(clips, 3)).tolist()
    columns: dict[str, list] = {key: [None] * clips for key in found["clips"]}
    columns["id"] = [f"unbalanced_train/Y{i:011d}.wav" for i in range(clips)]
    columns["label"] = [sorted(set(some)) if several else some[0] for some in labels]
    found |= {"clips": columns, "count": clips}
    (root / "index.json").write_text(json.dumps(found))
    (root / "done").touch()
    return root


def memory(process: int | str = "self") -> dict[str, float]:
    """Return resident, proportional and private memory of a process, MB."""
    text = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text()
    found = {line.split()[0][:-1]: int(line.split()[1]) for line in text.splitlines()[1:]}
    private = found["Private_Clean"] + found["Private_Dirty"]
    return {"rss": found["Rss"] / 1024, "pss": found["Pss"] / 1024, "private": private / 1024}


def spent() -> tuple[float, float]:
    """Return the seconds that have passed, and those of the processor in this process."""
    return time.perf_counter(), time.process_time()


def since(before: tuple[float, float]) -> dict[str, float]:
    """Return the seconds since then."""
    return dict(
        zip(("s", "cpu_s"), (b - a for a, b in zip(before, spent(), strict=True)), strict=True)
    )


def measured(path: str, workers: int, threads: int) -> dict:
    """Open a table, draw and read from it in this process; return what it took."""
    from ssl_audio.data.entries import Audio
    from ssl_audio.data.pipeline import Pipeline
    from ssl_audio.data.shards import Shards
    from ssl_audio.data.source import Manifest

    found: dict = {}
    at, begun = memory()["rss"], spent()
    source = Shards(path) if os.path.isdir(path) else Manifest(path)
    found["clips"] = len(source)
    found["open"] = since(begun) | {"mb": memory()["rss"] - at}
    entries = {"audio": Audio(16_000)}
    make = {"workers": workers, "threads": threads, "balanced": True}
    pipeline = Pipeline({"a": source}, 32, entries, **make)
    begun = spent()
    pipeline.collections()
    found["digest"] = since(begun)
    begun = spent()
    pipeline.check()
    found["chances"] = since(begun)
    begun = spent()
    for k in range(10_000):
        pipeline._draws[k]  # noqa: SLF001
    found["draw_us"] = since(begun)["cpu_s"] * 100
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = spent()
    batches: Any = pipeline.batches()
    next(batches)
    found["first_batch"] = since(begun)
    for _ in range(8):
        next(batches)
    found["open_files"] = len(os.listdir("/proc/self/fd"))
    children = multiprocessing.active_children()
    found["workers"] = [memory(child.pid or 0) for child in children]
    found["main"] = memory()
    if children:
        begun = spent()
        os.kill(children[0].pid or 0, signal.SIGKILL)
        try:
            for _ in range(200):
                next(batches)
            found["killed"] = "went on"
        except Exception as error:  # whatever it is, it is reported
            found["killed"] = f"{type(error).__name__}: {error}"
        found["killed_s"] = since(begun)["s"]
    batches.close()
    return found


def run(tree: str, path: pathlib.Path, args: argparse.Namespace) -> dict:
    """Measure with a tree of the source code, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(tree).resolve())}
    command = [sys.executable, __file__, "--measure", str(path)]
    command += [f"--workers={args.workers}", f"--threads={args.threads}"]
    begun = time.perf_counter()
    made = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=args.limit, check=False
    )
    if made.returncode:
        return {"failed": made.stderr.splitlines()[-1:]}
    return json.loads(made.stdout.splitlines()[-1]) | {"whole_s": time.perf_counter() - begun}


def line(tree: str, found: dict) -> str:
    """Return one row of the table of results."""
    if "failed" in found:
        return f"| {tree} | failed: {found['failed']} |"
    mean = {k: statistics.mean(w[k] for w in found["workers"]) for k in ("private", "pss", "rss")}
    cells = [
        tree, f"{found['clips']:,}", *(f"{found[k]['cpu_s']:.2f}" for k in ("open", "digest", "chances")),
        f"{found['draw_us']:.0f}", f"{found['open']['mb']:.0f}", f"{found['peak_mb']:.0f}",
        f"{found['first_batch']['s']:.1f}", *(f"{mean[k]:.0f}" for k in ("private", "pss", "rss")),
        f"{found['whole_s']:.0f}", f"{found.get('killed_s', 0):.1f} s, {found.get('killed', '')[:60]}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


HEAD = (
    "tree", "clips", "open, cpu s", "digest, cpu s", "probabilities, cpu s", "draw, µs", "open, MB",
    "peak, MB", "first batch, s", "worker private, MB", "pss, MB", "rss, MB", "all, s", "a worker killed",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--audio", help="a folder of real sound, such as that of ESC-10")
    made.add_argument("--clips", default="1000,2000000", help="rows of the tables, with commas")
    made.add_argument("--several", action="store_true", help="one to three labels a clip, not one")
    made.add_argument("--shards", action="store_true", help="prepared shards instead of a table")
    made.add_argument("--tree", action="append", help="the source code to measure; may be repeated")
    made.add_argument("--workers", type=int, default=2, help="processes that read")
    made.add_argument("--threads", type=int, default=2, help="of each")
    made.add_argument("--repeats", type=int, default=1)
    made.add_argument("--limit", type=float, default=600.0, help="s that one measurement may take")
    made.add_argument("--folder", help="where tables and links are kept; default: a temporary one")
    made.add_argument("--json", help="also write what was measured to this file")
    made.add_argument("--measure", help=argparse.SUPPRESS)
    return made


def main() -> None:
    """Make the tables, measure, print."""
    args = parser().parse_args()
    if args.measure:
        print(json.dumps(measured(args.measure, args.workers, args.threads)))
        return
    if not args.audio and not args.shards:
        parser().error("--audio: a folder of real sound is needed, or --shards")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.folder or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        rows = []
        for clips in map(int, args.clips.split(",")):
            if args.shards:
                path = index(folder, clips, args.several)
            else:
                path = table(folder, pathlib.Path(args.audio), clips, args.several)
            for _ in range(args.repeats):
                for tree in args.tree or ["."]:
                    rows.append({"tree": tree} | run(tree, path, args))
                    print(line(tree, rows[-1]), flush=True)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
