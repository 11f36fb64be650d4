"""A model of an objective from outside the package: loaded and asked, without an edit of the package."""

import dataclasses

import encoders
import numpy as np
import pytest
import separator

import ssl_audio
from ssl_audio.inference.load import interface
from ssl_audio.train.loop import train

RATE = 16_000


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def trained(kind, workdir):
    options = dict(
        objective=dict(kind=kind, count=3),
        data=dict(
            kind="pipeline", batch_size=8,
            entries=dict(audio=dict(kind="entries:Audio", samples=1600)),
            sources=dict(a=dict(kind="synthetic", size=16, seconds=0.1)),
        ),
        optim=dict(lr=1e-3),
        steps=2,
        sharding=dict(data=1, fsdp=1, rules=((".*", "replicate"),)),
        record=dict(every=1, figures=0, progress=False),
    )  # fmt: skip
    train(options, workdir)
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained("separator:Separate", tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run):
    return ssl_audio.load(run, trust=["separator"])


def test_a_predictor_is_asked_with_waveforms(model):
    assert type(model) is ssl_audio.Model and model.rate == RATE
    assert model.offers == ("separate", "level", "one", "tone")
    audio = noise(3000)
    found = model.predict("separate", audio, RATE)
    want = [np.convolve(audio, taps, mode="same") for taps in model.params["filters"]]
    assert found.shape == (3, 3000)
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert model.predict("separate", noise(8820), 44_100).shape == (3, 3200)


def test_a_predictor_is_named_first(model):
    with pytest.raises(ValueError, match="predict: name: got ndarray, wanted one of"):
        model.predict(noise(3000), RATE)


def test_every_clip_is_heard_alone_and_whole(model):
    clips = [noise(n, seed) for seed, n in enumerate((500, 700, 500))]
    several = model.predict("separate", clips, sample_rate=RATE)
    for clip, found in zip(clips, several, strict=True):
        assert np.array_equal(found, model.predict("separate", clip, RATE))
    assert not np.array_equal(several[0], several[2])
    pair = model.predict("level", np.stack([clips[0], clips[2]]), RATE)
    assert [one["samples"] for one in pair] == [500, 500]


def test_the_axis_that_counts_examples_goes_wherever_it_is(model):
    found = model.predict("level", noise(500), RATE)
    assert {k: v.shape for k, v in found.items()} == {
        "levels": (2,), "filters": (3, 9), "samples": (),
    }  # fmt: skip
    # Twice as loud, as `extra` says, which was saved beside the parameters.
    np.testing.assert_allclose(found["levels"][1], 2 * found["levels"][0])


def test_further_entries_and_no_sound(model):
    audio = noise(500)
    both = model.predict("separate", audio, RATE)
    assert np.array_equal(model.predict("one", audio, RATE, which=2), both[2])
    tone = model.predict("tone", pitch=0.5)
    np.testing.assert_allclose(tone, np.sin(0.5 * np.arange(100)), atol=1e-5)


def test_mistakes_are_named(model, run, tmp_path):
    with pytest.raises(ValueError, match="no 'seperate'; it offers separate, level, one, tone"):
        model.predict("seperate", noise(500), RATE)
    with pytest.raises(ValueError, match=r"'one' needs 'which', .*batch \(audio, length\)"):
        model.predict("one", noise(500), RATE)
    with pytest.raises(ValueError, match="sample_rate: got None"):
        model.predict("separate", noise(500))
    with pytest.raises(
        ValueError, match="wanted an encoder of sound .*got a Separate, which offers separate"
    ):
        _ = model.encoder
    with pytest.raises(ValueError, match="Separate has no 'embed_text'"):
        model.check_offers("separate", "embed_text")
    silent = dataclasses.replace(model, extra={})
    with pytest.raises(ValueError, match="'level' needs 'loudness'"):
        silent.predict("level", noise(500), RATE)


def test_an_objective_names_its_interface(run, tmp_path):
    (tmp_path / "config.json").write_text(
        (run / "config.json").read_text().replace("separator:Separate", "separator:Own")
    )
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    model = ssl_audio.load(tmp_path, trust=["separator"])
    assert type(model) is separator.Separator
    assert model.separate(noise(500), RATE).shape == (3, 500)
    with pytest.raises(ValueError, match=r"Lost.interface: got 'separator:Nobody', wanted 'module"):
        interface(separator.Lost())


def test_what_is_offered_picks_the_interface():
    assert interface(encoders.encoder().objective) is ssl_audio.Encoder
    assert interface(separator.Separate()) is ssl_audio.Model

    class Both(separator.Separate):
        def predictors(self):
            return {"encode": self.separate, "embed_text": self.separate}

    assert interface(Both()) is ssl_audio.AudioTextModel


def test_an_encoder_answers_to_its_predictors_too():
    encoder = encoders.encoder(frames=24)
    batch = noise(10_480)[: encoder.blank()["audio"].shape[1]]
    found = encoder.predict("encode", batch, RATE)
    assert found.tokens.x.shape == (6, 32) and found.layers.shape == (2, 6, 32)
    np.testing.assert_allclose(found.tokens.x.mean(0), encoder.embed(batch, RATE), atol=1e-5)
