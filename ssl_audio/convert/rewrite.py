"""A function rewritten with plain operations alone, for exporters that know fewer than XLA.

Calls are inlined, layers unrolled, loops run forward, real FFTs become products with cosines and sines
(an exporter of ONNX gets powers of `rfft` wrong in silence), and what depends on no input is computed once.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core

UNROLLED = 64  # longest loop that is unrolled: layers, not tokens
# Primitives that call another function, and where it is.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
# Those that change nothing but how a program is compiled.
NOTHING = ("optimization_barrier", "copy", "copy_p", "sharding_constraint", "stop_gradient")
SHAPES = ("slice", "reshape", "transpose", "squeeze", "broadcast_in_dim", "concatenate")


@dataclasses.dataclass(frozen=True)
class Complex:
    """Complex numbers as two arrays, while they last."""

    real: Any
    imag: Any


def plain(function: Callable[..., Any], *shapes: Any) -> Callable[..., list[Any]]:
    """Return a function of arrays as one that is made of plain operations, with its outputs in a list.

    It is traced here and now: exporters replace JAX's functions by their own while they trace.

    Args:
      function: of arrays, each of one of the shapes.
      shapes: `jax.ShapeDtypeStruct`, with symbolic dimensions, too.

    Raises:
      ValueError: complex numbers are used in a way that is not known here.
    """
    closed = jax.make_jaxpr(function)(*shapes)
    made = jax.make_jaxpr(lambda *args: _run(closed.jaxpr, closed.consts, args))(*shapes)

    def run(*args: Any) -> list[Any]:
        return _replayed(made.jaxpr, made.consts, args)

    return run


def _replayed(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    """Do what equations say, one by one: nothing that an exporter replaces is called."""
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        values = [read(atom) for atom in eqn.invars]
        if name in CALLS and CALLS[name] in eqn.params:  # of functions that `_run` itself calls
            found = _replayed(*_opened(eqn.params[CALLS[name]]), values)
        else:
            found = eqn.primitive.bind(*values, **eqn.params)
            found = found if eqn.primitive.multiple_results else [found]
        env |= dict(zip(eqn.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _run(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        found = _equation(eqn, [read(atom) for atom in eqn.invars])
        env |= dict(zip(eqn.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _opened(inner: Any) -> tuple[Any, Any]:
    return (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())


def _equation(eqn: Any, values: list[Any]) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS and CALLS[name] in params:
        return _run(*_opened(params[CALLS[name]]), values)
    if name in NOTHING:
        return values
    if name == "cond":
        return _branches(params["branches"], values)
    if name == "scan":
        return _loop(params, values)
    if name == "pad" and not isinstance(values[0], Complex):
        return [_pad(params["padding_config"], *values)]
    if name == "rem" and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.integer):
        one, two = values  # refused by exporters of ONNX, as padding
        return [lax.sub(one, lax.mul(lax.div(one, two), two))]
    if name == "fft":
        return [_fft(params, *values)]
    if any(isinstance(value, Complex) for value in values):
        return [_complex(eqn, values)]
    return _bound(eqn, values)


def _bound(eqn: Any, values: list[Any]) -> list[Any]:
    """Do as the equation says: now, where all is known."""

    def bind() -> list[Any]:
        found = eqn.primitive.bind(*values, **eqn.params)
        return list(found) if eqn.primitive.multiple_results else [found]

    sizes = [size for var in eqn.outvars for size in getattr(var.aval, "shape", ())]
    if all(isinstance(size, int) for size in sizes) and not any(map(_traced, values)):
        with jax.ensure_compile_time_eval():
            return bind()
    return bind()


def _traced(value: Any) -> bool:
    return isinstance(value, Tracer)


def _branches(branches: Any, values: list[Any]) -> list[Any]:
    """Run a conditional: nothing where no branch changes anything, else all branches and a choice."""
    which, *operands = values
    if all(map(_identity, branches)):
        return operands
    found = [_run(*_opened(branch), operands) for branch in branches]
    which = which if len(branches) > 2 else which.astype(bool)
    return [lax.select_n(which, *each) for each in zip(*found, strict=True)]


def _identity(branch: Any) -> bool:
    jaxpr, _ = _opened(branch)
    env = {var: var for var in jaxpr.invars}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name not in NOTHING:
            return False
        env |= dict(zip(eqn.outvars, (env.get(v) for v in eqn.invars), strict=True))
    return [env.get(v) if not isinstance(v, core.Literal) else None for v in jaxpr.outvars] == list(
        jaxpr.invars
    )


def _loop(params: Any, values: list[Any]) -> list[Any]:
    """Run a scan: step by step where it is short, else forward."""
    if "num_consts" in params:
        count, number = params["num_consts"], params["num_carry"]
    else:  # from JAX 0.12 on
        count, number = map(len, params["ft_in"].unpack()[:2])
    length, carried = params["length"], count + number
    consts, carry, xs = values[:count], values[count:carried], values[carried:]
    inner, reverse = _opened(params["jaxpr"]), params["reverse"]

    def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        found = _run(*inner, [*consts, *carry, *x])
        return found[:number], found[number:]

    if length <= UNROLLED:
        rows: list[Any] = []
        order = range(length - 1, -1, -1) if reverse else range(length)
        for i in order:
            now = [_row(x, i) for x in xs]
            carry, y = step(carry, now)
            rows.append(y)
        rows = rows[::-1] if reverse else rows
        return [*carry, *(jnp.stack(each) for each in zip(*rows, strict=True))]
    if reverse:
        xs = [jnp.flip(x, 0) for x in xs]
    carry, ys = lax.scan(step, list(carry), list(xs), length=length)
    return [*carry, *(jnp.flip(y, 0) if reverse else y for y in ys)]


def _row(x: Any, i: int) -> Any:
    if _traced(x):
        return lax.index_in_dim(x, i, 0, keepdims=False)
    return np.asarray(x)[i]


def _pad(config: Any, x: Any, value: Any) -> Any:
    """Pad by joining: exporters of ONNX refuse to pad what has an axis of any length."""
    for axis, (low, high, inside) in enumerate(config):
        if inside:
            raise ValueError("padding between elements: not known to the exporter.")
        size = x.shape[axis]
        if low < 0 or high < 0:
            x = lax.slice_in_dim(x, max(0, -low), size - max(0, -high), axis=axis)
        shapes = [[*x.shape[:axis], count, *x.shape[axis + 1 :]] for count in (low, high)]
        ends = [lax.broadcast(value, shape) if shape[axis] > 0 else None for shape in shapes]
        parts = [part for part in (ends[0], x, ends[1]) if part is not None]
        x = lax.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _fft(params: Any, x: Any) -> Complex:
    """Return a real FFT over the last axis, as two products."""
    if params["fft_type"] != lax.FftType.RFFT or len(params["fft_lengths"]) != 1:
        raise ValueError(f"FFT of type {params['fft_type']}: wanted a real one over one axis.")
    (size,) = params["fft_lengths"]
    lines = np.arange(size // 2 + 1)
    # Whole turns are taken off in integers, or angles would lose digits.
    angle = 2 * math.pi * (np.outer(np.arange(size), lines) % size) / size
    highest = lax.Precision.HIGHEST
    return Complex(
        jnp.matmul(x, np.cos(angle).astype(np.float32), precision=highest),
        jnp.matmul(x, -np.sin(angle).astype(np.float32), precision=highest),
    )


def _complex(eqn: Any, values: list[Any]) -> Any:
    name = eqn.primitive.name
    if name in ("real", "imag"):
        return getattr(values[0], name)
    if name == "abs":
        return jnp.sqrt(jnp.square(values[0].real) + jnp.square(values[0].imag))
    if name in SHAPES and all(isinstance(value, Complex) for value in values):
        parts = ([getattr(value, part) for value in values] for part in ("real", "imag"))
        return Complex(*(eqn.primitive.bind(*each, **eqn.params) for each in parts))
    raise ValueError(f"{name} of complex numbers: not known to the exporter.")
