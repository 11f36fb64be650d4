"""A model as StableHLO, from waveform to features: `export --to stablehlo`, through jax.export.

DIR/stablehlo/ holds programs for one clip and for a batch of any size, on CPU and CUDA, how to call them,
and load.py, which needs JAX and safetensors alone. The parameters stay in DIR/model.safetensors, and what a
model needs beside them, as a teacher, in DIR/extra.safetensors.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jaxlib
import numpy as np

from ssl_audio.convert.compare import voice
from ssl_audio.inference.program import Program, program
from ssl_audio.layers.scan import choose
from ssl_audio.storage import atomic
from ssl_audio.versions import __version__

FOLDER = "stablehlo"
PLATFORMS = ("cpu", "cuda")
SIZES: dict[str, int | None] = {
    "one": 1,
    "batch": None,
}  # name of a program → clips; None: any number
LIMIT = 1e-5  # most relative difference on this machine
LOADER = '''"""Run a model exported by ssl_audio: python load.py sound.npy

Needs jax, flatbuffers, numpy and safetensors; nothing of ssl_audio.
"""

import json
import pathlib
import sys

import numpy as np
from jax import export
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).parent


def load(folder=HERE):
    """Return (run, about): run(audio) takes float32 [B, S] in [-1, 1] and returns arrays by name."""
    folder = pathlib.Path(folder)
    about = json.loads((folder / "about.json").read_text())
    params = load_file(folder.parent / "model.safetensors")
    if (beside := folder.parent / "extra.safetensors").exists():
        params |= {f"extra/{name}": value for name, value in load_file(beside).items()}
    programs = {}

    def program(name):
        if name not in programs:
            programs[name] = export.deserialize((folder / f"{name}.bin").read_bytes())
        return programs[name]

    def run(audio):
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 2 or audio.shape[1] != about["samples"] or not len(audio):
            raise ValueError(f"got shape {audio.shape}, wanted [B, {about['samples']}]")
        try:
            found = program("one" if len(audio) == 1 else "batch").call(params, audio)
        except Exception:  # an older JAX may not read programs for any batch: clip by clip
            if len(audio) == 1:
                raise
            each = [program("one").call(params, clip[None]) for clip in audio]
            found = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        return {name: np.asarray(value) for name, value in found.items()}

    return run, about


if __name__ == "__main__":
    run, about = load()
    clip = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros((1, about["samples"]))
    for name, value in run(clip).items():
        print(name, value.shape, float(np.abs(value).mean()))
'''


def write(
    out: pathlib.Path, *, seconds: float | None = None, audio: Sequence[str] = ()
) -> Iterator[str]:
    """Write the programs of an exported folder, and compare what they give with ours on sound.

    Yields:
      Lines that say what was written.

    Raises:
      RuntimeError: flatbuffers is missing; JAX runs on something else than a CPU here.
      ValueError: see `program`; a program gives something else.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise RuntimeError(
            "--to stablehlo: needs flatbuffers: pip install 'ssl_audio[stablehlo]'."
        ) from None
    if jax.default_backend() != "cpu":
        raise RuntimeError(
            "--to stablehlo: JAX would put kernels of this accelerator into a program for all: set "
            "JAX_PLATFORMS=cpu. The program runs on CUDA, too."
        )
    from ssl_audio.inference.load import load

    made = program(load(out), seconds)
    (out / FOLDER).mkdir(exist_ok=True)
    about = _about(made)
    clips = voice(audio, made.rate, 3 * made.samples).reshape(3, made.samples)
    for name, size in SIZES.items():
        found = exported(made, size)
        data = bytes(found.serialize())
        atomic.write(out / FOLDER / f"{name}.bin", data)
        about["calling_convention_version"] = found.calling_convention_version
        back = jax.export.deserialize(bytearray(data))
        worst = 0.0
        for count in (1,) if size == 1 else (1, len(clips)):
            got: Any = back.call(made.params, clips[:count])
            with choose.forced("xla"):
                worst = max(worst, made.check(got, clips[:count], LIMIT))
        shown = "any number of clips" if size is None else "one clip"
        yield f"{out / FOLDER / name}.bin: {shown}, {len(data):,} bytes; off by {worst:.1e} here"
    atomic.write(out / FOLDER / "about.json", json.dumps(about, indent=2) + "\n")
    atomic.write(out / FOLDER / "load.py", LOADER)
    atomic.write(out / FOLDER / "README.md", _readme(about))
    yield f"{out / FOLDER}/load.py: loads them without ssl_audio"


def exported(made: Program, size: int | None) -> Any:
    """Return the program for so many clips, None: any number, lowered for all of PLATFORMS."""
    batch: Any = size or jax.export.symbolic_shape("b", constraints=["b >= 1"])[0]
    params = {n: jax.ShapeDtypeStruct(v.shape, v.dtype) for n, v in made.params.items()}
    audio = jax.ShapeDtypeStruct((batch, made.samples), np.float32)
    with choose.forced("xla"), jax.default_matmul_precision("highest"):
        return jax.export.export(jax.jit(made.run), platforms=PLATFORMS)(params, audio)


def _about(made: Program) -> dict[str, Any]:
    return dict(
        ssl_audio=__version__,
        jax=jax.__version__,
        jaxlib=jaxlib.__version__,
        platforms=list(PLATFORMS),
        rate=made.rate,
        samples=made.samples,
        outputs=made.outputs,
        frame_times_ms=None if made.times is None else [float(t) for t in made.times],
    )


def _readme(about: dict[str, Any]) -> str:
    seconds = about["samples"] / about["rate"]
    outputs = "".join(f"* `{name}`: {what}\n" for name, what in about["outputs"].items())
    return f"""# StableHLO programs

From waveform to features, serialised by `jax.export` of JAX {about["jax"]} (jaxlib {about["jaxlib"]},
calling convention {about["calling_convention_version"]}) for {" and ".join(about["platforms"])}.

```python
from load import load

run, about = load()
outputs = run(audio)  # float32 [B, {about["samples"]}] in [-1, 1]: {seconds:g} s at {about["rate"]} Hz
```

{outputs}
`one.bin` takes one clip, `batch.bin` any number of them; both take the arrays of `../model.safetensors` by
name, and those of `../extra.safetensors`, if there is one, as "extra/NAME". Convert audio to float32 and
resample it before. Longer clips: cut them. Shorter ones: export again with `--seconds`, for silence at the
end is heard. A JAX that is older than the one above may refuse `batch.bin`; load.py then runs `one.bin` clip
by clip.
"""
