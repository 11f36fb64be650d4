"""Convolutions over mel bins (Cnn14): dropout, heads, and features of clips of any length."""

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.backbones.cnn import CNN14
from ssl_audio.config import build
from ssl_audio.data.entries import audio
from ssl_audio.inference.encoder import Encoder
from ssl_audio.structs import Encoded, Tokens

RATE, HOP, CHANNELS = 8000, 80, (4, 6, 8)


def options(head, **more):
    norm = dict(kind="norms:FrozenBatchNorm")
    return dict(
        objective=dict(
            kind="tagging",
            frontend=dict(kind="mel", rate=RATE, bins=16, hop=HOP, window=160, low=0.0, high=4e3),
            tokenizer=dict(kind="bins"),
            encoder=dict(kind="cnn", channels=CHANNELS, norm=norm, **more),
            head=head,
            criterion="sigmoid",
        ),
        data=dict(entries=dict(audio=audio(RATE)), rate=RATE),
    )


PANNS = dict(kind="classify:Pooled", classes=3, pool=dict(kind="pools:MaxMean", width=5))


@pytest.fixture(scope="module")
def encoder():
    config = options(PANNS)
    objective = build(config["objective"], "objectives")
    blank = Encoder(objective, {}, config).blank()
    shapes = jax.eval_shape(objective.init, jax.random.key(0), blank)[0]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.uniform(0.1, 0.5, s.shape).astype(np.float32), shapes)
    params["tokenizer"]["norm"]["var"] += 900  # decibels
    return Encoder(objective, params, config, batch_size=2)


def noise(samples):
    return (0.1 * np.random.default_rng(1).standard_normal(samples)).astype(np.float32)


def test_a_column_is_as_many_frames_as_the_blocks_join(encoder):
    assert encoder.width == CHANNELS[-1] and encoder.num_layers == 0 and encoder.rows == 4
    audio = noise(6000)
    features, times = encoder.frames(audio, RATE)
    # 74 whole windows in 6000 samples: 19 columns of 4 frames.
    assert features.shape == (19, 4 * CHANNELS[-1])
    assert np.allclose(np.diff(times), 4 * HOP / RATE * 1000)
    pooled = encoder.embed(audio, RATE)
    assert np.allclose(pooled, features.reshape(19, 4, -1).mean((0, 1)), atol=1e-5)
    with pytest.raises(ValueError, match="layer: got 0; wanted -1 for the final one"):
        encoder.embed(audio, RATE, layer=0)


def test_long_clips_are_covered_and_a_clip_does_not_depend_on_others(encoder):
    long, short = noise(3 * RATE), noise(6000)
    features, _ = encoder.frames(long, RATE)
    assert len(features) == 75
    alone = encoder.embed(short, RATE)
    assert np.array_equal(encoder.embed([long, short], RATE)[1], alone)


def test_the_saved_run_loads(encoder, tmp_path):
    encoders.save(encoder, tmp_path / "run", 1)
    import ssl_audio

    again = ssl_audio.load(tmp_path / "run")
    assert np.allclose(again.embed(noise(4000), RATE), encoder.embed(noise(4000), RATE), atol=1e-6)


def test_the_published_size_has_as_many_parameters():
    made = options(PANNS)["objective"]
    made["frontend"] = dict(kind="mel", rate=32_000, hop=320)
    made["encoder"]["channels"] = CNN14
    made["head"] = dict(PANNS, classes=527, pool=dict(kind="pools:MaxMean", width=2048))
    blank = {
        "audio": jax.ShapeDtypeStruct((1, 320_000), np.float32),
        "length": jax.ShapeDtypeStruct((1,), np.int32),
    }
    shapes = jax.eval_shape(build(made, "objectives").init, jax.random.key(0), blank)[0]
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    learned = [v.size for path, v in leaves if path[-1].key not in ("mean", "var")]
    assert sum(learned) == 80_753_615


def test_dropout_is_for_training_only():
    cnn = build(dict(kind="cnn", channels=(4, 4), dropout=0.5), "backbones")
    tokens = Tokens(jnp.ones((1, 16, 2)), jnp.zeros((1, 16), jnp.int32), grid=(4, 4))
    params = jax.jit(cnn.init)(jax.random.key(0), tokens)

    def run(seed, train):
        rngs = {"drop_path": jax.random.key(seed)}
        return np.asarray(cnn.apply(params, tokens, train=train, rngs=rngs).tokens.x)

    assert np.array_equal(run(0, False), run(1, False))
    first, second = run(0, True), run(1, True)
    assert not np.array_equal(first, second) and (first == 0).mean() > 0.2


def test_heads_against_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3 * 5, 4)).astype(np.float32)
    encoded = Encoded(Tokens(jnp.asarray(x), jnp.zeros((2, 15), jnp.int32), grid=(3, 5)))
    frames = x.reshape(2, 3, 5, 4).mean(1)

    head = build(PANNS, "heads")
    params = jax.tree.map(np.asarray, head.init(jax.random.key(0), encoded))
    first, last = params["params"]["pool"]["dense"], params["params"]["linear"]
    hidden = np.maximum((frames.max(1) + frames.mean(1)) @ first["kernel"] + first["bias"], 0)
    want = hidden @ last["kernel"] + last["bias"]
    assert np.allclose(head.apply(params, encoded), want, atol=1e-5)

    head = build(dict(kind="classify:Segments", classes=3, width=5), "heads")
    params = jax.tree.map(np.asarray, head.init(jax.random.key(0), encoded))
    first, last = params["params"]["dense"], params["params"]["linear"]
    near = np.pad(frames, ((0, 0), (1, 1), (0, 0)), constant_values=np.nan)
    three = np.stack([near[:, i : i + 5] for i in range(3)])
    smooth = np.nanmax(three, axis=0) + np.nansum(three, axis=0) / 3
    along = np.maximum(smooth @ first["kernel"] + first["bias"], 0) @ last["kernel"] + last["bias"]
    assert np.allclose(head.apply(params, encoded, along=True), along, atol=1e-5)
    assert np.allclose(head.apply(params, encoded), along.max(1), atol=1e-5)
