"""ssl-audio zero-shot and search: what they say to those who ask wrongly."""

import subprocess
import sys

import pytest
from reference import ROOT

pytestmark = pytest.mark.entry


def run(environment, verb, *arguments):
    command = [sys.executable, "-m", "ssl_audio", verb, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_help(environment):
    done = run(environment, "search", "query", "--help")
    assert done.returncode == 0 and "--index" in done.stdout and "--audio" in done.stdout


def test_mistakes_are_one_line(environment, tmp_path):
    done = run(environment, "zero-shot", "--checkpoint", tmp_path, "--set", "synthetic")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no config.json" in done.stderr.splitlines()[-1]
    done = run(environment, "search", "query", "--index", tmp_path, "a dog")
    assert done.returncode == 1 and "no index there" in done.stderr.splitlines()[-1]
