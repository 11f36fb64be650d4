"""TensorFlow's checkpoints without TensorFlow, and musicnn's VGG in one, of random weights."""

import struct

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import ssl_audio
from ssl_audio.convert import command, export, from_state_dict, musicnn, tensor_bundle
from ssl_audio.convert.files import read

CODES = {dtype: code for code, dtype in tensor_bundle.TYPES.items()}


def number(value):
    """Return a number in seven bits a byte."""
    found = b""
    while value >= 128:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def field(key, value):
    if isinstance(value, int):
        return number(key * 8) + number(value)
    return number(key * 8 + 2) + number(len(value)) + value


def entry(value, start, kind=None, size=None, more=b""):
    kind = CODES[value.dtype] if kind is None else kind
    shape = b"".join(field(2, field(1, side)) for side in value.shape)
    where = field(4, start) + field(5, value.nbytes if size is None else size)
    return field(1, kind) + field(2, shape) + where + b"\x35\0\0\0\0" + more


def block(pairs):
    """Return a block whose names begin with what they share with the one before, and what ends it."""
    found, last = b"", b""
    for key, value in pairs:
        same = 0
        while same < min(len(key), len(last)) and key[same] == last[same]:
            same += 1
        found += number(same) + number(len(key) - same) + number(len(value)) + key[same:] + value
        last = key
    found += struct.pack("<II", 0, 1) + b"\0"
    return found + struct.pack("<I", tensor_bundle._checksum(found))


def table(entries, per_block=3):
    """Return the bytes of an index: blocks of a few names, the block that lists them, and the end."""
    pairs = sorted(entries.items())
    found, places = b"", []
    for i in range(0, len(pairs), per_block):
        some = pairs[i : i + per_block]
        content = block(some)
        places.append((some[-1][0], number(len(found)) + number(len(content) - 5)))
        found += content
    ends = []
    for content in (block([]), block(places)):
        ends.append(number(len(found)) + number(len(content) - 5))
        found += content
    return found + b"".join(ends).ljust(40, b"\0") + struct.pack("<Q", tensor_bundle.MAGIC)


def bundle(folder, arrays, prefix="", **changed):
    """Write a checkpoint; `changed`: entries in place of those of the arrays."""
    entries, data = {b"": field(1, 1) + field(3, field(1, 1))}, b""
    for name, value in arrays.items():
        entries[name.encode()] = entry(value, len(data))
        data += value.tobytes()
    entries |= {name.encode(): value for name, value in changed.items() if value is not None}
    index = folder / f"{prefix}.index"
    index.write_bytes(table(entries))
    (folder / f"{prefix}.data-00000-of-00001").write_bytes(data)
    return index


ARRAYS = {
    "conv/bias": np.arange(3, dtype=np.float32),
    "conv/kernel": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
    "conv/kernel/Adam": np.zeros((2, 0), np.float64),
    "half": np.arange(4).astype(np.float16),
    "short": np.arange(4).astype(ml_dtypes.bfloat16),
    "step": np.array(7, np.int64),
}


def test_a_checkpoint_gives_its_arrays_by_its_index_its_prefix_or_its_folder(tmp_path):
    bundle(tmp_path, ARRAYS, "model.ckpt-7")
    for place in ("", "model.ckpt-7", "model.ckpt-7.index"):
        found, options = read(tmp_path / place)
        assert options == {} and found.keys() == ARRAYS.keys()
        for name, value in ARRAYS.items():
            np.testing.assert_array_equal(found[name], value)
        assert found["short"].dtype == np.float32 and found["step"].shape == ()
    (tmp_path / "config.json").write_text('{"n_frames": 3}')
    assert read(tmp_path)[1] == {"n_frames": 3}
    bundle(tmp_path, ARRAYS, "model.ckpt-8")
    with pytest.raises(ValueError, match="several checkpoints .* model.ckpt-7.index, model"):
        read(tmp_path)


def test_text_is_left_out_and_a_missing_file_is_named(tmp_path):
    notes = entry(np.zeros(5, np.uint8), 0, kind=tensor_bundle.TEXT, size=9)
    index = bundle(tmp_path, ARRAYS, "a", _NOTES=notes)
    assert "_NOTES" not in read(index)[0]
    (tmp_path / "a.data-00000-of-00001").unlink()
    with pytest.raises(FileNotFoundError, match="a.data-00000-of-00001: missing; a.index names 1"):
        read(index)


WRONG = {
    "20 bytes for an array": entry(np.zeros((2, 3), np.float32), 0, size=20),
    "104 bytes of arrays in files of 84": entry(np.zeros(5, np.float32), 0),
    "outside the files of arrays": entry(np.zeros(3, np.float32), 2**40),
    "type 99": entry(np.zeros(3, np.float32), 0, kind=99),
    "in slices": entry(np.zeros(3, np.float32), 0, more=field(7, b"")),
    "an array .4611686018427387904, 4, 0.": field(1, 1)
    + field(2, b"".join(field(2, field(1, side)) for side in (2**62, 4, 0))),
    "of 17 axes": entry(np.zeros((1,) * 17, np.float32), 0),
    "more than 64 bits": b"\x08" + b"\xff" * 20,
    "a field of kind 3": b"\x0b",
    "no whole number": field(1, b"abc"),
    "lie: lies outside": field(1, 1) + field(3, 5) + field(5, 4),
}


@pytest.mark.parametrize("message", WRONG)
def test_an_index_that_lies_is_refused(tmp_path, message):
    index = bundle(tmp_path, ARRAYS, "a", lie=WRONG[message])
    with pytest.raises(ValueError, match=f"a.index: damaged .*{message}"):
        read(index)


def test_an_index_that_is_cut_or_changed_is_refused(tmp_path):
    index = bundle(tmp_path, ARRAYS, "a")
    whole = index.read_bytes()
    rng = np.random.default_rng(0)
    for end in range(0, len(whole), 7):
        index.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="a.index: damaged"):
            read(index)
    for at in rng.integers(0, len(whole) - 56, 100):
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.integers(8)]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="a.index: damaged"):
            read(index)
    index.write_bytes(whole + b"\0" * tensor_bundle.LARGEST)
    with pytest.raises(ValueError, match="wanted at most"):
        read(index)


def test_an_index_that_names_one_block_over_and_over_is_refused(tmp_path, monkeypatch):
    """Each time its checksum is computed anew; a block without names puts none out of order."""
    long = struct.pack("<I", 0) * 1000 + struct.pack("<I", 1000) + b"\0"
    long += struct.pack("<I", tensor_bundle._checksum(long))
    handle = number(0) + number(len(long) - 5)
    found, ends = long, []
    for content in (block([]), block([(b"%06d" % i, handle) for i in range(1000)])):
        ends.append(number(len(found)) + number(len(content) - 5))
        found += content
    index = tmp_path / "a.index"
    end = b"".join(ends).ljust(40, b"\0") + struct.pack("<Q", tensor_bundle.MAGIC)
    index.write_bytes(found + end)
    summed, checksum = [], tensor_bundle._checksum
    monkeypatch.setattr(
        tensor_bundle, "_checksum", lambda content: summed.append(len(content)) or checksum(content)
    )
    with pytest.raises(ValueError, match="a.index: damaged .its blocks overlap"):
        read(index)
    assert sum(summed) < 3 * len(found)


def test_names_that_would_take_much_memory_are_refused(tmp_path, monkeypatch):
    long = {"x" * 2000: np.zeros(1, np.float32)}
    with pytest.raises(ValueError, match="a name of 2000 bytes after 0"):
        read(bundle(tmp_path, long, "a"))
    monkeypatch.setattr(tensor_bundle, "MOST", 4)
    with pytest.raises(ValueError, match="more than 4 names"):
        read(bundle(tmp_path, ARRAYS, "a"))


def vgg(rng, channels=4, classes=3):
    """Return random arrays under musicnn's names, those of its optimiser among them."""

    def normal(*shape):
        scale = np.float32(np.prod(shape[:-1], initial=1) ** -0.5)
        return scale * rng.standard_normal(shape, dtype=np.float32)

    state = {"dense/kernel": normal(2 * channels, classes), "dense/bias": normal(classes)}
    for block in range(6):
        width = channels if block else 1
        at = f"batch_normalization_{block}" if block else "batch_normalization"
        state |= {f"{at}/{name}": normal(width) for name in ("gamma", "beta", "moving_mean")}
        state[f"{at}/moving_variance"] = 1 + normal(width) ** 2
        if block:
            before = channels if block > 1 else 1
            state[f"{block}CNN/kernel"] = normal(3, 3, before, channels)
            state[f"{block}CNN/bias"] = normal(channels)
    return state | {"dense/bias/Adam": np.ones(classes, "f4"), "beta1_power": np.ones((), "f4")}


def test_musicnns_own_network_there_and_back():
    """A maximum and a mean take turns in the vector of the checkpoint's clips."""
    rng = np.random.default_rng(0)
    shapes = {"conv2d/kernel": (7, 38, 1, 3), "conv2d_1/kernel": (7, 67, 1, 3)}
    shapes |= {f"conv2d_{2 + i}/kernel": (4 >> i, 1, 1, 2) for i in range(3)}
    shapes |= {f"conv2d_{5 + i}/kernel": (7, 2 if i else 12, 1, 2) for i in range(3)}
    shapes |= {"dense/kernel": (36, 5), "dense_1/kernel": (5, 3)}
    state = {
        name: 0.1 * rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
    }
    state |= {
        name.replace("kernel", "bias"): rng.standard_normal(shape[-1], dtype=np.float32)
        for name, shape in shapes.items()
    }
    for i, width in enumerate((1, 3, 3, 2, 2, 2, 2, 2, 2, 36, 5)):
        at = f"batch_normalization_{i}" if i else "batch_normalization"
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            state[f"{at}/{name}"] = rng.uniform(1, 2, width).astype(np.float32)
    model = from_state_dict("musicnn", state)
    back = musicnn.to_state_dict(model.params, model.config)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    found = model.forward(x=rng.uniform(0, 3, (2, 187, 96)).astype(np.float32))
    tokens = np.concatenate([found[n] for n in ("frontend", "cnn1", "cnn2", "cnn3")], axis=-1)
    assert tokens.shape == (2, 187, 18)

    def normal(x, i):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, var = (state[f"batch_normalization_{i}/{name}"] for name in names)
        return (x - mean) / np.sqrt(var + 1e-3) * gamma + beta

    x = np.stack([tokens.max(1), tokens.mean(1)], axis=-1).reshape(2, 36)
    x = np.maximum(normal(x, 9) @ state["dense/kernel"] + state["dense/bias"], 0)
    wanted = normal(x, 10) @ state["dense_1/kernel"] + state["dense_1/bias"]
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-4)


def test_musicnn_there_and_back_and_in_use(tmp_path, capsys):
    state = vgg(np.random.default_rng(0))
    (tmp_path / "tf").mkdir()
    bundle(tmp_path / "tf", state)
    (tmp_path / "tf/config.json").write_text('{"n_frames": 187, "audio_rep": {"n_mels": 96}}')
    ours, back = tmp_path / "ours", tmp_path / "back"
    command.main(
        ["--from", "musicnn", "--checkpoint", str(tmp_path / "tf"), "--out", str(ours), "--check"]
    )
    assert "are the same bits after the way there and back" in capsys.readouterr().out
    export.main(["--checkpoint", str(ours), "--out", str(back), "--to", "musicnn"])
    with np.load(back / "state_dict.npz") as file:
        assert set(file.files) == state.keys()
        assert all(np.array_equal(file[name], value) for name, value in state.items())
    model = ssl_audio.load(ours)
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    assert model.scores(audio, 16_000).values.shape == (1, 3)
    # A column's features are those that the network gives in a window of the training length.
    converted = from_state_dict("musicnn", state)
    spec = np.asarray(model.objective.frontend(jnp.asarray(audio[None])))
    wanted = converted.forward(x=spec)["pool5"][0, :, 0]
    found, times = model.frames(audio, 16_000)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(np.diff(times), 64 * 16)


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(audio_rep=dict(n_mels=128)), "audio_rep: n_mels is 128: only 96"),
        (dict(audio_rep=dict(identifier="gtzan")), "identifier is 'gtzan': wanted mtt or msd"),
        (dict(pre_processing="logEPS"), "pre_processing='logEPS': only 'logC'"),
        (dict(num_classes_dataset=50), "num_classes_dataset=50: the state dict says 3"),
        (dict(n_frames=400), r"dense/kernel \(8, 3\), wanted \(24, 3\)"),
    ],
)
def test_what_musicnn_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        from_state_dict("musicnn", vgg(np.random.default_rng(0)), **given)
