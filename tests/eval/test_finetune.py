"""ssl-audio finetune from clips to a model that knows its classes; stopped and gone on with."""

import json
import pathlib

import encoders
import jax
import numpy as np
import pytest
import soundfile

import ssl_audio
from ssl_audio import config_files
from ssl_audio.eval import evaluate, finetune
from ssl_audio.eval.classify import Predictions
from ssl_audio.inference import calibration
from ssl_audio.storage import checkpoint, written
from ssl_audio.train import preview

TONES = {"high": 3000, "low": 200}
STEPS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a table of clips of two tones, and an encoder of random parameters."""
    folder = tmp_path_factory.mktemp("own")
    encoders.save(encoders.encoder(), folder / "encoder", 1)
    rng, rows = np.random.default_rng(0), []
    time = np.arange(6400) / 16_000
    for i in range(60):
        name = ("high", "low", "low")[i % 3]
        tone = np.sin(2 * np.pi * TONES[name] * rng.uniform(0.8, 1.2) * time)
        soundfile.write(folder / f"{i}.wav", 0.3 * tone + rng.normal(0, 0.02, 6400), 16_000)
        rows.append(f"{i}.wav,{name},r{i // 3}")
    (folder / "clips, all.csv").write_text("\n".join(["path,label,recording", *rows]))
    return folder


@pytest.fixture(scope="module")
def trained(place):
    """Return the workdir of a run that was stopped, and gone on with by the same command."""
    workdir = place / "run"
    command = [
        "--data", str(place / "clips, all.csv"), "--pretrained", str(place / "encoder"),
        "--workdir", str(workdir), "--batch", "8", "--seconds", "0.4", "--config.checkpoint.every=2",
        "--config.eval_every=3", "--config.sharding.data=1",
    ]  # fmt: skip
    finetune.main([*command, "--steps", "2"])
    scores = finetune.main([*command, "--steps", str(STEPS)])
    return workdir, scores


def test_the_run_knows_its_classes_and_its_parts(trained, capsys):
    workdir, scores = trained
    options = written.read(workdir)
    assert written.labels(options) == ("high", "low")
    assert options["data"]["balanced"] is True and options["objective"]["criterion"] == "softmax"
    assert checkpoint.steps(workdir)[-1] == STEPS
    assert scores["validation"]["classes"] == 2
    held = Predictions.load(workdir / "predictions.npz")
    assert 6 <= len(held.ids) <= 18 and (workdir / "report.html").stat().st_size > 1000
    (changed,) = map(json.loads, (workdir / "history.jsonl").read_text().splitlines())
    assert list(changed["changed"]) == ["steps"]  # and not the clips of a part


def test_a_run_goes_on_from_the_head_of_another(trained, place, tmp_path, capsys):
    workdir, _ = trained
    options = ["--pretrained", str(workdir), "--seconds", "0.4", "--keep-head"]
    options += ["--config.sharding.data=1", "--steps", "1", "--workdir", str(tmp_path / "more")]
    finetune.main(["--data", str(place / "clips, all.csv"), *options, "--config.optim.lr=0"])
    begun, wanted = (checkpoint.load_params(folder)[0] for folder in (tmp_path / "more", workdir))
    jax.tree.map(np.testing.assert_array_equal, begun, wanted)

    table = (place / "clips, all.csv").read_text()
    (tmp_path / "other.csv").write_text(table.replace(",low", ",deep").replace("\n", f"\n{place}/"))
    with pytest.raises(SystemExit):
        finetune.main(["--data", str(tmp_path / "other.csv"), *options])
    assert "are others than those here, first 'high' for 'deep'" in capsys.readouterr().err


def test_load_opens_the_best_step_as_a_classifier(trained, place):
    workdir, _ = trained
    model = ssl_audio.load(workdir)
    assert model.labels == ("high", "low") and not model.several
    best = checkpoint.load_params(workdir, "best")[0]
    jax.tree.map(np.testing.assert_array_equal, model.params, best)
    held = len(Predictions.load(workdir / "predictions.npz").ids)
    assert (calibration.read(workdir) is None) == (held < 20)


def test_a_calibration_knows_its_step(tmp_path):
    labels = np.eye(2)[np.arange(40) % 2]
    found = Predictions(np.arange(40).astype(str), 3 * labels, labels)
    finetune.fit_calibration(found, several=False, workdir=tmp_path, step=7)
    made = calibration.read(tmp_path)
    assert made is not None and (made.step, made.clips) == (7, 40)


def test_the_config_is_an_ordinary_one(place):
    argument = f"data={place}/clips\\, all.csv,pretrained={place}/encoder,seconds=0.4"
    made = config_files.load(f"finetune:{argument}")
    assert made.warm_start.encoder.path == f"{place}/encoder"
    assert preview.preview(made, compiled=False).parameters["head"] > 0
    for more, message in (
        ("task=esc50", "'task': it would change nothing"),
        ("size=base", "size: these come from the pretrained run"),
        ("by=site", "no column 'site' to keep clips together by; there are recording"),
    ):
        with pytest.raises(ValueError, match=message):
            config_files.load(f"finetune:{argument},{more}")
    with pytest.raises(ValueError, match="'share': it would change nothing"):
        config_files.load("finetune:runlocal,share=0.5")


def test_evaluate_takes_a_table_and_keeps_recordings_together(place, capsys):
    evaluate.main([
        "--checkpoint", str(place / "encoder"), "--set", "manifest", "--root",
        str(place / "clips, all.csv"), "--features", "logmel", "--classifier", "linear",
    ])  # fmt: skip
    said = capsys.readouterr().out
    assert "60 clips of 2 classes: high 20, low 40" in said
    lines = (place / "encoder/evals/manifest_clips__all_csv_folds.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["accuracy"] > 0.9
    assert sum(json.loads(line)["clips"] for line in lines[:-1]) == 60


def test_scores_say_over_how_many_classes_they_are():
    scores = {"accuracy": 0.5, "balanced_accuracy": 0.25, "classes": 2}
    said = finetune.said(scores, 3)
    assert said == "accuracy 0.500, balanced accuracy 0.250 (over 2 of 3 classes)"


def test_what_is_not_there_is_named(place, tmp_path, capsys):
    for data, encoder, message in (
        ("none.csv", place / "encoder", "data 'none.csv': wanted"),
        (place, tmp_path, f"{tmp_path}: no config.json; wanted the workdir"),
    ):
        with pytest.raises(SystemExit):
            finetune.main(["--data", str(data), "--pretrained", str(encoder), "--workdir", "none"])
        assert message in capsys.readouterr().err and not pathlib.Path("none").exists()
