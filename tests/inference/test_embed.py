import inspect
import subprocess
import sys

import encoders
import numpy as np
import pytest
import soundfile
from reference import ROOT

from ssl_audio import startup
from ssl_audio.data.decode import blocks, decode
from ssl_audio.inference import embed, inputs
from ssl_audio.inference.load import load

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
    monkeypatch.setattr(startup, "use_compilation_cache", lambda: None)


def call(run, output, *more):
    embed.main(["--checkpoint", str(run), "--output", str(output), *map(str, more)])


@pytest.mark.parametrize("piece", [inputs.PIECE, 0.05])
def test_npz_holds_what_the_encoder_gives(run, sounds, tmp_path, capsys, monkeypatch, piece):
    """The encoder is given each clip in one piece: the bits are the same."""
    monkeypatch.setattr(inputs, "PIECE", piece)
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


def test_parquet_has_a_row_per_clip_and_one_per_column(run, sounds, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    call(run, tmp_path / "out.npz", "--frames", sounds)
    call(run, tmp_path / "out.parquet", "--frames", sounds)
    arrays, rows = np.load(tmp_path / "out.npz"), parquet.read_table(tmp_path / "out.parquet")
    assert rows["id"].to_pylist() == arrays["ids"].tolist()
    assert np.array_equal(rows["embedding"].to_pylist(), arrays["embedding"])
    columns = parquet.read_table(tmp_path / "out.frames.parquet")
    assert np.array_equal(columns["features"].to_pylist(), arrays["frames"])
    assert np.array_equal(columns["time"].to_numpy(), arrays["times"])
    counts = np.diff(arrays["offsets"])
    assert columns["id"].to_pylist() == np.repeat(arrays["ids"], counts).tolist()
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"out.npz", "out.parquet", "out.frames.parquet"}


def test_bad_files_are_skipped_up_to_a_share(run, sounds, tmp_path, caplog, capsys):
    bad = [tmp_path / "empty.wav", tmp_path / "text.wav"]
    bad[0].touch()
    bad[1].write_text("hello")
    call(run, tmp_path / "out.npz", bad[0], sounds)
    assert "empty.wav: empty file" in caplog.text
    assert len(np.load(tmp_path / "out.npz")["ids"]) == 4
    out = capsys.readouterr().out
    assert "1 of 5 files skipped" in out and "skipped " + str(bad[0]) in out
    with pytest.raises(ValueError, match="2 of 6 clips could not be read"):
        call(run, tmp_path / "more.npz", *bad, sounds)
    call(run, tmp_path / "more.npz", "--max-bad-share", "0.5", *bad, sounds)
    with pytest.raises(ValueError, match="none of the 1 files could be read"):
        call(run, tmp_path / "none.npz", bad[0])
    assert not (tmp_path / "none.npz").exists()


def test_long_files_wait_unread(sounds, monkeypatch):
    monkeypatch.setattr(inputs, "PIECE", 0.2)
    source = inputs.Paths((str(sounds),), RATE)
    short, long = source[2]["audio"], source[0]["audio"]
    assert isinstance(short, np.ndarray) and len(short) == 1400
    assert inspect.getgeneratorstate(long) == inspect.GEN_CREATED
    assert [len(piece) for piece in long] == [3200, 3200, 2600]


def test_a_file_that_breaks_off_late_is_skipped_whole(run, sounds, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inputs, "PIECE", 0.1)
    audio = np.full(9000, 0.1, np.float32)
    audio[-10] = np.nan
    soundfile.write(tmp_path / "late.wav", audio, RATE, subtype="FLOAT")
    call(run, tmp_path / "out.npz", "--frames", tmp_path / "late.wav", sounds)
    found = np.load(tmp_path / "out.npz")
    assert len(found["ids"]) == 4 and found["offsets"][-1] == len(found["frames"])
    assert "late.wav: NaN or infinite samples" in capsys.readouterr().out
    with pytest.raises(ValueError, match="1 of 5 clips could not be read"):
        late = tmp_path / "late.wav"
        call(run, tmp_path / "out.npz", "--max-bad-share", "0", late, sounds)


def child(code, *args):
    """Run code in a process that never writes to the user's compilation cache."""
    code = (
        "from ssl_audio.inference import embed\n"
        "from ssl_audio.storage import partial_results\n"
        "import os, resource, sys\n" + code
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, cwd=ROOT
    )


KILLED = """
partial_results.BYTES = 1  # each result is a part
replace = os.replace
def replace_or_die(partial, path):
    if path.name == "0000-000004.part":
        os.kill(os.getpid(), 9)
    replace(partial, path)
os.replace = replace_or_die
embed.main(sys.argv[1:])
"""


@pytest.mark.entry
def test_a_killed_run_goes_on_without_repeating_finished_files(
    run, sounds, tmp_path, monkeypatch, caplog
):
    call(run, tmp_path / "whole.npz", "--frames", sounds)
    caplog.set_level("INFO", "ssl_audio")
    output = tmp_path / "out.npz"
    arguments = ["--checkpoint", run, "--output", output, "--frames", sounds]
    done = child(KILLED, *arguments)
    assert done.returncode == -9, done.stderr
    folder = tmp_path / "out.npz.parts"
    assert (folder / ".0000-000004.part.partial").exists() and not output.exists()

    with pytest.raises(ValueError, match="pool: mean, now rows"):
        call(run, output, "--frames", "--pool", "rows", sounds)
    read = []
    monkeypatch.setattr(
        inputs, "blocks", lambda path, *a, **k: read.append(path) or blocks(path, *a, **k)
    )
    call(run, output, "--frames", sounds)
    assert 0 < len(read) < 4
    assert f"{4 - len(read)} of 4 files were finished before" in caplog.text
    found, wanted = np.load(output), np.load(tmp_path / "whole.npz")
    assert found.files == wanted.files
    for name in wanted.files:
        assert np.array_equal(found[name], wanted[name]), name
    assert {p.name for p in tmp_path.iterdir()} == {"out.npz", "whole.npz"}


MEMORY = """
*options, short, long = sys.argv[1:]
def peak(path):
    embed.main([*options, path])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak(short)
print(peak(long) - before)
"""


@pytest.mark.entry
def test_long_files_take_little_memory(run, tmp_path):
    """Five minutes of eight channels at 48 kHz are 440 MiB as floating point numbers."""
    rng = np.random.default_rng(0)
    second = (3000 * rng.standard_normal((48_000, 8))).astype(np.int16)
    for name, seconds in (("short.wav", 1), ("long.wav", 300)):
        with soundfile.SoundFile(tmp_path / name, "w", 48_000, 8, "PCM_16") as file:
            for i in range(seconds):
                file.write(second[::-1] if i % 7 == 3 else second)
    output, long = tmp_path / "out.npz", tmp_path / "long.wav"
    arguments = ["--checkpoint", run, "--output", output, "--frames", tmp_path / "short.wav", long]
    done = child(MEMORY, *arguments)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 220, done.stdout
    audio, encoder = decode(long, RATE), load(run)
    found = np.load(output)
    assert np.array_equal(found["embedding"][0], encoder.embed(audio, RATE))
    features, times = encoder.frames(audio, RATE)
    assert np.array_equal(found["frames"], features) and np.array_equal(found["times"], times)


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
