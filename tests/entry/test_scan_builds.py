"""A run does not depend on how the selective scan was compiled, beyond rounding."""

import shutil
import subprocess
import sys

import pytest
from reference import ROOT

pytestmark = pytest.mark.entry


def test_losses_of_two_builds_are_the_same_but_for_rounding(environment):
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler: install GCC or Clang")
    script = str(ROOT / "experiments/speed/build_losses.py")
    command = [sys.executable, script, "--forms", "native,portable", "--steps", "12"]
    command += ["--config.record.clips=1"]
    # The program is the same but for what it calls, so the second process need not compile it.
    programs = environment | {"JAX_COMPILATION_CACHE_DIR": environment["SSL_AUDIO_CACHE"]}
    done = subprocess.run(command, env=programs, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("12 steps") == 2
