import json
import os

import numpy as np
import pytest

from ssl_audio.storage import atomic
from ssl_audio.storage.partial_results import Parts

SETTINGS = {"layer": -1, "pool": "mean"}


def frames(rows, seed):
    return np.random.default_rng(seed).standard_normal((rows, 3)).astype(np.float32)


def test_what_is_written_is_found_again(tmp_path):
    parts = Parts(tmp_path / "new" / "x.parts", SETTINGS)
    assert not (tmp_path / "new").exists()
    parts.add_frames("a", frames(2, 0))
    parts.add_frames("b", frames(1, 1))
    parts.write()
    parts.add_frames("a", frames(4, 2))
    parts.finish("a", np.ones(5, np.float32))
    assert parts.finished == set()  # until it is on disk
    parts.write()
    for found in (parts, Parts(tmp_path / "new" / "x.parts", SETTINGS)):
        assert found.finished == {"a"}
        assert np.array_equal(found.vector("a"), np.ones(5))
        pieces = list(found.frames("a"))
        assert np.array_equal(np.concatenate(pieces), np.concatenate([frames(2, 0), frames(4, 2)]))
        assert found.length("a") == 6
    parts.remove()
    assert not (tmp_path / "new" / "x.parts").exists()


def test_frames_of_an_unfinished_clip_are_not_mixed_with_the_next_run(tmp_path):
    first = Parts(tmp_path, SETTINGS)
    first.add_frames("a", frames(2, 0))
    first.write()
    second = Parts(tmp_path, SETTINGS)
    second.add_frames("a", frames(2, 1))
    second.finish("a", np.zeros(1, np.float32))
    second.write()
    for parts in (second, Parts(tmp_path, SETTINGS)):
        assert np.array_equal(np.concatenate(list(parts.frames("a"))), frames(2, 1))


def test_other_settings_are_refused(tmp_path):
    parts = Parts(tmp_path, SETTINGS)
    parts.finish("a", np.zeros(1, np.float32))
    parts.write()
    with pytest.raises(
        ValueError, match="pool: mean, now rows.*Go on with its settings, or remove"
    ):
        Parts(tmp_path, {**SETTINGS, "pool": "rows"})


def test_halves_count_for_nothing(tmp_path):
    parts = Parts(tmp_path, SETTINGS)
    parts.finish("a", np.zeros(1, np.float32))
    parts.write()
    (tmp_path / ".0000-000001.part.partial").write_bytes(b"[[")
    assert Parts(tmp_path, SETTINGS).finished == {"a"}
    (tmp_path / "settings.json").unlink()  # killed while the parts were being removed
    (tmp_path / "mine.txt").touch()
    assert Parts(tmp_path, {"layer": 3}).finished == set()
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_large_heap_is_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_audio.storage.partial_results.BYTES", 100)
    parts = Parts(tmp_path, SETTINGS)
    parts.add_frames("a", frames(4, 0))
    assert not list(tmp_path.glob("*.part"))
    parts.add_frames("a", frames(5, 1))
    assert len(list(tmp_path.glob("*.part"))) == 1
    assert json.loads((tmp_path / "settings.json").read_text()) == SETTINGS


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError), atomic.file(tmp_path / "a") as file:
        file.write(b"ne")
        raise KeyError
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"half"])
def test_a_damaged_file_is_named_and_nothing_is_taken_for_whole(tmp_path, content):
    parts = Parts(tmp_path, SETTINGS)
    parts.add_frames("a", frames(4, 0))
    parts.finish("a", np.ones(5, np.float32))
    parts.write()
    (part,) = tmp_path.glob("*.part")
    whole = part.read_bytes()
    for file, damage in (
        (part, content),
        (part, whole[:-4]),
        (tmp_path / "settings.json", content),
    ):
        before = file.read_bytes()
        file.write_bytes(damage)
        with pytest.raises(
            ValueError, match=f"{file.name}: got .* Remove .* to start anew|other settings"
        ):
            Parts(tmp_path, SETTINGS)
        file.write_bytes(before)
    assert Parts(tmp_path, SETTINGS).finished == {"a"}


def test_what_was_found_in_files_that_have_changed_since_is_found_again(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1e9, 1e9))
    files = {name: str(tmp_path / name) for name in "abcd"}
    parts = Parts(tmp_path / "parts", {"a": 1})
    for name in "abc":
        parts.finish(name, np.zeros(2, np.float32))
    parts.write()
    assert parts.forget_changed(files) == 0 and parts.finished == set("abc")
    (written,) = (tmp_path / "parts").glob("*.part")
    os.utime(written, (1.5e9, 1.5e9))
    os.utime(tmp_path / "b", (1.6e9, 1.6e9))
    os.utime(tmp_path / "a", (9e9, 9e9))  # by a clock that is wrong
    (tmp_path / "c").unlink()  # that is found when it is read
    again = Parts(tmp_path / "parts", {"a": 1})
    assert again.forget_changed(files) == 1 and again.finished == {"a", "c"}
    again.finish("b", np.ones(2, np.float32))
    again.write()
    os.utime(tmp_path / "b", (1e9, 1e9))
    last = Parts(tmp_path / "parts", {"a": 1})
    assert last.forget_changed(files) == 0 and last.vector("b").tolist() == [1, 1]
