"""The recurrence, forward and with all gradients: bare, beside other formulations; or the whole scan."""

import argparse
import importlib.util
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from ssl_audio.bench import formulations
from ssl_audio.bench.measure import Row, compiled
from ssl_audio.layers.scan import IMPLEMENTATIONS, selective_scan

log = logging.getLogger(__name__)
OTHERS: dict[str, Callable] = {
    "associative": formulations.associative,
    "chunked": formulations.chunked,
}


def rows(args: argparse.Namespace) -> list[Row]:
    """Return the rows: implementations within passes within lengths."""
    found = []
    for length in map(int, args.length.split(",")):
        g = np.random.default_rng(0)

        def draw(*shape, g=g):
            return g.standard_normal(shape).astype(np.float32)

        wide, mix = (args.batch, length, args.channels), (args.batch, length, args.states)
        step = np.logaddexp(0, draw(*wide) - 3)
        A = -np.broadcast_to(
            np.arange(1, args.states + 1, dtype=np.float32), (wide[2], args.states)
        )
        operands = (draw(*wide), step.astype(np.float32), A.copy(), draw(*mix), draw(*mix))
        if args.whole:
            operands += (draw(wide[2]), draw(*wide), draw(wide[2]))
        size = sum(x.nbytes for x in operands)
        # Read the inputs and write y; with gradients also read them again and dy, and write as much.
        moved = {"forward": size + operands[0].nbytes, "gradient": 3 * size + operands[0].nbytes}
        for what in ("forward", "gradient"):
            for name in args.implementation.split(","):
                labels = {"implementation": name, "length": length, "pass": what}
                made = _made(name, what, operands, args)
                if made:
                    call, more = made
                    row = Row(labels, call, (length, what), moved=moved[what], **more)
                    found.append(row)
    return found


def _made(
    name: str, what: str, operands: tuple, args: argparse.Namespace
) -> tuple[Callable, dict[str, Any]] | None:
    if name not in (*OTHERS, "torch", "auto", *IMPLEMENTATIONS):
        raise ValueError(f"--implementation: got '{name}'; see --help.")
    if args.whole and name in (*OTHERS, "torch"):
        raise ValueError(f"--whole: '{name}' is of the bare recurrence only; name others.")
    if name == "torch":
        return _torch(what, operands)
    options: dict[str, Any] = dict(delta_softplus=args.whole, implementation=name)
    scan = OTHERS.get(name) or partial(selective_scan, **options)

    def both(operands, dy):
        y, pull = jax.vjp(scan, *operands)
        return y, pull(dy)

    arguments = operands if what == "forward" else (operands, operands[0])
    program, fields = compiled(scan if what == "forward" else both, *arguments)
    if fields["temp"] is not None and fields["temp"] > args.memory * 1e9:
        needs = fields["temp"] / 1e9
        log.warning("%s at %d tokens needs %.1f GB: not run", name, operands[0].shape[1], needs)
        return None
    arguments = jax.device_put(arguments)
    return lambda: jax.block_until_ready(program(*arguments)), fields


def _torch(what: str, operands: tuple) -> tuple[Callable, dict[str, Any]] | None:
    if not importlib.util.find_spec("torch"):
        log.warning("torch is not installed: no PyTorch rows")
        return None
    import torch

    tensors = [torch.from_numpy(x) for x in operands]
    if what == "forward":

        def forward():
            with torch.no_grad():
                formulations.torch_scan(*tensors)

        return forward, {}
    tensors = [x.clone().requires_grad_() for x in tensors]
    return lambda: torch.autograd.grad(
        formulations.torch_scan(*tensors), tensors, tensors[0].detach()
    ), {}
