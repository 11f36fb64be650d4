"""Schedules, decay, rates, clipping, averaging and plateaus against hand-written Adam in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_audio.objectives.base import Phase
from ssl_audio.storage.links import averaged
from ssl_audio.train.optim import Optim
from ssl_audio.train.plateau import reduce_on_plateau

MAIN = (Phase(),)
START = {"encoder": {"kernel": jnp.array([1.0, -2.0, 0.5]), "bias": jnp.array([0.3])},
         "head": {"kernel": jnp.array([[0.7, -0.1]])}}  # fmt: skip


def gradient(step):
    """Return gradients that change from step to step, not depending on the parameters."""
    g = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(g.standard_normal(p.shape), p.dtype), START)


def run(optim, steps=5, total=100, grads=gradient, value=1.0):
    """Return the parameters after each step, and the last optimizer state."""
    tx = optim.make(MAIN, total, None)["main"]
    params, state, path = START, tx.init(START), [START]

    @jax.jit
    def step(params, state, grads, value):
        updates, state = tx.update(grads, state, params, value=value)
        return jax.tree.map(jnp.add, params, updates), state

    for i in range(steps):
        loss = value(i) if callable(value) else value
        params, state = step(params, state, grads(i), jnp.asarray(loss, jnp.float32))
        path.append(params)
    return path, state


def adam(
    optim,
    steps,
    *,
    coupled=False,
    decay=lambda name: 0.0,
    rate=lambda name: 1.0,
    lr=None,
    scale=lambda g: g,
):
    """Return what Adam gives after `steps`, from its definition."""
    lr = lr or (lambda step: optim.lr)
    params = {
        "/".join(k.key for k in p): np.asarray(v, np.float64)
        for p, v in jax.tree_util.tree_leaves_with_path(START)
    }
    m = {k: np.zeros_like(v) for k, v in params.items()}
    v = {k: np.zeros_like(x) for k, x in params.items()}
    for i in range(steps):
        grads = scale(gradient(i))
        flat = {
            "/".join(k.key for k in p): np.asarray(x, np.float64)
            for p, x in jax.tree_util.tree_leaves_with_path(grads)
        }
        for k, g in flat.items():
            g = g + decay(k) * params[k] * coupled
            m[k] = optim.b1 * m[k] + (1 - optim.b1) * g
            v[k] = optim.b2 * v[k] + (1 - optim.b2) * g**2
            mean, square = m[k] / (1 - optim.b1 ** (i + 1)), v[k] / (1 - optim.b2 ** (i + 1))
            update = mean / (np.sqrt(square) + optim.eps) + decay(k) * params[k] * (not coupled)
            params[k] = params[k] - lr(i) * rate(k) * update
    return params


def check(path, want):
    for where, value in jax.tree_util.tree_leaves_with_path(path[-1]):
        name = "/".join(k.key for k in where)
        np.testing.assert_allclose(value, want[name], rtol=2e-5, atol=1e-6, err_msg=name)


def rates(optim, steps, total=100, epoch=None):
    return np.array([float(optim.rate(total, epoch)(i)) for i in steps])


def test_held_warm_up_stays_at_zero_for_its_first_steps():
    optim = Optim(lr=1e-4, warmup=1000, warmup_hold=50)
    rate = rates(optim, range(0, 1100), total=5000)
    assert not rate[:50].any()
    wanted = np.minimum(np.arange(1100) // 50 * 50 / 1000, 1) * 1e-4
    np.testing.assert_allclose(rate, wanted, rtol=1e-6)
    assert len(set(rate[50:100])) == 1 and rate[100] > rate[99]

    path, _ = run(Optim(lr=0.1, warmup=10, warmup_hold=4, weight_decay=0.1), steps=5)
    assert all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (path[0], path[4])), strict=True)
    )
    assert float(jnp.abs(path[5]["head"]["kernel"] - path[4]["head"]["kernel"]).max()) > 1e-3


def test_schedules():
    linear = rates(Optim(lr=2.0, warmup="10%"), [0, 5, 10, 99])
    np.testing.assert_allclose(linear, [0, 1, 2, 2])
    cosine = rates(Optim(lr=2.0, warmup=20, schedule="cosine"), [10, 20, 60, 100])
    np.testing.assert_allclose(cosine, [1, 2, 1, 0], atol=1e-6)
    falling = rates(Optim(lr=2.0, warmup=20, schedule="linear"), [10, 20, 60, 100])
    np.testing.assert_allclose(falling, [1, 2, 1, 0], atol=1e-6)
    steps = Optim(lr=2.0, schedule="steps", steps_at=("1ep", "2ep", 70), gamma=0.1)
    np.testing.assert_allclose(
        rates(steps, [0, 29, 31, 59, 61, 71], epoch=30), [2, 2, 0.2, 0.2, 0.02, 0.002], rtol=1e-5
    )
    slowly = Optim(lr=2.0, warmup=20, schedule="exponential", gamma=0.99)
    np.testing.assert_allclose(
        rates(slowly, [10, 20, 21, 70]), [1, 2, 1.98, 2 * 0.99**50], rtol=1e-4
    )
    with pytest.raises(ValueError, match=r"config\.optim\.schedule: 'square'; wanted constant"):
        Optim(lr=1.0, schedule="square").rate(10)


def test_steps_count_from_the_start_also_after_a_warm_up():
    optim = Optim(lr=1.0, warmup=10, schedule="steps", steps_at=(30,), gamma=0.5)
    np.testing.assert_allclose(rates(optim, [12, 29, 31]), [1, 1, 0.5])


def test_plain_adam():
    optim = Optim(lr=0.05, b1=0.95)
    check(run(optim)[0], adam(optim, 5))


@pytest.mark.parametrize("coupled", [True, False])
def test_weight_decay(coupled):
    optim = Optim(lr=0.05, weight_decay=0.3, coupled=coupled, decay="kernel$")
    want = adam(optim, 5, coupled=coupled, decay=lambda name: 0.3 * name.endswith("kernel"))
    check(run(optim)[0], want)
    other = adam(optim, 5, coupled=not coupled, decay=lambda name: 0.3 * name.endswith("kernel"))
    assert np.abs(other["encoder/kernel"] - want["encoder/kernel"]).max() > 1e-3


def test_decay_spares_biases_by_default():
    bias, kernel = "encoder/bias", "encoder/kernel"
    decayed = run(Optim(lr=0.05, weight_decay=0.3))[0][-1]["encoder"]
    plain = adam(Optim(lr=0.05), 5)
    np.testing.assert_allclose(decayed["bias"], plain[bias], rtol=2e-5)
    assert np.abs(decayed["kernel"] - plain[kernel]).max() > 1e-3


def test_decay_and_schedule_together():
    optim = Optim(lr=0.1, warmup=3, weight_decay=0.2, decay=".*")
    check(run(optim)[0], adam(optim, 5, decay=lambda _: 0.2, lr=lambda i: 0.1 * min(i / 3, 1)))


def test_rates_scale_or_freeze_by_path_first_match():
    optim = Optim(
        lr=0.05, weight_decay=0.1, decay=".*", rates={"^encoder/bias": 0.0, "^encoder": 0.1}
    )
    factor = {"encoder/bias": 0.0, "encoder/kernel": 0.1, "head/kernel": 1.0}
    path, _ = run(optim)
    check(path, adam(optim, 5, decay=lambda _: 0.1, rate=factor.__getitem__))
    assert float(path[-1]["encoder"]["bias"][0]) == float(START["encoder"]["bias"][0])


def test_clip_bounds_the_global_norm():
    def clipped(grads):
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
        return jax.tree.map(lambda g: g * min(1.0, 0.7 / norm), grads)

    optim = Optim(lr=0.05, clip=0.7)
    check(run(optim)[0], adam(optim, 5, scale=clipped))


def test_clip_counts_nothing_that_is_frozen():
    frozen = "encoder/kernel"

    def clipped(grads):
        grads = {"encoder": {**grads["encoder"], "kernel": jnp.zeros(3)}, "head": grads["head"]}
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
        return jax.tree.map(lambda g: g * min(1.0, 0.7 / norm), grads)

    optim = Optim(lr=0.05, clip=0.7, rates={f"^{frozen}": 0})
    path, _ = run(optim)
    check(path, adam(optim, 5, scale=clipped, rate=lambda name: float(name != frozen)))

    def huge(step):
        grads = gradient(step)
        return {"encoder": {**grads["encoder"], "kernel": jnp.full(3, 1e6)}, "head": grads["head"]}

    jax.tree.map(np.testing.assert_array_equal, run(optim, grads=huge)[0][-1], path[-1])


def test_the_average_follows_the_parameters():
    path, state = run(Optim(lr=0.05, average=0.8), steps=4)
    want = path[0]
    for params in path[1:]:
        want = jax.tree.map(lambda a, p: 0.8 * a + 0.2 * p, want, params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), averaged({"main": state}), want
    )
    assert averaged({"main": run(Optim(lr=0.05))[1]}) is None


def test_a_plateau_reduces_the_rate():
    def moved(optim, value):
        path, _ = run(
            optim, steps=12, grads=lambda _: jax.tree.map(jnp.ones_like, START), value=value
        )
        return -np.diff([float(p["encoder"]["bias"][0]) for p in path])

    optim = Optim(lr=0.01, plateau=2, patience=2, gamma=0.5)
    flat = moved(optim, 1.0)  # spans of two steps: the first sets the mark, three do not improve
    np.testing.assert_allclose(flat[:7], 0.01, rtol=1e-3)
    np.testing.assert_allclose(flat[8:11], 0.005, rtol=1e-3)
    falling = moved(optim, lambda i: 10.0 - i)
    np.testing.assert_allclose(falling, 0.01, rtol=1e-3)
    # Losses below 0, as those of similarities and of ratios in dB: the same where they stand still or rise.
    for loss in (lambda _: -15.0, lambda i: -15.0 + 1e-4 * i):
        np.testing.assert_array_equal(moved(optim, loss) > 0.0075, flat > 0.0075)
    np.testing.assert_allclose(moved(optim, lambda i: -15.0 - i), 0.01, rtol=1e-3)


def test_a_plateau_of_positive_losses_is_that_of_optax():
    one = reduce_on_plateau(factor=0.5, patience=3, span=2)
    other = optax.contrib.reduce_on_plateau(factor=0.5, patience=3, accumulation_size=2)
    params = {"kernel": jnp.ones(2)}
    states = one.init(params), other.init(params)
    for loss in np.random.default_rng(0).uniform(1, 2, 40):
        outputs = [
            tx.update(params, state, params, value=jnp.float32(loss))
            for tx, state in zip((one, other), states, strict=True)
        ]
        jax.tree.map(np.testing.assert_array_equal, *outputs)
        states = [state for _, state in outputs]
    assert states[0].scale < 0.1  # it did fall


def test_a_run_goes_on_with_a_shorter_plateau():
    params = {"kernel": jnp.ones(2)}
    long, short = (reduce_on_plateau(factor=0.5, patience=1, span=span) for span in (10, 2))
    state = long.init(params)
    for tx in [long] * 5 + [short] * 5:
        _, state = tx.update(params, state, params, value=jnp.float32(1))
    assert state.scale < 1


def test_one_optimizer_per_phase():
    phases = (Phase("generator", "^encoder"), Phase("critic", "^head"))
    txs = Optim(lr=0.1).make(phases, 10, None)
    updates, _ = txs["critic"].update(
        gradient(0), txs["critic"].init(START), START, value=jnp.ones(())
    )
    assert not np.any(updates["encoder"]["kernel"]) and np.all(updates["head"]["kernel"])


LAYERED = {
    "tokenizer": {"kernel": jnp.ones(2)},
    "encoder": {
        "positions": {"table": jnp.ones(2)},
        "layers": {"mixer": jnp.ones((3, 2)), "norm": jnp.ones(3)},
        "final_norm": {"scale": jnp.ones(2)},
    },
    "head": {"kernel": jnp.ones((2, 1))},
}


def updates(optim, params, grads, steps=1):
    """Return the last update and state of an optimizer that sees the same gradients each step."""
    tx = optim.make(MAIN, 100, None)["main"]
    state, last = tx.init(params), None
    for _ in range(steps):
        last, state = tx.update(grads, state, params, value=jnp.float32(1))
        params = jax.tree.map(jnp.add, params, last)
    return last, state


def test_layer_decay_slows_what_is_far_from_the_head():
    plain, _ = updates(Optim(lr=0.1), LAYERED, LAYERED)
    slow, _ = updates(Optim(lr=0.1, layer_decay=0.5), LAYERED, LAYERED)
    ratio = jax.tree.map(jnp.divide, slow, plain)
    np.testing.assert_allclose(ratio["head"]["kernel"], 1)
    np.testing.assert_allclose(ratio["encoder"]["final_norm"]["scale"], 1)
    np.testing.assert_allclose(ratio["encoder"]["layers"]["norm"], [0.125, 0.25, 0.5])
    np.testing.assert_allclose(ratio["encoder"]["layers"]["mixer"][:, 1], [0.125, 0.25, 0.5])
    np.testing.assert_allclose(ratio["encoder"]["positions"]["table"], 0.0625)
    np.testing.assert_allclose(ratio["tokenizer"]["kernel"], 0.0625)
    with pytest.raises(ValueError, match="layer_decay: wanted one stack of layers"):
        updates(Optim(lr=0.1, layer_decay=0.5), START, START)


SNAPSHOTS = [(2, [2]), (3, [3]), (4, [3]), (5, [3, 5]), (9, [3, 5, 7, 9])]


@pytest.mark.parametrize(("steps", "taken"), SNAPSHOTS)
def test_snapshots_are_averaged_evenly(steps, taken):
    """From the third step on, every second one; until then the newest parameters."""
    optim = Optim(lr=0.1, average_every=2, average_from=3)
    path, state = run(optim, steps=steps)
    want = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *[path[i] for i in taken])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), averaged({"main": state}), want
    )
    with pytest.raises(ValueError, match="exclude each other"):
        Optim(lr=0.1, average=0.9, average_every=2)
