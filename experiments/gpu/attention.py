"""Part `attention`: cuDNN's fused attention against the plain form, value and gradients; then its rate."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu.measuring import Results, compiled, timed
from ssl_audio.layers.attention import attend

# Batch, tokens, heads, width of a head; padding; causal. SSAST and AST have 2 special tokens, ViT 1.
CASES = [((2, 514, 12, 64), False, False), ((2, 513, 12, 64), False, False)]
CASES += [
    ((2, 129, 4, 32), True, False),
    ((2, 96, 4, 64), False, True),
    ((1, 2049, 2, 64), True, True),
]
TINY = [((1, 6, 2, 8), False, False), ((2, 5, 2, 8), True, True)]
SIZES = {"64 x 514": (64, 514, 12, 64), "1 x 22002": (1, 22_002, 12, 64)}
NEAR = 1e-2  # relative L2 error in bfloat16


def attention(results: Results) -> None:
    """Check, then time one layer's attention of SSAST-base."""
    name = "plain" if results.dry else "cudnn"
    for shape, padded, causal in TINY if results.dry else CASES:
        with results.measurement(shape=str(shape), padded=padded, causal=causal) as row:
            if row is not None:
                row.update(checked(name, shape, padded, causal))
    for size, shape in {"tiny": TINY[0][0]}.items() if results.dry else SIZES.items():
        q, k, v, dy = (jnp.asarray(x) for x in arrays(shape))
        run = functools.partial(attend, implementation=name)
        products = 4 * shape[0] * shape[2] * shape[1] ** 2 * shape[3]  # FLOP of the forward pass
        for what, function, arguments, work in (
            ("forward", run, (q, k, v), products),
            ("forward + backward", functools.partial(both, run), (dy, q, k, v), 3 * products),
        ):
            with results.measurement(size=size, **{"pass": what}) as row:
                if row is not None:
                    program = compiled(function, *arguments)
                    found = timed(lambda p=program, a=arguments: p.call(*a), dry=results.dry)
                    row.update(found, tflop_s=work / found["ms"] / 1e9)


def arrays(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return queries, which come scaled, keys, values and a cotangent, in bfloat16."""
    g = np.random.default_rng(0)
    q, *others = (g.standard_normal(shape, np.float32) for _ in range(4))
    return [np.asarray(x, jnp.bfloat16) for x in (q * shape[-1] ** -0.5, *others)]


def both(run: Any, dy: Any, *qkv: Any) -> Any:
    """Return the output and all gradients."""
    y, pull = jax.vjp(run, *qkv)
    return y, *pull(dy)


def checked(name: str, shape: tuple[int, ...], padded: bool, causal: bool) -> dict[str, Any]:
    """Return relative L2 errors against products in float64 (scores in float32), and whether it passes."""
    q, k, v, dy = arrays(shape)
    valid = np.arange(shape[1])[None] < np.full((shape[0], 1), shape[1] - shape[1] // 3)
    options: dict[str, Any] = dict(valid=valid if padded else None, causal=causal)
    got = jax.jit(
        functools.partial(both, functools.partial(attend, implementation=name, **options))
    )(dy, q, k, v)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = [jnp.asarray(np.asarray(x, np.float64)) for x in (dy, q, k, v)]
        exact = functools.partial(attend, implementation="plain", **options)
        wanted = jax.jit(functools.partial(both, exact))(*wide)
        found = {
            part: float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))
            for part, a, b in zip(("y", "dq", "dk", "dv"), jax.device_get(got), wanted, strict=True)
        }
    return dict(passed=all(e < NEAR for e in found.values()), **found)
