"""Time calls fairly, relate them to what the device could do, print them, compare with a past run.

Rows of one call are interleaved, so that their ratios hold on a machine that others use too.
"""

import ctypes
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.storage import atomic
from ssl_audio.train import flops


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing to time.

    Attributes:
      labels: what it is; rows are told apart by them.
      call: runs it once and waits for the end.
      group: rows of a group are compared with the first of it.
      temp: bytes of temporaries that the compiled program needs, if one is known.
      compiled_in: s.
      moved: bytes that must go through memory at least.
      flops: of its matrix products.
      items: clips, say, in one call.
    """

    labels: Mapping[str, Any]
    call: Callable[[], Any]
    group: tuple = ()
    temp: int | None = None
    compiled_in: float | None = None
    moved: float = 0
    flops: float = 0
    items: int | None = None


def compiled(function: Callable, *arguments: Any, **options: Any) -> tuple[Callable, dict]:
    """Compile for arguments (arrays or their shapes); return the program and fields of a `Row`."""
    start = time.perf_counter()
    program = jax.jit(function, **options).lower(*arguments).compile()
    took = time.perf_counter() - start
    memory = program.memory_analysis()
    temp = None if memory is None else memory.temp_size_in_bytes
    return program, dict(temp=temp, compiled_in=took)


def measure(rows: Sequence[Row], repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Return a record per row: labels, medians of wall and processor time in s, memory, ratios.

    Args:
      rows: called in turn, after a warm-up.
      repeats: rounds, one at least.
      seconds: after so long, and three rounds, no further one is begun.
    """
    peaks = [peak_memory(row.call) for row in rows]
    wall: list[list[float]] = [[] for _ in rows]
    cpu: list[list[float]] = [[] for _ in rows]
    start = time.perf_counter()
    for number in range(max(1, repeats)):
        if number >= 3 and time.perf_counter() - start > seconds:
            break
        for i, row in enumerate(rows):
            before, cpu_before = time.perf_counter(), time.process_time()
            row.call()
            cpu[i].append(time.process_time() - cpu_before)
            wall[i].append(time.perf_counter() - before)
    bandwidth, rate = copy_bandwidth(), matmul_rate()
    found, first = [], {}
    for row, walls, cpus, peak in zip(rows, wall, cpu, peaks, strict=True):
        s, busy = statistics.median(walls), statistics.median(cpus)
        one = first.setdefault(row.group, (s, busy))
        floor = max(row.moved / bandwidth, row.flops / rate)
        record = dict(row.labels) | dict(
            seconds=s,
            cpu_seconds=busy,
            spread=max(walls) - min(walls),
            repeats=len(walls),
            ratio=s / one[0],
            cpu_ratio=busy / max(one[1], 1e-9),
            temp_bytes=row.temp,
            peak_bytes=peak,
            compile_seconds=row.compiled_in,
            over_floor=s / floor if floor else None,
            per_second=None if row.items is None else row.items / s,
        )
        found.append(record)
    return found


def peak_memory(call: Callable[[], Any]) -> int | None:
    """Call, and return by how many bytes this process grew meanwhile; None where that is unknown.

    Libraries that XLA calls take memory that `Row.temp` does not know of.
    """
    try:
        # Memory that earlier calls left would hide what this one takes.
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # "highest so far" begins anew
    except (OSError, AttributeError):
        call()
        return None
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def copy_bandwidth(size: int = 2**26) -> float:
    """Return how fast the device reads and writes memory, bytes/s, by adding one to `size` bytes."""
    x = jnp.zeros(size // 4, jnp.float32)
    return 2 * size / _best(jax.jit(lambda x: x + 1), x)


def matmul_rate(width: int = 1024) -> float:
    """Return the rate of float32 matrix products of that width, as the device's default does them, FLOP/s."""
    x = jnp.ones((width, width), jnp.float32)
    return 2 * width**3 / _best(jax.jit(lambda x: x @ x), x)


def _best(call: Callable, x: jax.Array) -> float:
    jax.block_until_ready(call(x))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(call(x))
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_flops(function: Callable, *arguments: Any) -> float:
    """Count multiplications and additions of the matrix products in a function."""
    return flops.count(jax.make_jaxpr(function)(*arguments))


COLUMNS = {
    "seconds": "s",
    "cpu_seconds": "cpu s",
    "ratio": "ratio",
    "cpu_ratio": "cpu ratio",
    "temp_bytes": "temp MB",
    "peak_bytes": "peak MB",
    "compile_seconds": "compile s",
    "over_floor": "x floor",
    "per_second": "/s",
}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records as a Markdown table; the ratios are to the first row of a group."""
    labels = list(dict.fromkeys(k for r in records for k in r if k not in (*COLUMNS, *HIDDEN)))
    shown = [k for k in COLUMNS if any(r.get(k) is not None for r in records)]
    lines = [[*labels, *(COLUMNS[k] for k in shown)], ["---"] * (len(labels) + len(shown))]
    for record in records:
        cells = [str(record.get(k, "")) for k in labels]
        for k in shown:
            value = record.get(k)
            value = value / 1e6 if k.endswith("_bytes") and value is not None else value
            cells.append("" if value is None else f"{value:.3g}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


HIDDEN = ("spread", "repeats")


def machine() -> dict[str, Any]:
    """Return what the numbers were taken on."""
    device = jax.devices()[0]
    return dict(
        device=device.device_kind,
        devices=jax.device_count(),
        cores=os.cpu_count(),
        load=os.getloadavg()[0],
        processor=platform.machine(),
        jax=jax.__version__,
        flags={k: os.environ.get(k, "") for k in ("XLA_FLAGS", "GLIBC_TUNABLES")},
    )


def check(records: Sequence[Mapping[str, Any]], path: str, slack: float) -> list[str]:
    """Return a line for each row whose ratio, or compiled memory, is `slack` times that of a past run.

    Times are not compared: they belong to a machine and its load.

    Raises:
      ValueError: the file holds no row in common with these.
    """
    with open(path) as file:
        past = {_key(r): r for r in json.load(file)["rows"]}
    known = [(r, past[_key(r)]) for r in records if _key(r) in past]
    if not known:
        raise ValueError(f"{path}: no row in common with this run; use the same options.")
    worse = []
    for now, before in known:
        for field in ("cpu_ratio", "temp_bytes"):
            was, value = before.get(field), now.get(field)
            if was and value and value > slack * was:
                name = ", ".join(map(str, _key(now)))
                worse.append(f"{name}: {field} {value:.3g}, was {was:.3g}")
    return worse


def _key(record: Mapping[str, Any]) -> tuple:
    return tuple(v for k, v in record.items() if k not in (*COLUMNS, *HIDDEN))


def save(records: Sequence[Mapping[str, Any]], path: str) -> None:
    """Write the rows and the machine as JSON."""
    content = json.dumps(dict(machine=machine(), rows=list(records)), indent=1)
    atomic.write(pathlib.Path(path), content)


def figure(records: Sequence[Mapping[str, Any]], along: str, path: str) -> None:
    """Draw processor time and memory along a numeric label, a line for each other row."""
    from matplotlib.figure import Figure

    lines: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        others = [str(record[k]) for k in record if k not in (*COLUMNS, *HIDDEN, along)]
        lines.setdefault(" ".join(others), []).append(record)
    drawing = Figure(figsize=(9, 3.5), layout="constrained")
    panels = drawing.subplots(1, 2)
    # A process that had memory at hand grows by less than a program needs.
    quantities = {
        "processor time, s": lambda r: r["cpu_seconds"],
        "memory, MB": lambda r: max(r.get("temp_bytes") or 0, r.get("peak_bytes") or 0) / 1e6,
    }
    for axes, (unit, of) in zip(panels, quantities.items(), strict=True):
        for name, rows in lines.items():
            known = [(r[along], of(r)) for r in rows if of(r)]
            if known:
                axes.plot(*zip(*known, strict=True), "o-", label=name)
        axes.set(xlabel=along, ylabel=unit, xscale="log", yscale="log")
    panels[0].legend(fontsize=7)
    drawing.savefig(path, dpi=130)
