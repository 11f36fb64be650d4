"""XLA flags for NVIDIA GPUs by recipe, with reasons; `processes.start` sets those that SSL_AUDIO_XLA names.

None is set unasked: they have not been measured on GPUs with this package. An unknown flag ends a process,
so tests/distributed/test_xla_flags.py gives each one to the JAX that is installed.
"""

import os
from collections.abc import MutableMapping

VARIABLE = "SSL_AUDIO_XLA"
# recipe: {flag: (value, why)}
RECIPES: dict[str, dict[str, tuple[str, str]]] = {
    "data": {
        "xla_gpu_enable_latency_hiding_scheduler": (
            "true",
            "gradients are exchanged while earlier layers are still computing theirs",
        ),
        "xla_gpu_all_reduce_combine_threshold_bytes": (
            "268435456",
            "gradients outside the loop over layers go in few exchanges: many small ones wait for each other",
        ),
        "xla_gpu_enable_pipelined_all_reduce": (
            "true",
            "the exchange in one turn of the loop over layers runs beside the arithmetic of the next",
        ),
    },
    "fsdp": {
        "xla_gpu_enable_latency_hiding_scheduler": (
            "true",
            "a layer's parameters are gathered while the layer before is computing",
        ),
        "xla_gpu_all_gather_combine_threshold_bytes": (
            "134217728",
            "all parameters of a layer are gathered at once, but not those of several",
        ),
        "xla_gpu_reduce_scatter_combine_threshold_bytes": (
            "134217728",
            "likewise their gradients",
        ),
        "xla_gpu_enable_pipelined_all_gather": (
            "true",
            "the next turn's parameters are gathered during this one",
        ),
        "xla_gpu_enable_pipelined_reduce_scatter": (
            "true",
            "the last turn's gradients are spread during this one",
        ),
        "xla_gpu_enable_while_loop_double_buffering": (
            "true",
            "two turns of the loop over layers are one body, so that pipelined gathers need no copies",
        ),
        "xla_gpu_enable_all_gather_combine_by_dim": (
            "false",
            "parameters split along different axes may be gathered together",
        ),
        "xla_gpu_enable_reduce_scatter_combine_by_dim": ("false", "likewise their gradients"),
    },
    "deterministic": {
        "xla_gpu_exclude_nondeterministic_ops": (
            "true",
            "kernels whose sums depend on timing are left out: the same run gives the same bits, more slowly",
        ),
        "xla_gpu_autotune_level": (
            "0",
            "kernels are not chosen by a race, which another start may decide otherwise",
        ),
    },
    "no-graphs": {
        "xla_gpu_enable_command_buffer": (
            "",
            "no CUDA graphs: they hold memory for each program, and hide kernels from some profilers",
        ),
    },
}


def apply(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the flags of the recipes in SSL_AUDIO_XLA ("fsdp", "fsdp,deterministic") to XLA_FLAGS.

    A flag that XLA_FLAGS has already stays as it is. To be called before JAX looks for devices.

    Raises:
      ValueError: there is no such recipe.
    """
    asked = [name.strip() for name in environment.get(VARIABLE, "").split(",") if name.strip()]
    flags = environment.get("XLA_FLAGS", "").split()
    known = {flag.lstrip("-").partition("=")[0] for flag in flags}
    for name in asked:
        if name not in RECIPES:
            raise ValueError(f"{VARIABLE}: got {name!r}, wanted some of {', '.join(RECIPES)}.")
        for flag, (value, _) in RECIPES[name].items():
            if flag not in known:
                known.add(flag)
                flags.append(f"--{flag}={value}")
    if asked:
        environment["XLA_FLAGS"] = " ".join(flags)
