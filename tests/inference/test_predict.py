"""`ssl-audio predict` and `Classifier.predict`: rows in, rows out."""

import csv
import dataclasses
import subprocess
import sys
from typing import Any

import encoders
import numpy as np
import pytest
import soundfile
from reference import ROOT
from test_classifier import NAMES, RATE, make, noise

from ssl_audio import startup
from ssl_audio.inference import embed, inputs, predict, predictions
from ssl_audio.inference.calibration import Calibration
from ssl_audio.inference.load import load
from ssl_audio.storage import exported

CLASSES = list(NAMES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    model = make()
    return exported.write(tmp_path_factory.mktemp("run"), model.params, model.config)


@pytest.fixture(scope="module")
def classifier(run):
    return load(run)


@pytest.fixture(scope="module")
def tagger():
    return make("sigmoid")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Three files, one of another rate, and one that is no audio."""
    root = tmp_path_factory.mktemp("sounds")
    for name, samples, rate in [
        ("b.wav", 9000, RATE),
        ("a.flac", 4000, 8000),
        ("c.wav", 40_000, RATE),
    ]:
        soundfile.write(root / name, noise(samples, samples), rate, subtype="PCM_16")
    (root / "bad.wav").write_text("hello")
    return root


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(startup, "use_compilation_cache", lambda: None)


@pytest.fixture
def table(sounds):
    """Rows in an order of their own: twice the same, excerpts, failures, columns that mean nothing here."""
    path = sounds / "table.csv"
    path.write_text(
        "\ufeffid, path,label,start,end,weather\n"
        'x1,c.wav,dog,,,"rain, wind"\n'
        "x2,a.flac,,,,\n"
        "x3,nowhere.wav,cat,,,sun\n"
        "x1,c.wav,dog,,,again\n"
        "x5,c.wav,,1,1.5,\n"
        "x6,bad.wav,,,,\n"
        "x7,,,,,\n"
        "x8,b.wav,,2,1,\n"
        "x9,b.wav,,50,,\n",
        encoding="utf-8",
    )
    return path


def call(run, output, *more) -> Any:
    predict.main(["--checkpoint", str(run), "--output", str(output), *map(str, more)])
    if output.suffix == ".csv":
        with open(output, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return None


def probabilities(row):
    return np.array([float(row[name]) for name in CLASSES])


def heard(classifier, path, start=0, stop=None, **how):
    audio, rate = soundfile.read(path, dtype="float32")
    return classifier.scores(audio[start:stop], rate, **how)


def test_a_row_per_row_asked(run, classifier, sounds, table, tmp_path, capsys):
    rows = call(run, tmp_path / "out.csv", "--csv", table)
    assert list(rows[0]) == [
        "id", "path", "label", "start", "end", "weather", "predicted", "score", *CLASSES, "error",
    ]  # fmt: skip
    assert [row["id"] for row in rows] == ["x1", "x2", "x3", "x1", "x5", "x6", "x7", "x8", "x9"]
    assert [row["weather"] for row in rows][:4] == ["rain, wind", "", "sun", "again"]
    good = [0, 1, 3, 4]
    assert [i for i, row in enumerate(rows) if not row["error"]] == good
    whole = heard(classifier, sounds / "c.wav").values[0]
    np.testing.assert_allclose(probabilities(rows[0]), whole, rtol=1e-5)
    assert (rows[0]["predicted"], float(rows[0]["score"])) == (
        CLASSES[whole.argmax()],
        pytest.approx(whole.max(), rel=1e-5),
    )
    assert {k: v for k, v in rows[3].items() if k != "weather"} == {
        k: v for k, v in rows[0].items() if k != "weather"
    }
    part = heard(classifier, sounds / "c.wav", RATE, 24_000).values[0]
    np.testing.assert_allclose(probabilities(rows[4]), part, rtol=1e-5)
    for i, reason in [
        (2, "nowhere.wav"), (5, "bad.wav"), (6, "path: nothing is given"),
        (7, "end: got 1 s, wanted more than start, 2 s"), (8, "no samples from 50 s"),
    ]:  # fmt: skip
        assert reason in rows[i]["error"]
        assert {rows[i][name] for name in ("predicted", "score", *CLASSES)} == {""}
    assert "9 rows of 9 asked; 5 could not be read" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


def test_paths_keep_their_order(run, sounds, tmp_path):
    names = [sounds / "c.wav", sounds / "bad.wav", sounds, sounds / "c.wav"]
    rows = call(run, tmp_path / "out.csv", *names)
    found = [row["path"].rpartition("/")[2] for row in rows]
    assert found == ["c.wav", "bad.wav", "a.flac", "b.wav", "bad.wav", "c.wav", "c.wav"]
    assert rows[0] == rows[5] == rows[6]


def test_a_row_per_window(run, classifier, sounds, table, tmp_path):
    how = ["--window", "0.5", "--hop", "0.3"]
    rows = call(run, tmp_path / "out.csv", *how, "--csv", table)
    assert list(rows[0])[:6] == ["id", "path", "label", "weather", "start", "end"]
    wanted = heard(classifier, sounds / "c.wav", window=0.5, hop=0.3)
    mine = [row for row in rows if row["weather"] == "rain, wind"]
    assert [float(row["start"]) for row in mine] == pytest.approx(wanted.starts)
    assert [float(row["end"]) for row in mine] == pytest.approx(wanted.ends)
    np.testing.assert_allclose([*map(probabilities, mine)], wanted.values, rtol=1e-5)
    # In the file, not in the excerpt, and a failure has one row without bounds.
    assert [(r["start"], r["end"]) for r in rows if r["id"] == "x5"] == [("1", "1.5")]
    assert [(r["start"], bool(r["error"])) for r in rows if r["id"] == "x6"] == [("", True)]
    order = list(dict.fromkeys(row["id"] for row in rows))
    assert order == ["x1", "x2", "x3", "x5", "x6", "x7", "x8", "x9"]


def test_parquet_holds_the_same(run, table, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = call(run, tmp_path / "out.csv", "--window", "1", "--csv", table)
    call(run, tmp_path / "out.parquet", "--window", "1", "--csv", table)
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert len(found) == len(rows) and list(found[0]) == list(rows[0])
    for mine, theirs in zip(found, rows, strict=True):
        for name, value in mine.items():
            same = theirs[name] or "nan"
            assert value == theirs[name] or value == pytest.approx(
                float(same), rel=1e-5, nan_ok=True
            ), name


def test_top_and_threshold(run, classifier, sounds, tmp_path):
    rows = call(run, tmp_path / "out.csv", "--top", "2", sounds)
    assert list(rows[0])[1:] == [
        "predicted", "score", "label_1", "score_1", "label_2", "score_2", "error",
    ]  # fmt: skip
    values = heard(classifier, sounds / "b.wav").values[0]
    best, second = np.argsort(-values)[:2]
    row = rows[1]
    assert (row["label_1"], row["label_2"]) == (CLASSES[best], CLASSES[second])
    assert float(row["score_2"]) == pytest.approx(values[second], rel=1e-5)
    limit = str((values[best] + values[second]) / 2)
    row = call(run, tmp_path / "out.csv", "--top", "2", "--threshold", limit, sounds / "b.wav")[0]
    assert (row["predicted"], row["label_2"], row["score_2"]) == (CLASSES[best], "", "")
    row = call(run, tmp_path / "out.csv", "--threshold", "1", sounds / "b.wav")[0]
    assert row["predicted"] == "" and float(row["score"]) == pytest.approx(values[best], rel=1e-5)


def test_several_labels(tagger, sounds):
    values = heard(tagger, sounds / "b.wav").values[0]
    limit = float(np.sort(values)[1])
    rows = as_dicts(tagger.predict(sounds / "b.wav", threshold=limit))
    order = np.argsort(-values)
    assert rows[0]["predicted"] == ";".join(CLASSES[c] for c in order[:2])
    assert list(rows[0]) == ["path", "predicted", *CLASSES, "error"]
    # Of the calibration, a threshold for each class.
    fitted = Calibration(1.0, (), tuple(v + (1e-3 if c else -1e-3) for c, v in enumerate(values)))
    model = dataclasses.replace(tagger, calibration=fitted)
    assert as_dicts(model.predict(sounds / "b.wav"))[0]["predicted"] == "cat"


def test_files_are_embedded_in_python(classifier, sounds):
    audio, rate = soundfile.read(sounds / "a.flac", dtype="float32")
    wanted = classifier.embed(audio, rate)
    assert np.array_equal(classifier.embed(sounds / "a.flac"), wanted)
    pair = classifier.embed([str(sounds / "c.wav"), sounds / "a.flac"])
    assert pair.shape == (2, 32) and np.array_equal(pair[1], wanted)
    with pytest.raises(ValueError, match=r"bad.wav: unreadable"):
        classifier.embed([sounds / "a.flac", sounds / "bad.wav"])
    with pytest.raises(ValueError, match="files state their own"):
        classifier.embed(sounds / "a.flac", RATE)
    with pytest.raises(ValueError, match="sample_rate: got None"):
        classifier.embed(audio)


def test_a_column_with_the_name_of_the_vectors_is_kept_under_another(caplog):
    found = embed._carried({"path": ["a"], "embedding": ["x"], "embedding_": ["y"]})
    assert found == {"path": ["a"], "embedding__": ["x"], "embedding_": ["y"]}
    assert "column 'embedding' is the model's: the table's is called 'embedding__'" in caplog.text


def test_a_table_is_embedded(run, sounds, table, tmp_path, capsys):
    """Failures are skipped, as with files; the table's columns are carried along."""
    parquet = pytest.importorskip("pyarrow.parquet")
    how = ["--checkpoint", str(run), "--csv", str(table), "--max-bad-share", "1"]
    embed.main([*how, "--output", str(tmp_path / "out.parquet")])
    assert "skipped row 6 of the table: path: nothing is given" in capsys.readouterr().out
    embed.main([*how, "--output", str(tmp_path / "out.npz")])
    found, arrays = parquet.read_table(tmp_path / "out.parquet"), np.load(tmp_path / "out.npz")
    assert found.column_names == ["id", "path", "label", "start", "end", "weather", "embedding"]
    assert found["id"].to_pylist() == arrays["ids"].tolist() == ["x1", "x2", "x1", "x5"]
    assert found["weather"].to_pylist() == ["rain, wind", "", "again", ""]
    vectors = arrays["embedding"]
    assert np.array_equal(found["embedding"].to_pylist(), vectors)
    audio, rate = soundfile.read(sounds / "c.wav", dtype="float32")
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[3], load(run).embed(audio[RATE:24_000], rate))


def as_dicts(found):
    return found if isinstance(found, list) else found.to_dict("records")


def test_in_python_with_waveforms(classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    one, two = noise(9000), noise(5000, 1)
    (row,) = classifier.predict(one, RATE)
    assert np.array_equal([row[name] for name in CLASSES], classifier.scores(one, RATE).values[0])
    rows = classifier.predict([one, two], sample_rate=RATE, window=0.3, top=1)
    assert [row["clip"] for row in rows] == [0, 0, 1, 1]
    assert list(rows[0]) == [
        "clip",
        "start",
        "end",
        "predicted",
        "score",
        "label_1",
        "score_1",
        "error",
    ]
    with pytest.raises(ValueError, match="sample_rate: got None"):
        classifier.predict(one)
    with pytest.raises(ValueError, match="paths and waveforms together"):
        classifier.predict(["a.wav", one], RATE)
    with pytest.raises(ValueError, match="files state their own"):
        classifier.predict("a.wav", RATE)
    with pytest.raises(TypeError, match="got rate; wanted inputs"):
        classifier.predict(one, rate=3)


def test_the_old_form_still_asks_a_predictor(classifier):
    audio = noise(10_480)
    logits = classifier.predict("logits", audio, RATE)
    assert logits.shape == (3,) and logits.dtype == np.float32
    values = classifier.probabilities(logits)
    assert values == pytest.approx(classifier.scores(audio, RATE).values[0], abs=1e-6)
    assert classifier.predict("logits", waveform=audio, sample_rate=RATE) == pytest.approx(logits)
    named = classifier.predict(name="logits", waveform=audio, sample_rate=RATE)
    assert named == pytest.approx(logits)


def test_in_python_with_a_dataframe(classifier, sounds):
    pandas = pytest.importorskip("pandas", reason="extra 'pandas'")
    files = [str(sounds / name) for name in ("c.wav", "bad.wav", "c.wav")]
    frame = pandas.DataFrame({"path": files, "n": [3, 1, 2], "dog": [True, False, True]}, [7, 7, 9])
    found = classifier.predict(frame)
    assert list(found) == ["path", "n", "dog", "predicted", "score", "cat", "dog_", "rain", "error"]
    assert found.index.tolist() == [7, 7, 9] and found["n"].dtype == frame["n"].dtype
    assert np.isnan(found["cat"].iloc[1]) and "bad.wav" in found["error"].iloc[1]
    values = heard(classifier, sounds / "c.wav").values[0]
    assert np.array_equal(found.iloc[[0, 2]][["cat", "dog_", "rain"]], [values, values])
    wide = classifier.predict(frame.assign(start=[0.5, 0, 0], end=[np.nan] * 3), window=1.0)
    assert wide["start"].tolist()[:2] == [0.5, 1.5] and wide.index.tolist() == [7, 7, 7, 9, 9, 9]
    with pytest.raises(ValueError, match="no column 'path'; the columns are file"):
        classifier.predict(frame.rename(columns={"path": "file"})[["file"]])
    vectors = classifier.embed(frame.iloc[[0, 2]])
    assert vectors.shape == (2, 32) and np.array_equal(vectors[0], vectors[1])


KILLED = """
import os, sys
from ssl_audio.inference import predict
from ssl_audio.storage import partial_results
partial_results.BYTES = 1  # each result is a part
replace = os.replace
def replace_or_die(partial, path):
    if path.name.endswith("-000002.part"):
        os.kill(os.getpid(), 9)
    replace(partial, path)
os.replace = replace_or_die
predict.main(sys.argv[1:])
"""


@pytest.mark.entry
def test_a_killed_run_goes_on(run, sounds, tmp_path, monkeypatch):
    how = ["--window", "0.4", "--csv", sounds / "many.csv"]
    lines = [f"{name},{start}" for start in (0, 0.1, 0.2) for name in ("c.wav", "bad.wav", "b.wav")]
    (sounds / "many.csv").write_text("\n".join(["path,start", *lines, lines[0]]))
    whole = call(run, tmp_path / "whole.csv", *how)
    arguments = ["--checkpoint", run, "--output", tmp_path / "out.csv", *how]
    code = [sys.executable, "-c", KILLED, *map(str, arguments)]
    done = subprocess.run(code, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "out.csv.parts").is_dir()
    read = []
    blocks = inputs.blocks
    monkeypatch.setattr(
        inputs, "blocks", lambda path, *a, **k: read.append(path) or blocks(path, *a, **k)
    )
    with pytest.raises(ValueError, match="window: 0.4, now 0.5"):
        call(run, tmp_path / "out.csv", *how, "--window", "0.5")
    assert call(run, tmp_path / "out.csv", *how) == whole
    assert sum("bad" not in path for path in read) == 5  # of six
    assert {p.name for p in tmp_path.iterdir()} == {"out.csv", "whole.csv"}


def test_parts_are_merged_in_the_order_asked(run, table, tmp_path, capsys):
    whole = call(run, tmp_path / "whole.csv", "--csv", table)
    for part in ("2/2", "1/2"):
        with pytest.raises(FileNotFoundError):
            call(run, tmp_path / "out.csv", "--csv", table, "--part", part)
    assert "part 1/2: 2 rows classified, 1 skipped" in capsys.readouterr().out
    assert call(run, tmp_path / "out.csv", "--csv", table, "--merge", "--threshold", "0") == whole


def test_long_files_are_heard_in_pieces(run, sounds, tmp_path, monkeypatch):
    whole = call(run, tmp_path / "a.csv", "--window", "0.3", "--hop", "0.1", sounds)
    monkeypatch.setattr(inputs, "PIECE", 0.25)
    monkeypatch.setattr(predict, "ROWS", 5)
    monkeypatch.setattr(predict, "KEPT", 4)
    assert call(run, tmp_path / "b.csv", "--window", "0.3", "--hop", "0.1", sounds) == whole


@pytest.mark.parametrize(
    ("output", "more", "message"),
    [
        ("out.npz", ["."], "ends in .csv or .parquet"),
        ("out.csv", ["--csv", "nowhere.csv"], "nowhere.csv: no such file"),
        ("out.csv", ["--top", "4", "{sounds}"], "top: got 4, wanted 1 to 3"),
        ("out.csv", ["{sounds}/bad.wav"], "none of the 1 rows could be read"),
    ],
)
def test_mistakes_are_named(run, sounds, tmp_path, output, more, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call(run, tmp_path / output, *(text.format(sounds=sounds) for text in more))


@pytest.mark.parametrize(
    "more", [["."], ["--csv", "a.csv"], ["a.wav", "--csv", "b.csv"], [], ["--root", "b", "a.wav"]]
)
def test_options_that_contradict(more, tmp_path, capsys):
    fine = more in (
        [
            ".",
        ],
        ["--csv", "a.csv"],
    )
    with pytest.raises((SystemExit, FileNotFoundError, ValueError)) as found:
        predict.main(["--checkpoint", "nowhere", "--output", str(tmp_path / "o.csv"), *more])
    assert (found.type is SystemExit) is not fine


def test_an_encoder_without_classes_is_refused(sounds, tmp_path):
    model = encoders.encoder(frames=24)
    exported.write(tmp_path / "run", model.params, model.config)
    with pytest.raises(
        ValueError, match="wanted a classifier .*got an encoder of sound, which offers encode"
    ):
        call(tmp_path / "run", tmp_path / "out.csv", sounds)


def test_a_class_without_a_finite_score_is_a_failure(classifier, sounds, tmp_path):
    options = predictions.Options()
    source = inputs.Asked(inputs.of_paths([sounds / "b.wav"]), RATE)
    bad = {}

    class Broken:
        def rows_of(self, clips, **_):
            for i, row in classifier.rows_of(clips):
                yield i, row._replace(logits=row.logits * np.nan)

    broken: Any = Broken()
    assert not [*predictions.stream(broken, source, [0], bad, options, total=1, quiet=True)]
    assert "its scores are not finite" in bad[source.table.keys[0]]


@pytest.mark.parametrize("verb", [embed, predict], ids=["embed", "predict"])
def test_a_batch_of_no_windows_is_refused(verb, capsys):
    with pytest.raises(SystemExit):
        verb.main(["--checkpoint", "run", "--output", "o.parquet", "--batch-size", "0", "sounds"])
    assert "--batch-size 0: wanted at least 1" in capsys.readouterr().err
