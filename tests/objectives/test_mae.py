"""The masked autoencoder: hidden content cannot be seen, masks are exact, errors are of what is hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.config import build
from ssl_audio.tokens.masking import TimeFrequency, others
from ssl_audio.tokens.patchify import patches

MIXERS = {"attention": dict(kind="attention", heads=2), "mamba": dict(kind="mamba", state=4)}


def objective(mixer="attention"):
    width, rows, frames = 16, 4, 96
    grid = (rows, frames // 8)
    block = dict(kind="blocks:PreNorm", mixer=MIXERS[mixer], mlp=2.0)
    whole = dict(kind="blocks:PreNorm", mixer=MIXERS["attention"], mlp=2.0)
    places = dict(kind="positions:Learned", grid=grid, start="sincos")
    stack = dict(kind="stack", width=width, remat="none")
    return build(
        dict(
            kind="mae",
            frontend=dict(kind="fbank", bins=8 * rows, frames=frames),
            tokenizer=dict(kind="patchify", width=width, patch=(8, 8), stride=(8, 8)),
            encoder=stack | dict(depth=1, block=block, special=1, positions=places),
            decoder=dict(
                kind="decoders:Decoder",
                trunk=stack | dict(depth=1, block=whole),
                positions=places,
                special=1,
            ),
            masking=dict(kind="masking:Random", count=0.75),
        ),
        "objectives",
    )


@pytest.fixture(scope="module")
def batch():
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 15_600)).astype(np.float32)
    return {"audio": jnp.asarray(audio), "length": jnp.full(2, 15_600, jnp.int32)}


def parameters(made, batch):
    """Return random parameters; compiling `init` would take seconds."""
    shapes, _ = jax.eval_shape(made.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.2, s.shape), jnp.float32), shapes)


@pytest.mark.parametrize("mixer", list(MIXERS))
def test_hidden_content_cannot_influence_the_encoder(mixer, batch):
    made = objective(mixer)
    spec = made.frontend(batch["audio"], batch["length"])
    params = parameters(made, batch)
    hidden = made.masking(jax.random.key(1), 2, (4, 12))
    shown = others(hidden, 48)
    weights = jax.random.normal(jax.random.key(2), (16,))

    @jax.jit
    def gradient(spec):
        def seen(spec):
            encoded = made.visible(params, spec, shown)
            return jnp.sum(encoded.tokens.x @ weights) + jnp.sum(encoded.special @ weights)

        return patches(jax.grad(seen)(spec), (8, 8), (8, 8))

    found = np.abs(np.asarray(gradient(spec))).max(-1)
    away = np.take_along_axis(found, np.asarray(hidden), 1)
    there = np.take_along_axis(found, np.asarray(shown), 1)
    assert away.shape == (2, 36) and (away == 0).all()
    assert (there > 0).all()


def test_errors_are_of_standardised_patches_at_hidden_places_only(batch):
    made = objective()
    params = parameters(made, batch)
    hidden = made.masking(jax.random.key(0), 2, (4, 12))
    shown = others(hidden, 48)

    @jax.jit
    def all_at_once(params, spec):
        predicted = made.predict(params, made.visible(params, spec, shown))
        pictures = made.pictures(params, {}, batch)
        return predicted, made.errors(params, spec, shown, hidden), pictures

    spec = made.frontend(batch["audio"], batch["length"])
    predicted, errors, pictures = jax.tree.map(np.asarray, all_at_once(params, spec))
    cut = np.asarray(patches(spec, (8, 8), (8, 8)), np.float64)
    scaled = cut - cut.mean(-1, keepdims=True)
    scaled /= np.sqrt(cut.var(-1, ddof=1, keepdims=True) + 1e-6)
    wanted = [((predicted[i] - scaled[i])[np.asarray(hidden[i])] ** 2).mean() for i in range(2)]
    assert np.allclose(errors, wanted, rtol=1e-4)
    there = ~np.isnan(pictures["original, masked"])
    assert there.mean() == pytest.approx(0.25)
    assert (pictures["original"][there] == pictures["reconstructed"][there]).all()


@pytest.mark.parametrize(
    "masking, count",
    [
        (TimeFrequency(0.5, 0.25), 48 - 6 * 3),
        (TimeFrequency(time=2, freq=1, single=5, shared=True), 48 - (10 * 3 - 5)),
    ],
)
def test_every_clip_hides_the_same_number_and_the_rest_is_visible(masking, count):
    grid = (4, 12)
    hidden = np.asarray(masking(jax.random.key(0), 3, grid))
    assert hidden.shape == (3, count) and masking.number(grid) == count
    shown = np.asarray(others(jnp.asarray(hidden), 48))
    assert (np.diff(shown, axis=1) > 0).all()
    for i in range(3):
        assert sorted([*hidden[i], *shown[i]]) == list(range(48))
    rows, columns = (len(set(f(shown[0]))) for f in (lambda n: n // 12, lambda n: n % 12))
    assert (rows, columns) == masking.kept(grid)[:2]
    assert (hidden[0] == hidden[1]).all() == masking.shared


def test_a_masking_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="leave 0 rows x 12 columns, 0 patches, of a grid of 4 x"):
        TimeFrequency(freq=4).kept((4, 12))
    with pytest.raises(ValueError, match="wanted some, but not all"):
        TimeFrequency().kept((4, 12))
    with pytest.raises(ValueError, match="TimeFrequency: time is 1.0"):
        TimeFrequency(time=1.0)
