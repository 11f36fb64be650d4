import sys

import encoders
import numpy as np
import pytest
import soundfile

from ssl_audio import embed, hosts
from ssl_audio.encoder import load

RATE = 16_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    encoders.save(encoders.encoder(frames=24), workdir, 1)
    return workdir


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Four clips of other rates and lengths, one of them long, below two folders."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for name, samples, rate in [
        ("b/one.wav", 3000, RATE),
        ("b/two.flac", 700, 8000),
        ("a/deep/three.wav", 9000, RATE),
        ("four.wav", 3000, RATE),
    ]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, 0.1 * rng.standard_normal(samples), rate)
    (root / "notes.txt").write_text("not audio")
    return root


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(hosts, "use_compilation_cache", lambda: None)


def call(run, output, *more):
    embed.main(["--checkpoint", str(run), "--output", str(output), *map(str, more)])


def test_npz_holds_what_the_encoder_gives(run, sounds, tmp_path, capsys):
    output = tmp_path / "new" / "out.npz"
    call(run, output, "--frames", "--layer", "0", "--pool", "stats", sounds, sounds / "four.wav")
    found = np.load(output, allow_pickle=False)
    names = ["a/deep/three.wav", "b/one.wav", "b/two.flac", "four.wav"]
    assert found["ids"].tolist() == [f"{sounds}/{name}" for name in names]
    encoder = load(run)
    for i, name in enumerate(names):
        audio, rate = soundfile.read(sounds / name, dtype="float32")
        assert np.array_equal(
            found["embedding"][i], encoder.embed(audio, rate, layer=0, pool="stats")
        )
        inside = slice(*found["offsets"][i : i + 2])
        features, times = encoder.frames(audio, rate, layer=0)
        assert np.array_equal(found["frames"][inside], features)
        assert np.array_equal(found["times"][inside], times)
    assert "embedding 4 x 128; 0 of 4 files skipped" in capsys.readouterr().out
    assert [p.name for p in output.parent.iterdir()] == ["out.npz"]


def test_parquet_has_a_row_per_clip(run, sounds, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    call(run, tmp_path / "out.npz", "--frames", sounds)
    call(run, tmp_path / "out.parquet", "--frames", sounds)
    arrays, rows = np.load(tmp_path / "out.npz"), parquet.read_table(tmp_path / "out.parquet")
    rows = rows.to_pylist()
    assert [row["id"] for row in rows] == arrays["ids"].tolist()
    assert np.array_equal([row["embedding"] for row in rows], arrays["embedding"])
    assert np.array_equal(np.concatenate([row["frames"] for row in rows]), arrays["frames"])
    assert np.array_equal(np.concatenate([row["times"] for row in rows]), arrays["times"])
    assert [len(row["frames"]) for row in rows] == np.diff(arrays["offsets"]).tolist()


def test_bad_files_are_skipped_up_to_a_share(run, sounds, tmp_path, caplog, capsys):
    bad = [tmp_path / "empty.wav", tmp_path / "text.wav"]
    bad[0].touch()
    bad[1].write_text("hello")
    call(run, tmp_path / "out.npz", bad[0], sounds)
    assert "empty.wav: empty file" in caplog.text
    assert len(np.load(tmp_path / "out.npz")["ids"]) == 4
    assert "1 of 5 files skipped" in capsys.readouterr().out
    with pytest.raises(ValueError, match="2 of 6 clips could not be read"):
        call(run, tmp_path / "more.npz", *bad, sounds)
    call(run, tmp_path / "more.npz", "--max-bad-share", "0.5", *bad, sounds)
    with pytest.raises(ValueError, match="none of the 1 files could be read"):
        call(run, tmp_path / "none.npz", bad[0])
    assert not (tmp_path / "none.npz").exists()


@pytest.mark.parametrize(
    ("output", "more", "error", "message"),
    [
        ("out.csv", ["."], ValueError, "ends in .npz or .parquet"),
        ("out.npz", ["nowhere.wav"], ValueError, "nowhere.wav: no such file or folder"),
        ("out.npz", ["{empty}"], ValueError, "no audio file in this folder"),
        ("out.npz", ["--layer", "7", "."], ValueError, "layer: got 7"),
        ("out.npz", ["--step", "7", "."], FileNotFoundError, "no checkpoint of step 7"),
    ],
)
def test_mistakes_are_named_before_the_work(run, tmp_path, output, more, error, message):
    with pytest.raises(error, match=message):
        call(run, tmp_path / output, *(text.format(empty=tmp_path) for text in more))


def test_parquet_names_the_extra_when_pyarrow_is_missing(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ssl_audio\[parquet\]'"):
        call(run, tmp_path / "out.parquet", tmp_path)
