"""Calls on a Ray cluster, without one: what they take, what a worker does."""

import argparse
import os
import socket
import sys

import pytest

from ssl_audio import startup
from ssl_audio.data import prepare
from ssl_audio.storage import division, over_ray
from ssl_audio.versions import __version__


def test_what_a_part_takes_of_a_machine():
    def nodes(*some):
        return [{"Alive": alive, "Resources": found} for alive, found in some]

    head, small, large = {"memory": 1.0}, {"CPU": 8.0}, {"CPU": 20.0}
    gpus = {"CPU": 32.0, "GPU": 4.0}
    assert over_ray.shares(nodes((True, head), (True, small), (True, large)), False) == (8, 0, 3)
    assert over_ray.shares(nodes((True, small), (False, large)), True) == (8, 0, 1)
    assert over_ray.shares(nodes((True, small), (True, gpus)), True) == (8, 1, 4)
    assert over_ray.shares(nodes((True, small), (True, gpus)), False) == (8, 0, 5)
    assert over_ray.shares(nodes((True, head)), False) == (1, 0, 1)


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ssl_audio\[ray\]'"):
        prepare.main(["--source=synthetic", f"--output={tmp_path / 'out'}", "--engine=ray"])


def test_an_address_where_nothing_answers_is_named_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for wrong in (address, f"ray://{address}"):
            with pytest.raises(RuntimeError, match=f"got {wrong}, where nothing answers"):
                over_ray._see(wrong)
        taken.listen()
        over_ray._see(address)
    for other in ("", "auto", "local"):
        over_ray._see(other)


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """Let this process be a worker that was started elsewhere."""
    monkeypatch.setattr(startup, "logs", lambda: None)
    monkeypatch.setattr(startup, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def exits(argument):
    raise SystemExit(f"{argument} is missing in {os.path.basename(os.getcwd())}")


def test_a_worker_works_where_the_command_was_given_and_its_exit_is_an_error(worker):
    with pytest.raises(RuntimeError, match="the folder is missing in there"):
        over_ray._call(f"{__name__}:exits", "the folder", str(worker), __version__)
    with pytest.raises(RuntimeError, match="the folder is missing in there"):  # elsewhere as it is
        over_ray._call(f"{__name__}:exits", "the folder", "/no/such/folder", __version__)
    with pytest.raises(RuntimeError, match=f"has ssl_audio {__version__}, and 9.9 started"):
        over_ray._call(f"{__name__}:exits", "the folder", str(worker), "9.9")


def test_all_parts_are_called_and_then_joined_here(worker, monkeypatch, capsys):
    """With calls one after the other in place of a cluster; a second time only what is left is done."""
    counts = []

    def run(function, calls, count, *, gpu):
        counts.append((count, gpu))
        for argument in calls(count or 3).values():
            assert over_ray._call(function, argument, str(worker), __version__)

    monkeypatch.setattr(over_ray, "run", run)
    verb = ["--source=synthetic", "--set=size=6", "--set=seconds=0.1", "--shard-size=1"]
    verb += ["--output=out", "--engine=ray"]
    prepare.main(verb)
    said = capsys.readouterr().out
    assert "part 3/3 in out: 2 clips" in said and "6 clips in out" in said
    division.Division(worker / "begun" / "parts", {}, 5)
    args = argparse.Namespace(engine="ray", parts=None, part=None, merge=False)
    monkeypatch.setattr(prepare, "run", lambda args: ("joined", args.merge, args.engine))
    found = division.spread(prepare.__name__, args, worker / "begun" / "parts", gpu=True)
    assert found == ("joined", True, None)
    assert counts == [(0, False), (5, True)]
