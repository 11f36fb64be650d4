"""Other kernels for the same function, where they happen to be installed; nothing here is needed."""

import importlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def in_jax() -> dict[str, Callable[..., Any]]:
    """Return name → f(inputs, z), a scan in one direction: Mamba-1 of jax-linear-attention 0.1.0."""
    try:
        mamba1 = importlib.import_module("jla.ops.mosaic_gpu.mamba1").mamba1
    except ImportError as error:
        print(f"jax-linear-attention is not compared with: {error}", flush=True)
        return {}

    def scan(inputs, z):
        u, delta, A, B, C, D, bias = inputs
        y, _ = mamba1(C, B, u, delta, A, d=D, z=z, dt_bias=bias, dt_softplus=True)
        return y

    return {"jax-linear-attention": scan}


def in_torch(arrays: tuple[Any, ...]) -> dict[str, Mapping[str, Callable[[], dict[str, Any]]]]:
    """Return name → pass → call that times it: mamba_ssm's CUDA kernel.

    Args:
      arrays: u, delta, A, B, C, D, bias and z, as `selective_scan` takes them.
    """
    try:
        import torch

        scan = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
        if not torch.cuda.is_available():
            raise ImportError("torch sees no GPU")
    except ImportError as error:
        print(f"mamba_ssm is not compared with: {error}", flush=True)
        return {}

    def tensor(x, by_time):
        made = torch.from_numpy(np.asarray(x, np.float32)).cuda()
        # Its layout is [B, E, N]; activations in 16 bits as ours.
        return made.transpose(1, 2).contiguous().bfloat16() if by_time else made

    u, delta, A, B, C, D, bias, z = (tensor(x, by_time=np.ndim(x) == 3) for x in arrays)
    leaves = [x.requires_grad_() for x in (u, delta, A, B, C, D, z, bias)]

    def forward():
        with torch.no_grad():
            return scan(u, delta, A, B, C, D, z, bias, delta_softplus=True)

    def with_gradients():
        y = scan(u, delta, A, B, C, D, z, bias, delta_softplus=True)
        return torch.autograd.grad(y, leaves, u.detach())

    def timed(call, repeats=20):
        def run():
            call()
            torch.cuda.synchronize()
            found = []
            for _ in range(repeats):
                start = time.perf_counter()
                call()
                torch.cuda.synchronize()
                found.append((time.perf_counter() - start) * 1e3)
            return dict(ms=statistics.median(found), spread=max(found) - min(found), calls=repeats)

        return run

    return {"mamba_ssm": {"forward": timed(forward), "forward + backward": timed(with_gradients)}}
