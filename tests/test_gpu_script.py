"""experiments/gpu: parts at tiny sizes on a CPU, what survives a crash, whole steps lowered for CUDA."""

import json
import os
import subprocess
import sys

import jax
import pytest
from reference import ROOT

sys.path.insert(0, str(ROOT))  # as PYTHONPATH does in run.sh

from experiments.gpu import ahead, measuring, run, scan, steps  # noqa: E402
from ssl_audio.layers.scan import pallas_gpu  # noqa: E402

pytestmark = pytest.mark.entry


def rows(results):
    found = [line for line in measuring.lines(results.path) if "begun" not in line]
    assert found and not any("error" in row for row in found), found
    return found


def test_the_check_passes_and_can_fail(tmp_path):
    results = measuring.Results(tmp_path / "results.jsonl", "check", dry=True)
    scan.check(results)
    assert all(row["passed"] and row["y"] < 1e-6 for row in rows(results))
    assert pallas_gpu.LANES == 128  # tiles are what they were
    wanted = [(y, y) for y in (jax.numpy.ones(3),)], [(jax.numpy.ones(3),) * 6]
    off = [(y * 1.001, y * float("nan")) for y, _ in wanted[0]], wanted[1]
    found = scan.errors(off, wanted)
    assert found["y"] == pytest.approx(1e-3, rel=1e-3) and not found["last"] < 1


@pytest.mark.parametrize("encoder", steps.VARIANTS)
def test_a_training_step_is_measured(encoder, tmp_path, monkeypatch):
    first = next(iter(steps.VARIANTS[encoder]))
    monkeypatch.setitem(steps.VARIANTS, encoder, {first: steps.VARIANTS[encoder][first]})
    results = measuring.Results(tmp_path / "results.jsonl", "steps", dry=True)
    steps.steps(encoder, results)
    row = rows(results)[-1]
    assert row["labels"] == {"encoder": encoder, "variant": first}
    assert row["loss_is_finite"] and row["ms"] > 0 and row["over_floor"] > 0 and row["tflop"] > 0
    steps.steps(encoder, measuring.Results(tmp_path / "results.jsonl", "steps", dry=True))
    assert len(rows(results)) == 2  # it is not done again


@pytest.mark.parametrize("encoder", steps.VARIANTS)
def test_a_whole_step_lowers_for_cuda(encoder, monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91200)
    step = steps.Step(encoder, next(iter(steps.VARIANTS[encoder])), dry=False)
    traced = jax.jit(step.function, donate_argnums=0).trace(step.state, step.batch)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    # The backward pass computes the attention of a layer not again, a scan once more.
    calls = {"ssast": {"fmhaSoftmax(": 1, "fmhaSoftmaxBackward(": 1}, "ssamba": {"@mosaic_gpu": 6}}
    assert {name: text.count(name) for name in calls[encoder]} == calls[encoder]


def test_two_blocks_of_the_backward_kernel_fit_a_multiprocessor():
    shape = (1, 64, scan.BASE["channels"], scan.BASE["states"])
    directions = [scan.operands(shape, "bfloat16")] * 2
    y = jax.ShapeDtypeStruct(shape[:3], "float32")
    cotangents = [(y, jax.ShapeDtypeStruct((1, *shape[2:]), "float32"))] * 2

    def both(directions, cotangents):
        return scan.both("pallas_gpu", directions, cotangents, (False, True))

    with ahead.shared_memory() as taken:
        jax.eval_shape(both, directions, cotangents)
    forward, backward = taken
    assert forward < backward <= ahead.SHARED
    assert 2 * (backward + 1024) <= 228 * 1024  # the system takes 1 KiB of each


def test_instructions_of_inner_loops_are_counted():
    body = [
        f"/*{n:04x}*/ {'MUFU.EX2 R1, R1' if n % 4 else 'LDS.128 R4, [R2]'} ;" for n in range(44)
    ]
    text = ["//---- .text.kernel ----", ".L_x_1:", "/*0000*/ MOV R1, R2 ;", ".L_x_2:", *body]
    text += ["/*0100*/ @P0 BRA `(.L_x_2) ;", "/*0110*/ @!P1 BRA `(.L_x_1) ;", "/*0120*/ EXIT ;"]
    found = ahead.loops("ptxas info: Used 9 registers\n" + "\n".join(text))
    assert found == [[dict(instructions=45, exp2=33, shared=11)]]


def test_what_killed_the_process_is_recorded_and_passed_over(tmp_path):
    path = tmp_path / "results.jsonl"
    results = measuring.Results(path, "scan")
    with results.measurement(size=1) as row:
        row["ms"] = 1.0
    with pytest.raises(KeyboardInterrupt), results.measurement(size=2):
        raise KeyboardInterrupt
    with results.measurement(size=3):
        raise ValueError("wrong")
    path.write_text(path.read_text() + '{"part": "sc')  # a kill while it was writing
    again = measuring.Results(path, "scan")
    for size in (1, 2, 3):
        with again.measurement(size=size) as row:
            assert row is None
    with again.measurement(size=4) as row:
        row["ms"] = 4.0
    ended = [line for line in measuring.lines(path) if "begun" not in line]
    assert [line.get("error", line.get("ms")) for line in ended] == [
        1.0,
        "ValueError: wrong",
        "the process died or hung here",
        4.0,
    ]
    run.resume(path, tmp_path / "next.jsonl")
    assert [line["ms"] for line in measuring.lines(tmp_path / "next.jsonl")] == [1.0, 4.0]


def test_the_script_writes_a_table_and_wants_a_gpu(tmp_path):
    environment = dict(os.environ, PYTHON=sys.executable, OUT=str(tmp_path), JAX_PLATFORMS="cpu")
    command = ["bash", str(ROOT / "experiments/gpu/run.sh"), "--only", "machine"]
    options: dict = dict(env=environment, capture_output=True, text=True)
    done = subprocess.run(command, **options)
    assert done.returncode == run.NO_GPU and "jax sees no GPU but cpu" in done.stdout
    done = subprocess.run([*command, "--dry"], **options)
    assert not done.returncode, done.stdout + done.stderr
    names = ["log.txt", "results.json", "results.jsonl", "table.md"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    (last,) = json.loads((tmp_path / "results.json").read_text())
    assert last["copy_tb_s"] > 0 and "### machine (cpu)" in (tmp_path / "table.md").read_text()
