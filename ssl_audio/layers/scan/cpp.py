"""The recurrence in C++ for CPUs, compiled on request: `ssl-audio compile-scan`."""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shlex
import subprocess
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jaxlib

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.scan import fused_cpp
from ssl_audio.layers.scan.fused_cpp import CHUNK, TILE

SOURCE = pathlib.Path(__file__).with_suffix(".cc")
# Code is kept under a name made of its source and these options, so they say which headers it includes.
HEADERS = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(SOURCE.parent.glob("*.h"))))
OPTIONS = f"-std=c++17 -O3 -shared -fPIC -w -DTILE={TILE} -DCHUNK={CHUNK}".split()
OPTIONS += [f"-DHEADERS={HEADERS.hexdigest()[:16]}"]
NATIVE = "-mcpu=native" if platform.machine() == "arm64" else "-march=native"
COMMAND = "ssl-audio compile-scan"


def scan(
    u: Float[Array, "B N E"],
    delta: Float[Array, "B N E"],
    A: Float[Array, "E R"],
    B: Float[Array, "B N R"],
    C: Float[Array, "B N R"],
    state: Float[Array, "B E R"],
    *,
    reverse: bool,
) -> tuple[Float[Array, "B N E"], Float[Array, "B E R"]]:
    """Run the recurrence in float32; see `selective_scan`. No forward mode.

    Raises:
      FileNotFoundError: not compiled for this machine.
      ValueError: float64 inputs.
    """
    operands = (u, delta, A, B, C, None, None, state)
    y, (last,) = scan_fused([operands], None, None, reverse=reverse, softplus=False)
    return y, last


def scan_fused(
    directions: Sequence[fused_cpp.Operands],
    z: Array | None,
    mask: Array | None,
    *,
    reverse: bool,
    softplus: bool,
) -> tuple[Array, list[Array]]:
    """Run scans with all that surrounds them; see `fused_cpp.scan`. Errors as of `scan`."""
    dtype = jnp.result_type(*(x for operands in directions for x in operands[:5]))
    if dtype == jnp.float64:
        raise ValueError(f"selective_scan: got {dtype}; 'cpp' computes in float32. Use 'xla'.")
    _register()
    return fused_cpp.scan(directions, z, mask, reverse=reverse, softplus=softplus)


def conv_silu(
    x: Array, kernels: Sequence[tuple[Array, Array | None]], *, reverse: bool
) -> list[Array]:
    """Convolve and activate; see `fused_cpp.conv_silu`.

    Raises:
      FileNotFoundError: not compiled for this machine.
    """
    _register()
    return fused_cpp.conv_silu(x, kernels, reverse=reverse)


def built() -> bool:
    """Return whether it was compiled for this machine and this version of jax."""
    return library().exists()


@functools.cache
def library() -> pathlib.Path:
    """Return where the compiled code is, or would be: named after all that it depends on."""
    cache = os.environ.get("SSL_AUDIO_CACHE", os.path.expanduser("~/.cache/ssl_audio"))
    parts = [SOURCE.read_text(), *OPTIONS, NATIVE, jaxlib.__version__, platform.machine()]
    try:  # homes are shared by machines whose processors differ
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        parts += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    except OSError:
        pass
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return pathlib.Path(cache, f"scan-{digest[:16]}.so")


def build() -> pathlib.Path:
    """Compile it for this machine and return where it is.

    Raises:
      RuntimeError: no compiler, or one that fails.
    """
    path, compiler = library(), os.environ.get("CXX", "c++")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    files = [f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", str(unfinished)]
    command = [*shlex.split(compiler), *OPTIONS, NATIVE, *files]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        wanted = "install GCC or Clang, or name a compiler in the environment variable CXX"
        raise RuntimeError(f"{compiler}: no such compiler; {wanted}.") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{error.stderr}") from error
    return unfinished.rename(path)


@functools.cache
def _register() -> None:
    if not built():
        raise FileNotFoundError(f"'cpp' is not compiled for this machine: run {COMMAND}")
    code = ctypes.cdll.LoadLibrary(str(library()))
    for name in fused_cpp.TARGETS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(code, name)), platform="cpu")
