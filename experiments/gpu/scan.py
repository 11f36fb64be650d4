"""Parts `check` and `scan`: the GPU kernel of the selective scan against float64, then its time."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import peers
from experiments.gpu.measuring import Programs, Results, compiled, key, timed
from ssl_audio.layers.scan import Inputs, bidirectional_scan, choose, pallas_gpu, selective_scan

# [batch, tokens, channels, states]: one full tile; parts of tiles; a single token; cut into segments.
SHAPES = [(2, 64, 128, 16), (3, 205, 300, 16), (2, 513, 384, 16), (1, 1, 3, 1), (2, 33, 130, 5)]
SHAPES += [(1, 4101, 128, 16), (5, 7, 1536, 16)]
# Shape, dtype of u, B and C, directions that run in one launch.
CASES = [(shape, "float32", (False, True)) for shape in SHAPES]
CASES += [(shape, "bfloat16", (False, True)) for shape in SHAPES[:2]]
CASES += [(SHAPES[1], "bfloat16", (True,))]
TINY = [((1, 6, 5, 3), "float32", (False, True)), ((2, 3, 8, 4), "bfloat16", (True,))]
EXACT = 2e-5  # relative L2 error of what stays in 32 bits
SHORT = 4e-3  # of gradients rounded to bfloat16
BASE = dict(channels=1536, states=16)
SIZES = {"64 x 512": (64, 512), "4 x 22000": (4, 22_000)}
# ms for 32,768 tokens of 1536 channels and 16 states, one direction; README.md says why.
FLOORS = {"forward": 0.217, "backward": 0.489}


@contextlib.contextmanager
def small_tiles(dry: bool) -> Iterator[None]:
    """Run the kernel in interpret mode, with tiles of a tenth of the size, while dry."""
    if not dry:
        yield
        return
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    tiles = dict(LANES=8, PITCH=16, TOKENS=4, STRIDE=2, STATES=4)
    kept = {name: getattr(pallas_gpu, name) for name in (*tiles, "scan_together")}
    together = functools.partial(pallas_gpu.scan_together, interpret=InterpretGPUParams())
    for name, value in tiles.items():
        setattr(pallas_gpu, name, value)
    pallas_gpu.scan_together = together
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(pallas_gpu, name, value)


def operands(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return u, delta, A, B, C and state as the mixer gives them: delta, A and state in float32."""
    g = np.random.default_rng(seed)
    batch, length, channels, states = shape

    def f(*shape):
        return g.standard_normal(shape, np.float32)

    delta = np.logaddexp(0, f(batch, length, channels) - 2).astype(np.float32)
    A = -np.exp(0.7 * f(channels, states))
    u, B, C = f(batch, length, channels), f(batch, length, states), f(batch, length, states)
    u, B, C = (np.asarray(x, jnp.dtype(dtype)) for x in (u, B, C))
    return u, delta, A, B, C, f(batch, channels, states)


def both(name: str, directions: Any, cotangents: Any, reverse: tuple[bool, ...]) -> Any:
    """Return outputs and all gradients of the bare recurrence in several directions."""
    found, pull = jax.vjp(lambda d: choose.run(name, d, reverse), directions)
    return found, pull(cotangents)[0]


def exact(directions: Any, cotangents: Any, reverse: tuple[bool, ...]) -> Any:
    """Return what `both` should, in float64 on the host."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x, np.float64)), (directions, cotangents)
        )
        run = jax.jit(both, static_argnums=(0, 3))
        return jax.tree.map(np.asarray, run("reference", *wide, reverse))


def errors(got: Any, wanted: Any) -> dict[str, float]:
    """Return name → largest relative L2 error over the directions; nan where something is not finite."""
    (outputs, gradients), (outputs64, gradients64) = got, wanted
    names = ("y", "last", "du", "ddelta", "dA", "dB", "dC", "dstate")
    worst = dict.fromkeys(names, 0.0)
    for some, some64, grads, grads64 in zip(
        outputs, outputs64, gradients, gradients64, strict=True
    ):
        for name, a, b in zip(names, (*some, *grads), (*some64, *grads64), strict=True):
            a = np.asarray(a, np.float64)
            error = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)
            worst[name] = float(max(worst[name], error)) if np.isfinite(a).all() else float("nan")
    return worst


def check(results: Results) -> None:
    """Compare values and gradients with float64; three runs must agree bit for bit."""
    with small_tiles(results.dry):
        for shape, dtype, reverse in TINY if results.dry else CASES:
            labels = dict(shape=str(shape), dtype=dtype, reverse=str(reverse))
            with results.measurement(**labels) as row:
                if row is not None:
                    row.update(checked(shape, dtype, reverse))


def checked(shape: tuple[int, ...], dtype: str, reverse: tuple[bool, ...]) -> dict[str, Any]:
    """Return the errors of one case, and whether it passes."""
    directions = [operands(shape, dtype, seed) for seed, _ in enumerate(reverse)]
    g = np.random.default_rng(7)
    batch, length, channels, states = shape
    cotangents = [
        (
            g.standard_normal((batch, length, channels), np.float32),
            g.standard_normal((batch, channels, states), np.float32),
        )
        for _ in reverse
    ]
    program = jax.jit(lambda d, c: both("pallas_gpu", d, c, reverse))
    runs = [jax.device_get(program(directions, cotangents)) for _ in range(3)]
    found = errors(runs[0], exact(directions, cotangents, reverse))
    rounded = ("du", "dB", "dC") if dtype == "bfloat16" else ()
    passed = all(e < (SHORT if n in rounded else EXACT) for n, e in found.items())
    same = all(
        np.array_equal(a, b, equal_nan=True)
        for other in runs[1:]
        for a, b in zip(jax.tree.leaves(runs[0]), jax.tree.leaves(other), strict=True)
    )
    return dict(passed=passed and same, same_bits=same, **found)


def scan(results: Results) -> None:
    """Time the kernel beside its floor, XLA's form and, where they are installed, other kernels."""
    sizes = {"1 x 8": (1, 8)} if results.dry else SIZES
    base = dict(channels=8, states=4) if results.dry else BASE
    with small_tiles(results.dry):
        for size, (batch, length) in sizes.items():
            shape = (batch, length, base["channels"], base["states"])
            for name, directions in (("pallas_gpu", 1), ("pallas_gpu", 2), ("xla", 2)):
                _bare(results, size, shape, name, directions)
            _whole(results, size, shape)


def floor(what: str, shape: tuple[int, ...], directions: int = 1) -> float:
    """Return ms below which an H100 or H200 cannot go."""
    batch, length, channels, states = shape
    share = batch * length * channels * states / (32_768 * 1536 * 16)
    return share * directions * sum(FLOORS[one] for one in what.split(" + "))


def _timings(results: Results, labels: dict, shape: tuple, count: int, calls: dict) -> None:
    """Time `calls`, pass → (function, arguments), and the backward pass as the difference of two."""
    wanted = [p for p in calls if key(labels | {"pass": p}) not in results.ended]
    jobs = {p: functools.partial(compiled, calls[p][0], *calls[p][1]) for p in wanted}
    programs = Programs(results, labels, jobs)
    for what in wanted:
        with results.measurement(**labels, **{"pass": what}) as row:
            if row is not None:
                program, arguments = programs[what], calls[what][1]
                found = timed(lambda p=program, a=arguments: p.call(*a), dry=results.dry)
                _record(row, found["ms"], what, shape, count)
                row.update(found, **program.fields())
    kept, all_ = (
        results.ended.get(key(labels | {"pass": p}), {}).get("ms")
        for p in ("forward, kept", "forward + backward")
    )
    if kept and all_:
        with results.measurement(**labels, **{"pass": "backward, the difference"}) as row:
            if row is not None:
                _record(row, all_ - kept, "backward", shape, count)


def _record(row: dict, ms: float, what: str, shape: tuple, count: int) -> None:
    least = floor(what.removesuffix(", kept"), shape, count)
    row.update(ms=ms, floor_ms=least, over_floor=ms / least)


def _bare(results: Results, size: str, shape: tuple, name: str, count: int) -> None:
    """Time the recurrence alone, in one direction or both, as the layer calls it."""
    reverse = (False, True)[:count]
    directions = jax.device_put([operands(shape, jnp.bfloat16, seed) for seed in range(count)])
    batch, length, channels, states = shape
    random = functools.partial(jax.random.normal, jax.random.key(3))
    cotangents = [(random(shape[:3]), random((batch, channels, states))) for _ in reverse]

    def forward(directions):
        return choose.run(name, directions, reverse)

    calls: dict[str, Any] = {
        "forward": (forward, (directions,)),
        "forward, kept": (lambda d: jax.vjp(forward, d), (directions,)),
        "forward + backward": (
            lambda d, c: both(name, d, c, reverse),
            (directions, cotangents),
        ),
    }
    labels = dict(size=size, what="recurrence", implementation=name, directions=count)
    _timings(results, labels, shape, count, calls)


def _whole(results: Results, size: str, shape: tuple) -> None:
    """Time everything between the projections, in 16 bits: softplus, bias, scan, skip, gate."""
    batch, length, channels, states = shape
    u, delta, A, B, C, _ = operands(shape, jnp.bfloat16)
    delta, z = (np.asarray(x, jnp.bfloat16) for x in (delta, operands(shape, jnp.bfloat16, 1)[0]))
    D, bias = np.ones(channels, np.float32), np.full(channels, -2, np.float32)
    inputs, z, dy = jax.device_put((Inputs(u, delta, A, B, C, D, bias), z, u))

    def layer(inputs, z):
        return bidirectional_scan(inputs, inputs, z, implementation="pallas_gpu")

    def one(inputs, z):
        return selective_scan(
            *inputs[:6], z=z, delta_bias=inputs.delta_bias, implementation="pallas_gpu"
        )

    def calls(function: Callable) -> dict[str, Any]:
        def with_gradients(inputs, z, dy):
            y, pull = jax.vjp(function, inputs, z)
            return y, pull(dy)

        return {
            "forward": (function, (inputs, z)),
            "forward + backward": (with_gradients, (inputs, z, dy)),
        }

    labels = dict(size=size, what="with softplus, skip, gate")
    _timings(
        results, dict(labels, implementation="pallas_gpu", directions=2), shape, 2, calls(layer)
    )
    _timings(results, dict(labels, implementation="pallas_gpu", directions=1), shape, 1, calls(one))
    for name, function in peers.in_jax().items():
        _timings(
            results, dict(labels, implementation=name, directions=1), shape, 1, calls(function)
        )
    for name, timings in peers.in_torch((u, delta, A, B, C, D, bias, z)).items():
        for what, timing in timings.items():
            with results.measurement(
                **labels, implementation=name, directions=1, **{"pass": what}
            ) as row:
                if row is not None:
                    found = timing()
                    _record(row, found["ms"], what, shape, 1)
                    row.update(found)
