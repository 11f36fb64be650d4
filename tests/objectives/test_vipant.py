"""VIP-ANT's stages as configs: what learns, what stays, and that sound meets words by way of pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config, config_files
from ssl_audio.train.run import Run


def made(arg):
    options = config_files.load(f"vipant:{arg}")
    options.data.threads = 0
    run = config.make(Run, options)
    batch = {name: jnp.asarray(value) for name, value in next(run.data.batches()).items()}
    return run, batch


@pytest.mark.parametrize(
    ("stage", "learning"),
    [("pretrain", {"audio"}), ("text", {"audio"}), ("pivot", {"image", "text"})],
)
def test_only_what_the_stage_is_about_learns(stage, learning):
    run, batch = made(f"runlocal,stage={stage}")
    params, extra = run.objective.init(jax.random.key(0), batch)

    def total(params):
        return run.objective.loss(params, extra, batch, jax.random.key(1), train=True).total

    gradient = jax.jit(jax.grad(total))(params)
    for name in run.objective.towers:
        norms = jax.tree.map(lambda g: float(np.abs(g).max()), gradient[name]["encoder"])
        assert (max(jax.tree.leaves(norms)) > 0) == (name in learning), name
        paths = jax.tree_util.tree_leaves_with_path({name: params[name]})
        assert all(run.optim.learns(path) == (name in learning) for path, _ in paths), name
    assert run.optim.learns((jax.tree_util.DictKey("logit_scale"),))


def test_words_are_not_said_while_sound_learns_from_pictures():
    run, batch = made("runlocal")
    assert set(batch["text_length"].tolist()) == {1}  # the start alone
    assert run.objective.edges == (("audio", "image", 1.0),)
    _, batch = made("runlocal,stage=text")
    assert batch["text_length"].min() > 1 and "image" not in batch


def test_published_sizes():
    options = config_files.load("vipant")
    towers = options.objective.towers
    assert towers.audio.tokenizer.stride == (24, 16) and towers.audio.tokenizer.patch == (32, 32)
    assert towers.audio.encoder.positions.grid == (5, 61)  # 305 tokens and the class token
    assert towers.image.encoder.positions.grid == (7, 7)
    assert options.data.batch_size == 432
    objective = config.build(options.objective, "objectives")
    assert objective.towers["audio"].frontend.count(160_240) == 1000
    # Twice our `std` is the published deviation.
    assert np.isclose(2 * objective.towers["audio"].frontend.std, 5.75751113)
