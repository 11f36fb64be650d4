"""A command that is given a model of the wrong kind says which kind it wants, and which it got."""

import types

import numpy as np
import pytest
import soundfile

from ssl_audio.__main__ import module
from ssl_audio.inference import kinds
from ssl_audio.inference.audio_text import AudioTextModel
from ssl_audio.inference.captioner import Captioner
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.codec import CodecModel
from ssl_audio.inference.diffusion import DiffusionModel
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.model import Model
from ssl_audio.inference.separator import Separator
from ssl_audio.inference.sequences import SequenceModel


def made(kind, *offers, **objective):
    """Return a model that can be asked what it is, and nothing else."""
    about = types.SimpleNamespace(predictors=lambda: dict.fromkeys(offers), **objective)
    return kind(about, {}, {})


MODELS = {
    "an encoder of sound": made(Encoder, "encode"),
    "a classifier": made(Classifier, "encode", "logits"),
    "a model of captions": made(Captioner, "encode", "prefix"),
    "a codec": made(CodecModel, "encode", "codes", "sound"),
    "a model that generates sound": made(DiffusionModel, "sound"),
    "a separator": made(Separator, "separate", "condition"),
    "a model of lists": made(SequenceModel, "embed_items"),
    "a model of sound and words": made(
        AudioTextModel, "embed_audio", "embed_text", towers=dict(audio=1, text=2)
    ),
    "a model of words and pictures": made(
        AudioTextModel, "embed_text", "embed_image", towers=dict(text=1, image=2)
    ),
    "a SimpleNamespace": made(Model, "sound"),
}
TOWERS = {"a model of sound and words", "a model of words and pictures"}
HEAR = {"an encoder of sound", "a classifier", "a model of captions", "a codec"} | TOWERS
# Command → the kind that it wants, models of that kind, and an option that names the model.
COMMANDS = {
    "embed --output {to}.parquet {sound}": ("encoder", HEAR, "checkpoint"),
    "evaluate --set synthetic": ("encoder", HEAR, "checkpoint"),
    "kmeans --data {folder} --codes 2 --out {to}": ("encoder", HEAR, "checkpoint"),
    "search index --index {to} {sound}": ("encoder", HEAR, "checkpoint"),
    "search mine --manifest {sound} --captions {texts} --output {to}.jsonl": (
        "pictures and words", TOWERS, "checkpoint",
    ),
    "predict --output {to}.csv {sound}": ("classifier", {"a classifier"}, "checkpoint"),
    "events --output {to}.csv {sound}": ("events", {"a classifier"}, "checkpoint"),
    "events --query dog --output {to}.csv {sound}": ("when", set(), "checkpoint"),
    "caption --output {to}.csv {sound}": ("captioner", {"a model of captions"}, "checkpoint"),
    "generate rain --output {to}": ("generator", {"a model that generates sound"}, "checkpoint"),
    "separate --classes dog --output {to} {sound}": ("separator", {"a separator"}, "checkpoint"),
    "zero-shot --set synthetic": ("sound and words", {"a model of sound and words"}, "checkpoint"),
    "gallery --manifest {sound} --ask text": ("towers", TOWERS, "checkpoint"),
    "judge --generated x --recorded x --output {to}": ("encoder", HEAR, "embedding"),
    "judge --generated x --recorded x --output {to} ": (
        "classifier", {"a classifier"}, "classifier",
    ),
    "judge  --generated x --recorded x --output {to}": (
        "sound and words", {"a model of sound and words"}, "words",
    ),
    "judge  --generated x --recorded x --output {to} ": ("codec", {"a codec"}, "codec"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_the_wrong_kind_is_named_and_so_is_the_right_one(command, tmp_path, monkeypatch):
    kind, right, option = COMMANDS[command]
    sound, texts = tmp_path / "a.wav", tmp_path / "texts.txt"
    soundfile.write(sound, np.zeros(800), 8000)
    texts.write_text("rain\n")
    places = dict(sound=sound, texts=texts, folder=tmp_path, to=tmp_path / "to")
    verb, *words = [word.format(**places) for word in command.split()]
    given = words[:1] if words[0] in ("index", "mine") else []
    argv = [*given, f"--{option}", str(tmp_path / "run"), *words[len(given) :]]
    wanted = kinds.KINDS[kind]
    for what in MODELS.keys() - right:
        monkeypatch.setattr(
            "ssl_audio.inference.load.load", lambda *_, what=what, **__: MODELS[what]
        )
        with pytest.raises(ValueError) as error:
            module(verb).main(argv)
        said = str(error.value)
        assert f"wanted {wanted.words} ({wanted.come}); got {what}, which offers" in said, said
        assert ", ".join(MODELS[what].offers) in said


def test_what_fits_passes():
    for kind, right, _ in COMMANDS.values():
        if kind not in ("encoder", "pictures and words"):  # asked of parts that these have not
            assert {
                what for what, model in MODELS.items() if kinds.KINDS[kind].fits(model)
            } == right


def test_an_export_and_a_filter_say_so_too():
    from ssl_audio.inference.augment import sounds
    from ssl_audio.inference.program import program

    model = MODELS["a separator"]
    with pytest.raises(ValueError, match="wanted a model that generates sound .*got a separator"):
        sounds(model, ["rain"], None, 0)  # type: ignore[arg-type]
    object.__setattr__(model, "config", dict(data=dict(entries=dict(audio=dict(samples=10)))))
    with pytest.raises(ValueError, match="wanted an encoder of sound .*got a separator"):
        program(model)
