"""What edges of `contrastive` compare: supervised positives, triplets, branches, merged queries."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssl_audio import losses
from ssl_audio.backbones.identity import Identity
from ssl_audio.distributed.sharding import Sharding
from ssl_audio.heads.pools import Mean
from ssl_audio.heads.projectors import Branches, OneLayer
from ssl_audio.objectives.contrastive import Contrastive
from ssl_audio.objectives.fusion import Fused
from ssl_audio.objectives.pair_losses import InfoNce, Near, SupCon
from ssl_audio.objectives.towers import Tower
from ssl_audio.structs import Encoded
from ssl_audio.tokens.vectors import Projected, Vectors

B, D = 8, 6
KEY = jax.random.key(0)


def unit(seed, *shape):
    x = np.random.default_rng(seed).normal(size=shape or (B, D))
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)


def labels(*numbers):
    return jnp.asarray(np.eye(4, dtype=np.float32)[list(numbers)])


LABELS = labels(0, 0, 1, 1, 0, 2, 1, 3)


def supervised(z, groups, scale, rows):
    """Return the mean of equation 2 over the anchors that have positives, in plain Python."""
    found = []
    for i in rows:
        scores = {a: scale * float(z[i] @ z[a]) for a in range(len(z)) if a != i}
        right = [a for a in scores if groups[a] == groups[i]]
        if right:
            total = np.log(sum(np.exp(s) for s in scores.values()))
            found.append(np.mean([total - scores[a] for a in right]))
    return np.mean(found), len(found)


def test_supervised_contrast_is_equation_two():
    x, y = unit(1), unit(2)
    groups = np.argmax(LABELS, 1).tolist()
    ahead, back = SupCon()(x, y, (3.0, 3.0), {"label": LABELS})
    z = np.concatenate([x, y])
    for rows, which in ((ahead, range(B)), (back, range(B, 2 * B))):
        want, count = supervised(z, groups * 2, 3.0, which)
        assert float(losses.weighted_mean(rows.loss, rows.counted)) == pytest.approx(want, rel=1e-5)
        assert float(rows.counted.sum()) == count == B  # its own pair has its label


def test_a_row_without_positives_is_left_out():
    x = unit(3)
    itself = jnp.eye(B, dtype=bool)
    loss, hits, there = losses.sup_con(5.0 * x @ x.T, LABELS @ LABELS.T, itself)
    want, count = supervised(np.asarray(x), np.argmax(LABELS, 1).tolist(), 5.0, range(B))
    assert count == 6 and there.tolist() == [1, 1, 1, 1, 1, 0, 1, 0]
    assert float(losses.weighted_mean(loss, there)) == pytest.approx(want, rel=1e-5)
    assert loss[5] == hits[5] == 0 and np.isfinite(np.asarray(loss)).all()


def test_across_modalities_alone_is_a_softmax_with_several_positives():
    x, y = unit(1), unit(2)
    ahead, _ = SupCon(within=False)(x, y, (3.0, 3.0), {"label": LABELS})
    want = losses.info_nce(3.0 * x @ y.T, LABELS @ LABELS.T)
    np.testing.assert_allclose(ahead.loss, want, rtol=1e-5)
    plain = InfoNce()(x, y, (3.0, 3.0), {})[0]
    assert np.abs(ahead.loss - plain.loss).max() > 0.1
    with pytest.raises(ValueError, match="no further negatives"):
        SupCon()(x, y, (3.0, 3.0), {"label": LABELS}, further=(None, (y, jnp.ones(B, bool))))
    with pytest.raises(ValueError, match="has no 'label'"):
        SupCon()(x, y, (3.0, 3.0), {})


def test_near_is_the_distance_of_pairs():
    x = unit(1)
    ahead, back = Near()(x, -x, (1.0, 1.0), {})
    np.testing.assert_allclose(ahead.loss, 2 * np.ones(B), rtol=1e-6)
    assert ahead.hits.sum() == 0 and Near()(x, x, (1.0, 1.0), {})[1].hits.sum() == B
    assert back is ahead


def tower(projector=None, **more):
    return Tower(Projected(D), Identity(), Mean(), projector or OneLayer(D), **more)


def batch_of(**more):
    rng = np.random.default_rng(0)
    found = {name: rng.normal(size=(B, 5, 4)) for name in ("audio", "video")}
    found |= {"audio_positive": rng.normal(size=(B, 5, 4))}
    found |= {"audio_negative": rng.normal(size=(B, 2, 5, 4))}
    found = {name: jnp.asarray(x, jnp.float32) for name, x in found.items()}
    counts = jnp.asarray([5, 5, 3, 5, 2, 5, 4, 1], jnp.int32)
    lengths = {"length": counts, "length_positive": counts[::-1], "video_length": counts}
    lengths["length_negative"] = jnp.stack([counts, 0 * counts], axis=1)
    return found | lengths | {"label": LABELS} | more


def total(objective, params, batch):
    return objective.loss(params, {}, batch, KEY, train=False).total


def test_triplets_lie_beside_the_positive_and_not_beside_words():
    """Anchor against its positive, the others' positives and all rejected clips; words without them."""
    batch = batch_of()
    objective = Contrastive(
        {"audio": tower(), "video": tower(length="video_length")},
        edges=(("audio", "audio_positive", 1.0), ("audio", "video", 0.2)),
        temperature=0.5,
    )
    params, _ = objective.init(KEY, batch)
    heard = objective.towers["audio"]

    def embed(name, length):
        return np.asarray(
            losses.unit(
                heard(params["audio"], {"audio": batch[name], "length": batch[length]}, "audio")
            )
        )

    anchor, positive = embed("audio", "length"), embed("audio_positive", "length_positive")
    few = {
        "audio": batch["audio_negative"][:, 0],
        "length": batch["length_negative"][:, 0],
    }  # the second of each is none
    far = np.asarray(losses.unit(heard(params["audio"], few, "audio")))
    video = np.asarray(objective.embed("video", params, batch))

    def nce(logits):
        return np.mean(np.log(np.exp(logits).sum(1)) - np.diagonal(logits))

    ahead = nce(2 * np.concatenate([anchor @ positive.T, anchor @ far.T], axis=1))
    taste = (ahead + nce(2 * positive @ anchor.T)) / 2
    words = (nce(2 * anchor @ video.T) + nce(2 * video @ anchor.T)) / 2
    got = total(objective, params, batch)
    assert float(got) == pytest.approx((taste + 0.2 * words) / 1.2, rel=1e-5)


def branched():
    made = {"class": OneLayer(D), "pair": OneLayer(D)}
    return Contrastive(
        {
            "audio": tower(Branches(made)),
            "video": tower(Branches(made), length="video_length"),
        },
        edges=(("audio/pair", "video/pair", 1.0), ("audio/class", "video/class", 1.0)),
        compare={"audio/class-video/class": SupCon()},
    )


def test_branches_are_learned_by_their_own_losses():
    batch = {k: v for k, v in batch_of().items() if "_negative" not in k}
    objective = branched()
    params, _ = objective.init(KEY, batch)

    def parts(number):
        def loss(params):
            alone = Contrastive(
                objective.towers,
                edges=(objective.edges[number],),
                compare=objective.compare if number else {},
            )
            given = params | {"logit_scale": params["logit_scale"][number : number + 1]}
            return total(alone, given, batch)

        return jax.value_and_grad(loss)(params)

    values = []
    for number, (own, other) in enumerate((("pair", "class"), ("class", "pair"))):
        value, gradient = parts(number)
        branches = gradient["audio"]["projector"]
        largest = {
            b: max(float(np.abs(g).max()) for g in jax.tree.leaves(branches[b]))
            for b in (own, other)
        }
        assert largest[own] > 0 and largest[other] == 0
        values.append(float(value))
    assert float(total(objective, params, batch)) == pytest.approx(np.mean(values), rel=1e-5)
    whole = objective.embed("audio", params, batch)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    z = objective.embeddings(params, batch)
    np.testing.assert_allclose(whole[:, :D] * 2**0.5, z["audio/class"], atol=1e-6)


@pytest.mark.multi
def test_the_loss_does_not_depend_on_the_devices():
    batch = {k: v for k, v in batch_of().items() if "_negative" not in k and "positive" not in k}
    objective = branched()
    params, _ = objective.init(KEY, batch)

    def both(params, batch):
        return jax.value_and_grad(lambda p: total(objective, p, batch))(params)

    want, grads = jax.jit(both)(params, batch)
    for devices in (4, 8):
        mesh = Sharding(data=devices).mesh()
        with jax.set_mesh(mesh):
            split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
            got, found = jax.jit(both)(params, split)
        assert float(got) == pytest.approx(float(want), rel=1e-6)
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(grads), strict=True)
        assert all(np.allclose(a, b, atol=2e-6) for a, b in pairs)


class Added(nn.Module):
    """Tokens plus their sum: a query depends on every modality."""

    def __call__(self, tokens, *, train=False, layers=False):
        del train, layers
        return Encoded(tokens=tokens.replace(x=tokens.x + tokens.x.sum(1, keepdims=True)))


def fused(**dropout):
    towers = {
        "video": tower(length="video_length"),
        "text": Tower(Vectors(), Identity(), Mean(), OneLayer(D), length="text_length"),
    }
    return Fused(towers, Added(), Mean(), OneLayer(D), dropout=dropout)


def test_a_missing_modality_is_the_learned_vector():
    batch = batch_of(text=unit(5, B, 4))
    made = fused(text=0.5)
    params = made.init(KEY, batch, "query")
    both = made(params, batch, "query")
    without = made(params, {k: v for k, v in batch.items() if k != "text"}, "query")
    flagged = made(params, batch | {"text_given": jnp.asarray([0.0] * 4 + [1.0] * 4)}, "query")
    np.testing.assert_allclose(flagged[:4], without[:4], rtol=1e-6)
    np.testing.assert_allclose(flagged[4:], both[4:], rtol=1e-6)
    assert np.abs(both - without).min(axis=1).max() > 0
    moved = params | {"null_text": params["null_text"] + 1}
    assert np.abs(made(moved, batch, "query") - both).max() == 0
    without_text = {k: v for k, v in batch.items() if k != "text"}
    assert np.abs(made(moved, without_text, "query") - without).max() > 0
    with pytest.raises(ValueError, match="needs one of video, text"):
        made(params, {"audio": batch["audio"]}, "query")
    padded = batch | {"video": batch["video"].at[2, 3:].set(9.0)}  # its length is 3
    np.testing.assert_allclose(made(params, padded, "query")[2], both[2], rtol=1e-6)


def test_text_is_dropped_at_its_rate_in_training_alone():
    batch = batch_of(text=unit(5, B, 4))
    made = fused(text=0.25)
    params = made.init(KEY, batch, "query")
    both, without = (
        made(params, {k: v for k, v in batch.items() if k != left}, "query")
        for left in ("", "text")
    )
    run = jax.jit(lambda key: made(params, batch, "query", key))
    dropped = []
    for key in jax.random.split(jax.random.key(1), 250):
        got = run(key)
        gone = np.isclose(got, without, atol=1e-6).all(1)
        assert (gone | np.isclose(got, both, atol=1e-6).all(1)).all()
        dropped.append(gone)
    assert np.mean(dropped) == pytest.approx(0.25, abs=0.04)  # 2000 draws: four deviations


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="one modality must stay"):
        fused(text=0.5, video=0.1)
    with pytest.raises(ValueError, match="dropout.txt: wanted one of"):
        fused(txt=0.5)
    with pytest.raises(
        ValueError, match="compare: got 'audio-text'; wanted an edge .* audio-video"
    ):
        Contrastive(
            {"audio": tower(), "video": tower()},
            edges=(("audio", "video", 1.0),),
            compare={"audio-text": SupCon()},
        )
