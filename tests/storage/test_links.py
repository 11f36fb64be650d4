"""The optimizer's state in a checkpoint: parts that keep nothing may come and go between two starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.objectives.base import Phase
from ssl_audio.storage import checkpoint
from ssl_audio.structs import TrainState
from ssl_audio.train.optim import Optim

PARAMS = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3)}
HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def begun(optim, updates=0):
    """Return the state after so many updates, and the transformation."""
    tx = optim.make((Phase(),), 10)["main"]
    params, opt_state = PARAMS, tx.init(PARAMS)
    for number in range(updates):
        grads = jax.tree.map(lambda p, n=number: jnp.ones_like(p) * (n + 1), params)
        change, opt_state = tx.update(grads, opt_state, params, value=jnp.float32(1))
        params = jax.tree.map(jnp.add, params, change)
    return TrainState(jnp.int32(updates), params, {"main": opt_state}, {}, jax.random.key(0)), tx


def gone_on(tmp_path, before, now):
    """Save under one optimizer, resume under another; return both states and the new transformation."""
    saved, _ = begun(before, updates=3)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(saved, {})
    checkpoints.close()
    fresh, tx = begun(now)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=HERE), fresh)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    try:
        found = checkpoints.resume(wanted, lambda: fresh)
    finally:
        checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    return saved, found, tx


def kept(opt_state, name):
    return next(getattr(s, name) for s in opt_state["main"] if name in getattr(s, "_fields", ()))


PLAIN = Optim(lr=0.1)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (PLAIN, Optim(lr=0.01, clip=1.0)),
        (Optim(lr=0.1, clip=1.0), PLAIN),
        (PLAIN, Optim(lr=0.1, clip=0.5, weight_decay=0.1, coupled=True, b1=0.8)),
        (Optim(lr=0.1, weight_decay=0.1, rates={"bias": 0.0}), Optim(lr=0.1, clip=1.0)),
        (PLAIN, Optim(lr=0.1, plateau=2)),
        (Optim(lr=0.1, plateau=2), PLAIN),
        (Optim(lr=0.1, average=0.9), Optim(lr=0.1, average=0.5, clip=1.0)),
    ],
)
def test_moments_and_counts_stay_whatever_changes_around_them(tmp_path, before, now):
    saved, found, tx = gone_on(tmp_path, before, now)
    for name in ("mu", "nu", "count"):
        jax.tree.map(
            np.testing.assert_array_equal, kept(found.opt_state, name), kept(saved.opt_state, name)
        )
    jax.tree.map(np.testing.assert_array_equal, found.params, saved.params)
    grads = jax.tree.map(jnp.ones_like, found.params)
    tx.update(grads, found.opt_state["main"], found.params, value=jnp.float32(1))
    if before.average:
        mean = [s for s in found.opt_state["main"] if isinstance(s, dict)][0]["average"]
        then = [s for s in saved.opt_state["main"] if isinstance(s, dict)][0]["average"]
        jax.tree.map(np.testing.assert_array_equal, mean, then)


def test_a_clip_that_is_set_later_clips_from_there_on(tmp_path):
    _, found, tx = gone_on(tmp_path, PLAIN, Optim(lr=0.1, clip=1e-3))
    huge = jax.tree.map(lambda p: jnp.full_like(p, 1e6), found.params)
    _, after = tx.update(huge, found.opt_state["main"], found.params)
    grown = jax.tree.map(
        lambda a, b: jnp.abs(a - 0.9 * b).max(),
        kept({"main": after}, "mu"),
        kept(found.opt_state, "mu"),
    )
    assert max(jax.tree.leaves(grown)) < 1e-3


def test_an_average_is_not_switched_on_or_off_halfway(tmp_path):
    with pytest.raises(ValueError, match="optim.average.*cannot be switched on or off"):
        gone_on(tmp_path / "on", PLAIN, Optim(lr=0.1, average=0.9))
    with pytest.raises(ValueError, match="optim.average.*cannot be switched on or off"):
        gone_on(tmp_path / "off", Optim(lr=0.1, average=0.9), PLAIN)
