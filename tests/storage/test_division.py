"""Work in parts, on disk and in object stores: whose it is, what is refused, missing, left by a kill."""

import argparse
import json
import pickle

import bucket
import pytest

from ssl_audio.storage import atomic, division, lock, opened
from ssl_audio.storage.division import WHOLE, Division, Part
from ssl_audio.storage.remote import Remote, place

SETTINGS = {"layer": -1, "list": "abc"}


@pytest.fixture(params=["local", "store"])
def folder(request, tmp_path, monkeypatch):
    """Return a folder that does not exist yet, on disk or in an object store."""
    if request.param == "local":
        return tmp_path / "work.parts"
    monkeypatch.setattr(lock, "POLL", 0.01)
    bucket.install(monkeypatch, tmp_path)
    return place("gs://bucket/work.parts")


def do(work, part, **record):
    with work.work(part) as check:
        if check is None:
            return False
        check()
        atomic.write(work.at(part) / "result.bin", b"1")
        work.finish(part, record)
        return True


@pytest.mark.parametrize(("count", "of"), [(10, 3), (3907, 8), (2, 5), (0, 2), (7, 7), (1, 1)])
def test_the_shares_are_all_there_is_once_in_order_and_balanced(count, of):
    shares = [Part(n, of).share(count) for n in range(1, of + 1)]
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/8", "9/8", "-1/8", "8", "a/b", "1/0", "1/2/3", "1.5/3", ""])
def test_a_part_out_of_range_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="wanted I/N, from 1/"):
        division.part(text)
    assert division.part("8/8") == Part(8, 8) and str(Part(3, 8)) == "3/8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--part=1/2", "--merge"], "first all parts, then --merge"),
        (["--engine=ray", "--merge"], "give no --part and no --merge"),
        (["--engine=ray", "--part=1/2"], "give no --part and no --merge"),
        (["--parts=3"], "--parts is of --engine ray"),
        (["--engine=ray", "--parts=0"], "got 0, wanted at least 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, message, capsys):
    parser = argparse.ArgumentParser()
    division.add_options(parser)
    with pytest.raises(SystemExit):
        division.check(parser, parser.parse_args(arguments))
    assert message in capsys.readouterr().err


def test_parts_are_done_once_and_missing_ones_are_named(folder):
    with pytest.raises(ValueError, match="no part is there: run the command with --part 1/N"):
        Division(folder, SETTINGS, None)
    assert do(Division(folder, SETTINGS, 3), Part(2, 3), files=7)
    assert not do(Division(folder, SETTINGS, 3), Part(2, 3), files=8)
    assert do(Division(folder, SETTINGS, 3), Part(1, 3), files=6)
    joining = Division(folder, SETTINGS, None)
    with pytest.raises(
        ValueError, match="part 3/3 is missing: run the same command with --part 3/3"
    ):
        joining.records()
    assert do(Division(folder, SETTINGS, 3), Part(3, 3), files=5)
    assert [record["files"] for record in joining.records()] == [6, 7, 5]
    joining.remove()
    assert not folder.exists()


def test_other_options_lists_and_numbers_of_parts_are_refused(folder):
    do(Division(folder, SETTINGS, 3), Part(1, 3))
    for settings, of, said in (
        ({**SETTINGS, "layer": 0}, 3, "layer: -1, now 0"),
        ({**SETTINGS, "list": "abd"}, 3, "list: abc, now abd"),
        (SETTINGS, 4, "parts: 3, now 4"),
        ({**SETTINGS, "list": "abd"}, None, "list: abc, now abd"),
    ):
        with pytest.raises(ValueError, match=f"begun with other settings.*{said}"):
            Division(folder, settings, of)


def test_of_two_that_begin_at_once_with_other_lists_the_merge_names_the_wrong_part(folder):
    do(Division(folder, SETTINGS, 2), Part(1, 2))
    (folder / division.NAME).unlink()  # as where neither had seen the other's
    do(Division(folder, {**SETTINGS, "list": "abd"}, 2), Part(2, 2))
    with pytest.raises(ValueError, match="part 1/2 done with other settings.*remove .*1-of-2"):
        Division(folder, {**SETTINGS, "list": "abd"}, None).records()


def test_a_part_that_is_being_done_is_refused_and_named(folder, monkeypatch):
    work = Division(folder, SETTINGS, 2)
    if isinstance(folder, Remote):  # signs of life come quickly
        real = lock._read

        def alive(path):
            found = real(path)
            if found:
                lock.atomic.write(path, json.dumps({**found, "sign": found["sign"] + 1}))
            return found

    with work.work(Part(1, 2)):
        if isinstance(folder, Remote):
            monkeypatch.setattr(lock, "_read", alive)
        with (
            pytest.raises(ValueError, match="It does part 1/2; wait for its end, or stop it"),
            Division(folder, SETTINGS, 2).work(Part(1, 2)),
        ):
            pass
        with pytest.raises(
            ValueError, match="part 1/2 is missing: begun by process .* wait for it"
        ):
            Division(folder, SETTINGS, None).records()
    assert do(work, Part(1, 2))


def test_a_kill_while_parts_are_removed_loses_nothing(folder, monkeypatch):
    for part in (Part(1, 2), Part(2, 2)):
        do(Division(folder, SETTINGS, 2), part)
    joining = Division(folder, SETTINGS, None)

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(division, "_clear", killed)
        joining.remove()
    with pytest.raises(ValueError, match="run the command with --merge once more"):
        Division(folder, SETTINGS, 2)
    again = Division(folder, {}, None)
    assert again.merged
    again.remove()
    assert not folder.exists()


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "POLL", 0.01)
    return bucket.install(monkeypatch, tmp_path)


def test_a_lease_is_taken_over_when_its_owner_gives_no_sign_of_life(store, caplog):
    where = place("gs://bucket/work")
    dead = lock.on(where, 1.0)
    assert isinstance(dead, lock.Lease)
    dead._take()  # and dies
    with lock.on(where, 1.0) as held:
        held.check()
        assert "watching for up to 1 s" in caplog.text and "taking over from" in caplog.text
        dead.held, dead.expires = True, 0.04
        dead._beat()  # it was only slow
        with pytest.raises(RuntimeError, match="gave no sign of life"):
            dead.check()
    assert not store


def test_a_store_that_is_away_for_a_moment_takes_nothing_over(store, monkeypatch):
    class HttpError(Exception):
        """Of a library, as gcsfs has one."""

    held = lock.on(place("gs://bucket/work"), 1.0)
    held._take()
    held.held, held.expires = True, 0.04
    tries, write = [], atomic.write

    def away(*given, **more):
        tries.append(given)
        if len(tries) == 1:
            raise HttpError("503")
        write(*given, **more)
        held.over.set()

    monkeypatch.setattr(atomic, "write", away)
    held._beat()
    held.check()
    assert len(tries) == 2 and json.loads(store["/bucket/work/lock"].getvalue())["sign"] == 3


def test_the_last_part_may_give_back_its_lock_while_parts_are_removed(folder, monkeypatch):
    work = Division(folder, SETTINGS, 1)
    do(work, Part(1, 1))
    monkeypatch.setattr(
        division, "list", lambda paths: [*paths, work.at(Part(1, 1)) / lock.NAME], raising=False
    )
    work.remove()
    assert not folder.exists()


def test_an_address_behaves_as_a_path(store, tmp_path):
    root = place("gs://bucket/a/b/")
    assert (str(root), root.name, str(root.parent)) == ("gs://bucket/a/b", "b", "gs://bucket/a")
    assert place(root) is root and pickle.loads(pickle.dumps(root)) == root
    assert place(str(tmp_path)) == tmp_path and place(tmp_path) is tmp_path
    file = root / "x.npz"
    assert (file.suffix, file.stem, file.with_suffix(".y").name) == (".npz", "x", "x.y")
    assert file.with_name("z") == root / "z" and not root.exists() and list(root.iterdir()) == []
    atomic.write(file, "é")
    assert file.read_text() == "é" and file.stat().st_size == 2
    with atomic.file(root / "sub" / "y.json") as written:
        written.write(b'{"a": 1}')
    assert opened.json_file(root / "sub" / "y.json", "numbers") == {"a": 1}
    assert sorted(path.name for path in root.iterdir()) == ["sub", "x.npz"]
    assert [path.name for path in root.glob("*.npz")] == ["x.npz"]
    assert root.is_dir() and file.is_file() and not root.is_file()
    with pytest.raises(RuntimeError), atomic.file(root / "half") as written:
        written.write(b"1")
        raise RuntimeError
    assert not (root / "half").exists()
    file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.unlink()


def test_an_address_without_its_library_or_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    import fsspec

    with pytest.raises(ValueError, match="nosuch://x: no such kind of address; wanted a folder"):
        place("nosuch://x")

    def missing(name, **_):
        raise ImportError("gcsfs")

    with monkeypatch.context() as patch:
        patch.setattr(fsspec, "filesystem", missing)
        with pytest.raises(RuntimeError, match=r"pip install 'ssl_audio\[gs\]'"):
            place("gs://bucket/x")
    bucket.install(monkeypatch, tmp_path)

    def refused(*_):
        raise PermissionError("403")

    monkeypatch.setattr(bucket.Bucket, "pipe_file", refused)
    with pytest.raises(ValueError, match="gs://bucket: cannot be written: PermissionError: 403"):
        atomic.check(place("gs://bucket/x.npz"))


def test_an_address_of_this_machine_is_a_path(tmp_path):
    assert place(f"file://{tmp_path}/a") == tmp_path / "a"
    with pytest.raises(ValueError, match="file://a/b: wanted the folder itself, or file:///"):
        place("file://a/b")


def test_one_machine_is_the_only_part_of_one():
    assert WHOLE.share(5) == range(5) and str(WHOLE) == "1/1"
