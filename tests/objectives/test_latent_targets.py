"""Objectives that predict codes or latents: what they learn from, and what must not reach what."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.config import build
from ssl_audio.data.entries import clips
from ssl_audio.inference.encoder import Encoder
from ssl_audio.presets import speech

WIDTH, CODES, FRAMES = 16, 8, 32
SAMPLES = 400 + 160 * (FRAMES - 1)
FBANK = dict(kind="fbank", bins=32, frames=FRAMES, remove_mean=False)
PATCH = dict(patch=(16, 8), stride=(16, 8))
CUT = dict(kind="patchify:Cut", **PATCH)
PATCHES = dict(
    frontend=FBANK,
    tokenizer=dict(
        kind="waveform:Projected", width=WIDTH, tokenizer=dict(kind="patchify", width=8, **PATCH)
    ),
)
RANDOM = dict(
    kind="features",
    frontend=FBANK,
    tokenizer=CUT,
    encoder=dict(kind="identity"),
    quantizer=dict(kind="codebooks:RandomProjection", codes=CODES, width=4),
)
RAW = dict(
    frontend=dict(kind="raw"),
    tokenizer=dict(
        kind="waveform:Projected",
        width=WIDTH,
        tokenizer=dict(kind="waveform", widths=(8, 8), kernels=(20, 20), strides=(16, 16)),
    ),
)


def encoder(depth=1, **more):
    found = speech.beats_stack(WIDTH, depth, 2) | dict(remat="none")
    return found | more


def batch(seed=0):
    audio = np.random.default_rng(seed).normal(0, 0.1, (4, SAMPLES)).astype(np.float32)
    return {"audio": jnp.asarray(audio), "length": jnp.asarray([SAMPLES, SAMPLES, 1000, SAMPLES])}


def gradients(objective, found=None, key=3):
    """Return params, extra, the loss and the gradients of one batch, from one compilation."""

    @jax.jit
    def run(found):
        params, extra = objective.init(jax.random.key(0), found)

        def total(params, floats):
            merged = jax.tree.map(lambda e, f: f if f.dtype == e.dtype else e, extra, floats)
            loss = objective.loss(params, merged, found, jax.random.key(key), train=True)
            return loss.total, loss

        floats = jax.tree.map(lambda e: e.astype(jnp.float32), extra)
        grads, loss = jax.grad(total, argnums=(0, 1), has_aux=True)(params, floats)
        return params, extra, loss, grads

    return run(found or batch())


def largest(tree):
    return max((float(jnp.abs(x).max()) for x in jax.tree.leaves(tree)), default=0.0)


def openbeats():
    predictor = dict(kind="restore:Restored", encoder=encoder(first_norm=None))
    return build(
        dict(
            kind="token_predict",
            **PATCHES,
            encoder=encoder(),
            masking=dict(kind="masking:Random", count=0.75),
            targets=dict(codes=RANDOM),
            heads=dict(codes=dict(kind="codes:Codes", codes=CODES)),
            predictor=predictor,
            smoothing=0.1,
        ),
        "objectives",
    )


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Hides the same places in every clip."""

    hidden: tuple[int, ...]

    def __call__(self, key, batch, grid):
        del key, grid
        return jnp.broadcast_to(
            jnp.asarray(self.hidden, jnp.int32)[None], (batch, len(self.hidden))
        )


def test_a_visible_only_encoder_never_sees_what_is_hidden():
    objective = dataclasses.replace(openbeats(), masking=Fixed((1, 5)))  # the second column
    params, extra, loss, (grads, frozen) = gradients(objective)
    assert largest(frozen) == 0 < largest(grads["encoder"])
    assert loss.metrics["accuracy"][1] == 2 * 4 - 2  # the third clip ends before

    @jax.jit
    def of_audio(audio):
        found = batch() | {"audio": audio}

        def seen(audio):
            fed = found | {"audio": audio}
            spec = objective.frontend(fed["audio"], fed["length"])
            tokens, _ = objective._seen(params, spec, fed, jax.random.key(0), False, None)
            return jnp.sum(tokens.x**2)

        return jax.grad(seen)(audio)

    gradient = np.abs(np.asarray(of_audio(batch()["audio"])[0]))
    column = slice(8 * 160 + 240, 16 * 160)  # samples that only the hidden frames hold
    assert gradient[column].max() == 0 < gradient.max()


def test_speech_does_not_train_the_head_of_audio():
    head = dict(kind="codes:Codes", codes=CODES)
    objective = build(
        dict(
            kind="token_predict",
            **PATCHES,
            encoder=encoder(),
            masking=dict(kind="masking:Spans", count=0.5, length=4),
            hide="frames",
            unmasked=1.0,
            targets=dict(audio=RANDOM, speech=RANDOM),
            heads=dict(audio=head, speech=head),
            weights=dict(audio=(0.1, 0.0)),
        ),
        "objectives",
    )
    speech_batch = batch() | {"source": jnp.ones(4, jnp.int32)}
    _, _, loss, (grads, _) = gradients(objective, speech_batch)
    assert largest(grads["heads"]["audio"]) == 0 < largest(grads["heads"]["speech"])
    assert float(loss.metrics["audio/accuracy"][1]) == 0
    assert largest(grads["mask_token"]) > 0
    with pytest.raises(ValueError, match="weights.audio: one per source.*entries:SourceNumber"):
        jax.eval_shape(lambda: gradients(objective))


def test_settings_that_contradict_each_other_are_refused():
    objective = openbeats()
    for change, message in (
        (dict(hide="frames"), "a predictor restores tokens"),
        (dict(hide="all"), "wanted tokens or frames"),
        (dict(heads={}), "a head for each target"),
        (dict(weights=dict(x=1.0)), "weights: no target x"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(objective, **change)


def test_codes_come_from_another_frame_rate():
    extra = {"targets": {"codes": {"params": {}, "extra": {}}}}

    def codes(count, hop, grid):
        target = {"codes": _Counted(count, SimpleNamespace(hop=hop))}
        objective = dataclasses.replace(openbeats(), targets=target, heads={"codes": None})
        return objective.codes("codes", extra, batch(), grid)[0, :, 0].tolist()

    assert codes(8, 80, (1, 4)) == [1, 3, 5, 7]
    assert codes(8, 160, (1, 9)) == [*range(8), 7]
    # A target that hears longer clips has codes of the silence after the end.
    assert codes(100, 80, (1, 4)) == [1, 3, 5, 7]
    assert codes(8, 320, (1, 8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="8 codes for 6 tokens"):
        codes(8, 160, (2, 3))
    with pytest.raises(
        ValueError, match="4 codes, one every 1280 samples, for 8 tokens, one every 1280"
    ):
        codes(4, 160, (1, 8))


@dataclasses.dataclass(frozen=True)
class _Counted:
    count: int
    frontend: SimpleNamespace
    tokenizer = SimpleNamespace(stride=(1, 8))
    encoder = None

    def predictors(self):
        return {
            "codes": lambda *_: jnp.broadcast_to(
                jnp.arange(self.count)[None, :, None], (4, self.count, 1)
            )
        }


def test_a_tokenizer_learns_from_a_teacher_and_moves_its_codebook():
    teacher = dict(kind="features", **PATCHES, encoder=encoder())
    objective = build(
        dict(
            kind="distill_codes",
            **PATCHES,
            encoder=encoder(),
            quantizer=dict(kind="codebooks:Cosine", hidden=WIDTH, codes=4, width=6),
            estimator=encoder(),
            teacher=teacher,
        ),
        "objectives",
    )
    _, extra, loss, (grads, frozen) = gradients(objective)
    assert largest(frozen["teacher"]) == 0 < largest(grads["quantizer"])
    assert largest(grads["estimator"]) > 0 and not extra["started"] and loss.extra["started"]
    book = np.asarray(loss.extra["book"])
    assert np.allclose(np.linalg.norm(book, axis=1), 1, atol=1e-5)
    assert not np.allclose(book, extra["book"])
    assert -1 <= float(loss.metrics["cosine"][0] / loss.metrics["cosine"][1]) <= 1


def test_latents_are_contrasted_and_draws_cool_down():
    objective = build(
        dict(
            kind="latent_contrast",
            **RAW,
            encoder=encoder(),
            masking=dict(kind="masking:Spans", count=0.5, length=3),
            quantizer=dict(kind="codebooks:Gumbel", groups=2, codes=4, width=8),
            width=8,
            negatives=5,
            draw=(2.0, 0.5, 0.1),
        ),
        "objectives",
    )
    params, extra, loss, (grads, _) = gradients(objective)
    assert np.isfinite(float(loss.total))
    for name in ("quantizer", "mask_token", "tokenizer", "target", "predict"):
        assert largest(grads[name]) > 0, name
    assert float(extra["draw"]) == 2
    assert float(objective.refresh(params, extra, jnp.asarray(0))["draw"]) == 0.5


def test_a_teacher_is_an_average_that_no_gradient_reaches():
    objective = build(
        dict(
            kind="latent_regress",
            **RAW,
            encoder=encoder(2),
            masking=dict(kind="masking:Spans", count=0.5, length=3),
            top=2,
            decay=(0.5, 1.0, 2),
        ),
        "objectives",
    )
    params, extra, loss, (grads, frozen) = gradients(objective)
    assert largest(frozen) == 0 < largest(grads["encoder"])
    assert float(loss.metrics["target_deviation"][0]) > 0.1
    moved = jax.tree.map(lambda p: p + 1, params)
    for step, share in ((0, 0.5), (1, 0.25), (5, 0.0)):
        after = objective.refresh(moved, extra, jnp.asarray(step))["teacher"]
        gap = jax.tree.map(lambda a, b: a - b, after, extra["teacher"])
        assert all(np.allclose(x, share, atol=1e-5) for x in jax.tree.leaves(gap))


def test_waveform_encoders_embed_and_keep_time():
    options = dict(kind="features", **RAW, encoder=encoder(2))
    objective = build(options, "objectives")
    params, _ = jax.jit(objective.init)(jax.random.key(0), batch())
    found = Encoder(objective, params, dict(objective=options, data=clips(SAMPLES)), 2)
    x, times = found.frames(np.sin(np.arange(3000) / 9.0), 16_000)
    assert x.shape == (1 + (3000 - 324) // 256, WIDTH) and found.num_layers == 2
    assert np.allclose(np.diff(times), 16) and times[0] == pytest.approx(10.1, abs=0.1)
