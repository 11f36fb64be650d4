"""What happens before a command does its work: CPU settings, compilation cache, what errors look like."""

import os
import subprocess
import sys

import pytest

from ssl_audio import startup

WIDTH = "--xla_cpu_prefer_vector_width=512"
MALLOC = {-8, -1, -3, -2}  # of malloc.h: M_ARENA_MAX, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_TOP_PAD


@pytest.fixture
def told(monkeypatch):
    """Return what glibc's allocator is told, on Linux with AVX-512 and without an accelerator."""
    found = {}

    class Glibc:
        def mallopt(self, name, value):
            found[name] = value
            return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(startup, "_has_avx512", lambda: True)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr(startup.ctypes, "CDLL", lambda name: Glibc())
    monkeypatch.setattr(os, "environ", {})
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
def test_tune_cpu_keeps_memory_and_widens_vectors(told, monkeypatch, flags, avx512, wanted):
    if flags:
        os.environ["XLA_FLAGS"] = flags
    monkeypatch.setattr(startup, "_has_avx512", lambda: avx512)
    for _ in range(2):
        assert startup.tune_cpu()
        assert os.environ.get("XLA_FLAGS") == wanted
    assert set(told) == MALLOC


def test_a_program_that_trains_starts_again_once_with_huge_pages(told, monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda program, arguments, env: started.append(env))
    startup.tune_cpu(restart=True)
    (env,) = started
    assert env["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1" and env["MALLOC_ARENA_MAX"] == "1"
    assert env["XLA_FLAGS"] == WIDTH
    monkeypatch.setattr(os, "environ", env)
    told.clear()
    startup.tune_cpu(restart=True)
    assert len(started) == 1 and not told


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"])
def test_tune_cpu_leaves_the_allocator_to_whoever_set_it(told, name):
    os.environ[name] = "0"
    assert startup.tune_cpu()
    assert os.environ["XLA_FLAGS"] == WIDTH and not told


def test_tune_cpu_leaves_other_machines_alone(told, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "exists", lambda path: "nvidia" in path)
        assert not startup.tune_cpu()
    with monkeypatch.context() as patch:
        patch.setattr(startup.ctypes, "CDLL", lambda name: object())  # musl
        assert startup.tune_cpu() and os.environ.pop("XLA_FLAGS") == WIDTH
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not startup.tune_cpu()
    assert not told and "XLA_FLAGS" not in os.environ


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_that_is_freed_stays_and_is_not_faulted_in_again():
    """In the main thread and in others, whose arenas could not hold so much."""
    code = """
import ctypes, resource, sys, threading
import ssl_audio
if "tuned" in sys.argv and not ssl_audio.tune_cpu():
    sys.exit("not tuned")
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def work():
    for _ in range(10):
        block = libc.malloc(100 << 20)
        ctypes.memset(block, 1, 100 << 20)
        libc.free(block)
for _ in range(2):
    thread = threading.Thread(target=work)
    thread.start(); thread.join()
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}

    def faults(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=clean, capture_output=True, text=True
        )
        if "not tuned" in done.stderr:
            pytest.skip("another C library, or a machine with a GPU")
        assert not done.returncode, done.stderr
        return int(done.stdout)

    assert faults("tuned") < faults() / 8


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
