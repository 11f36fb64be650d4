"""Which objective runs on which encoder: shapes of a whole training step, without computing it."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict
from published import CONFIGS, load

from ssl_audio import config
from ssl_audio.train.run import Run
from ssl_audio.train.step import init_state, make_train_step

MAMBA = ("ssamba", "ssamba_rms")
# Each method's own encoder runs in tests/golden and tests/entry, those of SSAST and SSAMBA too.
PAIRS = [(m, e) for m in ("asit", "audiomae", "bat", "eat", "m2d", "passt") for e in MAMBA]
PAIRS += [("bat", "eat"), ("eat", "vit"), ("clap", "cnn14")]


# Objectives whose configs have one encoder: its attention is replaced, a bias on pairs left out.
REPLACED = ("data2vec", "hubert", "openbeats", "wav2vec2")


@pytest.mark.parametrize("method, encoder", PAIRS)
def test_a_step_keeps_every_shape_and_type(method, encoder):
    check(load(config_of(method), f"runlocal,encoder={encoder}"))


@pytest.mark.parametrize("method", REPLACED)
def test_attention_can_be_replaced(method):
    made = load(config_of(method), "runlocal")
    encoder = made.objective.encoder
    encoder.block.mixer = ConfigDict(dict(kind="mamba", state=4))
    if "pair_bias" in encoder:
        del encoder["pair_bias"]
    check(made)


def config_of(method):
    (path,) = [path for path in CONFIGS if path.stem == method]
    return path


def check(made):
    """Trace a whole training step, and compare the state that comes out with the one that went in."""
    run = config.make(Run, config.plain(made))
    batch = {k: jax.ShapeDtypeStruct(*v) for k, v in run.data.spec().items() if k != "index"}
    txs = run.optim.make(run.objective.phases, 4)

    def start(key, batch):
        return init_state(run.objective, txs, key, batch)

    before = jax.eval_shape(start, jax.random.key(0), batch)
    after, metrics = jax.eval_shape(make_train_step(run.objective, txs), before, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )
    assert metrics["loss"][0].dtype == jnp.float32
