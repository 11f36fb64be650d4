"""Parts `steps`, `curve` and `trace`: training steps of SSAST-base and SSAMBA-base, longer inputs."""

import functools
import pathlib
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.gpu.measuring import Programs, Results, ceilings, compiled, peak_bytes, timed
from ssl_audio import config
from ssl_audio.presets import patch_encoders, runs
from ssl_audio.structs import Tokens
from ssl_audio.train import flops
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

# Encoder → its variants, the usual one first: name → options of the encoder and of its mixer.
VARIANTS: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "ssast": {
        "cudnn attention": ({}, {"implementation": "cudnn"}),
        "cudnn attention, remat none": ({"remat": "none"}, {"implementation": "cudnn"}),
        "plain attention": ({}, {"implementation": "plain"}),
    },
    "ssamba": {"pallas_gpu scan": ({}, {"scan": "pallas_gpu"})},
}
# What no step of 64 sequences of 512 tokens can go below, ms on an H200; README.md says why. Products
# are counted and related to the measured rate; `elementwise` is in proportion to the measured copy.
SCANS = {"ssast": 0.0, "ssamba": 33.9}
ATTENTION = {"ssast": 3.4, "ssamba": 0.0}  # beyond its products at that rate
ELEMENTWISE = {"ssast": 5.6, "ssamba": 22.5}
COPY = 4.3  # TB/s, for which ELEMENTWISE was worked out
CLIPS = 32  # each is encoded twice: 64 sequences
LENGTHS = (512, 2048, 8192, 22_000)
TOKENS = 32_768  # of a batch of the token curve
ROWS = 8  # of patches in a column


def on_cpu(mixer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a mixer with what a CPU can run in place of a GPU's kernels."""
    return dict(mixer) | {k: {"implementation": "plain", "scan": "xla"}[k] for k in mixer}


def objective(name: str, variant: str, dry: bool) -> Any:
    """Return the joint pretraining objective of an encoder, base and in 16 bits; tiny while dry."""
    options, mixer = VARIANTS[name][variant]
    frames, masked = (32, 8) if dry else (1024, 400 if name == "ssast" else 300)
    size, depth = ("mini", 2) if dry else ("base", None)
    made = runs.masked_spectrogram(
        encoder=name, size=size, patch=(16, 16), masked=masked, frames=frames, depth=depth
    )
    made["encoder"] |= dict(dtype="bfloat16", **options)
    made["encoder"]["block"]["mixer"] |= on_cpu(mixer) if dry else mixer
    return config.build(made, "objectives")


def clips(count: int, frames: int) -> dict[str, jax.Array]:
    """Return a batch of noise."""
    samples = 400 + 160 * (frames - 1)
    audio = 0.1 * jax.random.normal(jax.random.key(0), (count, samples))
    return {"audio": audio, "length": jnp.full(count, samples, jnp.int32)}


class Step:
    """A training step and the shapes it takes.

    Attributes:
      function: (state, batch) → (state, metrics).
      init: batch → state.
      state: shapes of the state.
      batch: of clips.
    """

    def __init__(self, name: str, variant: str, dry: bool):
        built = objective(name, variant, dry)
        txs = Optim(lr=1e-4).make(built.phases, 1000)
        self.batch = clips(2 if dry else CLIPS, built.frontend.frames)
        self.function = make_train_step(built, txs)
        self.init = functools.partial(init_state, built, txs, jax.random.key(0))
        self.state = jax.eval_shape(self.init, self.batch)

    def compile(self) -> Any:
        """Return the compiled step; it takes over the memory of the state."""
        return compiled(self.function, self.state, self.batch, donate_argnums=0)

    def arithmetic(self) -> float:
        """Return FLOP of all matrix products of a step."""
        return flops.count(jax.make_jaxpr(self.function)(self.state, self.batch))

    def ready(self, program: Any) -> Callable[[], Any]:
        """Return a call that does one step from where the last one ended."""
        box = [jax.jit(self.init)(self.batch)]

        def call():
            box[0], metrics = program.call(box[0], self.batch)
            return metrics

        return call


def steps(name: str, results: Results) -> None:
    """Time the training step of an encoder: ms, share of the peak rate, memory, and its floor."""
    made = {
        v: functools.cache(functools.partial(Step, name, v, results.dry)) for v in VARIANTS[name]
    }
    programs = Programs(
        results, {"encoder": name}, {v: lambda m=m: m().compile() for v, m in made.items()}
    )
    measured = None
    for variant, step in made.items():
        with results.measurement(encoder=name, variant=variant) as row:
            if row is None:
                continue
            measured = measured or ceilings(results.dry)
            program, step = programs[variant], step()
            call = step.ready(program)
            row.update(timed(call, seconds=2.5, dry=results.dry), **program.fields())
            row["loss_is_finite"] = bool(jax.device_get(call())["finite"][0])
            row["peak_bytes"] = (
                peak_bytes()
            )  # of this process: rows before this one may have had more
            row.update(_rates(name, step, row["ms"], measured))
            row["clips_per_s"] = step.batch["length"].shape[0] / row["ms"] * 1e3


def _rates(name: str, step: Step, ms: float, measured: Mapping[str, float]) -> dict[str, Any]:
    work = step.arithmetic()
    share = step.batch["length"].shape[0] / CLIPS
    least = work / measured["matmul_tflop_s"] * 1e-9
    least += share * (SCANS[name] + ATTENTION[name])
    least += share * (ELEMENTWISE[name] * COPY / measured["copy_tb_s"])
    top = flops.peak(jax.devices()[0].device_kind)
    return dict(
        tflop=work / 1e12,
        mfu=None if top is None else work / (ms * 1e-3) / top,
        floor_ms=least,
        over_floor=ms / least,
    )


def curve(results: Results) -> None:
    """Time forward and backward passes of both encoders on ever longer inputs, shortest first."""
    lengths = (16, 32) if results.dry else LENGTHS
    jobs, calls = {}, {}
    for length in lengths:
        for name, variants in VARIANTS.items():
            _, mixer = variants[next(iter(variants))]
            one = functools.partial(longer, name, mixer, length, results.dry)
            calls[length, name] = functools.cache(one)
            jobs[f"{name} {length}"] = lambda c=calls[length, name]: compiled(c()[0], *c()[1])
    programs = Programs(results, {}, jobs)
    for (length, name), made in calls.items():
        with results.measurement(tokens=length, encoder=name) as row:
            if row is not None:
                program, (_, shapes) = programs[f"{name} {length}"], made()
                arguments = drawn(shapes)
                row.update(batch=arguments[1].shape[0], **program.fields())
                found = timed(
                    lambda p=program, a=arguments: p.call(*a), seconds=1.0, dry=results.dry
                )
                row.update(found, peak_bytes=peak_bytes())
                row["tokens_per_s"] = row["batch"] * length / row["ms"] * 1e3


def drawn(shapes: Any) -> Any:
    """Return arrays of noise, without a program to compile for their initialisation."""
    key = jax.random.key(0)
    return jax.tree.map(lambda s: 0.02 * jax.random.normal(key, s.shape, s.dtype), shapes)


def longer(
    name: str, mixer: Mapping[str, Any], length: int, dry: bool
) -> tuple[Callable[..., Any], tuple[Any, Any]]:
    """Return the gradients of an encoder, a function of its parameters and tokens, and their shapes."""
    size, depth = ("mini", 2) if dry else ("base", None)
    built = patch_encoders.encoder(name, size, (ROWS, length // ROWS), depth) | {
        "dtype": "bfloat16"
    }
    built["drop_path"] = 0.0
    built["block"]["mixer"] |= on_cpu(mixer) if dry else mixer
    stack: Any = config.build(built, "backbones")
    shape = (1 if dry else max(1, TOKENS // length), length, built["width"])

    def tokens(x):
        index = jnp.broadcast_to(jnp.arange(length)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=(ROWS, length // ROWS))

    def init(x):
        return stack.init(jax.random.key(0), tokens(x))["params"]

    def gradients(params, x):
        def loss(params, x):
            return jnp.mean(jnp.square(stack.apply({"params": params}, tokens(x)).tokens.x))

        return jax.value_and_grad(loss, argnums=(0, 1))(params, x)

    spec = jax.ShapeDtypeStruct(shape, jnp.float32)
    return gradients, (jax.eval_shape(init, spec), spec)


def trace(results: Results) -> None:
    """Profile one step of each encoder; record the kernels that take longest."""
    for name, variants in VARIANTS.items():
        with results.measurement(encoder=name) as row:
            if row is None:
                continue
            step = Step(name, next(iter(variants)), results.dry)
            call = step.ready(step.compile())
            jax.block_until_ready(call())
            with tempfile.TemporaryDirectory() as folder:
                with jax.profiler.trace(folder):
                    jax.block_until_ready(call())
                row.update(longest(pathlib.Path(folder)))


def longest(folder: pathlib.Path, count: int = 10) -> dict[str, Any]:
    """Return the kernels of a trace that take longest: ms, calls, name; of a CPU's trace any events."""
    times, calls = Counter[str](), Counter[str]()
    for path in folder.rglob("*.xplane.pb"):
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
        devices = [p for p in planes if p.name.startswith("/device:GPU")]
        for plane in devices or planes:
            for line in plane.lines:
                if devices and not line.name.startswith("Stream"):
                    continue
                for event in line.events:
                    times[event.name] += event.duration_ns
                    calls[event.name] += 1
    if not times:
        raise ValueError(
            f"the trace holds no event; its files: {[p.name for p in folder.rglob('*')]}"
        )
    top = [
        dict(ms=ns / 1e6, calls=calls[name], kernel=name[:120])
        for name, ns in times.most_common(count)
    ]
    return dict(ms=sum(times.values()) / 1e6, kernels=len(times), top=top)
