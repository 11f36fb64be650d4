"""The processes of a run take one implementation of the selective scan, or refuse to begin."""

import shutil

import pytest
from processes import Processes, records, training

pytestmark = pytest.mark.cluster
OPTIONS = ("--config.steps=2", "--config.checkpoint.every=2")


@pytest.fixture(scope="module")
def both(environment, tmp_path_factory):
    """Return the losses of a run whose two processes find a compiler and nothing forbids it."""
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler: install GCC or Clang")
    workdir = tmp_path_factory.mktemp("both")
    status, said = run(workdir, environment, [{}, {}])
    assert status == [0, 0], said
    assert said[0].count("compiling the selective scan") <= 1
    assert "all processes take" not in said[0]
    return records(workdir)


def run(workdir, environment, own):
    command = training(workdir, *OPTIONS, config="ssamba")
    with Processes(command, environment, 2, 2, own) as some:
        status = some.end()
        return status, [some.said(i) for i in range(2)]


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({"SSL_AUDIO_SCAN": "xla"}, "process 1 is told to"),
        (
            {"CXX": "no-compiler", "SSL_AUDIO_CACHE": "{}"},
            "process 1 has no better one: CXX=no-com",
        ),
    ],
    ids=["forbidden", "no compiler"],
)
def test_all_fall_back_where_one_cannot(both, environment, tmp_path, own, why):
    own = {name: value.format(tmp_path / "cache") for name, value in own.items()}
    own["TMPDIR"] = str(tmp_path)  # nothing compiled before is found
    status, said = run(tmp_path / "run", environment, [{}, own])
    assert status == [0, 0], said
    assert f"selective_scan: all processes take 'xla': {why}" in said[0]
    found = records(tmp_path / "run")
    assert list(found) == [1, 2] and found != both, "another implementation, other last digits"
    for step, record in found.items():
        assert record["loss"] == pytest.approx(both[step]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (
            {"SSL_AUDIO_SCAN": "xla"},
            "told to take different ones: process 0 'cpp', process 1 'xla'",
        ),
        (
            {"CXX": "no-compiler", "SSL_AUDIO_CACHE": "{}"},
            "process 1 has no 'cpp', which SSL_AUDIO_S",
        ),
    ],
    ids=["forbidden", "no compiler"],
)
def test_a_named_one_is_never_replaced(both, environment, tmp_path, own, why):
    own = {name: value.format(tmp_path / "cache") for name, value in own.items()}
    own["TMPDIR"] = str(tmp_path)
    status, said = run(tmp_path / "run", environment, [{"SSL_AUDIO_SCAN": "cpp"}, own])
    assert status == [1, 1], said
    assert why in said[0] and why in said[1]
    assert not records(tmp_path / "run")
