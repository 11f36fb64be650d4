"""`ssl-audio events --query`: what is written becomes a class, and what cannot be asked is refused."""

import csv

import numpy as np
import pytest
import soundfile
from encoders import drawn

from ssl_audio import config, config_files
from ssl_audio.config import build
from ssl_audio.eval import events
from ssl_audio.inference.audio_text import AudioTextModel
from ssl_audio.inference.load import load
from ssl_audio.storage import exported

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return an untrained model whose columns hear a phrase with a probability of about a half."""
    options = config_files.load("finelap:runlocal")
    options.objective.bias = 0.0
    options = config.plain(options)
    built = build(options["objective"], "objectives")
    params = drawn(built, AudioTextModel(built, {}, options).blank())
    params["frame"] = {"temperature": np.float32(0.1), "bias": np.float32(0.0)}
    return exported.write(tmp_path_factory.mktemp("finelap"), params, options)


def test_each_text_is_a_class(folder, tmp_path):
    sound = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    asked = ["--query", "dog bark", "--query", "a low hum", "--query", "dog bark"]
    model = load(folder)
    tagger = model.listening(["dog bark", "a low hum"])
    assert list(tagger.labels) == ["dog bark", "a low hum"]
    logits = np.asarray(tagger.predict("frame_logits", sound, RATE))
    # A column's logit is its cosine with the words, over the temperature.
    assert logits.shape[1] == 2 and 0 < np.abs(logits).max() <= 10
    out = tmp_path / "events.csv"
    options = ["--threshold", "0.000001", "--low", "0", "--smooth", "0"]
    events.main([f"--checkpoint={folder}", *asked, *options, f"--output={out}", str(tmp_path)])
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["label"] for row in rows) == ["a low hum", "dog bark"]
    assert all((float(row["start"]), float(row["end"])) == (0, 2) for row in rows)


def test_what_cannot_be_asked(folder, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    asked = [f"--checkpoint={folder}", f"--output={tmp_path / 'x.csv'}", str(tmp_path)]
    with pytest.raises(SystemExit):
        events.main(["--query", " ", *asked])
    assert "--query: got an empty text" in capsys.readouterr().err
    with pytest.raises(ValueError, match="of config finelap with --query"):
        events.main(asked)
    with pytest.raises(ValueError, match="labels: got .*wanted words in each"):
        load(folder).listening(["rain", ""])
