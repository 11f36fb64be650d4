"""Feed mutated files to all that reads a stranger's: make fuzz, or python tests/fuzz.py --inputs 10000.

Every input may be refused with a message that names the file, or give a result that is sound. Tracebacks,
hangs, deaths of the process and imports that a file asks for are faults; a seed and a number repeat one.
"""

import argparse
import collections
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))

HANG = 30.0  # seconds for one input
INTRUDERS = ("intruder", "this", "antigravity", "wave", "code", "csv", "random", "turtle")
ODD = [
    None, True, -1, 0, 3, 10**12, -(10**12), 1e30, 0.5, float("nan"), "", "x", "../..", "/etc/hostname",
    "intruder:Boom", "intruder.part:Boom", "this", "wave:Wave_read", "random:Random", "gs://nowhere/x",
    [], {}, [1, 2],
    {"kind": "intruder:Boom"}, {"kind": ""}, {"kind": 3}, {"a": {"a": 1}}, "package:intruder/x",
]  # fmt: skip
# Share of the inputs; the slow ones get few.
SHARES = {"decoder": 0.5, "manifest": 0.25, "config": 0.2, "checkpoint": 0.025, "index": 0.025}


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    """Return bytes with a few random changes: flipped, cut, doubled, moved, or made extreme."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break
        # Headers matter most: half of the changes are near the start.
        limit = min(len(data), 64) if rng.random() < 0.5 else len(data)
        at, size = int(rng.integers(limit)), int(rng.integers(1, 9))
        kind = int(rng.integers(7))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + size] = rng.integers(0, 256, size, np.uint8).tobytes()
        elif kind == 2:
            data[at : at + size] = bytes([int(rng.choice([0, 255, 127, 128]))]) * size
        elif kind == 3:
            del data[at : at + size * int(rng.integers(1, 50))]
        elif kind == 4:
            del data[int(rng.integers(len(data))) :]
        elif kind == 5:
            data[at:at] = data[at : at + size * 8]
        else:
            data += bytes(data[: int(rng.integers(1, len(data) + 1))])
    return bytes(data)


def shaken(rng: np.random.Generator, value: Any) -> Any:
    """Return a JSON value with one of its leaves or branches replaced, removed or renamed."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    copy = json.loads(json.dumps(value))
    walk(copy)
    holder, key = places[int(rng.integers(len(places)))]
    choice = rng.random()
    if choice < 0.1:
        del holder[key]
    elif choice < 0.2 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    else:
        holder[key] = ODD[int(rng.integers(len(ODD)))]
    return copy


class Targets:
    """What is fed, each a function of a generator of random numbers and an empty folder."""

    def __init__(self, work: pathlib.Path):
        import encoders
        import soundfile

        from ssl_audio.inference.load import load
        from ssl_audio.storage import exported

        self.work, self.load = work, load
        self.encoder = encoders.encoder()
        encoders.save(self.encoder, work / "run", 1, 2)
        exported.write(work / "plain", self.encoder.params, self.encoder.config)
        tone = 0.3 * np.sin(np.arange(8000) * 0.1)
        self.sounds: list[tuple[str, bytes]] = []
        os.chdir(work)
        # Written in memory, the resource fork of SD2 goes to a file "._" in the working directory.
        for ending in sorted(set(soundfile.available_formats()) - {"SD2"}):
            for subtype in (*list(soundfile.available_subtypes(ending))[:3], None):
                content = io.BytesIO()
                try:
                    soundfile.write(content, tone, 16_000, subtype, format=ending)
                except (soundfile.LibsndfileError, ValueError, TypeError):
                    continue
                if content.tell():
                    self.sounds.append((ending.lower(), content.getvalue()))
        for path in sorted(work.glob("*.foreign")):
            self.sounds.append(("bin", path.read_bytes()))

    def decoder(self, rng: np.random.Generator, folder: pathlib.Path) -> None:
        """Decode a damaged sound, whole or in part."""
        from ssl_audio.data.decode import DecodeError, decode

        ending, content = self.sounds[int(rng.integers(len(self.sounds)))]
        content = mutated(rng, content)
        path = folder / f"a.{ending}"
        path.write_bytes(content)
        start, end = (0.0, None) if rng.random() < 0.6 else (0.1, 0.3)
        source: Any = path if rng.random() < 0.7 else content
        try:
            audio = decode(source, 16_000, start, end)
        except DecodeError as error:
            name = str(path) if source is path else f"{len(content)} bytes"
            assert name in str(error), f"no name in: {error}"
            return
        assert audio.ndim == 1 and audio.dtype == np.float32 and np.isfinite(audio).all()
        assert end is None or len(audio) <= (end - start) * 16_000 + 2

    def manifest(self, rng: np.random.Generator, folder: pathlib.Path) -> None:
        """Read a damaged table."""
        from ssl_audio.data.source import Manifest

        ending = ("csv", "tsv", "jsonl")[int(rng.integers(3))]
        if ending == "jsonl":
            rows = [
                dict(path="a.wav", label="dog", start=0.5),
                dict(path="b.wav", labels=["a", "b"]),
            ]
            text = "\n".join(json.dumps(shaken(rng, row)) for row in rows)
        else:
            text = 'path,label,start,end,fold,split\na.wav,dog,0,1,1,train\n"b.wav",cat,,,2,test\n'
            text = text.replace(",", "\t") if ending == "tsv" else text
        path = folder / f"m.{ending}"
        path.write_bytes(mutated(rng, text.encode()) if rng.random() < 0.9 else text.encode())
        refused(lambda: Manifest(str(path)).scan(), str(path))

    def config(self, rng: np.random.Generator, folder: pathlib.Path) -> None:
        """Build the objective of a damaged config; load the whole folder now and then."""
        from ssl_audio import config
        from ssl_audio.storage import written

        options = json.loads((self.work / "plain" / "config.json").read_text())
        content = json.dumps(shaken(rng, options)).encode()
        content = mutated(rng, content) if rng.random() < 0.2 else content
        (folder / "config.json").write_bytes(content)
        if rng.random() < 0.1:
            shutil.copy(self.work / "plain" / "model.safetensors", folder)
            refused(lambda: self.load(folder), str(folder))
            return
        refused(
            lambda: config.build(written.read(folder).get("objective", {}), "objectives"),
            str(folder), "config.",
        )  # fmt: skip

    def checkpoint(self, rng: np.random.Generator, folder: pathlib.Path) -> None:
        """Load a run or an exported folder of which one file is damaged."""
        kind = ("run", "plain")[int(rng.integers(2))]
        copy = folder / kind
        shutil.copytree(self.work / kind, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        path = files[int(rng.integers(len(files)))]
        choice = rng.random()
        if choice < 0.2:
            path.unlink()
        else:
            path.write_bytes(b"" if choice < 0.35 else mutated(rng, path.read_bytes()))
        refused(lambda: self.load(copy), str(copy))

    def index(self, rng: np.random.Generator, folder: pathlib.Path) -> None:
        """Open shards of which a file is damaged, and read a clip."""
        from ssl_audio.data import shards
        from ssl_audio.data.prepare import prepare
        from ssl_audio.data.synthetic import Synthetic

        if not (self.work / "shards").is_dir():
            prepare(Synthetic(size=4, seconds=0.1), self.work / "shards")
        copy = folder / "shards"
        shutil.copytree(self.work / "shards", copy)
        path = sorted(copy.iterdir())[int(rng.integers(len(list(copy.iterdir()))))]
        if path.suffix == ".json" and rng.random() < 0.8:
            path.write_text(json.dumps(shaken(rng, json.loads(path.read_text()))))
        else:
            path.write_bytes(mutated(rng, path.read_bytes()))

        def read() -> None:
            source = shards.Shards(str(copy))
            for i in range(len(source)):
                audio = source[i]["audio"]
                assert audio.ndim == 1 and np.isfinite(audio).all()

        refused(read, str(copy))


def refused(call: Callable[[], Any], *names: str) -> None:
    """Call; a mistake of the user's must be named.

    Raises:
      AssertionError: the message has none of the names.
    """
    try:
        call()
    except (ValueError, TypeError, OSError) as error:
        assert any(name in str(error) for name in names), f"no name in: {error!r}"


class Watch:
    """An importer that finds nothing, and remembers who was asked for."""

    def __init__(self):
        self.asked: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Note a name that only a file can have brought up."""
        if name.partition(".")[0] in INTRUDERS:
            self.asked.append(name)


def work(target: str, seed: int, first: int, last: int, folder: pathlib.Path) -> None:
    """Feed inputs one by one, and print what became of each."""
    import logging

    told = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    feed = getattr(Targets(folder), target)
    for name in INTRUDERS:  # some may be there already
        sys.modules.pop(name, None)
    watch = Watch()
    sys.meta_path.insert(0, watch)  # pyright: ignore[reportArgumentType]
    for number in range(first, last):
        rng = np.random.default_rng((seed, list(SHARES).index(target), number))
        found = "fine"
        with tempfile.TemporaryDirectory(dir=folder) as place:
            try:
                feed(rng, pathlib.Path(place))
            except BaseException as error:
                where = error.__traceback__
                while where and where.tb_next:
                    where = where.tb_next
                line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
                found = f"{type(error).__name__} at {line}: {error}"
        if watch.asked:
            found = f"imports {watch.asked.pop()}"
            watch.asked.clear()
        print(json.dumps([number, found[:400]]), file=told, flush=True)


def run(target: str, seed: int, count: int, until: float) -> Iterator[tuple[int, str]]:
    """Yield the number and the outcome of each input, from processes that may die or hang."""
    first = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        while first < count and time.monotonic() < until:
            command = [
                sys.executable,
                __file__,
                "--work",
                target,
                str(seed),
                str(first),
                str(count),
            ]
            child = subprocess.Popen(
                [*command, folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "SSL_AUDIO_TRACEBACK": "1"},
            )  # fmt: skip
            assert child.stdout
            hung = threading.Event()

            def stop(child=child, hung=hung) -> None:
                hung.set()
                child.kill()

            number, timer = first - 1, threading.Timer(10 * HANG, stop)  # the start takes its time
            timer.start()
            for line in child.stdout:
                timer.cancel()
                number, found = json.loads(line)
                yield number, found
                timer = threading.Timer(HANG, stop)
                timer.start()
                if time.monotonic() > until:
                    child.kill()
                    timer.cancel()
                    return
            timer.cancel()
            if child.wait() and number + 1 < count:
                yield number + 1, "hangs" if hung.is_set() else f"dies with {child.returncode}"
                number += 1
            first = number + 1
            for left in pathlib.Path(folder).iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def main() -> None:
    """Feed all targets, two at a time, and say what was found; exit with 1 after a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=SHARES, action="append", help="default: all")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        target, seed, first, last, folder = args.work
        work(target, int(seed), int(first), int(last), pathlib.Path(folder))
        return
    until = time.monotonic() + 60 * args.minutes
    faults: collections.Counter[str] = collections.Counter()
    example: dict[str, str] = {}
    done: collections.Counter[str] = collections.Counter()

    def feed(targets: list[str]) -> None:
        for target in targets:
            for number, found in run(target, args.seed, round(args.inputs * SHARES[target]), until):
                done[target] += 1
                if found != "fine":
                    kind = f"{target}: {found[:120]}"
                    faults[kind] += 1
                    example.setdefault(kind, f"--seed {args.seed}, input {number}: {found}")

    wanted = args.target or list(SHARES)
    threads = [threading.Thread(target=feed, args=(wanted[n::2],)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{sum(done.values())} inputs: {', '.join(f'{t} {n}' for t, n in done.items())}")
    for kind, count in faults.most_common():
        print(f"{count:6}  {kind}\n        {example[kind]}")
    print(f"{sum(faults.values())} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
