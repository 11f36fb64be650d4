"""BAT's options of latent prediction: block targets, the mean over channels, a decoder that fills gaps."""

import dataclasses
import runpy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import ROOT

from ssl_audio.config import build, plain
from ssl_audio.tokens.masking import InverseBlock, others

get_config = runpy.run_path(str(ROOT / "configs" / "bat.py"))["get_config"]
SAMPLES = 160 * 47


def objective(arg="", **change):
    made = plain(get_config("runlocal" + arg).objective)
    made["frontend"]["bins"], made["frontend"]["frames"] = 32, 48
    for part in (made["encoder"], made["decoder"]):
        part["positions"]["grid"] = (2, 3)
    made["masking"]["keep"] = 0.4
    made["encoder"]["depth"] = made["decoder"]["trunk"]["depth"] = 1
    made["encoder"]["remat"] = made["decoder"]["trunk"]["remat"] = "none"
    return dataclasses.replace(build(made, "objectives"), **{"augment": (), **change})


def batch():
    audio = np.random.default_rng(0).normal(0, 0.1, (2, SAMPLES)).astype(np.float32)
    return {"audio": jnp.asarray(audio), "length": jnp.full(2, SAMPLES, jnp.int32)}


@pytest.fixture(scope="module")
def started():
    made = objective()
    params, extra = jax.jit(made.init)(jax.random.key(0), batch())
    moved = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )
    return moved, {"teacher": {name: moved[name] for name in extra["teacher"]}}


def test_the_published_grid_keeps_102_of_512_in_5_squares():
    masking = InverseBlock(
        **{k: v for k, v in plain(get_config().objective.masking).items() if k != "kind"}
    )
    hidden = masking(jax.random.key(0), 3, (8, 64))
    assert hidden.shape == (3, 410) and others(hidden, 512).shape == (3, 102)
    assert int(512 * (masking.keep + masking.more) / masking.side**2) == 5
    made = plain(get_config().objective)
    assert made["decoder"]["trunk"]["block"]["mixer"] == dict(kind="attention", heads=12, gate=True)
    assert made["decoder"]["trunk"]["depth"] == 6 and made["encoder"]["depth"] == 12
    assert (made["target"], made["scale"], made["clones"]) == ("block", "mean", 16)


def test_targets_are_what_blocks_give_or_what_their_perceptrons_add(started):
    _, extra = started
    made = objective()

    @jax.jit
    def run(extra):
        spec = made.frontend(batch()["audio"], batch()["length"])
        tokens = made.tokenizer.apply({"params": extra["teacher"]["tokenizer"]}, spec)
        out = made.encoder.apply({"params": extra["teacher"]["encoder"]}, tokens)
        tapped, _ = dataclasses.replace(made, target="mlp").targets(extra, spec)
        return *made.targets(extra, spec), out.tokens.x, tapped

    block, layers, out, tapped = map(np.asarray, run(extra))
    # One layer, no final norm: its stream is the encoder's output.
    np.testing.assert_allclose(layers[0], out, atol=1e-5)
    x = (out - out.mean(1, keepdims=True)) / np.sqrt(out.var(1, keepdims=True) + 1e-5)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(block, x, atol=1e-4)
    assert np.abs(tapped - block).max() > 0.5


def test_the_mean_over_channels_is_the_root_scale_over_its_root(started):
    params, extra = started

    @jax.jit
    def run(params):
        made = (objective(scale=s) for s in ("root", "mean"))
        return [m.loss(params, extra, batch(), jax.random.key(5), train=True) for m in made]

    root, mean = run(params)
    width = objective().encoder.width
    assert float(root.total) == pytest.approx(float(mean.total) * width**0.5, rel=1e-5)
    assert float(mean.total) == pytest.approx(
        sum(float(mean.metrics[n][0] / mean.metrics[n][1]) for n in ("patch", "clip")), rel=1e-6
    )


def test_the_decoder_fills_the_whole_grid_with_its_own_token(started):
    params, _ = started
    assert set(params["decoder"]) == {"mask_token", "positions", "predict", "trunk"}
    assert set(params["decoder"]["predict"]) == {"kernel"}
    assert "gate" in params["decoder"]["trunk"]["layers"]["mixer"]
    made, shown = objective(), jnp.broadcast_to(jnp.array([[1, 4]]), (4, 2))

    @jax.jit
    def run(params):
        spec = made.frontend(batch()["audio"], batch()["length"])

        def seen(params, spec):
            whole = made.reconstruct(params, made.visible(params, spec, shown))  # without any noise
            return jnp.sum(whole[:, 0] ** 2), whole

        return jax.grad(seen, argnums=(0, 1), has_aux=True)(params, spec)

    (grads, slope), whole = run(params)
    assert whole.shape == (4, 6, made.encoder.width)
    for name in ("mask_token", "positions", "predict"):
        assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(grads["decoder"][name])), name
    slope = np.abs(slope).reshape(2, 3, 16, 2, 16).sum((0, 2, 4)).T.ravel()
    assert (slope > 0).tolist() == [False, True, False, False, True, False]


@dataclasses.dataclass(frozen=True)
class Double:
    """Twice as loud."""

    def __call__(self, audio, length, key):
        del length, key
        return 2 * audio


def test_student_and_teacher_hear_the_same_changed_wave(started):
    # A front end that hears level, unlike BAT's.
    plainly = dataclasses.replace(objective().frontend, per_clip=False, std=20.0)
    as_it_is = objective(frontend=plainly)
    louder = batch() | {"audio": 2 * batch()["audio"]}

    @jax.jit
    def run(params):
        changed = objective(augment=(Double(),), frontend=plainly)
        pairs = ((changed, batch()), (as_it_is, louder), (as_it_is, batch()))
        return [
            one.loss(params, started[1], found, jax.random.key(5), train=True).total
            for one, found in pairs
        ]

    changed, same, before = map(float, run(started[0]))
    assert changed == pytest.approx(same, rel=1e-6) and abs(changed - before) > 1e-3


def test_options_that_do_not_exist_are_refused():
    wrong: Any = (dict(target="layer"), dict(scale="sum"), dict(clones=0))
    for change in wrong:
        with pytest.raises(ValueError, match=next(iter(change))):
            objective(**change)
    for arg in ("decoder=mlp", "mel=stft", "target=x"):
        with pytest.raises(ValueError, match="wanted"):
            objective(f",{arg}")
    narrow = objective()
    narrow = dataclasses.replace(
        narrow, decoder=narrow.decoder.copy(trunk=narrow.decoder.trunk.copy(width=24))
    )
    with pytest.raises(ValueError, match="tokens are 48 wide and its trunk 24"):
        jax.eval_shape(narrow.init, jax.random.key(0), batch())
