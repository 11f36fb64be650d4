"""Sound from words: cached drawing equals whole passes, one program, begins, sliding, seeds, guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.inference.generator import Generator
from ssl_audio.inference.sampling import Sampling, Saying

SEANET = dict(kind="seanet", channels=2, strides=(2, 5), recurrent=1, causal=False, pad="constant")
OBJECTIVE = dict(
    kind="token_lm",
    model=dict(kind="codes_lm", books=2, codes=9, width=16, depth=2, heads=2, hidden=16, given=8),
    pattern=dict(kind="patterns:Delay", books=2),
    codec=dict(
        kind="codec",
        frontend=dict(kind="raw", rate=1000, standardise=False),
        tokenizer=dict(**SEANET, width=8),
        encoder=dict(kind="identity"),
        quantizer=dict(kind="residual", books=2, codes=9, width=8),
        decoder=SEANET | dict(strides=(5, 2)),
    ),
    text=dict(
        kind="towers:Tower",
        length="text_length",
        tokenizer=dict(kind="words:WordsAlone", width=8, vocab=40),
        encoder=dict(kind="identity"),
        pool=dict(kind="pools:Mean"),
    ),
)
WORDS = dict(kind="text:Words", buckets=38)
CONFIG = dict(
    objective=OBJECTIVE, data=dict(entries=dict(text=dict(kind="text", words=WORDS, length=6)))
)
GREEDY = Sampling(temperature=0.0, guidance=1.0)


@pytest.fixture(scope="module")
def model():
    objective = config.build(OBJECTIVE, "objectives")
    blank = Generator(objective, {}, CONFIG).blank()
    params, _ = jax.jit(objective.init)(jax.random.key(0), blank)
    # Decided logits: near ties would be decided by rounding.
    params["model"]["heads"] = params["model"]["heads"] * 30
    params["text"]["tokenizer"]["word"] = params["text"]["tokenizer"]["word"] * 100
    return Generator(objective, jax.tree.map(np.asarray, params), CONFIG, limit=0.2)


@pytest.fixture(scope="module")
def passes(model):
    """Return a pass over all columns, without any memory."""
    weights = {"params": model._on_device["model"]}
    return jax.jit(lambda *given: model.objective.model.apply(weights, *given))


def whole(model, passes, condition, steps, guidance=1.0, begin=()):
    """Return codes that are likeliest by a pass over all columns for each of them."""
    lm, pattern = model.objective.model, model.objective.pattern
    codes = np.full((1, steps, lm.books), -1)
    codes[0, : len(begin)] = np.reshape(begin, (-1, lm.books))
    columns = np.array(pattern.spread(jnp.asarray(codes), lm.codes))
    given = jnp.asarray(np.pad(condition, ((0, 8 - len(condition)), (0, 0)))[None])
    valid = jnp.arange(8)[None] < len(condition)
    for s in range(1, columns.shape[1]):
        open_ = columns[0, s] == -1
        if not open_.any():
            continue
        shown = jnp.asarray(np.where(columns == -1, lm.codes, columns))  # later ones are not seen
        logits = passes(shown, given, valid)[0, s - 1]
        if guidance != 1:
            without = passes(shown, given, jnp.zeros_like(valid))[0, s - 1]
            logits = without + guidance * (logits - without)
        columns[0, s][open_] = np.argmax(logits, -1)[open_]
    return np.asarray(pattern.gathered(jnp.asarray(columns), steps, 0)[0])[0]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_codes_are_those_of_whole_passes(model, passes, guidance):
    conditions = model.embed_text(["rain on a roof", "a dog"])
    found = model.say(conditions, 20, sampling=Sampling(guidance, temperature=0.0))
    for condition, codes in zip(conditions, found, strict=True):
        np.testing.assert_array_equal(codes, whole(model, passes, condition, 20, guidance))
    assert not np.array_equal(*found)


def test_begins_of_different_lengths_take_one_program(model, passes):
    conditions = model.embed_text(["rain", "a dog", "a dog"])
    begins = [np.array([[3, 1], [4, 1], [5, 8]]), np.array([[2, 7]]), np.zeros((0, 2), int)]
    saying = Saying(model.objective.model, model.objective.pattern, GREEDY, 20)
    given = np.stack([np.pad(c, ((0, 4 - len(c)), (0, 0))) for c in conditions])
    valid = np.arange(4)[None] < np.array([len(c) for c in conditions])[:, None]
    for some in (begins, begins[::-1], [begins[0]] * 3):
        found = saying(model.params["model"], given, valid, some, [(i, 0) for i in range(3)])
        for condition, codes, begin in zip(conditions, found, some, strict=True):
            np.testing.assert_array_equal(codes, whole(model, passes, condition, 20, begin=begin))
    assert saying.traces == 2  # what reads the begins, and what goes on


def test_longer_sound_slides(model, passes):
    (condition,) = model.embed_text(["rain"])
    (found,) = model.say(
        [condition], 40, sampling=GREEDY, stride=0.1
    )  # 20 steps, then 10 at a time
    np.testing.assert_array_equal(found[:20], whole(model, passes, condition, 20))
    np.testing.assert_array_equal(
        found[10:30], whole(model, passes, condition, 20, begin=found[10:20])
    )
    np.testing.assert_array_equal(
        found[20:], whole(model, passes, condition, 20, begin=found[20:30])
    )


def test_a_sound_depends_on_its_text_and_seed_only(model):
    texts = ["rain", "a dog", "rain"]
    drawn = dict(temperature=30.0)  # the logits are nearly decided otherwise
    all_ = model.generate(texts, 0.11, seed=3, **drawn)
    assert [sound.shape for sound in all_] == [(110,)] * 3 and model.rate == 1000
    for number, (text, sound) in enumerate(zip(texts, all_, strict=True)):
        single = model.generate(text, 0.11, seed=3 + number, **drawn)
        np.testing.assert_allclose(single, sound, atol=1e-6)
    assert not np.array_equal(all_[0], all_[2])
    for odd in ([], [3], None):
        with pytest.raises(ValueError, match="texts"):
            model.generate(odd, 0.1)
    for seed in (-1, 2**32, 0.5):
        with pytest.raises(ValueError, match=f"seed: got {seed}, wanted"):
            model.generate("rain", 0.1, seed)


def test_a_begin_is_kept_and_too_long_ones_are_refused(model):
    sound = 0.3 * np.sin(np.arange(60) / 3).astype(np.float32)
    codes = model.codec.encode(sound, 1000).chunks[0]
    told = []
    found = model.generate(
        ["rain", "rain"], 0.2, begins=[sound, None], begins_rate=1000, guidance=1.0, temperature=0.0,
        told=lambda *n: told.append(n),
    )  # fmt: skip
    kept = model.say(model.embed_text(["rain"]), 20, begins=[codes], sampling=GREEDY)[0]
    np.testing.assert_array_equal(kept[:6], codes)
    np.testing.assert_allclose(found[0], model.codec.decode(kept), atol=1e-6)
    assert not np.array_equal(*found) and told[-1][0] == told[-1][1]
    with pytest.raises(ValueError, match="begins"):
        model.generate("rain", 0.05, begins=[sound], begins_rate=1000)


def test_words_of_nothing_are_no_condition(model):
    empty, some = model.embed_text(["", "rain"])
    assert empty.shape == (0, 8) and len(some) == 2
    nothing, forgotten = (
        model.say([condition], 6, sampling=Sampling(guidance, temperature=0.0))[0]
        for condition, guidance in ((empty, 5.0), (some, 0.0))
    )
    np.testing.assert_array_equal(nothing, forgotten)


def test_what_sampling_leaves():
    logits = jnp.log(jnp.array([0.5, 0.25, 0.15, 0.1]))
    for sampling, left in (
        (Sampling(top_k=2), 2),
        (Sampling(top_k=0), 4),
        (Sampling(top_k=0, top_p=0.5), 1),
        (Sampling(top_k=0, top_p=0.51), 2),
        (Sampling(top_k=0, top_p=1e-9), 1),
    ):
        assert int(np.isfinite(sampling.kept(logits)).sum()) == left, sampling
    keys = jax.random.split(jax.random.key(0), 4000)
    many = jnp.broadcast_to(logits, (4000, 1, 4))
    drawn = Sampling(top_k=2, temperature=0.5).draw(keys, many)
    assert np.mean(np.asarray(drawn) == 0) == pytest.approx(0.8, abs=0.03)  # 0.5^2 : 0.25^2
    assert int(drawn.max()) == 1
    for odd in (dict(top_p=0.0), dict(top_k=-1), dict(temperature=-1.0), dict(guidance=-1.0)):
        with pytest.raises(ValueError, match=next(iter(odd))):
            Sampling(**odd)
