"""Arithmetic of a traced program, and what devices can do: for utilisation and `preview.py`.

XLA's own count takes the body of a loop once; the layers are a loop, so this walks the program instead.
"""

import math
from typing import Any

# Dense bfloat16 FLOP/s of one device, from the vendors' data sheets; the longest name that fits counts.
PEAKS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "Tesla V100": 125e12,
    "TPU v3": 123e12,
    "TPU v4": 275e12,
    "TPU v5": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v6 lite": 918e12,
}


def peak(device_kind: str) -> float | None:
    """Return the FLOP/s of a device in dense bfloat16; None: not known."""
    fits = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(fits, key=len)] if fits else None


def count(jaxpr: Any) -> float:
    """Return the floating-point operations of all matrix products and convolutions of a jaxpr.

    Loops count as often as they run (a `while` of unknown length: once), branches as the longest.
    Element-wise work, the selective scan included, does not count.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contract, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = math.prod(shape[axis] for axis in contract)
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * inner
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = params["dimension_numbers"].rhs_spec[0]
            taps = math.prod(kernel) / kernel[outputs]
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * taps
        elif name == "cond":
            total += max(count(branch) for branch in params["branches"])
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(count(inner) for inner in _inner(params.values()))
    return total


def _inner(values: Any) -> list[Any]:
    """Return the jaxprs among the parameters of an equation."""
    found = []
    for value in values:
        if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns"):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += _inner(value)
    return found
