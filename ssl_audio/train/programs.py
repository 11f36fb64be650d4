"""A compiled training step in a file: `preview --save FOLDER` writes it, `train --compiled FOLDER` runs it.

A program is machine code, and JAX reads it with `pickle`: loading one runs what its writer wanted. So each
file is signed with a key that only this user's account can read, and one signed otherwise is not opened.
"""

import contextlib
import hashlib
import hmac
import json
import logging
import os
import pathlib
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from ssl_audio import config, startup, versions
from ssl_audio.distributed import facts, processes
from ssl_audio.storage import atomic
from ssl_audio.train import flops

log = logging.getLogger("ssl_audio")

MAGIC = b"ssl_audio step 1\n"
KEY = "signing_key"  # in the cache of this account
# What of a config the step is made of; the rest (evaluators, records, clips) may change.
PARTS = ("objective", "optim", "accumulate", "sharding")
DIGESTS = ("config.", "file ", "code of ", "shapes")  # which say nothing to people
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "SSL_AUDIO_SCAN")
SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")


def ready(
    folder: pathlib.Path | None, options: Any, turns: tuple[int, int], step: Any, shapes: Any
) -> tuple[Any, Callable[[], float]]:
    """Return the compiled step, from a folder where it fits, and what counts its arithmetic.

    Args:
      folder: where `save` put it; None: compile.
      options: the config of the run.
      turns: steps of the run and of an epoch, which the schedules depend on.
      step: the jitted step.
      shapes: of its state and batch, with their layout.
    """
    found = load(folder, of(options, turns, shapes), shapes) if folder else None
    if found is None:
        program = processes.compiled(lambda: step.lower(*shapes).compile())
        return program, lambda: flops.count(step.trace(*shapes).jaxpr)
    return processes.compiled(lambda: found[0]), lambda: found[1]


def of(options: Any, turns: tuple[int, int], shapes: Any) -> dict[str, str]:
    """Return all that decides what a step compiles to, by name: code, versions, devices, config, shapes."""
    options, devices = config.plain(options), jax.devices()
    known = {f"config.{part}": _digest(options.get(part)) for part in PARTS}
    known |= {f"environment {name}": os.environ.get(name, "") for name in VARIABLES}
    known |= {name: str(getattr(jax.config, name)) for name in SETTINGS}
    known |= {f"file {path}": state for path, state in _files(options.get("objective"))}
    known["devices"] = f"{len(devices)} x {devices[0].device_kind}"
    known["backend"] = f"{devices[0].platform} {devices[0].client.platform_version}"
    known["process"] = f"{processes.index()} of {processes.count()}"
    known["steps of the run and of an epoch"] = str(turns)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    known["shapes and layout"] = _digest(
        [
            (jax.tree_util.keystr(path), str(x.shape), str(x.dtype), str(x.sharding))
            for path, x in leaves
        ]
    )
    return known | versions.code()


@contextlib.contextmanager
def anew() -> Iterator[None]:
    """Compile what is to be saved without the cache: a program out of it is written without its code.

    So on CPUs in JAX 0.10 (findings/jax_cached_program.sh); the copy fails where it is first run.
    """
    from jax.experimental.compilation_cache import compilation_cache

    settings: Any = jax.config
    before = settings.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # which asks the setting once
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def save(
    folder: pathlib.Path, program: Any, known: Mapping[str, str], count: float
) -> pathlib.Path:
    """Write a compiled step for this account, and return the file.

    Args:
      folder: made where it is missing.
      program: what `step.lower(...).compile()` gave, `anew`.
      known: of it; see `of`.
      count: floating-point operations of a step.

    Raises:
      ValueError: the back end cannot write programs, or this account has no place for a key.
    """
    from jax.experimental import serialize_executable

    try:
        key = _key(make=True)
        payload, _, results = serialize_executable.serialize(program)
    except (OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"--save {folder}: the program cannot be saved: {error}") from error
    _, metrics = jax.tree.unflatten(results, range(results.num_leaves))
    header = {
        "known": dict(known),
        "metrics": sorted(metrics),
        "flops": count,
        "scan": _scan() if "custom_call_target=" in (program.as_text() or "") else "",
    }
    content = json.dumps(header).encode() + b"\n" + payload
    signature = hmac.new(key, content, hashlib.sha256).hexdigest().encode()
    path = _path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, MAGIC + signature + b"\n" + content)
    return path


def load(folder: pathlib.Path, known: Mapping[str, str], shapes: Any) -> tuple[Any, float] | None:
    """Return a saved step and its arithmetic; None where there is none that fits, with a line in the log."""
    path = _path(folder)
    try:
        header, payload = _read(path)
        if apart := _differences(header["known"], known):
            more = f"; and {len(apart) - 3} more" if len(apart) > 3 else ""
            raise ValueError(f"{'; '.join(apart[:3])}{more}")
        if header["scan"]:
            _register(header["scan"])
        program = _unpack(payload, header["metrics"], shapes)
    except (OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:500]
        log.warning("%s: not used, the step is compiled as usual: %s", path, said)
        return None
    log.info("the step was compiled before: %s", path)
    return program, float(header["flops"])


def _unpack(payload: bytes, metrics: list[str], shapes: Any) -> Any:
    from jax.experimental import serialize_executable

    state, batch = shapes
    arguments = jax.tree.structure(((state, batch), {}))
    results = jax.tree.structure((state, {name: (0, 0) for name in metrics}))
    devices = list(
        jax.tree.leaves(shapes)[0].sharding.mesh.devices.flat
    )  # JAX would take all there are
    return serialize_executable.deserialize_and_load(
        payload, arguments, results, execution_devices=devices
    )


def _read(path: pathlib.Path) -> tuple[dict[str, Any], bytes]:
    """Return header and program of a file that this account has signed.

    Raises:
      ValueError: it has not, or the file is cut off.
    """
    if not path.exists():
        raise ValueError("there is no such file; `ssl-audio preview --save` writes it")
    begin, _, rest = path.read_bytes().partition(b"\n")
    if begin + b"\n" != MAGIC:
        raise ValueError(
            f"got a file that begins with {begin[:20]!r}, wanted {MAGIC.decode().strip()!r}"
        )
    signature, _, content = rest.partition(b"\n")
    mine = hmac.new(_key(), content, hashlib.sha256).hexdigest().encode()
    if not hmac.compare_digest(signature, mine):
        raise ValueError(
            "it is not signed with the key of this account, or damaged; programs are machine code, so only "
            "those that you have saved yourself are run"
        )
    header, _, payload = content.partition(b"\n")
    return json.loads(header), payload


def _key(*, make: bool = False) -> bytes:
    """Return this account's key, which no other may read.

    Raises:
      ValueError: there is none, or others can read it.
    """
    path = pathlib.Path(startup.cache(), KEY)
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was first
            with open(path, "xb", opener=lambda *a: os.open(*a, mode=0o600)) as file:
                file.write(os.urandom(32))
    if not path.exists():
        raise ValueError(f"this account has no key yet ({path})")
    about = path.stat()
    if about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077:
        raise ValueError(
            f"{path}: wanted a file of this account that no other can read (chmod 600)"
        )
    return path.read_bytes()


def _path(folder: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(folder) / f"step_{processes.index()}_of_{processes.count()}.bin"


def _differences(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"another {name}"
        if name.startswith(DIGESTS)
        else f"{name}: made for {was!r}, here it is {here!r}"
        for name, was, here in facts.differences(saved, now)
    ]


def _files(options: Any) -> Iterator[tuple[str, str]]:
    """Yield each file or folder that options name, and its state: what it holds may be in the program."""
    if isinstance(options, Mapping):
        options = list(options.values())
    if isinstance(options, (list, tuple)):
        for each in options:
            yield from _files(each)
    elif isinstance(options, str) and "/" in options and os.path.exists(options):
        top = pathlib.Path(options)
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        about = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        yield options, _digest(about)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _scan() -> str:
    from ssl_audio.layers.scan import choose

    return choose.find("auto")


def _register(scan: str) -> None:
    """Let the kernels of the selective scan make themselves known to XLA, as tracing them would."""
    from ssl_audio.layers.scan import choose

    if (here := _scan()) != scan:
        raise ValueError(f"selective_scan: made with '{scan}', here it is '{here}'")
    if scan not in choose.SPLIT and (wrong := choose.trial(scan)):
        raise ValueError(f"selective_scan '{scan}': {wrong}")
