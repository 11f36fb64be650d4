"""ssl-audio convert and ssl-audio export in processes of their own."""

import os
import subprocess
import sys

import numpy as np
import pytest
from convert.states import ssast
from reference import ROOT

pytestmark = pytest.mark.entry


def run(verb, *arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": _path()}
    command = [sys.executable, "-m", "ssl_audio", verb, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def _path():
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))


def test_there_and_back(tmp_path):
    state = ssast()
    np.savez(tmp_path / "x.npz", **state)
    family = ("--from", "ssast")
    done = run("convert", *family, "--checkpoint", tmp_path / "x.npz", "--out", tmp_path / "a")
    assert not done.returncode, done.stderr
    done = run("export", "--checkpoint", tmp_path / "a", "--out", tmp_path / "b", "--to", "ssast")
    assert not done.returncode, done.stderr
    with np.load(tmp_path / "b/state_dict.npz") as file:
        assert {name: file[name].tobytes() for name in file.files} == {
            name: value.tobytes() for name, value in state.items()
        }


def test_a_mistake_is_one_message(tmp_path):
    np.savez(tmp_path / "x.npz", **ssast())
    family = ("--from", "ssamba")
    done = run("convert", *family, "--checkpoint", tmp_path / "x.npz", "--out", tmp_path / "a")
    assert done.returncode and "checkpoint of another model" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a").exists()
