"""VATT: DropToken, one Transformer for all, candidates that are missing, running statistics of its head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ssl_audio import config, config_files, losses
from ssl_audio.objectives.pair_losses import OneSoftmax
from ssl_audio.structs import Tokens
from ssl_audio.tokens.masking import Random, dropped


def built(arg="runlocal", depth=1):
    options = config_files.load(f"vatt:{arg}")
    for tower in options.objective.towers.values():
        tower.encoder.depth = depth
    return config.build(options.objective, "objectives")


def batch(words=(2, 1, 0, 2), size=4):
    rng = np.random.default_rng(0)
    length = np.array([[1] * n + [0] * (2 - n) for n in words], np.int32) * 3
    return {
        "audio": rng.normal(size=(size, 1280)).astype(np.float32),
        "length": np.array([1280, 1280, 700, 1000][:size], np.int32),
        "video": rng.normal(size=(size, 4, 8, 8, 1)).astype(np.float32),
        "video_length": np.array([4, 4, 2, 4][:size], np.int32),
        "text": rng.integers(1, 18, size=(size, 2, 8)).astype(np.int32),
        "text_length": length[:size],
    }


@pytest.fixture(scope="module")
def model():
    made = built()
    params, extra = jax.jit(made.init)(jax.random.key(0), batch())
    return made, params, extra


def test_half_of_the_tokens_stay_each_equally_often():
    count, draws = 64, 2000
    x = jnp.broadcast_to(jnp.arange(count, dtype=jnp.float32)[None, :, None], (draws, count, 1))
    index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], (draws, count))
    tokens = Tokens(x=x, index=index, grid=(1, count))
    kept = dropped(tokens, Random(count=0.5)(jax.random.key(0), draws, tokens.grid))
    assert kept.x.shape == (draws, 32, 1)
    assert np.array_equal(kept.x[..., 0], kept.index)
    assert all(len(set(row)) == 32 for row in np.asarray(kept.index[:50]).tolist())
    often = np.bincount(np.asarray(kept.index).ravel(), minlength=count) / draws
    assert abs(often - 0.5).max() < 0.05 and abs(often.mean() - 0.5) < 1e-9
    assert abs(often - 0.5).mean() < 0.02


def test_where_only_padding_is_left_it_counts():
    valid = jnp.arange(8)[None] < jnp.array([[2], [8]])
    index = jnp.broadcast_to(jnp.arange(8, dtype=jnp.int32)[None], (2, 8))
    tokens = Tokens(x=jnp.zeros((2, 8, 1)), index=index, grid=(1, 8), valid=valid)
    hidden = jnp.broadcast_to(jnp.arange(4)[None], (2, 4))
    assert dropped(tokens, hidden).valid.all()


def test_nothing_is_dropped_outside_training(model):
    made, params, _ = model
    tower = made.towers["audio"]
    given = jax.tree.map(jnp.asarray, batch())
    seen = tower.encode(params["audio"], given, "audio")
    assert seen.tokens.x.shape[1] == 20
    train = tower.encode(params["audio"], given, "audio", jax.random.key(1))
    assert train.tokens.x.shape[1] == 10
    assert made.towers["text"].drop is None


def test_padding_changes_no_vector(model):
    made, params, _ = model
    given = batch()
    before = jax.jit(made.embeddings)(params, given)
    other = dict(given)
    other["audio"] = np.where(np.arange(1280)[None] < given["length"][:, None], given["audio"], 9)
    there = np.arange(4)[None] < given["video_length"][:, None]
    other["video"] = np.where(there[..., None, None, None], given["video"], 9)
    said = np.arange(8) < given["text_length"][..., None]
    other["text"] = np.where(said, given["text"], 7)
    after = jax.jit(made.embeddings)(params, other)
    for name, z in before.items():
        there = given["text_length"] > 0 if name == "text" else np.ones(4, bool)
        assert np.allclose(np.asarray(z)[there], np.asarray(after[name])[there], atol=1e-5), name


def test_loss_is_finite_without_any_text_and_statistics_move(model):
    made, params, extra = model

    def descent(params, given):
        found = made.loss(params, extra, given, jax.random.key(2), train=True)
        return found.total, found

    gradient = jax.jit(jax.value_and_grad(descent, has_aux=True))
    for words in ((2, 1, 0, 2), (0, 0, 0, 0)):
        (total, found), slope = gradient(params, batch(words))
        assert np.isfinite(total)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))
        moved = flatten_dict(found.renewed, sep="/")
        assert len(moved) == 6 and all(p.startswith("video/projector/norm_") for p in moved)
        hits = found.metrics["video_coarse_to_text"]
        assert hits[1] == sum(n > 0 for n in words)
    # Without a text nothing can be learned about words.
    assert not any(np.any(x) for x in jax.tree.leaves(slope["text"]))


def test_one_transformer_for_all():
    made = built("runlocal,shared")
    params, extra = jax.jit(made.init)(jax.random.key(0), batch())
    paths = flatten_dict({k: v for k, v in params.items() if k != "logit_scale"}, sep="/")
    layers = [path for path in paths if "/encoder/layers/" in path]
    assert layers and all(path.startswith("audio/") for path in layers)
    assert {p for p in paths if p.endswith("encoder/special")} == {
        f"{name}/encoder/special" for name in ("audio", "text", "video")
    }
    whole = made.parameters(params, "video")["encoder"]
    assert jax.tree.structure(whole["layers"]) == jax.tree.structure(
        params["audio"]["encoder"]["layers"]
    )

    given = jax.tree.map(jnp.asarray, batch())

    def video_only(params):
        return jnp.sum(made.embed("video", params, given) ** 3)

    slope = jax.jit(jax.grad(video_only))(params)
    assert np.any(slope["audio"]["encoder"]["layers"]["mlp"]["up"]["kernel"])
    assert not np.any(slope["audio"]["tokenizer"]["dense"]["kernel"])
    with pytest.raises(ValueError, match="those of towers.audio"):
        dataclasses.replace(made, shared="^tokenizer/").init(jax.random.key(0), given)


def test_candidates_that_are_missing_are_in_no_sum():
    rng = np.random.default_rng(3)
    x = losses.unit(jnp.asarray(rng.normal(size=(4, 5)), jnp.float32))
    y = losses.unit(jnp.asarray(rng.normal(size=(4, 3, 5)), jnp.float32))
    valid = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0]])
    found = losses.joint_nce(x, y, 0.07, jnp.asarray(valid, jnp.float32))
    scores = np.einsum("id,jmd->ijm", x, y) / 0.07
    for i in (0, 1, 3):
        right = [scores[i, i, m] for m in range(3) if valid[i, m]]
        ahead = [scores[i, j, m] for j in range(4) for m in range(3) if valid[j, m]]
        back = [scores[j, i, m] for j in range(4) for m in range(3) if valid[i, m]]
        expected = np.log(np.exp(ahead + back).sum()) - np.log(np.exp(right).sum())
        assert found[i] == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(found).all()
    given = {"text_length": jnp.asarray(valid * 4)}
    ahead, back = OneSoftmax("text_length")(x, y, (1 / 0.07, 1 / 0.07), given)
    assert np.allclose(ahead.loss, found, rtol=1e-5) and np.array_equal(ahead.counted, [1, 1, 0, 1])
    assert np.array_equal(ahead.loss, back.loss)


@pytest.mark.multi
def test_equal_on_many_devices(model):
    """The loss, and the statistics of batch normalisation, on 1, 4 and 8 devices."""
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    made, params, extra = model
    given = {k: np.concatenate([v, v[::-1]]) for k, v in batch().items()}
    given["audio"][4:] *= -1

    def descent(params, given):
        found = made.loss(params, extra, given, jax.random.key(2), train=True)
        return found.total, found.renewed

    found = []
    for count in (1, 4, 8):
        mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
        rows = jax.device_put(given, NamedSharding(mesh, PartitionSpec("data")))
        weights = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        found.append(jax.jit(descent)(weights, rows))
    for total, renewed in found[1:]:
        assert np.allclose(total, found[0][0], rtol=1e-5)
        for a, b in zip(jax.tree.leaves(renewed), jax.tree.leaves(found[0][1]), strict=True):
            assert np.allclose(a, b, atol=1e-5)
