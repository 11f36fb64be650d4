"""Tiny objectives and runs for the tests of what uses a trained encoder."""

import json

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio.config import build
from ssl_audio.inference.audio_text import AudioTextModel
from ssl_audio.inference.encoder import Encoder
from ssl_audio.presets import audio_text as presets
from ssl_audio.storage import checkpoint, exported
from ssl_audio.structs import TrainState

FRAMES = 64  # of a training clip: 8 columns of 8 frames, 0.64 s


def options(mixer="attention", patch=(16, 8), frames=FRAMES) -> dict:
    """Return the config of a run on 32 mel bins."""
    width, bins = 32, 32
    mixers = {"attention": dict(kind="attention", heads=4), "mamba": dict(kind="mamba", state=4)}
    block = dict(kind="blocks:PreNorm", mixer=mixers[mixer], mlp=2.0)
    grid = (bins // patch[0], frames // patch[1])
    return dict(
        objective=dict(
            kind="masked_spectrogram",
            frontend=dict(kind="fbank", bins=bins, frames=frames),
            tokenizer=dict(kind="patchify", width=width, patch=patch, stride=patch),
            encoder=dict(
                kind="stack", width=width, depth=2, block=block, special=1,
                positions=dict(kind="positions:Learned", grid=grid),
            ),
            masking=dict(kind="masking:Random", count=4),
        ),
        data=dict(
            kind="pipeline", batch_size=8,
            entries=dict(audio=dict(kind="entries:Audio", samples=10_480)),
            sources=dict(a=dict(kind="synthetic", size=16, seconds=0.5)),
        ),
    )  # fmt: skip


def encoder(**kwargs) -> Encoder:
    """Return an encoder with random parameters."""
    config = options(**kwargs)
    objective = build(config["objective"], "objectives")
    params = drawn(objective, Encoder(objective, {}, config).blank())
    return Encoder(objective, params, config)


def drawn(objective, batch):
    """Return random parameters; compiling `init` would take seconds."""
    shapes = jax.eval_shape(objective.init, jax.random.key(0), batch)[0]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)


def save(encoder: Encoder, workdir, *steps: int) -> None:
    """Write the encoder as a run's checkpoints; at each step all parameters are 1 % larger."""
    workdir.mkdir(exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(encoder.config))
    checkpoints = checkpoint.Checkpoints(workdir, keep=10)
    for step in steps:
        params = jax.tree.map(lambda p, s=step: p * 1.01 ** (s - steps[0]), encoder.params)
        optimizer = {"main": {"count": np.zeros(1, np.int32)}}
        state = TrainState(np.int32(step), params, optimizer, {}, jax.random.key(0))
        checkpoints.save(state, {})
    checkpoints.close()


def audio_text(folder, encoder="cnn", *, kind="contrastive", out=16, **objective):
    """Write a small audio-text model with random parameters; return its folder.

    `encoder`: "cnn" or "htsat", whose audio towers have no patches along time, or "vit".
    """
    if kind == "contrastive":
        usual = dict(temperature=0.07, max_scale=100.0, per_direction=False, positives="pairs")
        objective = usual | objective
    options = presets.laptop(
        kind=kind, root="", fold=5, encoder=encoder.replace("htsat", "cnn"), text="words", out=out,
        **objective,
    )  # fmt: skip
    presets.runlocal(options)
    options.data.entries.audio.samples = 8_000
    audio = options.objective.towers.audio
    if encoder == "htsat":
        audio.tokenizer = dict(kind="folded", width=8)
        audio.encoder = dict(kind="htsat", width=8, depths=(1, 2), heads=(2, 2))
        audio.pool = dict(kind="pools:Mean")
    elif encoder == "cnn":
        audio.encoder.channels = (8,)
        audio.pool.kind = "pools:Mean"
    else:
        audio.frontend.frames, audio.encoder.depth = 24, 1
    # A pool whose width hangs on the length of texts.
    options.objective.towers.text.pool.kind = "pools:Flat"
    options = configs.plain(options)
    built = build(options["objective"], "objectives")
    params = drawn(built, AudioTextModel(built, {}, options).blank())
    if encoder == "htsat":
        norm = params["audio"]["tokenizer"]["mel_norm"]
        norm["var"] = np.abs(norm["var"])
    return exported.write(folder, params, options)
