"""Programs that leave this package: StableHLO and ONNX give what the model gives, from the waveform on."""

import json
import os
import subprocess
import sys

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssl_audio.convert import export, rewrite
from ssl_audio.inference.program import program
from ssl_audio.storage import exported

CLIPS = np.random.default_rng(0).normal(0, 0.1, (3, 10_480)).astype(np.float32)


@pytest.fixture(scope="module", params=["attention", "mamba"])
def encoder(request):
    return encoders.encoder(mixer=request.param)


def off(got, wanted):
    return np.linalg.norm(np.asarray(got) - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("encoder", ["attention"], indirect=True)
def test_a_program_is_the_encoder(encoder):
    made = program(encoder)
    found = jax.jit(made.run)(made.params, CLIPS)
    assert off(found["vector"], encoder.embed(CLIPS, 16_000)) < 1e-6
    frames, times = encoder.frames(CLIPS[1], 16_000)
    assert off(found["frames"][1], frames) < 1e-6
    np.testing.assert_array_equal(made.times, times)
    short = program(encoder, 0.3)
    found = short.run(short.params, jnp.asarray(CLIPS[:1, :4_800]))
    assert off(found["vector"][0], encoder.embed(CLIPS[0, :4_800], 16_000)) < 1e-6
    for wrong in (0.001, 0.7, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"--seconds {wrong}: wanted 0.025 to 0.655"):
            program(encoder, wrong)
    with pytest.raises(ValueError, match="vector: differs by .* wanted at most 1e-05"):
        short.check({**found, "vector": found["vector"] * 2}, CLIPS[:1, :4_800], 1e-5)


def test_a_rewritten_function_is_the_same():
    """Every rule of `rewrite`: calls, loops both ways, conditionals, padding, remainders, FFT."""

    def function(x, n):
        spec = jnp.fft.rfft(x, 16)
        power = jnp.square(spec.real[:, :-1]) + jnp.square(spec[:, :-1].imag)
        carry, back = lax.scan(lambda c, y: (c + y, c * y), x[:, 0], power.T, reverse=True)
        _, long = lax.scan(
            lambda c, y: (0.9 * c + y, c), carry, jnp.tile(back, (9, 1)), reverse=True
        )
        wide = lax.pad(power, 1.5, ((0, 0, 0), (-1, 2, 0)))
        chosen = lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, wide)
        same = lax.cond(x[0, 0] > 0, lax.optimization_barrier, lambda y: y, chosen)
        return [jax.checkpoint(jax.nn.silu)(same), long, n % 7, jnp.abs(spec), jnp.arange(3.0) * 2]

    x = jnp.asarray(CLIPS[:, :16])
    n = jnp.arange(-9, 9)
    plain = rewrite.plain(function, x, n)
    for got, wanted in zip(plain(x, n), function(x, n), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=1e-6)
    names = {eqn.primitive.name for eqn in jax.make_jaxpr(plain)(x, n).eqns}
    left = names & {"fft", "cond", "remat2", "checkpoint", "pad", "rem", "optimization_barrier"}
    assert not left and "scan" in names  # the long one
    with pytest.raises(ValueError, match="add of complex numbers: not known"):
        rewrite.plain(lambda x: [jnp.abs(jnp.fft.rfft(x) + jnp.fft.rfft(2 * x))], x)
    with pytest.raises(ValueError, match="wanted a real one over one axis"):
        rewrite.plain(lambda x: [jnp.fft.irfft(x + 0j)], x)


def run(folder, encoder, kind, capsys):
    exported.write(folder / "model", encoder.params, encoder.config)
    out = folder / "out"
    export.main(["--checkpoint", str(folder / "model"), "--to", kind, "--out", str(out)])
    assert "off by" in capsys.readouterr().out
    return out / kind


@pytest.mark.parametrize("encoder", ["mamba"], indirect=True)
def test_stablehlo_runs_without_this_package(encoder, tmp_path, capsys):
    pytest.importorskip("flatbuffers", reason="the extra `stablehlo` is not installed")
    folder = run(tmp_path, encoder, "stablehlo", capsys)
    about = json.loads((folder / "about.json").read_text())
    assert about["jax"] == jax.__version__ and about["platforms"] == ["cpu", "cuda"]
    assert about["calling_convention_version"] >= 9 and about["samples"] == 10_480
    np.save(tmp_path / "clips.npy", CLIPS)
    code = """
import sys, numpy as np
sys.modules["ssl_audio"] = None
sys.path.insert(0, sys.argv[1])
from load import load
run, about = load()
clips = np.load(sys.argv[2])
np.savez(sys.argv[3], one=run(clips[:1])["vector"], **run(clips))
try:
    run(clips[:, 1:])
except ValueError as error:
    assert "wanted [B, 10480]" in str(error)
"""
    places = [str(folder), str(tmp_path / "clips.npy"), str(tmp_path / "found.npz")]
    done = subprocess.run(
        [sys.executable, "-c", code, *places], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
    )  # fmt: skip
    assert not done.returncode, done.stderr
    with np.load(tmp_path / "found.npz") as file:
        found = dict(file)
    wanted = encoder.embed(CLIPS, 16_000)
    assert off(found["vector"], wanted) < 1e-5 and off(found["one"], wanted[:1]) < 1e-5
    assert off(found["frames"][2], encoder.frames(CLIPS[2], 16_000)[0]) < 1e-5
    cuda = jax.export.deserialize(bytearray((folder / "batch.bin").read_bytes()))
    assert cuda.platforms == ("cpu", "cuda") and "cuda" in str(cuda.platforms)


@pytest.mark.filterwarnings("ignore")  # of the libraries, on import
def test_onnx_runs_in_onnxruntime(encoder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    folder = run(tmp_path, encoder, "onnx", capsys)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    wanted = encoder.embed(CLIPS, 16_000)
    for count in (1, 2, 3):  # two was never tried when it was written
        vector, frames = session.run(["vector", "frames"], {"audio": CLIPS[:count]})
        assert off(vector, wanted[:count]) < 1e-4 and frames.shape[0] == count
    assert off(frames[2], encoder.frames(CLIPS[2], 16_000)[0]) < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_onnx_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    from ssl_audio.convert import onnx_file

    def conjugate_lost(params, x):
        found = fft(params, x)
        return rewrite.Complex(found.real, 1.01 * found.imag)

    fft = rewrite._fft
    monkeypatch.setattr(rewrite, "_fft", conjugate_lost)
    encoder = encoders.encoder(frames=24)
    exported.write(tmp_path, encoder.params, encoder.config)
    with pytest.raises(ValueError, match="not written: in a batch of 1, .* differs by"):
        list(onnx_file.write(tmp_path))
    assert not (tmp_path / "onnx").exists()


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    from ssl_audio.convert import onnx_file, stablehlo

    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(
        RuntimeError, match=r"pip install 'ssl_audio\[onnx\]', then pip install --no-deps"
    ):
        list(onnx_file.write(tmp_path))
    with pytest.raises(
        RuntimeError, match=r"needs flatbuffers: pip install 'ssl_audio\[stablehlo\]'"
    ):
        list(stablehlo.write(tmp_path))


@pytest.mark.parametrize(
    "options, said",
    [
        (["--as", "hf_ast"], "--as goes with --to hub"),
        (["--to", "onnx", "--licence", "mit"], "--licence goes with --to hub"),
        (["--to", "hub", "--seconds", "1"], "--seconds goes with --to onnx or stablehlo"),
        (["--to", "hub", "--pth"], "--pth says how to write the names"),
        (["--step", "newest"], "wanted the number of a checkpoint, or best"),
    ],
)
def test_options_that_do_not_go_together(options, said, capsys):
    with pytest.raises(SystemExit):
        export.main(["--checkpoint", "x", "--out", "y", *options])
    assert said in capsys.readouterr().err
