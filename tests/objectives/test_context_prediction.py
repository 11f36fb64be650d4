"""WavJEPA and Audio-JEPA: what is drawn, what the student hears, targets, errors and the teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import CONFIGS, load

from ssl_audio.config import build, plain
from ssl_audio.storage.written import samples
from ssl_audio.tokens.contexts import Share, SpanSets
from ssl_audio.tokens.positions import sincos_1d, sincos_2d

GRID, WIDTH = (2, 12), 8


def objective(**parts):
    block = dict(kind="post_norm", mixer=dict(kind="attention", heads=2), mlp=2.0)
    positions = dict(kind="positions:Learned", grid=GRID, start="sincos", special=False)
    trunk = dict(kind="stack", width=12, depth=1, block=block, remat="none")
    return build(
        dict(
            kind="context_prediction",
            frontend=dict(kind="fbank", bins=16, frames=96),
            tokenizer=dict(kind="patchify", width=WIDTH, patch=(8, 8), stride=(8, 8)),
            encoder=trunk | dict(width=WIDTH, depth=2, positions=positions),
            decoder=dict(kind="set_predictor", trunk=trunk, positions=positions),
            masking=dict(kind="contexts:SpanSets", length=2, sets=2),
        )
        | parts,
        "objectives",
    )


@pytest.fixture(scope="module")
def batch():
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 15_600)).astype(np.float32)
    return {"audio": jnp.asarray(audio), "length": jnp.full(2, 15_600, jnp.int32)}


def start(made, batch):
    """Return random parameters and a random teacher; compiling `init` would take seconds."""
    shapes = jax.eval_shape(made.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.2, s.shape), jnp.float32), shapes)


def published(name):
    (path,) = [path for path in CONFIGS if path.stem == name]
    options = plain(load(path, ""))
    made = build(options["objective"], "objectives")
    grid = made.tokenizer.grid(made.frontend.count(samples(options)), made.frontend.bins)
    return made, grid


def lengths(row):
    """Return the lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return edges[1::2] - edges[::2]


def test_spans_of_wavjepa_cover_what_their_numbers_say():
    made, grid = published("wavjepa")
    assert grid == (1, 200) == made.encoder.positions.grid
    context, targets = map(
        np.asarray, jax.jit(lambda key: made.masking(key, 100, grid))(jax.random.key(0))
    )
    assert context.shape == (100, 200) and targets.shape == (100, 4, 200)
    assert not (context[:, None] & targets).any()
    assert context.mean(1).min() >= 0.1
    runs = [lengths(row) for row in targets.reshape(-1, 200)]
    assert min(map(min, runs)) >= 10  # spans may overlap, and are never cut
    # int(0.25 * 200 / 10 + u) = 5 different starts in 190 places: a column is missed by all of them with
    # probability (1 - 10/190)^5 or a little less.
    assert abs(targets.mean() - (1 - (1 - 10 / 190) ** 5)) < 0.02
    assert (
        targets.any((0, 1))[:199].all() and not targets[..., 199].any()
    )  # as fairseq draws starts
    hidden = SpanSets(target=1e-6, least=0.001, tries=1)
    alone, one = map(np.asarray, jax.jit(lambda key: hidden(key, 200, grid))(jax.random.key(1)))
    # Where no edge is near: 13 spans of the context's, and one for each of the four sets.
    assert abs(alone[:, 10:190].mean() - (1 - 10 / 190) ** 17) < 0.03
    assert (one.sum(-1) == 10).all()


def test_a_small_context_is_drawn_again_or_the_largest_is_taken():
    sizes = [
        np.asarray(jax.jit(lambda key, m=m: m(key, 40, (1, 200))[0])(jax.random.key(0))).mean(1)
        for m in (SpanSets(least=0.25, tries=1), SpanSets(least=0.25, tries=16))
    ]
    assert (sizes[0] < 0.25).mean() > 0.5 and (sizes[1] >= 0.25).mean() > 0.7
    for wrong in (dict(length=0), dict(hidden=1.0), dict(least=0.0)):
        with pytest.raises(ValueError, match="SpanSets: "):
            SpanSets(**wrong)
    with pytest.raises(ValueError, match="8 columns are not more than the 10 of a span"):
        SpanSets()(jax.random.key(0), 1, (1, 8))


def test_audio_jepa_hides_one_share_for_the_batch_and_predicts_the_rest():
    made, grid = published("audiojepa")
    assert grid == (6, 32) == made.encoder.positions.grid
    assert made.frontend.count(320_000) == 512 and made.teacher == ("tokenizer", "encoder")
    draw = jax.jit(lambda key: made.masking(key, 5, grid))
    counts = []
    for key in jax.random.split(jax.random.key(0), 40):
        context, targets = map(np.asarray, draw(key))
        assert (targets[:, 0] == ~context).all() and targets.shape == (5, 1, 192)
        assert len(set(context.sum(1))) == 1
        counts.append(context[0].sum())
    assert 76 <= min(counts) < 85 and 107 < max(counts) <= 115
    with pytest.raises(ValueError, match="wanted 0 < low <= high < 1"):
        Share(low=0.7, high=0.6)


def test_the_student_hears_the_context_and_the_teacher_everything(batch):
    made = objective()
    params, extra = start(made, batch)
    other = jnp.asarray(np.random.default_rng(1).normal(0, 3, (2, 24, WIDTH)), jnp.float32)

    @jax.jit
    def run():
        context, targets = made.masking(jax.random.key(3), 2, GRID)
        tokens = made.tokenized({"params": params["tokenizer"]}, batch)

        def both(x, targets=targets):
            changed = tokens.replace(x=x)
            encoded = made.seen(params, changed, context)
            made_ = made.predict(params, encoded, context, targets)
            return made_, made.targets(extra, batch, changed)

        hidden = jnp.where(context[..., None], tokens.x, other)
        heard = jnp.where(context[..., None], other, tokens.x)
        every = jax.lax.map(both, jnp.stack([tokens.x, hidden, heard]))
        return every, targets, both(tokens.x, targets[:, 1:])[0]

    (found, taught), at, alone = jax.tree.map(np.asarray, run())
    before, hidden, heard = (x[at] for x in found)
    assert (before == hidden).all()  # the same bits
    assert not np.allclose(before, heard, atol=1e-3)
    assert not np.allclose(taught[0], taught[1], atol=1e-3)
    # The sets are predicted one by one: other sets change nothing.
    assert np.allclose(found[0][:, 1][at[:, 1]], alone[:, 0][at[:, 1]], atol=1e-5)


def test_losses_by_hand(batch):
    key = jax.random.key(7)
    for options, teacher in (
        (dict(top=2, error="square"), ("encoder",)),
        (dict(top=0, error="cosine"), ("encoder", "tokenizer")),
    ):
        made = objective(teacher=teacher, **options)
        params, extra = start(made, batch)
        assert set(extra["teacher"]) == set(teacher)

        @jax.jit
        def run(made=made, params=params, extra=extra, teacher=teacher):
            def total(params, extra):
                return made.loss(params, extra, batch, key, train=True).total

            context, targets = made.masking(jax.random.split(key)[0], 2, GRID)
            tokens = made.tokenized({"params": params["tokenizer"]}, batch)
            encoded = made.seen(params, tokens, context)
            predicted = made.predict(params, encoded, context, targets)
            source = extra["teacher"] if "tokenizer" in teacher else params
            tokens = made.tokenized({"params": source["tokenizer"]}, batch)
            taught = made.encoder.apply(
                {"params": extra["teacher"]["encoder"]}, tokens, layers=True
            )
            return jax.value_and_grad(total, (0, 1))(params, extra), predicted, targets, taught

        (value, grads), predicted, targets, taught = jax.tree.map(np.asarray, run())
        if options["top"]:
            x = taught.layers
            x = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
            each = ((predicted - x.mean(0)[:, None]) ** 2).mean(-1)
        else:
            x = taught.tokens.x
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-6)
            length = np.linalg.norm(predicted, axis=-1) * np.linalg.norm(x, axis=-1)[:, None]
            each = 2 - 2 * (predicted * x[:, None]).sum(-1) / length
        assert float(value) == pytest.approx(each[targets].mean(), rel=1e-4)
        assert not any(np.any(g) for g in jax.tree.leaves(grads[1]))
        assert all(np.any(g) for g in jax.tree.leaves(grads[0]["decoder"]))
        assert np.any(grads[0]["tokenizer"]["kernel"])
    moved = made.refresh(jax.tree.map(lambda p: p + 1, params), extra, 10**9)
    assert jax.tree.all(jax.tree.map(np.allclose, moved["teacher"], extra["teacher"])) is False


def test_padding_is_no_target_and_changes_nothing():
    """Of waveforms, whose tokens tell where a clip ends."""
    made = objective(
        frontend=dict(kind="raw"),
        tokenizer=dict(
            kind="waveform:Projected", width=WIDTH,
            tokenizer=dict(kind="waveform", widths=(4, 4), kernels=(10, 4), strides=(5, 4)),
        ),
        masking=dict(kind="contexts:SpanSets", length=3, sets=2),
        encoder=dict(
            kind="stack", width=WIDTH, depth=2, remat="none", final_norm=None,
            block=dict(kind="post_norm", mixer=dict(kind="attention", heads=2), mlp=2.0),
        ),
        top=2,
    )  # fmt: skip
    audio = jnp.asarray(np.random.default_rng(0).normal(0, 0.1, (2, 640)), jnp.float32)
    length = jnp.asarray([640, 300], jnp.int32)
    params, extra = start(made, dict(audio=audio, length=length))

    @jax.jit
    def loss(audio):
        one = dict(audio=audio, length=length)
        return made.loss(params, extra, one, jax.random.key(0), train=True).total

    assert np.isfinite(float(loss(audio)))
    assert float(loss(audio)) == float(loss(audio.at[1, 300:].set(9.0)))
    assert float(loss(audio)) != float(loss(audio.at[1, :300].set(9.0)))


def test_the_table_of_a_sequence():
    table = np.asarray(sincos_1d((2, 5), 8)).reshape(2, 5, 8)
    assert (table[0] == table[1]).all()
    assert table[0, 3, 1] == pytest.approx(np.sin(3 / 10), abs=1e-6)
    assert np.allclose(table[0], np.asarray(sincos_2d((1, 5), 16))[:, 8:])
    with pytest.raises(ValueError, match="width is 7; it must be even"):
        sincos_1d((1, 5), 7)


def test_what_cannot_be_is_refused():
    for wrong in (dict(top=-1), dict(error="cosines")):
        with pytest.raises(ValueError, match="ContextPrediction: top="):
            objective(**wrong)
    with pytest.raises(ValueError, match="wanted 'encoder', and maybe 'tokenizer'"):
        objective(teacher=("tokenizer",))
