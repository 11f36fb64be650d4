"""Measure work in parts: python experiments/speed/spread.py prepare|merge [--clips N] [--shards N].

prepare: decode clips of 10 s with one process and with two parts at once. merge: join many files' records,
whose sound is not there, of clips that nothing was decoded of.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

SIZE = 512  # clips per file
RATE = 44_100  # Hz, of the clips


def sounds(root: pathlib.Path, clips: int) -> None:
    """Write clips of 10 s as Ogg Vorbis; 20 of them differ."""
    import soundfile

    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(min(clips, 20)):
        t = np.arange(10 * RATE) / RATE
        tone = np.sin(2 * np.pi * (200 + 40 * i) * t) + 0.1 * rng.standard_normal(len(t))
        soundfile.write(root / f"{i:05d}.ogg", 0.3 * tone, RATE)
    for i in range(20, clips):
        (root / f"{i:05d}.ogg").write_bytes((root / f"{i % 20:05d}.ogg").read_bytes())


def used(commands: list[list[str]]) -> tuple[float, float, float]:
    """Run commands at the same time; return wall time, processor time of all and of the longest, s."""
    begun, spent = time.perf_counter(), []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for process in [subprocess.Popen(command, **quiet) for command in commands]:
        _, status, about = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"failed: {process.args}")
        spent.append(about.ru_utime + about.ru_stime)
    return time.perf_counter() - begun, sum(spent), max(spent)


def measure_prepare(clips: int, shard: int, repeats: int) -> None:
    """Print the times of one process and of two parts, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        sounds(root / "in", clips)
        verb = [
            sys.executable,
            "-m",
            "ssl_audio",
            "prepare",
            "--source=folder",
            f"--root={root / 'in'}",
        ]
        verb.append(f"--shard-size={shard}")
        found: dict[str, list[tuple[float, ...]]] = {}
        for n in range(repeats):
            for name, workers, parts in (
                ("one, 1 thread", 1, 1),
                ("one, 2 threads", 2, 1),
                ("2 parts", 1, 2),
            ):
                output = root / f"{n}-{workers}-{parts}"
                base = [*verb, f"--workers={workers}", f"--output={output}"]
                steps = [[base]]
                if parts > 1:
                    steps = [
                        [[*base, f"--part={i}/{parts}"] for i in range(1, parts + 1)],
                        [[*base, "--merge"]],
                    ]
                times = [used(step) for step in steps]
                found.setdefault(name, []).append(tuple(map(sum, zip(*times, strict=True))))
                if parts > 1:
                    found.setdefault("its merge", []).append(times[1])
        for name, times in found.items():
            wall, spent, longest = np.median(times, axis=0)
            print(
                f"{name:15}: {wall:6.1f} s; processors {spent:6.1f} s, critical path {longest:6.1f} s"
            )


class Clips:
    """Clips with two labels of 527, as AudioSet's; their sound is never asked for."""

    channels = "average"

    def __init__(self, count: int):
        from ssl_audio.data.source import SourceInfo

        self.info = SourceInfo("audioset", tuple(f"class {i}" for i in range(527)), multilabel=True)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def meta(self, i: int) -> dict:
        """Return what is known of a clip."""
        label = (i % 250, 250 + i % 277)
        return {"rate": 16_000, "id": f"{i:011d}", "label": label, "split": "unbalanced_train"}


BEFORE = """
import time
from spread import Clips
from ssl_audio.data import prepare
wall, begun = time.perf_counter(), time.process_time()
prepare.prepare(Clips({count}), {root!r})
print(f"{{prepare.__file__}}: {{time.perf_counter() - wall:.1f}} s "
      f"(processor {{time.process_time() - begun:.1f}} s), list and digest included")
"""


def measure_merge(shards: int, parts: int, before: str) -> None:
    """Print the time and memory of a merge; `before`: a tree of another version, to finish the same files."""
    from ssl_audio.data import preparation
    from ssl_audio.storage.division import Division, Part

    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "out"
        root.mkdir()
        source = Clips(shards * SIZE)
        begun = time.process_time()
        work = preparation.Preparation(source, root)
        print(f"list and digest of {len(source)} clips: {time.process_time() - begun:.1f} s")
        preparation._claim(root, work._settings)
        for number in range(shards):
            path = root / f"{number:05d}.array_record"
            path.write_bytes(bytes(64))
            metas = [source.meta(i) for i in range(number * SIZE, (number + 1) * SIZE)]
            columns = {key: [meta.get(key) for meta in metas] for key in preparation.FIELDS}
            columns["samples"] = [160_000] * SIZE
            record = {"clips": columns, "bad": {}, "content": (64, "0" * 64)}
            (root / f"{number:05d}.json").write_text(json.dumps(record))
        division = Division(root / preparation.PARTS, work._settings, parts)
        for number in range(1, parts + 1):
            with division.work(Part(number, parts)):
                division.finish(Part(number, parts), {"clips": 0, "bad": 0})
        if before:  # the same files, finished by one machine
            copy = pathlib.Path(folder) / "before"
            shutil.copytree(root, copy, copy_function=os.link)
            shutil.rmtree(copy / preparation.PARTS)
            env = os.environ | {"PYTHONPATH": f"{before}:{pathlib.Path(__file__).parent}"}
            code = BEFORE.format(count=len(source), root=str(copy))
            subprocess.run([sys.executable, "-c", code], env=env, cwd=folder, check=True)
        wall, begun = time.perf_counter(), time.process_time()
        work.join()
        spent, wall = time.process_time() - begun, time.perf_counter() - wall
        if before:
            same = (root / "index.json").read_bytes() == (copy / "index.json").read_bytes()
            print(f"the index has the same bytes: {same}")
        size = (root / "index.json").stat().st_size / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"merge of {parts} parts, {shards} files, {len(source)} clips: {wall:.1f} s "
            f"(processor {spent:.1f} s), index {size:.0f} MiB, peak {peak:.2f} GiB"
        )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("prepare", "merge"))
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shards", type=int, default=3907)
    parser.add_argument("--parts", type=int, default=64)
    parser.add_argument("--before", default="", metavar="TREE", help="another version's folder")
    args = parser.parse_args()
    if args.what == "prepare":
        measure_prepare(args.clips, args.shard_size, args.repeats)
    else:
        measure_merge(args.shards, args.parts, args.before)


if __name__ == "__main__":
    main()
