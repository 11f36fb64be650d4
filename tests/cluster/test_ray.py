"""--engine ray on a real cluster of two workers, one of them killed in mid-part: the bytes of one machine."""

import contextlib
import filecmp
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import encoders
import numpy as np
import pytest
import soundfile
from reference import ROOT

RATE = 16_000
# Two machines of one processor each, of which one is lost when a file `lose` appears; then the verb.
DRIVER = """
import os, sys, threading, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
node = cluster.add_node(num_cpus=1)

def lose():
    while not os.path.exists("lose"):
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)

threading.Thread(target=lose, daemon=True).start()
os.environ["RAY_ADDRESS"] = cluster.address
try:
    from ssl_audio.__main__ import main
    main(sys.argv[1:])
finally:
    cluster.shutdown()
"""
# A source that takes its time, for a package on the workers' path.
SLOW = """
import dataclasses, time
from ssl_audio.data.source import Folder

@dataclasses.dataclass(frozen=True)
class Slow(Folder):
    def __getitem__(self, i):
        time.sleep(0.05)
        return super().__getitem__(i)
"""


@pytest.fixture(scope="module")
def cluster(environment):
    pytest.importorskip("ray", reason="no Ray: pip install 'ssl_audio[ray]'")
    return environment | {"RAY_DEDUP_LOGS": "0"}


def command(folder, *arguments):
    return [sys.executable, "-c", DRIVER, *map(str, arguments)]


def ran(folder, env, *arguments):
    """Return the command's end; it may start and end a cluster of its own."""
    return subprocess.run(
        command(folder, *arguments),
        env=env, cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def sounds(root, count=40):
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        soundfile.write(root / f"{i:02d}.wav", 0.1 * rng.standard_normal(1600 + 100 * i), RATE)
    return root


def same(a, b):
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(path.name for path in b.iterdir())
    return filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def holders(folder, count, seconds=90):
    """Return part → process of those that are at work at once, when a file is finished."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = {}
        for path in folder.glob("parts/*/lock"):
            with contextlib.suppress(ValueError, FileNotFoundError):
                pid = json.loads(path.read_text())["pid"]
                found[path.parent.name.partition("-")[0]] = pid
        if len(found) >= count and list(folder.glob("0*.json")):
            return found
        time.sleep(0.02)
    raise AssertionError("no part was begun")


@pytest.mark.cluster
@pytest.mark.parametrize("lost", ["process", "machine"])
def test_a_lost_workers_part_is_done_again_and_the_bytes_are_those_of_one_machine(
    cluster, tmp_path, lost
):
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "slow.py").write_text(SLOW)
    env = cluster | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    sounds(tmp_path / "in")
    verb = ["prepare", "--source=mylab.slow:Slow", "--shard-size=2", "--workers=1"]
    verb.append(f"--root={tmp_path / 'in'}")
    alone = [sys.executable, "-m", "ssl_audio", *verb, "--output", tmp_path / "one"]
    subprocess.run(alone, check=True, env=env, capture_output=True)
    output = tmp_path / "many"
    process = subprocess.Popen(
        command(tmp_path, *verb, "--output", "many", "--engine=ray", "--parts=3"),
        env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    found = holders(output, 2)
    if lost == "process":
        os.kill(min(found.values()), signal.SIGKILL)
    else:
        (tmp_path / "lose").touch()
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "3 parts on 2 machines, 2 at a time" in said
    here = socket.gethostname()
    over = [pid for pid in found.values() if f"taking over from process {pid} on {here}" in said]
    assert len(over) == 1, (found, said)
    assert "40 clips in many, 0 skipped" in said
    assert same(tmp_path / "one", output)
    (tmp_path / "lose").unlink(missing_ok=True)
    again = ran(tmp_path, env, *verb, "--output", "many", "--engine=ray")
    assert again.returncode == 0 and "40 clips in many" in again.stdout, again.stderr


@pytest.mark.cluster
def test_an_error_names_its_part_and_is_not_tried_again(cluster, tmp_path):
    sounds(tmp_path / "in", 6)
    for name in ("00bad.wav", "00worse.wav"):
        (tmp_path / "in" / name).write_text("no sound")
    verb = ["prepare", "--source=folder", "--shard-size=1", "--root=in", "--output=out"]
    done = ran(tmp_path, cluster, *verb, "--engine=ray", "--parts=2")
    assert done.returncode == 1
    assert "ValueError: part 1/2: 2 of 8 clips could not be read" in done.stderr
    assert "Traceback" not in done.stderr.split("ValueError: part 1/2")[1]
    assert not (tmp_path / "out" / "index.json").exists()


@pytest.mark.cluster
def test_embed_has_the_numbers_of_one_machine(cluster, tmp_path):
    sounds(tmp_path / "in", 10)
    encoders.save(encoders.encoder(frames=24), tmp_path / "run", 1)
    verb = ["embed", "--checkpoint=run", "--frames", "in"]
    for more in (["--output=one.npz"], ["--output=many.npz", "--engine=ray", "--parts=2"]):
        done = ran(tmp_path, cluster, *verb, *more)
        assert done.returncode == 0, done.stderr
    one, many = (np.load(tmp_path / f"{name}.npz") for name in ("one", "many"))
    assert one.files == many.files
    for name in one.files:
        assert np.array_equal(one[name], many[name]), name
    assert "embedding 10 x " in done.stdout


def wait_for(port, server, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as attempt:
            if not attempt.connect_ex(("127.0.0.1", port)):
                return
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


def files(root):
    return {path.name: path.read_bytes() for path in pathlib.Path(root).iterdir()}


@pytest.mark.cluster
def test_parts_in_a_bucket_of_s3(cluster, tmp_path):
    """With the server of moto: the protocol is Amazon's, and the workers are processes of their own."""
    pytest.importorskip("s3fs", reason="no s3fs: pip install 'ssl_audio[s3]'")
    pytest.importorskip("flask", reason="no server of moto: pip install 'moto[server]'")
    pytest.importorskip("moto", reason="no moto: pip install 'moto[server]'")
    import fsspec

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    env = cluster | {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1", "EPATH_USE_TF": "false",
    }  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port, server)
        store = fsspec.filesystem(
            "s3", key="a", secret="b", endpoint_url=address, use_listings_cache=False
        )
        store.mkdir("bucket")
        sounds(tmp_path / "in", 12)
        verb = ["prepare", "--source=folder", "--shard-size=2", "--root=in"]
        for more in (["--output=one"], ["--output=s3://bucket/many", "--engine=ray", "--parts=3"]):
            done = ran(tmp_path, env, *verb, *more)
            assert done.returncode == 0, done.stderr
        found = {path.rpartition("/")[2]: store.cat_file(path) for path in store.find("bucket")}
        assert found == files(tmp_path / "one")
    finally:
        server.terminate()
        server.wait()
