"""A compiled step in a file: the same run with it, and every reason not to use it."""

import json
import logging
import os

import jax
import numpy as np
import pytest
from test_train import options, records, same_parameters

from ssl_audio.distributed import sharding
from ssl_audio.train import preview, programs
from ssl_audio.train.loop import train


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """Give this account a cache of its own for its key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_AUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield patch


@pytest.fixture(scope="module")
def small(account):
    """Return what a step of one product is saved with: program, what is known of it, shapes."""

    def step(state, batch):
        return {"w": state["w"] + batch["x"].sum(0)}, {"loss": (batch["x"].sum(), 1.0)}

    where = sharding.replicated(sharding.alone())
    shapes = (
        {"w": jax.ShapeDtypeStruct((3,), "float32", sharding=where)},
        {"x": jax.ShapeDtypeStruct((2, 3), "float32", sharding=where)},
    )
    return jax.jit(step, donate_argnums=0).lower(*shapes).compile(), {"code": "1"}, shapes


def test_a_step_is_the_same_out_of_its_file(small, tmp_path):
    program, known, shapes = small
    path = programs.save(tmp_path / "new", program, known, 12.0)
    assert path.name == "step_0_of_1.bin"
    again, flops = programs.load(tmp_path / "new", known, shapes)
    state, metrics = again({"w": np.ones(3, np.float32)}, {"x": np.ones((2, 3), np.float32)})
    assert flops == 12.0 and state["w"].tolist() == [3, 3, 3]
    assert float(metrics["loss"][0]) == 6


def said(caplog, folder, known, shapes):
    caplog.clear()
    with caplog.at_level(logging.INFO, "ssl_audio"):
        assert programs.load(folder, known, shapes) is None
    (line,) = caplog.messages
    assert "not used, the step is compiled as usual" in line and str(folder) in line
    return line


def test_what_does_not_fit_is_named_and_not_used(small, tmp_path, caplog):
    program, known, shapes = small
    assert "no such file" in said(caplog, tmp_path, known, shapes)
    programs.save(tmp_path, program, {"code": "1", "jax": "0.1"}, 1.0)
    line = said(caplog, tmp_path, known, shapes)
    assert "jax: made for '0.1', here it is 'nothing'" in line
    many = {name: "2" for name in "abcde"}
    assert "and 4 more" in said(caplog, tmp_path, many, shapes)


def test_a_stranger_s_file_is_not_opened(small, account, tmp_path, caplog, monkeypatch):
    program, known, shapes = small
    path = programs.save(tmp_path, program, known, 1.0)
    good = path.read_bytes()

    def never(*_):
        raise AssertionError("it was opened")

    monkeypatch.setattr(programs, "_unpack", never)
    with pytest.raises(AssertionError):
        programs.load(tmp_path, known, shapes)  # the check checks something
    place = good.index(b'"flops"')
    for wrong in (
        good[:-1],
        good[:place] + b"X" + good[place + 1 :],
        good[:40],
        b"",
        b"PK\x03\x04",
    ):
        path.write_bytes(wrong)
        said(caplog, tmp_path, known, shapes)
    path.write_bytes(good)
    with pytest.MonkeyPatch.context() as patch:  # another account, or another machine's
        patch.setenv("SSL_AUDIO_CACHE", str(tmp_path / "other"))
        assert "has no key yet" in said(caplog, tmp_path, known, shapes)
        programs.save(tmp_path / "elsewhere", program, known, 1.0)
        assert "not signed with the key of this account" in said(caplog, tmp_path, known, shapes)
        key = tmp_path / "other" / programs.KEY
        assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 32
        os.chmod(key, 0o644)
        assert "no other can read" in said(caplog, tmp_path, known, shapes)


def test_all_that_decides_the_program_is_known(small, tmp_path, monkeypatch):
    _, _, shapes = small
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "weights").write_text("1")
    made = {"objective": {"path": str(teacher)}, "optim": {"lr": 1.0}, "evals": {}}
    now = programs.of(made, (10, 5), shapes)
    assert now == programs.of(made | {"evals": {"x": 1}}, (10, 5), shapes)
    assert any(name.startswith("code of train/step.py") for name in now)
    others = [
        programs.of(made | {"optim": {"lr": 2.0}}, (10, 5), shapes),
        programs.of(made, (11, 5), shapes),
        programs.of(made, (10, 5), (shapes[0], {})),
    ]
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0")
    others.append(programs.of(made, (10, 5), shapes))
    monkeypatch.undo()
    (teacher / "weights").write_text("two")
    others.append(programs.of(made, (10, 5), shapes))
    assert all(other != now for other in others)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once", "no_pictures")
def test_a_run_with_a_saved_step_has_the_same_bits(account, tmp_path, caplog):
    train(options(), tmp_path / "without")  # its step is in the cache of programs then
    found = preview.preview(options(), save=tmp_path / "step")
    assert found.peak_bytes and (tmp_path / "step/step_0_of_1.bin").exists()
    caplog.set_level("INFO", "ssl_audio")
    train(options(), tmp_path / "with", compiled=tmp_path / "step")
    assert "the step was compiled before" in caplog.text
    assert records(tmp_path / "with") == records(tmp_path / "without")
    same_parameters(tmp_path / "with", tmp_path / "without")
    caplog.clear()
    train(options(optim__lr=2e-3), tmp_path / "other", compiled=tmp_path / "step")
    assert "another config.optim" in caplog.text
    assert json.loads((tmp_path / "other/config.json").read_text())["optim"]["lr"] == 2e-3
