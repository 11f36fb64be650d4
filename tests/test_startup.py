"""The settings that a program on a CPU starts itself again with."""

import os
import sys

import pytest

from ssl_audio import startup

WIDTH = "--xla_cpu_prefer_vector_width=512"
MALLOC = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@pytest.fixture
def started(monkeypatch):
    """Return the environments of the programs started, on Linux with AVX-512 and without an accelerator."""
    found = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(startup, "_has_avx512", lambda: True)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr(os, "execve", lambda program, arguments, env: found.append(env))
    for name in ("GLIBC_TUNABLES", "XLA_FLAGS", *MALLOC):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.mark.parametrize(
    ("flags", "avx512", "wanted"),
    [
        (None, True, WIDTH),
        ("--xla_dump_to=d", True, f"--xla_dump_to=d {WIDTH}"),
        ("--xla_cpu_prefer_vector_width=128", True, "--xla_cpu_prefer_vector_width=128"),
        (None, False, None),
    ],
)
def test_tune_cpu_keeps_memory_and_widens_vectors(started, monkeypatch, flags, avx512, wanted):
    if flags:
        monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(startup, "_has_avx512", lambda: avx512)
    startup.tune_cpu()
    (env,) = started
    assert env.get("XLA_FLAGS") == wanted
    assert {name for name in MALLOC if env[name]} == set(MALLOC)
    monkeypatch.setattr(os, "environ", env)
    startup.tune_cpu()
    assert len(started) == 1, "once"


def test_tune_cpu_leaves_other_machines_alone(started, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "exists", lambda path: "nvidia" in path)
        startup.tune_cpu()
    monkeypatch.setattr(sys, "platform", "darwin")
    startup.tune_cpu()
    assert not started
