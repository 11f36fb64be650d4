import dataclasses
import functools
import json
import shutil

import encoders
import numpy as np
import pytest
import soundfile

from ssl_audio.data.sets.esc import Esc
from ssl_audio.data.sets.spoken_digit import SpokenDigit
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import base, evaluate, features
from ssl_audio.eval.probe import Probe

RATE = 16_000


@pytest.fixture(scope="module")
def encoder():
    return encoders.encoder(frames=24)


def test_features_follow_the_clips(encoder):
    source = Synthetic(size=20, seconds=0.5)
    numbers, x = features.matrix(source, features.encoded(encoder, (0, -1), "stats"))
    assert numbers.tolist() == list(range(20))
    assert x.shape == (20, 2, 128)
    clip = source[7]["audio"]
    assert np.array_equal(x[7, 0], encoder.embed(clip, RATE, layer=0, pool="stats"))
    assert np.array_equal(x[7, 1], encoder.embed(clip, RATE, pool="stats"))


def test_log_mel_statistics_count_valid_frames_only():
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (1600, 40_000, 100)]
    found = dict(features.log_mel(RATE)(clips))
    frontend = features.Fbank(bins=128)
    for i in (0, 1):
        spec = np.asarray(features.jax.jit(frontend.log_mel)(clips[i][None]))[0]
        want = np.concatenate([spec.mean(0), spec.std(0)])
        np.testing.assert_allclose(found[i][0], want, atol=2e-3)
    assert found[2].shape == (1, 256) and np.isfinite(found[2]).all()


def test_untrained_is_the_same_architecture_with_fresh_parameters(encoder):
    first, other = (features.untrained(encoder, seed) for seed in (0, 1))
    audio = Synthetic(size=1, seconds=0.2)[0]["audio"]
    assert first.width == encoder.width
    assert not np.array_equal(first.embed(audio, RATE), other.embed(audio, RATE))
    assert not np.array_equal(first.embed(audio, RATE), encoder.embed(audio, RATE))


def test_records_of_all_kinds_and_folds(encoder):
    source = Synthetic(size=60, seconds=0.3)
    probe = {"linear": Probe(choices=(10.0, 100.0))}
    records = evaluate.evaluate(
        encoder, source, "folds", layer="best", pool="stats", classifiers=probe
    )
    assert len(records) == 3 * (5 + 1)
    trained = [r for r in records if r["features"] == "encoder"]
    assert [r["fold"] for r in trained] == ["1", "2", "3", "4", "5", "mean"]
    assert trained[-1]["accuracy"] == pytest.approx(np.mean([r["accuracy"] for r in trained[:5]]))
    assert all(r["layer"] in (0, 1, -1) and r["choice"] in (10.0, 100.0) for r in trained[:5])
    means = {r["features"]: r["accuracy"] for r in records if r["fold"] == "mean"}
    assert min(means.values()) > 2 / 12  # even random features hear more than chance
    with pytest.raises(ValueError, match="got 'mfcc'"):
        evaluate.evaluate(encoder, source, "folds", kinds=["mfcc"])
    with pytest.raises(ValueError, match="layer: got 9"):
        evaluate.evaluate(encoder, source, "folds", layer=9)


def test_command_line_probes_a_folder(encoder, tmp_path, capsys):
    run, sounds = tmp_path / "run", tmp_path / "sounds"
    encoders.save(encoder, run, 1)
    rng = np.random.default_rng(0)
    for i in range(20):
        tone = np.sin(2 * np.pi * (300 if i % 2 else 2500) * np.arange(3200) / RATE)
        path = sounds / ("low" if i % 2 else "high") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * tone + 0.01 * rng.standard_normal(3200), RATE)
    records = evaluate.main(
        ["--checkpoint", str(run), "--set", "folder", "--root", str(sounds), "--features"]
        + ["encoder,logmel", "--layer", "0"]
    )
    lines = (run / "evals" / "folder_sounds_folds.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "sounds, protocol folds: 20 clips of 2 classes: high 10, low 10"
    head = next(i for i, line in enumerate(table) if line.startswith("features"))
    assert table[head].split() == ["features", "linear", "1", "2", "3", "4", "5", "knn"]
    assert table[head + 1].split() == ["encoder"] + ["1.000"] * 7
    assert table[head + 2].split() == ["logmel"] + ["1.000"] * 7

    records = evaluate.main(
        ["--checkpoint", str(run), "--set", "folder", "--root", str(sounds), "--features"]
        + ["logmel", "--shots", "2", "--draws", "3", "--classifier", "prototype,knn"]
    )
    lines = (run / "evals" / "folder_sounds_folds_2shot.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    table = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(table) if line.startswith("features"))
    assert table[head].split() == ["features", "prototype", "knn"]
    cells = table[head + 1].split()
    assert cells[:4] == ["logmel", "1.000", "±", "0.000"]
    assert float(cells[4]) > 0.6 and cells[5] == "±"


@dataclasses.dataclass(frozen=True)
class Guess:
    """Predict one label; remember what was shown."""

    view: str
    shown: list = dataclasses.field(default_factory=list)
    choices: tuple = (0.0,)

    def predict(self, x, y, train):
        self.shown.append(x.shape)
        return np.full((1, len(y)), y[train][0])


def test_classifiers_of_tokens_and_layers(encoder):
    source = Synthetic(size=60, seconds=0.3)
    guesses = {view: Guess(view) for view in ("pooled", "tokens", "layers")}
    kinds = ["encoder", "logmel"]
    records = evaluate.evaluate(encoder, source, "folds", kinds=kinds, classifiers=guesses)
    columns = len(encoder.frames(source[0]["audio"], RATE)[1])
    shapes = [set(guess.shown) for guess in guesses.values()]
    assert shapes[0] == {(60, 32), (60, 256)}
    assert shapes[1] == {(60, encoder.rows, columns, encoder.width)}
    assert shapes[2] == {(60, encoder.num_layers, encoder.rows * encoder.width)}
    # The baseline has neither tokens nor layers.
    assert evaluate.table(records).splitlines()[-1].split()[-2:] == ["-", "-"]
    views = {r["classifier"]: r["pool"] for r in records if r["features"] == "encoder"}
    assert views == {"pooled": "mean", "tokens": "tokens", "layers": "layers"}
    with pytest.raises(ValueError, match="one vector per clip"):
        evaluate.evaluate(encoder, source, "folds", shots=1, classifiers=guesses)


def test_tokens_keep_their_places(encoder):
    source = Synthetic(size=3, seconds=0.5)
    numbers, x = features.token_maps(source, encoder, (0, -1))
    assert numbers.tolist() == [0, 1, 2]
    assert x.dtype == np.float16 and x.shape[:3] == (3, 2, encoder.rows)
    frames, times = encoder.frames(source[1]["audio"], RATE, layer=0)
    columns = len(times)
    want = frames.reshape(columns, encoder.rows, -1)
    np.testing.assert_allclose(np.moveaxis(x[1, 0, :, :columns], 0, 1), want, atol=1e-2, rtol=1e-3)
    assert np.isnan(x[1, 0, :, columns:]).all()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "esc10"],
        ["--set", "synthetic", "--root", "x"],
        ["--set", "esc10", "--root", "x", "--layer", "top"],
        ["--set", "esc11", "--root", "x"],
        ["--set", "synthetic", "--classifier", "linear,tree"],
        ["--set", "synthetic", "--shots", "1", "--classifier", "attentive"],
        ["--set", "synthetic", "--shots", "1", "--layer", "best"],
        ["--set", "synthetic", "--shots", "-1"],
    ],
)
def test_wrong_command_lines_stop_at_once(arguments):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--checkpoint", "nowhere", *arguments])
    assert stop.value.code == 2


@functools.cache
def log_mel(name, root):
    esc = name == "esc10"
    source = Esc(str(root / name), subset="esc10") if esc else SpokenDigit(str(root / name))
    numbers, x = features.matrix(source, features.log_mel(RATE))
    return x, [source.meta(int(i)) for i in numbers]


@pytest.mark.parametrize(
    ("protocol", "reference"), [("folds", 0.800), ("official", 0.943), ("speakers", 0.553)]
)
def test_log_mel_baseline_reaches_its_published_accuracy(shared_data, protocol, reference):
    x, metas = log_mel("esc10" if protocol == "folds" else "fsdd", shared_data)
    y = np.array([m["label"] for m in metas])
    published = Probe(choices=(0.1 * x.shape[-1],))
    scores = list(base.nested(published, x, y, base.split(metas, protocol)))
    assert base.means(scores)["accuracy"] == pytest.approx(reference, abs=0.02)


def test_parts_of_a_folder_are_not_classes(encoder, tmp_path, capsys):
    run, sounds = tmp_path / "run", tmp_path / "sounds"
    encoders.save(encoder, run, 1)
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for i in range(count):
            tone = np.sin(2 * np.pi * (300 if i % 2 else 2500) * np.arange(3200) / RATE)
            path = sounds / part / ("low" if i % 2 else "high") / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.3 * tone + 0.01 * rng.standard_normal(3200), RATE)
    command = ["--checkpoint", str(run), "--set", "folder", "--features", "logmel", "--root"]
    records = evaluate.main([*command, str(sounds)])
    assert {r["protocol"] for r in records} == {"split"} and records[0]["clips"] == 4
    said = capsys.readouterr().out.splitlines()[0]
    assert said.endswith("16 clips of 2 classes: high 8, low 8; test 4; train 12")
    alone = tmp_path / "alone"
    shutil.copytree(sounds / "train" / "low", alone / "low")
    with pytest.raises(ValueError, match="two classes or more; all 6 clips are of one"):
        evaluate.main([*command, str(alone)])
    with pytest.raises(ValueError, match="has a label.*sub-folder is its label"):
        evaluate.main([*command, str(alone / "low")])
