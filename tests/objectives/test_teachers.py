"""Self-distillation and latent prediction: teachers, centres, crops; what they are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.config import build
from ssl_audio.frontend.corrupt import GroupMask
from ssl_audio.objectives.teacher import Ramp, follow
from ssl_audio.tokens.masking import InverseBlock

FRAMES = 48


def objective(kind, **parts):
    width, grid = 16, (4, FRAMES // 8)
    block = dict(kind="post_norm", mixer=dict(kind="attention", heads=2), mlp=2.0)
    return build(
        dict(
            kind=kind,
            frontend=dict(kind="fbank", bins=32, frames=FRAMES),
            tokenizer=dict(kind="patchify", width=width, patch=(8, 8), stride=(8, 8)),
            encoder=dict(
                kind="stack", width=width, depth=2, block=block, special=1, remat="none",
                positions=dict(kind="positions:Learned", grid=grid), final_norm=None,
            ),
            **parts,
        ),
        "objectives",
    )  # fmt: skip


def start(made, batch):
    """Return random parameters, and extra state in which the teacher is another network."""
    shapes = jax.eval_shape(made.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.2, s.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def batch():
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 16_000)).astype(np.float32)
    return {"audio": jnp.asarray(audio), "length": jnp.asarray([16_000, 9_000], jnp.int32)}


def test_the_teacher_gets_no_gradient_and_the_centres_move(batch):
    made = objective(
        "self_distill",
        projector=dict(kind="distill:DistillHead", clip=6, patch=5, hidden=8, bottleneck=4),
        decoder=dict(kind="distill:PixelHead", hidden=8, bottleneck=4),
        crop=400 + 160 * (FRAMES - 1),
        momentum=dict(start=0.5, end=0.5),
        temperature=dict(start=0.04, end=0.08, steps=4),
    )
    params, extra = start(made, batch)
    extra["temperature"] = jnp.float32(0.04)
    spec = jnp.asarray(np.random.default_rng(1).normal(0, 1, (4, FRAMES, 32)), jnp.float32)
    mask = (spec > 0).astype(jnp.float32)

    @jax.jit
    def both(params, extra):
        def total(params, extra):
            loss = made.loss_of(params, extra, spec, (1 - mask) * spec, mask, jax.random.key(1))
            return loss.total, loss.extra

        grads, new = jax.grad(total, (0, 1), has_aux=True)(params, extra)
        return grads, new, made.refresh(params, new, 0)

    (ours, theirs), new, refreshed = jax.tree.map(np.asarray, both(params, extra))
    assert not any(np.any(g) for g in jax.tree.leaves(theirs["teacher"]))
    gains = [p["gain"] for p in ours["projector"].values() if "gain" in p]
    assert len(gains) == 2 and not any(np.any(g) for g in gains)
    assert np.abs(ours["encoder"]["special"]).max() > 0
    moved = new["centre"]["clip"] - 0.9 * np.asarray(extra["centre"]["clip"])
    assert 0 < np.abs(moved).max() < 0.1 * 3  # a tenth of a mean of scores
    old, student, now = (
        np.asarray(tree["tokenizer"]["kernel"])
        for tree in (extra["teacher"], params, refreshed["teacher"])
    )
    assert np.allclose(now, (old + student) / 2, atol=1e-6)
    assert refreshed["temperature"] == pytest.approx(0.05)


def test_crops_stay_within_the_valid_samples():
    made = objective(
        "self_distill",
        projector=dict(kind="distill:DistillHead", clip=6, patch=5, hidden=8, bottleneck=4),
        crop=10_000,
    )
    heard = {}

    def frontend(audio, length):
        heard.update(audio=audio, length=length)
        return jnp.zeros((audio.shape[0], FRAMES, 32))

    object.__setattr__(made, "frontend", frontend)  # it is none, and frozen
    ramp = jnp.arange(1.0, 16_001.0)
    length = jnp.asarray([16_000, 4_000])
    audio = jnp.where(jnp.arange(16_000)[None] < length[:, None], ramp[None], 0)
    made.crops(audio, length, jax.random.key(0))
    cut, there = np.asarray(heard["audio"]), np.asarray(heard["length"])
    assert cut.shape == (4, 10_000) and list(there) == [10_000, 4_000] * 2
    for row, count in zip(cut, there, strict=True):
        whole = np.sort(row[:count])
        assert whole[0] > 0 and (np.diff(whole) == 1).all()
        assert (row[count:] == 0).all()


def test_each_clip_is_predicted_under_several_masks_from_one_target(batch):
    made = objective(
        "latent_prediction",
        decoder=dict(kind="decoders:ConvDecoder", width=16, layers=1, groups=4),
        masking=dict(kind="masking:InverseBlock", keep=0.25, side=3),
        clones=3,
    )
    params, extra = start(made, batch)

    @jax.jit
    def both(params, extra):
        def total(params, extra):
            loss = made.loss(params, extra, batch, jax.random.key(1), train=True)
            return loss.total, loss.metrics

        grads, metrics = jax.grad(total, (0, 1), has_aux=True)(params, extra)
        spec = made.frontend(batch["audio"], batch["length"])
        return grads, metrics, made.targets(extra, spec)

    (ours, theirs), metrics, (target, layers) = jax.tree.map(np.asarray, both(params, extra))
    assert not any(np.any(g) for g in jax.tree.leaves(theirs))
    assert all(np.any(g) for g in jax.tree.leaves(ours["decoder"]))
    assert layers.shape == (2, 2, 24, 16) and target.shape == (2, 24, 16)
    assert np.allclose(target.mean(-1), 0, atol=1e-5) and np.allclose(target.std(-1), 1, atol=1e-2)
    assert set(metrics) == {"patch", "clip", "target_deviation"}


def test_an_inverse_block_mask_keeps_an_exact_number_in_blocks():
    grid, masking = (8, 32), InverseBlock(keep=0.2, side=5)
    hidden = np.asarray(jax.jit(lambda key: masking(key, 4, grid))(jax.random.key(0)))
    assert hidden.shape == (4, 256 - 51) == (4, masking.number(grid))
    for row in hidden:
        kept = np.ones(256, bool)
        kept[row] = False
        assert kept.sum() == 51 and len(set(row)) == len(row)
        together = kept.reshape(grid)
        pairs = (together[:, 1:] & together[:, :-1]).sum()
        assert pairs > 25  # 51 scattered patches would have about 10


def test_group_masks_cover_a_share_and_leave_the_rest():
    corrupt = GroupMask(least=0.5, most=0.6, alien=0.5)
    spec = jnp.asarray(np.random.default_rng(0).normal(5, 1, (8, 40, 20)), jnp.float32)
    changed, mask = map(np.asarray, jax.jit(corrupt)(spec, jax.random.key(0)))
    same = mask == 0
    assert (changed[same] == np.asarray(spec)[same]).all()
    shares = mask.mean((1, 2))
    zeroed = np.array([(row[m == 1] == 0).all() for row, m in zip(changed, mask, strict=True)])
    assert 0 < zeroed.sum() < 8
    assert (shares[zeroed] >= 0.5).all() and (shares[zeroed] < 0.7).all()
    assert (shares[~zeroed] >= 0.3).all() and (shares[~zeroed] < 0.4).all()
    assert (changed[~zeroed] != 0).all()


def test_ramps_and_followers():
    ramp = Ramp(0.0, 1.0, 10, "cosine")
    assert [float(ramp(s)) for s in (0, 5, 10, 20)] == pytest.approx([0, 0.5, 1, 1], abs=1e-6)
    assert float(Ramp(0.2, 0.8)(0)) == pytest.approx(0.8)
    rise = Ramp(1.0, 3.0, 10, "exponential")
    want = [1 + 2 * np.exp(-5 * (1 - share) ** 2) for share in (0, 0.4, 1, 1)]
    assert [float(rise(s)) for s in (0, 4, 10, 20)] == pytest.approx(want)
    teacher, student = {"a": {"b": jnp.ones(2)}}, {"a": {"b": jnp.zeros(2)}, "head": jnp.ones(1)}
    assert np.allclose(follow(teacher, student, 0.75)["a"]["b"], 0.75)
    with pytest.raises(ValueError, match="shape 'step'; wanted linear, cosine, exponential"):
        Ramp(0.0, 1.0, shape="step")
