"""PyTorch's old files without PyTorch: what they hold, and what is refused."""

import collections
import os
import pickle
import sys
import tracemalloc
import types

import numpy as np
import pytest

from ssl_audio.convert import torch_file

MAGIC = 0x1950A86A20F9469CFC6C


class Tensor:
    def __init__(self, storage, offset, shape, stride):
        self.given = (storage, offset, shape, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.given


class Storage:
    def __init__(self, key, kind, array):
        self.key, self.kind, self.array = key, kind, array


@pytest.fixture
def torch(monkeypatch):
    """Put stand-ins for the names in such a file where pickle looks for them."""
    whole, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*given):
        raise AssertionError("nothing in a file is run")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    vars(utils)["_rebuild_tensor_v2"] = _rebuild_tensor_v2
    for name in ("FloatStorage", "LongStorage", "FancyStorage"):
        setattr(whole, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    monkeypatch.setitem(sys.modules, "torch", whole)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return whole


def write(path, torch, content, storages, count=None):
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Storage):
                kind = getattr(torch, obj.kind)
                return ("storage", kind, obj.key, "cpu", obj.array.size, None)
            return None

    with open(path, "wb") as file:
        for part in (MAGIC, 1001, dict(little_endian=True)):
            pickle.dump(part, file, protocol=2)
        Pickler(file, protocol=2).dump(content)
        pickle.dump([s.key for s in storages], file, protocol=2)
        for s in storages:
            file.write(np.int64(s.array.size if count is None else count).tobytes())
            file.write(s.array.tobytes())


def test_names_and_arrays_come_back(tmp_path, torch):
    numbers = np.random.default_rng(0).normal(size=24).astype(np.float32)
    floats = Storage("7", "FloatStorage", numbers)
    longs = Storage("9", "LongStorage", np.array([5], np.int64))
    state = collections.OrderedDict(
        whole=Tensor(floats, 0, (2, 3, 4), (12, 4, 1)),
        part=Tensor(floats, 4, (5,), (1,)),
        turned=Tensor(floats, 0, (2, 3), (1, 2)),
        number=Tensor(longs, 0, (), ()),
    )
    vars(state)["_metadata"] = collections.OrderedDict()  # as modules leave it there
    write(tmp_path / "x.pth", torch, state, [floats, longs])
    assert torch_file.is_file(tmp_path / "x.pth")
    found = torch_file.read(tmp_path / "x.pth")
    assert np.array_equal(found["whole"], numbers.reshape(2, 3, 4))
    assert np.array_equal(found["turned"], numbers[:6].reshape(3, 2).T)
    assert np.array_equal(found["part"], numbers[4:9]) and found["number"] == 5
    assert found["whole"].dtype == np.float32 and found["number"].dtype == np.int64
    data = (tmp_path / "x.pth").read_bytes()
    for cut in (30, len(data) // 2, len(data) - 5):
        (tmp_path / "cut.pth").write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"cut\.pth"):
            torch_file.read(tmp_path / "cut.pth")


def test_what_no_state_dict_holds_is_refused(tmp_path, torch):
    floats = Storage("7", "FloatStorage", np.zeros(6, np.float32))
    fancy = Storage("7", "FancyStorage", np.zeros(6, np.float32))
    cases = {
        "os": ({"a": os.getcwd}, [], None),
        "kind": ({"a": Tensor(fancy, 0, (6,), (1,))}, [fancy], None),
        "blown": ({"a": Tensor(floats, 0, (10**9,), (0,))}, [floats], None),
        "back": ({"a": Tensor(floats, 5, (6,), (-1,))}, [floats], None),
        "beyond": ({"a": Tensor(floats, 3, (6,), (1,))}, [floats], None),
        "count": ({"a": Tensor(floats, 0, (6,), (1,))}, [floats], 10**12),
        "list": ([1, 2], [], None),
        "number": ({"a": 3}, [], None),
    }
    for name, (content, storages, count) in cases.items():
        write(tmp_path / f"{name}.pth", torch, content, storages, count)
        with pytest.raises(ValueError, match=rf"{name}\.pth: .*wanted a state dict"):
            torch_file.read(tmp_path / f"{name}.pth")


DEEP = (
    b"N" + b"\x85q\x00" + b"h\x00\x86q\x00" * 60
)  # a pair of a pair of …: 2 ** 60 to hash or to compare
HOSTILE = {
    "hash": b"}" + DEEP + b"Ns.",
    "hash_of_many": b"}(" + DEEP + b"Nu.",
    "room": b"}r\xff\xff\xff\x0f.",  # C's unpickler takes 4 GiB for what it is to remember
    "called": b"ctorch\nFloatStorage\nU\x011\x85R.",
    "changed": b"ctorch._utils\n_rebuild_tensor_v2\nN}U\x0c__defaults__)s\x86b.",
    "text": b"I1\n.",
    "set": b"\x8f(" + b"K\x01\x90.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_would_run_hang_or_fill_memory_is_refused(tmp_path, name):
    path = tmp_path / f"{name}.pth"
    begin = [pickle.dumps(part, protocol=2) for part in (MAGIC, 1001, {})]
    path.write_bytes(b"".join([*begin, b"\x80\x02" + HOSTILE[name], pickle.dumps([], protocol=2)]))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"{name}\.pth: .*wanted a state dict"):
            torch_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert torch_file._rebuilt.__defaults__ is None


def test_many_names_of_one_storage_fill_no_memory(tmp_path, torch):
    floats = Storage("7", "FloatStorage", np.zeros(10**5, np.float32))
    for count, fits in ((10, True), (30, False)):
        state = {f"a{i}": Tensor(floats, 0, (10**5,), (1,)) for i in range(count)}
        write(tmp_path / "x.pth", torch, state, [floats])
        if fits:
            assert len(torch_file.read(tmp_path / "x.pth")) == count
        else:
            with pytest.raises(ValueError, match=r"x\.pth: .*12000000 bytes of tensors in a file"):
                torch_file.read(tmp_path / "x.pth")
