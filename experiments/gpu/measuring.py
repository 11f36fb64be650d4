"""What the parts share: results that outlive a crash, timing of asynchronous calls, the ceilings."""

import contextlib
import dataclasses
import faulthandler
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

POISONED = 3  # exit status: the device may be unusable for this process, go on in a new one


@dataclasses.dataclass
class Results:
    """The lines of `results.jsonl`: one when a measurement begins, one when it ends.

    Attributes:
      path: of the file.
      part: which part of the experiment this process runs.
      dry: nothing is measured: sizes are tiny and the device is a CPU.
      limit: s that one measurement may take, compilation included.
    """

    path: pathlib.Path
    part: str
    dry: bool = False
    limit: float = 90.0

    def __post_init__(self):
        self.device = jax.devices()[0].device_kind
        if self.path.exists() and not self.path.read_text().endswith("\n"):
            with open(self.path, "a") as file:  # a kill cut the last line
                file.write("\n")
        self.begun, self.ended = set[str](), dict[str, Mapping[str, Any]]()
        for line in lines(self.path):
            if (line["part"], line["device"]) == (self.part, self.device):
                if "begun" in line:
                    self.begun.add(key(line["labels"]))
                else:
                    self.ended[key(line["labels"])] = line

    @contextlib.contextmanager
    def measurement(self, **labels: Any) -> Iterator[dict[str, Any] | None]:
        """Give a dict to fill, or None if this was measured before, by this process or another.

        An error is recorded, not raised. Where the process hangs it is ended; the next one that comes
        here records that.
        """
        name = key(labels)
        if name in self.ended:
            yield None
            return
        if name in self.begun:
            self._write(labels, error="the process died or hung here")
            yield None
            return
        self._append(dict(part=self.part, device=self.device, labels=labels, begun=time.time()))
        faulthandler.dump_traceback_later(self.limit, exit=True, file=sys.__stderr__)
        start, row = time.perf_counter(), dict[str, Any]()
        try:
            yield row
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._write(labels, error=text[:2000])
            broken = isinstance(error, jax.errors.JaxRuntimeError)
            if broken and "RESOURCE_EXHAUSTED" not in text and not self.dry:
                sys.exit(POISONED)
        else:
            self._write(labels, **row, took=time.perf_counter() - start)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _write(self, labels: Mapping[str, Any], **values: Any) -> None:
        line = dict(part=self.part, device=self.device, labels=labels, **values)
        self.ended[key(labels)] = line
        self._append(line)

    def _append(self, line: Mapping[str, Any]) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        if "begun" not in line:
            print(json.dumps(line)[:600], flush=True)


def key(labels: Mapping[str, Any]) -> str:
    """Return labels as text."""
    return json.dumps(labels, sort_keys=True)


def lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the records of a .jsonl; a last line that a kill has cut is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def timed(call: Callable[[], Any], *, seconds: float = 0.6, dry: bool = False) -> dict[str, Any]:
    """Return ms per call: the median over batches of calls that are queued and waited for together.

    Args:
      call: starts the work and returns its arrays, without waiting.
      seconds: after so long, and three batches, no further one is begun; at most 15 are.
      dry: call once.
    """
    if not dry:
        jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    once = time.perf_counter() - start
    if dry:
        return dict(ms=once * 1e3, spread=0.0, calls=1)
    count = max(1, min(50, round(0.04 / once)))
    found, start = [], time.perf_counter()
    for number in range(15):
        if number >= 3 and time.perf_counter() - start > seconds:
            break
        begin = time.perf_counter()
        for _ in range(count):
            out = call()
        jax.block_until_ready(out)
        found.append((time.perf_counter() - begin) / count * 1e3)
    return dict(
        ms=statistics.median(found), spread=max(found) - min(found), calls=count * len(found)
    )


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function and what the compiler says of it."""

    call: Callable[..., Any]
    compile_s: float
    compiled_bytes: int | None  # arguments, results and temporaries

    def fields(self) -> dict[str, Any]:
        """Return what goes into a row."""
        return dict(compile_s=self.compile_s, compiled_bytes=self.compiled_bytes)


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> Program:
    """Compile for arguments, or for their shapes."""
    start = time.perf_counter()
    program = jax.jit(function, **options).lower(*arguments).compile()
    took, memory = time.perf_counter() - start, program.memory_analysis()
    size = None
    if memory is not None:
        size = memory.argument_size_in_bytes + memory.output_size_in_bytes
        size += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return Program(program, took, size)


class Programs:
    """Programs of one group of measurements, compiled at once on all processors.

    Where that has crashed before, each is compiled within the measurement that needs it, so that only
    the guilty one is lost.
    """

    def __init__(self, results: Results, labels: Mapping[str, Any], jobs: Mapping[str, Callable]):
        self.jobs, self.found = jobs, dict[str, Any]()

        def attempt(job):
            try:
                return job()
            except Exception as error:
                return error

        with results.measurement(**labels, **{"pass": "compilation"}) as row:
            if row is not None and jobs:
                with ThreadPoolExecutor(len(jobs)) as pool:
                    self.found = dict(zip(jobs, pool.map(attempt, jobs.values()), strict=True))

    def __getitem__(self, name: str) -> Program:
        found = self.found.get(name) or self.jobs[name]()
        if isinstance(found, Exception):
            raise found
        return found


def ceilings(dry: bool) -> dict[str, float]:
    """Return what a large copy (TB/s, read and written) and bfloat16 product (TFLOP/s) reach."""
    size, width = (2**20, 256) if dry else (2**30, 8192)
    x = jax.random.normal(jax.random.key(0), (size // 4,), jnp.float32)
    add = jax.jit(lambda x: x + 1)
    copy = 2 * size / (timed(lambda: add(x), dry=dry)["ms"] * 1e-3)
    a, b = jax.random.normal(jax.random.key(1), (2, width, width), jnp.bfloat16)
    product = jax.jit(lambda a, b: a @ b)
    rate = 2 * width**3 / (timed(lambda: product(a, b), dry=dry)["ms"] * 1e-3)
    return dict(copy_tb_s=copy / 1e12, matmul_tflop_s=rate / 1e12)


def peak_bytes() -> int | None:
    """Return the most device memory that this process has held; None where that is not counted."""
    stats = jax.devices()[0].memory_stats()
    return None if not stats else stats.get("peak_bytes_in_use")
