"""Training DAC: codebooks that gradients move, losses that are only weighted, odd strides."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.distributed.sharding import path_name
from ssl_audio.presets.codec import dac
from ssl_audio.storage import written
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

CODEC = dac(
    rate=1000, strides=(3,), channels=2, decoder_channels=2, books=2, codes=8, inner=2,
    spectra=((32, 4), (64, 8)), periods=(2,), widths=(2, 2), windows=(32,), filters=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    objective = config.build(CODEC, "objectives")
    sound = jnp.sin(jnp.arange(4 * 200).reshape(4, 200) * (0.1 + 0.02 * jnp.arange(4)[:, None]))
    batch = {"audio": 0.5 * sound, "length": jnp.full(4, 200, jnp.int32)}
    txs = Optim(lr=1e-2).make(objective.phases, 10)
    states = [init_state(objective, txs, jax.random.key(0), batch)]
    step, reports = jax.jit(make_train_step(objective, txs)), []
    for _ in range(6):
        state, report = step(states[-1], batch)
        states.append(state)
        reports.append({name: float(s / w) for name, (s, w) in report.items()})
    return objective, batch, states, reports


def test_codebooks_learn_by_gradients(trained):
    objective, _, states, reports = trained
    assert objective.phases[-1].trains == "^(tokenizer|encoder|decoder|quantizer)/"
    assert states[0].extra == {}
    for part in ("tokenizer", "decoder", "discriminator", "quantizer"):
        before, after = (jax.tree.leaves(state.params[part]) for state in states[:2])
        assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)), part
    assert not {n for report in reports for n, value in report.items() if not np.isfinite(value)}
    assert reports[-1]["codebook"] < reports[0]["codebook"]
    assert reports[-1]["mel"] < reports[0]["mel"]


def test_biases_begin_at_zero_as_published(trained):
    named = jax.tree_util.tree_leaves_with_path(trained[2][0].params)
    biases = {path_name(path): x for path, x in named if path_name(path).endswith("bias")}
    zero = {name for name, x in biases.items() if not x.any()}
    assert {"tokenizer/first/bias", "quantizer/into_1/bias", "quantizer/out_0/bias"} < zero
    others = biases.keys() - zero
    assert "decoder/up_0/conv/bias" in others
    assert all(n.startswith("discriminator/") or n == "decoder/up_0/conv/bias" for n in others)


def test_quiet_sounds_begin_with_many_codes():
    made = dac(
        rate=8000, strides=(4, 5), channels=4, decoder_channels=4, books=2, codes=16, inner=4,
        spectra=(), periods=(), widths=(), windows=(), filters=4,
    )  # fmt: skip
    place = jnp.arange(400)[None]
    sound = 0.1 * jnp.sin(place * jnp.linspace(0.1, 1.5, 8)[:, None])

    def codes_in_use(zeroed):
        objective = config.build(made | dict(zeroed=zeroed), "objectives")
        params, _ = jax.jit(objective.init)(jax.random.key(0), {"audio": sound})
        codes, _ = jax.jit(objective.codes)(params, {}, {"audio": sound})
        return len(np.unique(codes[..., 0]))

    assert codes_in_use(made["zeroed"]) > 12
    assert codes_in_use("") < 6


def test_losses_are_summed_with_their_weights(trained):
    objective, batch, states, _ = trained
    params = states[-1].params
    found = objective.loss(params, {}, batch, jax.random.key(1), train=False)
    values = {name: float(s / w) for name, (s, w) in found.metrics.items()}
    assert "wave" not in values
    wanted = sum(getattr(objective, n) * values[n] for n in ("mel", "adversarial", "matching"))
    wanted += 0.25 * values["commitment"] + values["codebook"]
    np.testing.assert_allclose(found.total, wanted, rtol=1e-5)
    # Published: 15 sums of base-10 logarithms over two scales; 1 and 2 sums over 2 parts and their layers.
    assert objective.mel == pytest.approx(30 / np.log(10))
    assert objective.adversarial == 2 and objective.matching == 2 * (2 + 5 * 5)


def test_scores_cost_their_squared_distance(trained):
    objective, batch, states, _ = trained
    params = states[-1].params
    found = objective.discriminate(params, {}, batch, jax.random.key(1), train=False)
    codes, scale = objective.codes(params, {}, batch)
    sound = objective.sound(params, {}, {"codes": codes, "scale": scale})[:, :200, 0]
    judge = {"params": params["discriminator"]}
    real, fake = (objective.discriminator.apply(judge, some) for some in (batch["audio"], sound))
    wanted = np.mean([np.mean((np.asarray(s) - 1) ** 2) for s, _ in real])
    wanted += np.mean([np.mean(np.asarray(s) ** 2) for s, _ in fake])
    np.testing.assert_allclose(found.total, wanted, rtol=1e-4)
    adversarial = objective.loss(params, {}, batch, jax.random.key(1), train=False)
    wanted = np.mean([np.mean((np.asarray(s) - 1) ** 2) for s, _ in fake])
    np.testing.assert_allclose(adversarial.metrics["adversarial"][0] / 4, wanted, rtol=1e-4)


@pytest.mark.parametrize("balance", [None, 0.9])
def test_a_discriminator_is_heard_after_some_steps(trained, balance):
    objective, batch, states, _ = trained
    params, key = states[-1].params, jax.random.key(1)
    norms = {} if balance is None else {"norms": dict.fromkeys(objective._weights, jnp.ones(2))}
    heard = dataclasses.replace(objective, balance=balance)
    late, alone = (
        dataclasses.replace(heard, **options)
        for options in (dict(judged_after=2), dict(discriminator=None))
    )

    def loss(some, extra):
        def total(decoder):
            found = some.loss(params | dict(decoder=decoder), extra, batch, key, train=True)
            return found.total, found

        return jax.value_and_grad(total, has_aux=True)(params["decoder"])

    (_, found), gradients = loss(late, norms | {"steps": jnp.asarray(1)})
    wanted = loss(alone, norms)
    np.testing.assert_allclose(found.total, wanted[0][0], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, wanted[1])
    assert found.extra["steps"] == 2 and found.metrics["adversarial"][0] != 0
    (_, found), _ = loss(late, norms | {"steps": jnp.asarray(2)})
    np.testing.assert_allclose(found.total, loss(heard, norms)[0][0], rtol=1e-6)


def test_logs_alone_are_compared():
    objective = config.build(CODEC | dict(discriminator=None), "objectives")
    x = jax.random.normal(jax.random.key(0), (2, 200, 1))
    found = objective._losses({}, x)["mel"](0.1 * x)
    np.testing.assert_allclose(found, np.log(10), rtol=1e-3)  # a tenth of each magnitude
    for name in ("gan", "spectral"):
        with pytest.raises(ValueError, match=f"codec: {name} is 'other'; wanted one of"):
            config.build(CODEC | {name: "other"}, "objectives")


def test_a_codec_of_before_says_how_its_averages_decay():
    quantizer = dict(kind="residual", books=2, codes=8, width=6)
    old = dict(objective=dict(kind="codec", decay=0.95, quantizer=quantizer, frontend={}))
    inside = dict(objective=dict(kind="token_lm", codec=old["objective"]))
    new = dict(kind="codec", quantizer=quantizer | dict(decay=0.95), frontend={})
    assert written.upgraded(old)["objective"] == new
    assert written.upgraded(inside)["objective"]["codec"] == new
    assert written.upgraded(written.upgraded(old)) == dict(objective=new)
