"""Diffusion on latents of sound: the way back to sound, standardised latents, words, pairs, generation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.frontend import griffin_lim
from ssl_audio.inference.diffusion import DiffusionModel
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

RATE, SAMPLES = 8000, 1600
VOCODER = dict(
    kind="vocoder",
    frontend=dict(
        kind="mel", rate=RATE, bins=32, hop=64, window=256, low=0.0, high=0.0, floor=1e-5
    ),
    fold=2,
)
DIFFUSION = dict(
    kind="diffusion",
    model=dict(kind="dit", width=64, depth=1, heads=2, given=64, waves=4),
    autoencoder=VOCODER,
    words=dict(kind="words:WordsPlaced", width=64, vocab=34, length=6),
)
TEXT = dict(kind="text", words=dict(kind="text:Words", words=(), buckets=32), length=6)
CONFIG = dict(
    data=dict(entries=dict(audio=dict(kind="entries:Audio", samples=SAMPLES), text=TEXT), rate=RATE)
)


def tones(count=4):
    """Return tones [count, S] of other pitches and levels, the last half silent."""
    time = np.arange(SAMPLES) / RATE
    pitch = 300 * (1 + np.arange(count))[:, None]
    sound = np.sin(2 * np.pi * pitch * time[None]) * (time < 0.1)
    return jnp.asarray(0.3 * sound, jnp.float32)


def made(options) -> Any:
    """Return an objective."""
    return config.build(options, "objectives")


def batch(count=4):
    ids = jnp.asarray(np.arange(count * 6).reshape(count, 6) % 34, jnp.int32)
    length = jnp.full(count, SAMPLES, jnp.int32)
    return dict(
        audio=tones(count), length=length, audio_rejected=tones(count)[::-1], length_rejected=length,
        text=ids, text_length=jnp.asarray([3, 6, 1, 2][:count], jnp.int32),
    )  # fmt: skip


def test_sound_comes_back_from_its_magnitudes():
    sound = tones() + 0.01 * jax.random.normal(jax.random.key(1), (4, SAMPLES))
    window = griffin_lim.hann(256)
    bands = griffin_lim.spectrum(sound, window, 64)
    back = griffin_lim.inverse(bands, window, 64)
    np.testing.assert_allclose(back, sound[:, : back.shape[1]], atol=1e-5)

    def apart(rounds, momentum):
        made = griffin_lim.sound(
            jnp.abs(bands), jax.random.key(0), hop=64, rounds=rounds, momentum=momentum
        )
        found = jnp.abs(griffin_lim.spectrum(made, window, 64))
        return float(jnp.linalg.norm(found - jnp.abs(bands)) / jnp.linalg.norm(bands))

    assert apart(60, 0.99) < 0.6 * apart(10, 0.0) and apart(60, 0.99) < 0.1


def test_the_vocoder_says_the_tones_it_heard():
    coder = made(VOCODER)
    params, extra = coder.init(jax.random.key(0), {})
    latents, deviation = coder.latents(params, extra, batch())
    assert latents.shape == (4, coder.count(SAMPLES), 64) and not deviation.any()
    sound = np.asarray(coder.sound(params, extra, {"latents": latents}))
    heard, said = (np.abs(np.fft.rfft(x[:, :800])) for x in (np.asarray(tones()), sound))
    np.testing.assert_array_less(
        np.abs(heard.argmax(1) - said.argmax(1)), 8
    )  # 70 Hz, of bands 120 wide
    assert np.abs(sound[:, 1100:]).max() < 0.02 < 0.1 < np.abs(sound[:, :700]).max()


def test_latents_are_standardised_by_what_was_heard_so_far():
    objective = made(DIFFUSION)
    given = batch()
    params, extra = objective.init(jax.random.key(0), given)
    raw = objective.latents(params, extra, given, None)[0]
    x, known = objective.latents(params, extra, given, None, train=True)
    np.testing.assert_allclose(jnp.mean(x, (0, 1)), 0, atol=1e-3)
    assert float(jnp.std(raw)) > 5 and float(jnp.max(jnp.std(x, (0, 1)))) == pytest.approx(1, 1e-2)
    loss = objective.loss(params, extra, given, jax.random.key(0), train=True)
    np.testing.assert_allclose(loss.renewed["latents"]["mean"], known["mean"])
    assert objective.loss(params, extra, given, jax.random.key(0), train=False).renewed is None
    # And back: the sound of standardised latents is that of the latents.
    coder, frozen = objective.autoencoder, extra["autoencoder"]
    wanted = coder.sound(frozen["params"], {}, {"latents": raw})
    found = objective.sound(params | {"latents": known}, extra, {"latents": x})
    np.testing.assert_allclose(found, wanted, atol=2e-2)


def test_padding_of_words_is_not_heard():
    objective, given = made(DIFFUSION), batch()
    params, extra = objective.init(jax.random.key(0), given)
    ids = given["text"]
    other = given | dict(text=ids.at[0, 4].add(1).at[1, 4].add(1))
    a, b = (objective.condition(params, some) for some in (given, other))
    np.testing.assert_array_equal(a[0], b[0])
    assert not np.array_equal(a[1], b[1]) and not a[0, 3:].any()


@pytest.fixture(scope="module")
def trained():
    objective, given = made(DIFFUSION), batch()
    txs = Optim(lr=2e-3).make(objective.phases, 20)
    state = init_state(objective, txs, jax.random.key(0), given)
    step = jax.jit(make_train_step(objective, txs))
    losses = []
    for _ in range(10):
        state, report = step(state, given)
        losses.append(float(report["loss"][0]))
    return objective, state, losses


def test_it_learns_and_keeps_what_it_hears(trained):
    _, state, losses = trained
    assert losses[-1] < losses[0]
    assert float(state.params["latents"]["batches"]) == 10


def test_pairs_are_preferred_and_nothing_is_heard_of_latents(trained):
    _, before, _ = trained
    pairs = made(DIFFUSION | dict(kind="preference", beta=5.0))
    given = batch()
    txs = Optim(lr=3e-3).make(pairs.phases, 30)
    state: Any = init_state(pairs, txs, jax.random.key(0), given)
    reference = jax.tree.map(jnp.copy, before.params)
    state = state.replace(params=before.params, extra=state.extra | {"reference": reference})
    step, losses = jax.jit(make_train_step(pairs, txs)), []
    for _ in range(30):
        state, report = step(state, given)
        losses.append(float(report["loss"][0]))
    assert losses[0] == pytest.approx(np.log(2), rel=1e-5)
    assert np.mean(losses[-10:]) < np.log(2) - 0.02
    for name in ("mean", "variance", "batches"):
        np.testing.assert_array_equal(state.params["latents"][name], before.params["latents"][name])


def test_generation(trained):
    objective, state, _ = trained
    params = jax.tree.map(np.asarray, state.params)
    model = DiffusionModel(objective, params, CONFIG, extra=state.extra)
    assert model.rate == RATE and model.seconds == pytest.approx(0.2)
    texts = ["a dog barks", "rain", "a dog barks"]
    found = model.generate(texts, 0.15, 7, steps=4)
    assert [len(sound) for sound in found] == [1200] * 3
    assert not np.array_equal(found[0], found[2])  # another seed
    alone = model.generate("rain", 0.15, 8, steps=4)  # a bare text: no list
    assert alone.shape == (1200,)
    np.testing.assert_allclose(alone, found[1], atol=2e-3)
    free = model.generate("rain", 0.15, 8, steps=4, guidance=0.0)
    other = model.generate("dog", 0.15, 8, steps=4, guidance=0.0)
    np.testing.assert_array_equal(free, other)  # without guidance no word is heard
    assert not np.array_equal(free, alone)
    # "" is no words, not a word of its own, however much words count.
    no_words = model.generate("", 0.15, 8, steps=4, guidance=300.0)
    np.testing.assert_allclose(no_words, free, atol=2e-3)
    refused: Any = (
        (dict(texts=[]), "at least one"),
        (dict(texts="x", seconds=3.0), "at most 0.2"),
        (dict(texts="x", sampler="euler"), "one of ddim, dpm2m, dpm3m"),
        (dict(texts="x", steps=1), "at least 2"),
        (dict(texts="x", seed=-1), "seed: got -1, wanted a whole number from 0"),
        (dict(texts="x", seed=2**32), "seed: got 4294967296"),
    )
    for wrong, said in refused:
        with pytest.raises(ValueError, match=said):
            model.generate(**wrong)
