"""Arithmetic of a traced program, and what devices can do: for utilisation and `preview.py`.

XLA's own count takes the body of a loop once; the layers are a loop, so this walks the program instead.
"""

import math
from typing import Any

# FLOP/s in dense bfloat16 of what JAX calls one device, by `device_kind`; the longest name that fits counts.
# From the vendors' data sheets, halved where they give the rate with sparsity: NVIDIA A100 (2020), L4 and
# L40S (2023), H100 (2023: SXM, PCIe, NVL), H200 (2024), DGX B200 and GB200 NVL72 (2025); "Google Cloud TPU"
# system architecture, v3 to TPU7x (v3 and TPU7x have two devices a chip); AMD Instinct MI300X, MI300A and
# MI325X (2023, 2024).
PEAKS = {
    "AMD Instinct MI300A": 980.6e12,
    "AMD Instinct MI300X": 1307.4e12,
    "AMD Instinct MI325X": 1307.4e12,
    "NVIDIA A100": 312e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "Tesla V100": 125e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5": 459e12,  # v5p, also under that name
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
}
# Fused attention: matrix products of queries times keys times width in each pass. The backward pass
# computes the scores once more, which counts as little as any other recomputation would.
FUSED = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 4}


def peak(device_kind: str) -> float | None:
    """Return the FLOP/s of a device in dense bfloat16; None: not known."""
    fits = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(fits, key=len)] if fits else None


def count(jaxpr: Any) -> float:
    """Return the floating-point operations of all matrix products, convolutions and fused attention.

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
        elif name in FUSED:
            q, k = (invar.aval.shape for invar in equation.invars[:2])
            tokens = 1 if params["layout"] == 0 else 2  # [B, N, H, W] or [B, H, N, W]
            total += FUSED[name] * 2.0 * math.prod(q) * k[tokens]
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
