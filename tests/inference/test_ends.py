"""How clips end: whole tokens, padding that nobody hears, the training length, special tokens."""

import dataclasses

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.config import build
from ssl_audio.inference.encoder import Encoder
from ssl_audio.tokens.convolutions import Convolutions
from ssl_audio.tokens.waveform import Waveform

RATE = 16_000


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


PLACES = dict(kind="convolutions", depth=2, size=5, groups=4, masked=True)


def speech(norm="group", seconds=1, batch_size=2, positions=PLACES):
    """Return an encoder of waveforms with the published strides."""
    block = dict(kind="post_norm", mixer=dict(kind="attention", heads=2), mlp=2.0)
    convolutions = dict(kind="waveform", widths=(8,) * 7, norm=norm)
    config = dict(
        objective=dict(
            kind="features",
            frontend=dict(kind="raw"),
            tokenizer=dict(kind="waveform:Projected", tokenizer=convolutions, width=16),
            encoder=dict(
                kind="stack", width=16, depth=1, block=block, final_norm=None,
                positions=positions,
            ),
        ),
        data=dict(entries=dict(audio=dict(samples=seconds * RATE))),
    )  # fmt: skip
    objective = build(config["objective"], "objectives")
    empty = Encoder(objective, {}, config, batch_size)
    return dataclasses.replace(empty, params=encoders.drawn(objective, empty.blank()))


@pytest.mark.parametrize(
    "samples, tokens", [(RATE, 49), (RATE + 79, 49), (RATE + 80, 50), (300, 1)]
)
def test_tokens_are_those_of_whole_fields(samples, tokens):
    encoder = speech()
    assert (
        encoder._columns(samples)
        == tokens
        == encoder.objective.tokenizer.grid(max(samples, 400), 1)[1]
    )


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_is_heard_by_no_token(norm):
    encoder = speech(norm, seconds=2)
    clip = noise(5607)
    batch = {"audio": jnp.asarray(clip[None]), "length": jnp.array([len(clip)])}
    exact = jax.jit(encoder.objective.predictors()["encode"])(encoder.params, {}, batch)
    frames, _ = encoder.frames(clip, RATE)
    assert frames.shape == exact.tokens.x.shape[1:]
    assert len(frames) == 17 and next(encoder._cut(clip))[0] == 24
    assert np.abs(frames - exact.tokens.x[0]).max() < 1e-5
    together = encoder.embed([clip, noise(9_000)], RATE)
    assert np.array_equal(together[0], encoder.embed(clip, RATE))
    assert np.isfinite(encoder.embed(noise(100), RATE)).all()


def test_few_programs_for_waveforms_of_any_length():
    encoder = speech(seconds=2)
    sizes = {next(encoder._cut(noise(samples)))[0] for samples in range(400, 2 * RATE, 320)}
    assert sizes == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 99}
    # Position convolutions that padding reaches: no more of it than before.
    stack = encoder.objective.encoder
    leaking = stack.clone(positions=stack.positions.clone(masked=False))
    objective = dataclasses.replace(encoder.objective, encoder=leaking)
    encoder = dataclasses.replace(encoder, objective=objective)
    sizes = {next(encoder._cut(noise(samples)))[0] for samples in range(400, 2 * RATE, 320)}
    assert sizes == {*range(2, 99, 2), 99}


def test_positions_that_stretch_are_those_of_the_training_clips():
    """A clip has the same vector whatever it is padded to, and one program for all lengths."""
    encoder = speech(seconds=1, positions=dict(kind="positions:Axes", sizes=(49,)))
    assert {next(encoder._cut(noise(samples)))[0] for samples in range(400, RATE, 320)} == {49}
    clip = noise(5607)
    batch = {
        "audio": jnp.asarray(np.pad(clip, (0, RATE - 5607)))[None],
        "length": jnp.array([5607]),
    }
    whole = jax.jit(encoder.objective.predictors()["encode"])(encoder.params, {}, batch)
    frames, _ = encoder.frames(clip, RATE)
    assert frames.shape == (17, 16)
    assert np.abs(frames - whole.tokens.x[0, :17]).max() < 1e-5


def test_group_norms_and_position_convolutions_know_where_a_clip_ends():
    tokenizer = Waveform(widths=(4, 4), kernels=(4, 2), strides=(2, 2))
    clip = jnp.asarray(noise(40))[None, :, None]
    padded = jnp.pad(clip, ((0, 0), (0, 60), (0, 0)))
    params = jax.jit(tokenizer.init)(jax.random.key(0), clip)
    apply = jax.jit(tokenizer.apply)
    short = apply(params, clip)
    told = apply(params, padded, jnp.array([40]))
    assert told.valid[0].sum() == short.x.shape[1]
    assert np.abs(told.x[:, : short.x.shape[1]] - short.x).max() < 1e-6
    untold = apply(params, padded)
    assert np.abs(untold.x[:, : short.x.shape[1]] - short.x).max() > 1e-2

    places = Convolutions(depth=2, size=3, groups=2, masked=True)
    params = jax.jit(places.init)(jax.random.key(1), short)
    wanted, _ = places.apply(params, short)
    hidden = told.replace(x=jnp.where(told.valid[..., None], told.x, 0))
    got, _ = places.apply(params, hidden)
    assert np.abs(got[:, : wanted.shape[1]] - wanted).max() < 1e-6
    leaking, _ = places.clone(masked=False).apply(params, hidden)
    assert np.abs(leaking[:, : wanted.shape[1]] - wanted).max() > 1e-3


def test_long_windows_are_encoded_fewer_at_a_time(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert speech(seconds=41, batch_size=16)._windows_per_call(10) == 16
    encoder = speech(seconds=41, batch_size=16)
    assert encoder._windows_per_call(encoder._most) == 3
    assert dataclasses.replace(encoder, batch_size=1)._windows_per_call(encoder._most) == 1


def test_a_clip_of_the_training_length_is_one_window():
    """Its 22 frames more than fill 2 columns of 8; the grid of training has 2."""
    encoder = encoders.encoder(frames=22)
    for frames, columns in ((16, 2), (17, 2), (22, 2), (23, 3)):
        samples = 400 + (frames - 1) * 160
        assert encoder._columns(samples) == columns
        assert len(list(encoder._cut(noise(samples)))) == columns - 1


def test_pad_training_hears_the_silence_too():
    encoder = encoders.encoder()
    clip = noise(4000)
    frames, times = encoder.frames(clip, RATE, pad="training")
    assert len(frames) == len(times) == 8
    batch = encoder.blank() | {"length": np.array([4000], np.int32)}
    batch["audio"][0, :4000] = clip
    batch = jax.tree.map(jnp.asarray, batch)
    wanted = jax.jit(encoder.objective.predictors()["encode"])(encoder.params, {}, batch)
    got = encoder.embed(clip, RATE, pad="training")
    assert np.abs(got - wanted.tokens.x[0].mean(0)).max() < 1e-5
    assert np.abs(got - encoder.embed(clip, RATE)).max() > 1e-3
    special = encoder.embed(clip, RATE, pad="training", pool="special")
    assert np.abs(special - wanted.special[0].mean(0)).max() < 1e-5
    assert encoder.embed([clip, noise(30_000)], RATE, pool="special").shape == (2, 32)
    default = dataclasses.replace(
        encoder, config={**encoder.config, "inference": {"pad": "training"}}
    )
    assert default.pad == "training" and np.array_equal(default.embed(clip, RATE), got)


def test_what_is_not_there_is_refused():
    encoder, clip = encoders.encoder(), noise(4000)
    with pytest.raises(
        ValueError, match="pad: got 'zeros', wanted one of columns, training, silence, none"
    ):
        encoder.embed(clip, RATE, pad="zeros")
    with pytest.raises(ValueError, match="'special' is of layer -1"):
        encoder.embed(clip, RATE, pool="special", layer=0)
    with pytest.raises(ValueError, match="this encoder has no special tokens"):
        speech().embed(clip, RATE, pool="special")
    with pytest.raises(ValueError, match="pool: got 'sum'"):
        encoder.embed(clip, RATE, pool="sum")


@pytest.mark.parametrize(
    ("samples", "columns"),
    [(80_000, 250), (80_016, 250), (80_159, 250), (80_160, 251), (160, 1), (30, 1), (240_000, 750)],
)
def test_frames_centred_every_hop_are_as_many_as_hops(samples, columns):
    """Of 5 s that are 500 hops, 250 columns of two frames: the window takes none away."""
    config = centred()
    encoder = Encoder(build(config["objective"], "objectives"), {}, config)
    assert encoder._columns(samples) == columns
    assert encoder._columns(samples, "none") == max(1, samples // 160 // 2)
    assert len(list(encoder._cut(np.zeros(samples, np.float32)))) == (1 if columns < 501 else 2)


def test_a_training_clip_is_one_window_though_more_frames_are_centred_in_it():
    config = centred(frames=999)  # of the 1,000 that its 10 s give
    encoder = Encoder(build(config["objective"], "objectives"), {}, config)
    assert encoder._most == encoder._columns(160_000) == 499
    assert len(list(encoder._cut(np.zeros(160_000, np.float32)))) == 1


def test_what_training_cut_off_is_heard():
    config = centred(frames=98)  # of the 1,000
    encoder = Encoder(build(config["objective"], "objectives"), {}, config)
    assert encoder._columns(16_000) == 50 and encoder._columns(160_000) == 500


def test_the_end_of_a_clip_is_heard_by_the_last_column():
    config = centred(seconds=1)
    empty = Encoder(build(config["objective"], "objectives"), {}, config)
    encoder = dataclasses.replace(empty, params=encoders.drawn(empty.objective, empty.blank()))
    clip = noise(24_000)
    changed = clip.copy()
    changed[-100:] = 0.5
    (one, times), (other, _) = (encoder.frames(c, RATE) for c in (clip, changed))
    assert len(one) == len(times) == 75 and times[-1] == 1485.0
    moved = np.abs(one - other).max(axis=1) > 1e-3
    assert moved[-1] and not moved[:20].any()


def centred(frames=None, seconds=10):
    """Return the config of an encoder of columns of two centred frames."""
    block = dict(kind="blocks:PreNorm", mixer=dict(kind="attention", heads=2), mlp=2.0)
    return dict(
        objective=dict(
            kind="features",
            frontend=dict(
                kind="mel", rate=RATE, hop=160, window=400, bins=16, high=0.0, frames=frames
            ),
            tokenizer=dict(kind="patchify", width=16, patch=(16, 2), stride=(16, 2)),
            encoder=dict(
                kind="stack",
                width=16,
                depth=1,
                block=block,
                positions=dict(kind="positions:Learned", grid=(1, 50)),
            ),
        ),
        data=dict(entries=dict(audio=dict(samples=seconds * RATE))),
    )
