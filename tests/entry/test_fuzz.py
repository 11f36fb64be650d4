"""A few hundred of the inputs of `make fuzz`."""

import subprocess
import sys

import pytest
from reference import ROOT

pytestmark = pytest.mark.entry


def test_damaged_files_are_refused_or_sound():
    command = [sys.executable, str(ROOT / "tests" / "fuzz.py"), "--inputs", "400", "--seed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "400 inputs" in ended.stdout and "0 faults" in ended.stdout
