"""Copies of remote shards are found by content; worker processes need room in shared memory."""

import json
import shutil

import numpy as np
import pytest

from ssl_audio.data import reading, shards
from ssl_audio.data.prepare import prepare
from ssl_audio.data.shards import Shards
from ssl_audio.data.synthetic import Synthetic


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """Return the address of a folder in an object store."""
    monkeypatch.setenv("EPATH_USE_TF", "false")
    monkeypatch.setenv("SSL_AUDIO_CACHE", str(tmp_path / "cache"))
    from etils import epath

    class Remote:
        """A path below gs://bucket, kept in a folder."""

        def __init__(self, root, name):
            self.path = tmp_path / root.removeprefix("gs://") / name

        def open(self, mode):
            return self.path.open(mode)

        def stat(self):
            found = self.path.stat()
            return type("Stat", (), {"length": found.st_size, "mtime": found.st_mtime_ns})

    monkeypatch.setattr(epath, "Path", Remote)
    return "gs://bucket/set", tmp_path / "bucket/set"


def sound(source):
    return [source[i]["audio"] for i in range(len(source))]


def same(a, b):
    return len(a) == len(b) and all(map(np.array_equal, a, b))


@pytest.mark.parametrize("hashes", [True, False])
def test_shards_prepared_again_under_the_same_address_are_all_new(bucket, tmp_path, hashes):
    address, folder = bucket
    for seed in (0, 1):
        shutil.rmtree(folder, ignore_errors=True)
        prepare(Synthetic(4, seed=seed, seconds=0.1), folder, shard_size=2)
        index = json.loads((folder / "index.json").read_text())
        for shard in index["shards"]:
            size, sha256 = shard["size"], shard["sha256"]
            assert shards.content(folder / shard["file"]) == (size, sha256)
            if not hashes:  # as earlier versions wrote it
                del shard["size"], shard["sha256"]
        # Ids and lengths may well be the same: nothing but the sound differs.
        index["clips"]["id"] = list("abcd")
        index["settings"]["content"] = ""
        (folder / "index.json").write_text(json.dumps(index))
        assert same(sound(Shards(address)), sound(Shards(str(folder))))
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_copy_is_made_once_and_one_that_is_short_again(bucket, tmp_path):
    address, folder = bucket
    prepare(Synthetic(4, seconds=0.1), folder, shard_size=2)
    want = sound(Shards(address))
    copies = sorted((tmp_path / "cache").rglob("*.array_record"))
    before = [copy.stat().st_mtime_ns for copy in copies]
    assert len(copies) == 2 and same(sound(Shards(address)), want)
    assert [copy.stat().st_mtime_ns for copy in copies] == before
    copies[0].write_bytes(b"half")
    assert same(sound(Shards(address)), want)


def test_records_that_are_not_those_of_the_index_are_refused(bucket, tmp_path):
    address, folder = bucket
    prepare(Synthetic(4, seconds=0.1), folder)
    (record,) = folder.glob("*.array_record")
    content = record.read_bytes()
    record.write_bytes(content[:-1] + b"?")
    with pytest.raises(ValueError, match="not the file that index.json describes"):
        Shards(address)[0]
    record.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"array_record: 100 bytes, \d+ in index.json"):
        Shards(str(folder))[0]


def test_workers_that_would_die_of_shared_memory_are_refused_with_both_sizes(monkeypatch):
    from ssl_audio import config

    data = config.build({
        "kind": "pipeline", "batch_size": 64, "workers": 4, "sources": {"a": {"kind": "synthetic"}},
        "entries": {"audio": {"kind": "entries:Audio", "samples": 160_000}},
    }, "data")  # fmt: skip
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(reading.os.path, "isdir", lambda path: path == "/dev/shm")
    monkeypatch.setattr(reading.shutil, "disk_usage", lambda _: usage._replace(free=64 * 2**20))
    # 5 * 64 + 4 * 4 * 2 clips of 640 kB, and a page for each small array
    with pytest.raises(
        ValueError, match=r"data.workers: 4 .* need 219 MiB and 64 MiB are free.*shm-size"
    ):
        data.batches()
    reading.check_shared_memory(0, 2**40)
    reading.check_shared_memory(4, 2**20)
