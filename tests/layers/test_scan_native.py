"""The scan in C++ is compiled at first use: by one of many, once, in time, and never by a stranger."""

import json
import logging
import os
import pathlib
import shlex
import stat
import subprocess
import sys
import time

import pytest
from reference import ROOT

from ssl_audio.layers.scan import choose, cpp, native

LINE = "compiling the selective scan for this processor with"
# Writes down that it was called, then does as it is told, then copies its source to where -o says.
COMPILER = """#!/bin/sh
echo called >> {calls}
{first}
while [ "$1" != -o ]; do shift; done
echo object > "$2"
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache; the user's temporary folder is empty too."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SSL_AUDIO_CACHE", str(folder))
    monkeypatch.setenv("SSL_AUDIO_SCAN", "auto")
    monkeypatch.setattr(native.tempfile, "tempdir", str(tmp_path))
    choose._works.cache_clear()
    yield folder
    choose._works.cache_clear()


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return a function that makes a compiler of a shell command; its result counts the calls."""

    def make(first=""):
        path, calls = tmp_path / "fake-c++", tmp_path / "calls"
        path.write_text(COMPILER.format(calls=shlex.quote(str(calls)), first=first))
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return lambda: calls.read_text().count("called") if calls.exists() else 0

    return make


def test_it_is_compiled_once_and_announced_in_one_line(cache, fake, caplog):
    calls = fake()
    with caplog.at_level("INFO"):
        assert cpp.ready() == cpp.ready() == ""
    assert calls() == 1
    (line,) = [r.getMessage() for r in caplog.records if LINE in r.getMessage()]
    assert line.endswith("once; SSL_AUDIO_SCAN=xla turns it off") and "fake-c++" in line
    assert [path.suffix for path in cache.iterdir()] == [".so"]


def test_a_failure_is_remembered_until_the_compiler_changes(cache, fake, caplog):
    calls = fake("echo 'scan.cc:13:10: fatal error: algorithm: No such file' >&2; exit 3")
    with caplog.at_level("INFO"):
        assert choose.find("auto") == choose.find("auto") == "xla"
    (said,) = [
        r.getMessage() for r in caplog.records if "using 'xla', not 'cpp': " in r.getMessage()
    ]
    assert "failed with status 3: scan.cc:13:10: fatal error: algorithm: No such file" in said
    assert "ssl-audio compile-scan tries again" in said and "\n" not in said
    for _ in range(2):  # later starts
        choose._works.cache_clear()
        assert choose.find("auto") == "xla" and calls() == 1
    assert "algorithm: No such file" in caplog.records[-1].getMessage()
    with pytest.raises(FileNotFoundError, match="not compiled for this machine: .*compile-scan"):
        cpp._register.__wrapped__()  # named, so never replaced
    fake("true # another compiler")
    assert cpp.ready() == "" and calls() == 2


def test_compile_scan_tries_again_and_shows_all_that_the_compiler_said(cache, fake):
    calls = fake("echo first >&2; echo second >&2; exit 1")
    assert "second" in cpp.ready()
    with pytest.raises(RuntimeError, match="failed with status 1:\nfirst\nsecond"):
        cpp.library().build()
    assert calls() == 2


def test_a_compiler_that_hangs_is_ended_with_what_it_started(cache, fake, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "TIMEOUT", 0.5)
    child = tmp_path / "child"
    calls = fake(f"sleep 1000 & echo $! > {child}; wait")
    began = time.monotonic()
    assert (
        "fake-c++ had not finished after 0.5 s (ssl-audio compile-scan tries again)" in cpp.ready()
    )
    assert time.monotonic() - began < 20
    status = pathlib.Path(f"/proc/{child.read_text().strip()}/status")
    assert not status.exists() or "Z (zombie)" in status.read_text()
    assert "had not finished" in cpp.ready() and calls() == 1
    assert not list(cache.glob("*.so")) and not list(cache.glob(".*partial"))


def test_without_a_compiler_one_quiet_line(cache, monkeypatch, caplog, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level("INFO"):
        assert choose.find("auto") == choose.find("auto") == "xla"
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "no C++ compiler here; install GCC" in record.message
    assert not cache.exists()
    with pytest.raises(
        FileNotFoundError, match="no 'cpp' on this machine: no C\\+\\+ compiler here"
    ):
        choose.prepare("cpp")
    monkeypatch.setenv("CXX", "no-such-compiler -O9")
    with pytest.raises(native.NoCompiler, match="CXX=no-such-compiler: no such compiler"):
        cpp.library().build()


@pytest.mark.parametrize("value", ["xla", "reference"])
def test_off(cache, fake, monkeypatch, value):
    calls = fake()
    monkeypatch.setenv("SSL_AUDIO_SCAN", value)
    assert choose.prepare("auto") == choose.find("auto") == value and not calls()


def test_a_compiler_that_writes_nothing_is_a_failure(cache, fake):
    fake("exit 0")
    assert "wrote no file" in cpp.ready()
    assert not cpp.library().find()


@pytest.mark.parametrize("home", ["read-only", "none"])
def test_without_a_home_it_is_kept_in_a_folder_of_the_users_own(cache, fake, monkeypatch, home):
    fake()
    if home == "none":
        monkeypatch.delenv("SSL_AUDIO_CACHE")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:  # even root cannot make a folder inside a file
        cache.parent.joinpath("file").touch()
        monkeypatch.setenv("SSL_AUDIO_CACHE", str(cache.parent / "file/cache"))
    assert cpp.ready() == ""
    path = cpp.library().find()
    assert path.parent == cache.parent / f"ssl_audio-{os.geteuid()}"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_temporary_folder_that_others_made_or_can_write_is_not_used(cache, fake, monkeypatch):
    calls = fake()
    monkeypatch.setenv("SSL_AUDIO_CACHE", "/dev/null/cache")
    folder = cache.parent / f"ssl_audio-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert "another user made it, or can write there" in cpp.ready() and not calls()
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
        assert "another user made it" in cpp.ready() and not calls()
        os.chown(folder, 0, 0)
    folder.rmdir()
    folder.symlink_to(cache.parent)
    assert "another user made it" in cpp.ready() and not calls()


@pytest.mark.parametrize("how", ["group", "owner", "link"])
def test_what_another_user_could_have_written_is_never_loaded(cache, fake, how):
    calls = fake()
    assert cpp.ready() == ""
    path = cpp.library().find()
    if how == "group":
        path.chmod(0o775)
    elif how == "link":
        path.rename(cache / "elsewhere.so")
        path.symlink_to("elsewhere.so")
    elif os.geteuid():
        pytest.skip("only root can give a file away")
    else:
        os.chown(path, 12345, 12345)
    assert cpp.library().find() is None
    with pytest.raises(FileNotFoundError):
        cpp.library().load()
    assert cpp.ready() == "" and calls() == 2  # beside it, not over it
    assert cpp.library().find().parent == cache.parent / f"ssl_audio-{os.geteuid()}"


def test_the_file_depends_on_all_that_the_code_does(cache, monkeypatch):
    names = {cpp.library().file}
    for what, value in (
        ("jaxlib.__version__", "0.0.1"),
        ("NATIVE", "-march=other"),
        ("_machine", lambda: ["flags : sse2"]),
    ):
        with monkeypatch.context() as patch:
            native._machine.cache_clear() if what.startswith("jaxlib") else None
            patch.setattr(f"ssl_audio.layers.scan.native.{what}", value)
            names.add(cpp.library().file)
        native._machine.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(cpp, "OPTIONS", (*cpp.OPTIONS, "-O2"))
        names.add(cpp.library().file)
    assert len(names) == 5


ASK = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
from ssl_audio.layers.scan import cpp
print("waits", flush=True)
sys.stdin.readline()
print(cpp.ready() or "ready", flush=True)
"""


def test_of_many_processes_one_compiles_and_the_others_wait(cache, fake):
    calls = fake("sleep 2")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ASK]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    some = [subprocess.Popen(command, env=environment, **pipes) for _ in range(4)]
    try:
        assert [one.stdout.readline() for one in some] == ["waits\n"] * 4
        for one in some:
            one.stdin.write("\n")
            one.stdin.flush()
        said = [one.communicate(timeout=100) for one in some]
    finally:
        for one in some:
            one.kill()
    assert [out for out, _ in said] == ["ready\n"] * 4, said
    assert calls() == 1
    assert sum(LINE in err for _, err in said) == 1
    assert [path.suffix for path in cache.iterdir()] == [".so"]


def test_a_process_that_dies_while_compiling_stops_nobody(cache, fake, tmp_path):
    calls = fake("sleep 30")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    one = subprocess.Popen(
        [sys.executable, "-c", ASK], env=environment, stdin=subprocess.PIPE, text=True
    )
    one.stdin.write("\n")
    one.stdin.flush()
    deadline = time.monotonic() + 100
    while not calls():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    one.kill()
    one.communicate()
    fake()
    began = time.monotonic()
    assert cpp.ready() == "" and time.monotonic() - began < 20


def test_importing_compiles_nothing(cache, fake):
    calls = fake()
    code = "import ssl_audio, ssl_audio.layers.scan.cpp, ssl_audio.inference.load, ssl_audio.train.loop"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not calls() and not cache.exists()


def test_a_damaged_memory_of_failures_is_no_failure(cache, fake):
    fake("exit 1")
    assert "status 1" in cpp.ready()
    (record,) = cache.glob("*.failed")
    assert json.loads(record.read_text())["reason"].endswith("status 1:")
    record.write_text("{")
    fake()
    assert cpp.ready() == ""


AUTO = ["auto", "cpp", ""]
LACKS = ["auto", "xla", "no compiler"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([AUTO, AUTO], "cpp"),
        ([LACKS, LACKS], "xla"),
        ([AUTO, LACKS, AUTO], "xla"),
        ([AUTO, ["xla", "xla", ""]], "xla"),
        ([["reference", "reference", ""], LACKS], "reference"),
        ([["cpp", "cpp", ""], AUTO], "cpp"),
    ],
)
def test_processes_agree(words, wanted):
    assert choose._agreement(words) == wanted


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([["cpp", "cpp", ""], ["xla", "xla", ""]], "process 0 'cpp', process 1 'xla'"),
        ([["cpp", "cpp", ""], LACKS], "process 1 has no 'cpp', .* wants: no compiler"),
        ([["cpp", "cpp", "exit 1"], AUTO], "process 0 has no 'cpp', .* wants: exit 1"),
    ],
)
def test_processes_refuse(words, line):
    with pytest.raises(ValueError, match=line):
        choose._agreement(words)
