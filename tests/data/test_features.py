"""Features computed before, and triplets of clips, as entries of a batch."""

import numpy as np
import pytest
import soundfile

from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Audio
from ssl_audio.data.features import Features
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.rejected import Rejected
from ssl_audio.data.source import Manifest
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.data.triplet import Triplet

RNG = np.random.default_rng(0)


def drawn(entry, given, root="", seed=0):
    example = dict(id="x", columns={"features": given}, root=root)
    found = entry.draw(example, np.random.default_rng(seed))
    for name, (shape, kind) in entry.spec().items():
        assert np.shape(found[name]) == shape and np.asarray(found[name]).dtype == kind
    return found


def test_a_vector_a_row_and_a_drawn_row(tmp_path):
    rows = RNG.normal(size=(5, 3)).astype(np.float32)
    np.save(tmp_path / "f.npy", rows)
    np.save(tmp_path / "one.npy", rows[0])
    entry, root = Features(width=3), str(tmp_path)
    assert np.array_equal(drawn(entry, "one.npy", root)["features"], rows[0])
    assert np.array_equal(drawn(entry, "f.npy#3", root)["features"], rows[3])
    np.save(tmp_path / "C#.npy", rows)
    assert np.array_equal(drawn(entry, "C#.npy#2", root)["features"], rows[2])
    found = {drawn(entry, "f.npy", root, seed)["features"].tobytes() for seed in range(40)}
    assert found == {row.tobytes() for row in rows}
    middle = drawn(Features(width=3, pick="middle"), "f.npy", root)["features"]
    assert np.array_equal(middle, rows[2])
    assert np.array_equal(drawn(entry, [1.0, 2.0, 3.0])["features"], (1, 2, 3))  # as Parquet has it


def test_sequences_are_cut_and_filled(tmp_path):
    rows = np.arange(12, dtype=np.float64).reshape(4, 3)
    np.save(tmp_path / "f.npy", rows)
    long = drawn(Features(width=3, frames=6), "f.npy", str(tmp_path))
    assert long["features_length"] == 4 and not long["features"][4:].any()
    assert np.array_equal(long["features"][:4], rows)
    short = drawn(Features(width=3, frames=2), "f.npy", str(tmp_path))
    assert short["features_length"] == 2 and np.array_equal(short["features"], rows[:2])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("f.npy#9", "no such row"), ("f.npy#x", "no such row"), ("none.npy", "no array"),
        ("wide.npy", r"wanted \[3\]"), ("objects.npy", "no array"), ("text.npy", "array of numbers"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_named(tmp_path, place, message):
    np.save(tmp_path / "f.npy", np.zeros((2, 3)))
    np.save(tmp_path / "wide.npy", np.zeros((2, 4)))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    with pytest.raises(DecodeError, match=message):
        drawn(Features(width=3), place, str(tmp_path))


def test_a_manifest_brings_both_sound_and_features(tmp_path):
    lines = ["path,features,image_features"]
    np.save(tmp_path / "all.npy", np.eye(4, dtype=np.float32))
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.full(800, 0.1), 16_000)
        lines.append(f"{i}.wav,all.npy#{i},all.npy#{3 - i}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    entries = dict(
        audio=Audio(800),
        own=Features(width=4),
        other=Features(width=4, array="image_features"),
    )
    source = Manifest(str(tmp_path / "t.csv"))
    found = next(Pipeline(dict(a=source), 4, entries, shuffle=False, threads=0).batches())
    assert np.array_equal(found["features"], np.eye(4))
    assert np.array_equal(found["image_features"], np.eye(4)[::-1])


def test_triplets_by_labels():
    source = Synthetic(size=48, seconds=0.1)
    heard = {source[i]["audio"].tobytes(): source.meta(i)["label"] for i in range(48)}
    entries = dict(audio=Audio(1600), three=Triplet(Audio(1600), by="labels", negatives=2))
    pipeline = Pipeline(dict(a=source), 12, entries, threads=0)
    found = next(pipeline.batches())
    assert {k: v[0] for k, v in pipeline.spec().items()} == {k: v.shape for k, v in found.items()}
    for row in range(12):
        anchor = found["audio"][row]
        positive = found["audio_positive"][row]
        label = heard[anchor.tobytes()]
        assert heard[positive.tobytes()] == label and not np.array_equal(positive, anchor)
        for negative in found["audio_negative"][row]:
            assert heard[negative.tobytes()] != label


def test_triplets_from_columns(tmp_path):
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.full(800, 0.1 * (i + 1)), 16_000)
    (tmp_path / "t.csv").write_text("path,positive,negative\n0.wav,1.wav,2.wav; 3.wav\n")
    entries = dict(audio=Audio(800), three=Triplet(Audio(800), negatives=8))
    source = Manifest(str(tmp_path / "t.csv"))
    found = next(Pipeline(dict(a=source), 1, entries, threads=0).batches())
    level = {k: np.round(found[k].max(axis=-1) * 10).astype(int) for k in found if "audio" in k}
    assert level["audio"].tolist() == [1] and level["audio_positive"].tolist() == [2]
    assert set(level["audio_negative"][0]) == {3, 4}
    assert found["length_negative"].tolist() == [[800] * 8]


def test_files_of_a_triplet_are_heard_by_the_same_channel_as_the_anchor(tmp_path):
    for name, levels in (("a", (0.5, 0.1)), ("b", (0.25, 0.1)), ("c", (0.125, 0.1))):
        sound = np.ones((800, 2), np.float32) * np.float32(levels)
        soundfile.write(tmp_path / f"{name}.wav", sound, 16_000)
    table = tmp_path / "list.csv"
    table.write_text("path,positive,negative\na.wav,b.wav,c.wav\n")
    for entry in (Triplet(Audio(800)), Rejected(Audio(800), column="positive")):
        for channels, want in (("first", (0.5, 0.25, 0.125)), ("average", (0.3, 0.175, 0.1125))):
            source = Manifest(str(table), channels=channels)
            example = source[0] | {"more": None}
            found = {**Audio(800).draw(example, RNG), **entry.draw(example, RNG)}
            levels = [np.ravel(x).max() for name, x in found.items() if name.startswith("audio")]
            assert levels == pytest.approx(want[: len(levels)], abs=1e-3)


def test_triplets_that_there_are_none_of():
    alone = Synthetic(size=12, seconds=0.1)  # one of each class
    entries = dict(three=Triplet(Audio(1600), by="labels"))
    with pytest.raises(ValueError, match="another clip with its label"):
        next(Pipeline(dict(a=alone), 1, entries, threads=0).batches())
    with pytest.raises(ValueError, match="wanted one of"):
        Triplet(Audio(10), by="taste")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(tmp_path, value):
    rows = np.ones((3, 2), np.float32)
    rows[1, 0] = value
    np.save(tmp_path / "x.npy", rows)
    example = {"id": "a", "root": str(tmp_path), "columns": {"features": "x.npy"}}
    for frames in (0, 3):
        entry = Features(width=2, frames=frames, pick="middle")
        with pytest.raises(DecodeError, match="clip a: column 'features': NaN or infinite"):
            entry.draw(example, np.random.default_rng(0))
