"""What happens before a command does its work: CPU settings, compilation cache, what errors look like."""

import os
import subprocess
import sys

import pytest

from ssl_audio import startup

WIDTH = "--xla_cpu_prefer_vector_width=512"
MALLOC = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX")


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


def test_run_turns_mistakes_of_users_into_one_line(monkeypatch):
    monkeypatch.delenv("SSL_AUDIO_TRACEBACK", raising=False)

    def mistake():
        raise ValueError("batch size 3: wanted 4")

    with pytest.raises(SystemExit, match="ValueError: batch size 3: wanted 4"):
        startup.run(mistake)
    monkeypatch.setenv("SSL_AUDIO_TRACEBACK", "1")
    with pytest.raises(ValueError):
        startup.run(mistake)
    with pytest.raises(AssertionError, match="ours"):  # not a mistake of the user
        startup.run(ours)


def ours():
    raise AssertionError("ours")


def test_ctrl_c_ends_quietly(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        startup.run(interrupted)
    assert stop.value.code == 130 and capsys.readouterr() == ("", "")


def python(code, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("platform", ["rocm", "unheard"])
def test_no_device_is_one_message(platform):
    code = "import jax; from ssl_audio import startup; startup.run(jax.devices)"
    done = python(code, JAX_PLATFORMS=platform)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert (
        last.startswith(f"no device: JAX_PLATFORMS is '{platform}'") and "JAX_PLATFORMS=cpu" in last
    )


def test_the_compilation_cache_is_set_without_jax(tmp_path):
    code = """
import sys
from ssl_audio import startup
startup.use_compilation_cache()
assert "jax" not in sys.modules
import jax
print(jax.config.jax_compilation_cache_dir)
"""
    done = python(code, SSL_AUDIO_CACHE=str(tmp_path))
    assert done.stdout.strip() == str(tmp_path), done.stderr
    done = python(code, SSL_AUDIO_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_DIR="elsewhere")
    assert done.stdout.strip() == "elsewhere", done.stderr


def test_a_notebook_keeps_compiled_programs_too(tmp_path):
    code = (
        "import jax; from ssl_audio import startup; startup.keep_programs(); "
        "print(jax.config.jax_compilation_cache_dir)"
    )
    ours = python(code, SSL_AUDIO_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_DIR="")
    assert ours.stdout.strip() == str(tmp_path)
    theirs = python(code, SSL_AUDIO_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_DIR="/own")
    assert theirs.stdout.strip() == "/own"
    off = python(code, JAX_COMPILATION_CACHE_DIR="", JAX_ENABLE_COMPILATION_CACHE="0")
    assert off.stdout.strip() in ("", "None")
