"""A model as ONNX, from waveform to features: `export --to onnx`, through jax2onnx.

DIR/onnx/model.onnx takes audio [B, S] and has its parameters inside. Every export is run in onnxruntime
on sound, in batches of one and of three, and is not written where it gives something else than ours.
"""

import importlib.metadata
import json
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio.convert.compare import voice
from ssl_audio.convert.rewrite import plain
from ssl_audio.inference.program import Program, program
from ssl_audio.layers.scan import choose
from ssl_audio.storage import atomic, opened
from ssl_audio.versions import __version__

FOLDER = "onnx"
LIMIT = 1e-4  # most relative difference in onnxruntime
OPSET = 20
MOST = 2**31 - 2**20  # bytes: no file of one message is larger


def write(
    out: pathlib.Path, *, seconds: float | None = None, audio: Sequence[str] = ()
) -> Iterator[str]:
    """Write the file of an exported folder, if onnxruntime gives with it what ours gives.

    Yields:
      Lines that say what was written.

    Raises:
      RuntimeError: jax2onnx or onnxruntime is missing, or JAX runs on something else than a CPU here.
      ValueError: see `program`; the model cannot be exported, or the export is wrong, with the cause.
    """
    _check_installed()
    from ssl_audio.inference.load import load

    made = program(load(out), seconds)
    if (size := sum(v.nbytes for v in made.params.values())) > MOST:
        raise ValueError(f"--to onnx: {size:,} bytes of parameters; wanted at most {MOST:,}.")
    content = converted(made)
    clips = voice(audio, made.rate, 3 * made.samples).reshape(3, made.samples)
    worst = checked(content, made, clips)
    (out / FOLDER).mkdir(exist_ok=True)
    atomic.write(out / FOLDER / "model.onnx", content)
    about = dict(
        ssl_audio=__version__,
        jax=jax.__version__,
        **{name: importlib.metadata.version(name) for name in ("jax2onnx", "onnxruntime")},
        opset=OPSET,
        rate=made.rate,
        samples=made.samples,
        outputs=made.outputs,
        frame_times_ms=None if made.times is None else [float(t) for t in made.times],
        difference=worst,
    )
    atomic.write(out / FOLDER / "about.json", json.dumps(about, indent=2) + "\n")
    yield (
        f"{out / FOLDER}/model.onnx: audio [B, {made.samples}] at {made.rate} Hz → "
        f"{', '.join(made.outputs)}; {len(content):,} bytes; off by {worst:.1e} in onnxruntime"
    )


def _check_installed() -> None:
    try:
        import jax2onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f"--to onnx: {error}: pip install 'ssl_audio[onnx]', then pip install --no-deps "
            "jax2onnx==0.17.1 (it pins an older Orbax than ours)."
        ) from None
    if jax.default_backend() != "cpu":
        raise RuntimeError(
            "--to onnx: set JAX_PLATFORMS=cpu: kernels of accelerators have no ONNX."
        )


def converted(made: Program) -> bytes:
    """Return the model as ONNX, batch size left open.

    Raises:
      ValueError: jax2onnx cannot, with its reason.
    """
    import jax2onnx

    for name in (
        "jax2onnx",
        "onnx_ir",
    ):  # of values without a type, and of examples it does without
        logging.getLogger(name).setLevel(logging.ERROR)
    (batch,) = jax.export.symbolic_shape("B")
    shape = jax.ShapeDtypeStruct((batch, made.samples), np.float32)
    try:
        # The scan as a plain loop; others are written for one machine, or run backward.
        with choose.forced("reference"), jax.default_matmul_precision("highest"):
            run = plain(lambda audio: list(made.run(made.params, audio).values()), shape)
        model = jax2onnx.to_onnx(
            lambda audio: tuple(run(audio)),
            inputs=[shape],
            model_name="ssl_audio",
            opset=OPSET,
            input_names=["audio"],
            output_names=list(made.outputs),
        )
    except Exception as error:  # whatever an operation that it does not know makes it raise
        raise ValueError(
            f"--to onnx: jax2onnx cannot export this model: {opened.short(error)}"
        ) from error
    return model.SerializeToString()


def checked(content: bytes, made: Program, clips: np.ndarray) -> float:
    """Return how far onnxruntime's outputs are from ours at most, in batches of one and of all.

    Raises:
      ValueError: too far, or it cannot run the model.
    """
    import onnxruntime

    worst = 0.0
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"--to onnx: onnxruntime cannot read it: {opened.short(error)}") from error
    names = [output.name for output in session.get_outputs()]
    for count in (1, len(clips)):
        try:
            found: Mapping[str, Any] = dict(
                zip(names, session.run(None, {"audio": clips[:count]}), strict=True)
            )
            with choose.forced("reference"):
                worst = max(worst, made.check(found, clips[:count], LIMIT))
        except Exception as error:
            raise ValueError(
                f"--to onnx: not written: in a batch of {count}, onnxruntime: {opened.short(error)}"
            ) from error
    return worst
