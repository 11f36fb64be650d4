"""Which objective runs on which encoder: shapes of a whole training step, without computing it."""

import jax
import jax.numpy as jnp
import pytest
from published import CONFIGS, load

from ssl_audio import config
from ssl_audio.step import init_state, make_train_step
from ssl_audio.train import Run

MAMBA = ("ssamba", "ssamba_rms")
# Each method's own encoder runs in tests/golden and tests/entry, those of SSAST and SSAMBA too.
PAIRS = [(m, e) for m in ("asit", "audiomae", "eat", "passt") for e in MAMBA] + [("eat", "vit")]


@pytest.mark.parametrize("method, encoder", PAIRS)
def test_a_step_keeps_every_shape_and_type(method, encoder):
    (path,) = [path for path in CONFIGS if path.stem == method]
    run = config.make(Run, config.plain(load(path, f"runlocal,encoder={encoder}")))
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
