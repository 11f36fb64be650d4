"""Converted models give what transformers makes of a waveform: recorded by golden/make.py."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden_files

import ssl_audio
from ssl_audio.config import build
from ssl_audio.convert import from_state_dict
from ssl_audio.convert.base import plain_names
from ssl_audio.convert.files import read
from ssl_audio.inference.encoder import Encoder
from ssl_audio.storage import exported

GOLDEN = pathlib.Path(__file__).parent / "golden"
FAMILIES = {
    "ast": "hf_ast",
    "clap_fused": "clap",
    "clap_unfused": "clap",
    "data2vec": "data2vec",
    "hubert_layer": "hubert",
    "wav2vec2_group": "wav2vec2",
    "wavlm_group": "wavlm",
    "whisper": "whisper",
}
SPEECH = [name for name, family in FAMILIES.items() if family not in ("hf_ast", "clap", "whisper")]
SECONDS = (1.0, 0.317)


def sound(rate, seconds):
    """Return what golden/make.py heard."""
    samples = round(rate * seconds)
    time = np.arange(samples) / rate
    glide = 2 * np.pi * (150 * time + 10 * np.sin(3 * time))
    noise = np.random.default_rng(0).standard_normal(samples)
    voice = sum(np.sin(n * glide) / n for n in range(1, 12))
    return (0.05 * voice + 0.01 * noise).astype(np.float32)


def golden(name):
    """Return the arrays and options of a golden file."""
    state, options = read(GOLDEN / f"{name}.npz")
    return plain_names(state), options


def loaded(name, folder, **more):
    """Convert a golden file and load it; return the model and what it should give, by length."""
    state, options = golden(name)
    model = from_state_dict(FAMILIES[name], state, **options | more)
    exported.write(folder, model.params, model.config, unused=model.unused)
    with np.load(GOLDEN / f"{name}.npz") as file:
        found = {k.removeprefix("out/"): file[k] for k in file.files if k.startswith("out/")}
    return ssl_audio.load(folder), found


def off(got, wanted):
    assert got.shape == wanted.shape
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.fixture(scope="module")
def model(request, tmp_path_factory):
    return request.param, *loaded(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parity
@pytest.mark.parametrize("model", SPEECH, indirect=True)
def test_speech_encoders_alone_and_together(model):
    name, encoder, wanted = model
    clips = [sound(16_000, seconds) for seconds in SECONDS]
    together = encoder.embed(clips, 16_000)
    for clip, seconds, vector in zip(clips, SECONDS, together, strict=True):
        frames, times = encoder.frames(clip, 16_000)
        assert off(frames, wanted[f"{seconds}/frames"]) < 1e-5, (name, seconds)
        assert off(vector, wanted[f"{seconds}/vector"]) < 1e-5, (name, seconds)
        assert len(times) == len(frames)
    assert len(encoder.frames(clips[0], 16_000)[0]) == 49  # 16,000 samples
    assert encoder.window == 30


@pytest.mark.parity
@pytest.mark.parametrize("model", ["ast"], indirect=True)
def test_ast_is_padded_to_its_training_length(model):
    _, encoder, wanted = model
    for seconds in SECONDS:
        clip, tokens = sound(16_000, seconds), wanted[f"{seconds}/tokens"][2:]
        frames, _ = encoder.frames(clip, 16_000)
        columns = tokens.reshape(encoder.rows, -1, encoder.width).swapaxes(0, 1)
        assert off(frames, columns.reshape(len(columns), -1)) < 1e-5
        assert off(encoder.embed(clip, 16_000, pool="special"), wanted[f"{seconds}/vector"]) < 1e-5
        assert off(encoder.embed(clip, 16_000), tokens.mean(0)) < 1e-5
    # The training length itself, 1.28 s, is one window though its last patch column is not full.
    clip = sound(16_000, 1.28)
    assert encoder.frames(clip, 16_000)[0].shape == frames.shape
    assert encoder.frames(clip[:8_000], 16_000, pad="columns")[0].shape[0] == 5
    assert encoder.frames(clip[:8_000], 16_000, pad="none")[0].shape[0] == 4


@pytest.mark.parity
@pytest.mark.parametrize("model", ["whisper"], indirect=True)
def test_whisper_hears_silence_after_a_clip_and_leaves_it_out(model):
    _, encoder, wanted = model
    clips = [sound(16_000, seconds) for seconds in SECONDS]  # the first is as long as it hears
    for clip, seconds, vector in zip(clips, SECONDS, encoder.embed(clips, 16_000), strict=True):
        frames, times = encoder.frames(clip, 16_000)
        assert off(frames, wanted[f"{seconds}/frames"]) < 1e-5, seconds
        assert off(vector, wanted[f"{seconds}/vector"]) < 1e-5, seconds
        assert len(times) == len(frames)
    assert len(encoder.frames(clips[1], 16_000, pad="training")[0]) == 50
    assert off(encoder.embed(clips[1], 16_000, pad="columns"), vector) > 1e-3


@pytest.mark.parity
@pytest.mark.parametrize("model", ["clap_unfused", "clap_fused"], indirect=True)
def test_clap(model):
    _, both, wanted = model
    clips = [sound(48_000, seconds) for seconds in SECONDS]
    for vector, seconds in zip(both.embed_audio(clips, 48_000), SECONDS, strict=True):
        assert off(vector, wanted[f"{seconds}/vector"]) < 1e-5


def test_clap_of_laion_rounds_to_16_bits_and_that_of_transformers_does_not():
    state, options = golden("clap_unfused")
    ours = from_state_dict("clap", state, **options)
    assert ours.config["objective"]["towers"]["audio"]["frontend"]["sixteen_bit"] is False
    from ssl_audio.convert import clap

    config = ours.config | dict(reference=dict(names="laion"))
    laion = from_state_dict("clap", clap.to_state_dict(ours.params, config), **options)
    assert laion.config["objective"]["towers"]["audio"]["frontend"]["sixteen_bit"] is True


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(top_db=80), "top_db=80: only None"),
        (dict(padding_value=1.0), "padding_value=1.0"),
        (dict(nb_frequency_bins=511), "nb_frequency_bins=511: the state dict says 513"),
        (dict(preemphasis=0.97), "feature extractor: preemphasis=0.97: a setting"),
        (dict(padding="mirror"), "padding='mirror': only 'repeatpad' or"),
    ],
)
def test_settings_of_a_feature_extractor_are_obeyed_or_refused_by_name(settings, message):
    state, options = golden("clap_unfused")
    options["preprocessor"] |= settings
    with pytest.raises(ValueError, match=message):
        from_state_dict("clap", state, **options)


def test_settings_of_ast_and_of_speech_encoders_are_obeyed():
    def frontend(name, **settings):
        state, options = golden(name)
        options["preprocessor"] |= settings
        config = from_state_dict(FAMILIES[name], state, **options).config
        return config["objective"]["frontend"], config["data"]

    plain, _ = frontend("ast", do_normalize=False)
    assert (plain["mean"], plain["std"]) == (0.0, 0.5)  # (x - 0) / (2 * 0.5)
    faster, data = frontend("ast", sampling_rate=22_050)
    assert (faster["rate"], faster["window"], data["rate"]) == (22_050, 400, 22_050)
    raw, data = frontend("hubert_layer", do_normalize=False, sampling_rate=8_000)
    assert (raw["standardise"], raw["rate"]) == (False, 8_000)
    assert data["entries"]["audio"]["samples"] == 30 * 8_000
    with pytest.raises(ValueError, match="feature_size=2: only 1"):
        frontend("hubert_layer", feature_size=2)
    with pytest.raises(ValueError, match="feature extractor: chunk_length=30"):
        frontend("ast", chunk_length=30)


def test_a_config_that_contradicts_the_feature_extractor_is_refused(tmp_path):
    state, options = golden("ast")
    exported.write_arrays(tmp_path / "model.safetensors", state)
    extractor = options.pop("preprocessor") | dict(num_mel_bins=64)
    (tmp_path / "config.json").write_text(json.dumps(options))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(extractor))
    with pytest.raises(ValueError, match="contradict each other: num_mel_bins is 64 and 32"):
        read(tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("path", golden_files("spear_zipformer.npz"))
def test_padding_of_spear_is_heard_by_no_token(path):
    data = dict(np.load(path, allow_pickle=False))
    state = {k: v for k, v in data.items() if k.startswith("param/")}
    options = json.loads(str(data.get("meta/config_json", data.get("config_json"))))
    model = from_state_dict("spear", state, **options)
    objective = build(model.config["objective"], "objectives")
    encoder = Encoder(objective, model.params, model.config, 2)
    clip = sound(16_000, 0.7)
    batch = {"audio": jnp.asarray(clip[None]), "length": jnp.array([len(clip)])}
    exact = jax.jit(objective.predictors()["encode"])(model.params, {}, batch)
    assert next(encoder._cut(clip))[0] > exact.tokens.x.shape[1]
    assert off(encoder.frames(clip, 16_000)[0], np.asarray(exact.tokens.x[0])) < 1e-5
