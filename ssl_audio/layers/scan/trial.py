"""A small example of all that an implementation computes, against 'xla': is it right on this machine?"""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.layers.conv import convolved
from ssl_audio.layers.scan.api import Inputs, scan_directions

BATCH, LENGTH, CHANNELS, STATES = 2, 72, 128, 16
FARTHEST = 1e-3  # relative error, of the norm, of any value or gradient


def trial(name: str) -> str:
    """Return what is wrong with the values and gradients of a small example; "" if nothing is.

    It takes the ways of the SSM mixers: convolutions, then scans in both directions from one state to the
    next, with padding, skip and gate.
    """
    operands, shapes = _operands(), jax.eval_shape(lambda x: _run("xla", x), _operands())
    g = np.random.default_rng(1)
    cotangents = jax.tree.map(lambda s: g.standard_normal(s.shape).astype(np.float32), shapes)

    def outputs_and_gradients(name):
        def both(operands, cotangents):
            outputs, pull = jax.vjp(lambda x: _run(name, x), operands)
            return outputs, pull(cotangents)

        found = jax.device_get(jax.jit(both)(operands, cotangents))
        return {
            jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(found)
        }

    try:
        found, wanted = outputs_and_gradients(name), outputs_and_gradients("xla")
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    apart = {k: np.linalg.norm(found[k] - x) / np.linalg.norm(x) for k, x in wanted.items()}
    wrong = [error for error in apart.values() if not error < FARTHEST]  # one may be no number
    return f"it is off by {max(wrong):.1g} on this machine" if wrong else ""


def _operands() -> dict:
    g = np.random.default_rng(0)

    def draw(*shape):
        return g.standard_normal(shape).astype(np.float32)

    def direction():
        delta, A = draw(BATCH, LENGTH, CHANNELS) - 1, -np.exp(draw(CHANNELS, STATES))
        B, C = (draw(BATCH, LENGTH, STATES) for _ in range(2))
        return dict(delta=delta, A=A, B=B, C=C, D=draw(CHANNELS), delta_bias=draw(CHANNELS))

    return {
        "x": draw(BATCH, LENGTH, CHANNELS),
        "z": draw(BATCH, LENGTH, CHANNELS),
        "few": [(draw(4, CHANNELS), draw(CHANNELS)) for _ in range(2)],
        "more": [(draw(5, CHANNELS), draw(CHANNELS))],  # beyond four: code of its own
        "directions": [direction(), direction()],
        "states": [draw(BATCH, CHANNELS, STATES) for _ in range(2)],
    }


def _run(name: str, x: dict) -> list[jax.Array]:
    mask = jnp.arange(LENGTH)[None] < jnp.asarray([[LENGTH], [LENGTH - 5]])
    more = convolved(x["x"], x["more"], reverse=True, implementation=name)
    few = convolved(x["x"], x["few"], implementation=name)
    each = [Inputs(u, **one) for u, one in zip(few, x["directions"], strict=True)]
    y, lasts = scan_directions(each, [False, True], x["states"], x["z"], True, mask, name)
    return [y * mask[..., None], *lasts, *more]
