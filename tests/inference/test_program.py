"""Functions that leave this package hear clips as `embed` and `scores` do, in batches of any number."""

import dataclasses
from typing import Any

import encoders
import jax
import numpy as np
import pytest
from jax import export
from test_classifier import make, noise

from ssl_audio import config as configs
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.probe import ProbeClassifier
from ssl_audio.inference.program import program

RATE = 16_000
SHORT = 5_000  # samples, of 10,480


@pytest.fixture(scope="module")
def encoder():
    return encoders.encoder()


def made_for(model, clip):
    made = program(model, len(clip) / RATE)
    return jax.jit(made.run)(made.params, clip[None])


@pytest.mark.parametrize("pad", ["training", "silence", "none"])
def test_an_encoder_hears_a_short_clip_as_embed_does(encoder, pad):
    model = dataclasses.replace(encoder, config=encoder.config | {"inference": {"pad": pad}})
    found = made_for(model, noise(SHORT))
    np.testing.assert_allclose(found["vector"][0], model.embed(noise(SHORT), RATE), atol=1e-5)
    frames, _ = model.frames(noise(SHORT), RATE)
    np.testing.assert_allclose(found["frames"][0], frames, atol=1e-5)


@pytest.mark.parametrize(("pad", "fill"), [("none", "zeros"), ("columns", "zeros"), ("", "repeat")])
def test_a_classifier_hears_a_short_clip_as_scores_does(pad, fill):
    model = make("sigmoid")
    options = configs.plain(model.config)
    options["data"]["entries"]["audio"]["fill"] = fill
    if pad:  # a converted model, which is no run
        options = {k: v for k, v in options.items() if k != "steps"} | {"inference": {"pad": pad}}
    model = dataclasses.replace(model, config=options)
    logits = np.asarray(made_for(model, noise(SHORT))["logits"], np.float64)
    wanted = model.scores(noise(SHORT), RATE).values
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), wanted, atol=1e-5)


def classifiers(kind):
    """Return a classifier whose batches go through code that counts clips."""
    if kind == "window":  # fine-tuned on longer clips than it was pretrained on
        model = make()
        return dataclasses.replace(model, objective=dataclasses.replace(model.objective, window=3))
    options = configs.plain(encoders.encoder().config)
    if kind == "events":
        objective = options["objective"]
        del objective["masking"]
        objective |= dict(kind="frame_tagging", head=dict(kind="classify:Frames", classes=3))
    else:
        head = dict(kind="classify:Classifier", classes=3)
        how = dict(view="pooled", pool="stats")
        if kind == "prototypes":
            head, how = dict(kind="probes:Prototypical", classes=3), dict(view="tokens", columns=8)
        options["objective"] = dict(kind="probe", base=options["objective"], head=head, **how)
    built = configs.build(options["objective"], "objectives")
    params = encoders.drawn(built, encoders.encoder().blank())
    return (Encoder if kind == "events" else ProbeClassifier)(built, params, options)


def test_a_probe_hears_a_short_clip_as_scores_does():
    model: Any = classifiers("stats")
    logits = np.asarray(made_for(model, noise(SHORT))["logits"], np.float64)
    powers = np.exp(logits - logits.max())
    wanted = model.scores(noise(SHORT), RATE).values
    np.testing.assert_allclose(powers / powers.sum(), wanted, atol=1e-5)
    silent = dataclasses.replace(model, config=model.config | {"inference": {"pad": "silence"}})
    with pytest.raises(
        ValueError, match=r"--seconds 0.3125: a probe on this encoder takes 0.655 s"
    ):
        program(silent, SHORT / RATE)


@pytest.mark.parametrize("kind", ["window", "events", "stats", "prototypes"])
def test_a_batch_may_have_any_number_of_clips(kind):
    made = program(classifiers(kind))
    (clips,) = export.symbolic_shape("b", constraints=["b >= 1"])
    audio = jax.ShapeDtypeStruct((clips, made.samples), np.float32)
    found = jax.eval_shape(made.run, made.params, audio)
    assert all(value.shape[0] == clips for value in found.values())
