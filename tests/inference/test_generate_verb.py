"""`ssl-audio generate`: files, a manifest that `train` reads, seeds, going on, what is refused."""

import types

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data.places import source
from ssl_audio.inference import generate, load

CHECKPOINT = ["--checkpoint", "RUN"]


class Model:
    """Noise of a seed, and a list of what was asked."""

    rate, batch_size, offers = 1000, 8, ("logits",)

    def __init__(self):
        self.asked = []

    def generate(
        self, texts, seconds=10.0, seed=0, *, guidance=3.0, begins=None, begins_rate=None, told=None
    ):
        """Return noise."""
        del begins_rate
        self.asked.append((list(texts), seed, guidance, begins))
        if told:
            told(1, 2)
        return [
            np.random.default_rng(seed + i).uniform(-2, 2, round(1000 * seconds)).astype(np.float32)
            for i in range(len(texts))
        ]


@pytest.fixture
def model(monkeypatch):
    made = Model()
    monkeypatch.setattr(load, "load", lambda *_, **__: made)
    return made


def test_files_and_manifest(model, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        *CHECKPOINT,
        "--output",
        str(out),
        "--seconds",
        "0.2",
        "--seed",
        "5",
        "--count",
        "5",
    ]
    generate.main([*arguments, "rain, on a roof", "a dog", "--guidance", "2"])
    assert "10 sounds" in capsys.readouterr().out
    assert [(len(texts), seed, guidance) for texts, seed, guidance, _ in model.asked] == [
        (8, 5, 2.0),
        (2, 13, 2.0),
    ]
    sound, rate = soundfile.read(out / "0007.wav", dtype="float32")
    wanted = np.random.default_rng(12).uniform(-2, 2, 200).astype(np.float32)
    np.testing.assert_array_equal(sound, wanted)  # what exceeds 1, too
    made = config.build(source(str(out / "manifest.csv"), 1000), "data")
    assert rate == 1000 and len(made) == 10
    assert [made[i]["text"] for i in (0, 4, 5)] == ["rain, on a roof", "rain, on a roof", "a dog"]
    # What is missing is made anew, as it was.
    before = (out / "0003.wav").read_bytes()
    (out / "0003.wav").unlink()
    model.asked.clear()
    generate.main([*arguments, "rain, on a roof", "a dog", "--guidance", "2"])
    assert [(texts, seed) for texts, seed, *_ in model.asked] == [(["rain, on a roof"], 8)]
    assert (out / "0003.wav").read_bytes() == before
    with pytest.raises(ValueError, match="of another command"):
        generate.main([*arguments, "rain, on a roof", "a cat", "--guidance", "2"])


def test_texts_of_a_file_and_a_begin(model, tmp_path):
    (tmp_path / "texts.txt").write_text("wind\nsea\n", encoding="utf-8")
    soundfile.write(tmp_path / "begin.wav", np.linspace(-0.5, 0.5, 40), 1000)
    generate.main(
        [*CHECKPOINT, "--texts-from", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "o"),
         "--begin", str(tmp_path / "begin.wav")]
    )  # fmt: skip
    ((texts, _, guidance, begins),) = model.asked
    assert texts == ["wind", "sea"] and guidance == 3.0
    assert [len(one) for one in begins] == [40, 40]


def test_what_a_model_does_not_know_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "0000.wav").write_bytes(b"0")
    asked = [*CHECKPOINT, "rain", "--output"]
    with pytest.raises(ValueError, match="--top-k: a Model does not know it"):
        generate.main([*asked, str(tmp_path / "o"), "--top-k", "3"])
    assert not (tmp_path / "o" / "manifest.csv").exists()
    with pytest.raises(ValueError, match="has 0000.wav already"):
        generate.main([*asked, str(tmp_path / "taken")])
    monkeypatch.setattr(load, "load", lambda *_, **__: types.SimpleNamespace(offers=("encode",)))
    with pytest.raises(
        ValueError, match="wanted a model that generates sound .*which offers encode"
    ):
        generate.main([*asked, str(tmp_path / "o")])
    for odd in (["--seconds", "0"], ["--count", "0"], ["--output", "x", "--texts-from", "none"]):
        with pytest.raises((SystemExit, FileNotFoundError)):
            generate.main([*asked, str(tmp_path / "o"), *odd])


def test_a_refused_command_may_be_given_again_in_other_words(model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("seconds: got 5")

    asked = [*CHECKPOINT, "rain", "--output", str(tmp_path)]
    with monkeypatch.context() as other:
        other.setattr(Model, "generate", refuse)
        with pytest.raises(ValueError, match="seconds: got 5"):
            generate.main([*asked, "--seconds", "5"])
    generate.main([*asked, "--seconds", "1"])
    assert (tmp_path / "0000.wav").exists() and ",1," in (tmp_path / "manifest.csv").read_text()
    # The model says how long a sound is that nobody gave a length; see Model.generate.
    generate.main([*CHECKPOINT, "rain", "--output", str(tmp_path / "o")])
    assert soundfile.info(tmp_path / "o" / "0000.wav").duration == 10
