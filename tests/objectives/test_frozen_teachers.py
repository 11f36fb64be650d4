"""Batch norms of a frozen encoder stay as they are in a teacher, too: it is the same frozen encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ssl_audio import config, config_files
from ssl_audio.objectives.base import held

MEAN_TEACHER = dict(
    kind="mean_teacher",
    frontend=dict(kind="fbank", bins=8, frames=16),
    tokenizer=dict(kind="bins"),
    encoder=dict(kind="cnn", channels=(4,), convolutions=1, norm=dict(kind="norms:BatchNorm")),
    head=dict(kind="classify:Classifier", classes=3),
)
SAMPLES = 16_000


def made(name):
    if name == "mean_teacher":
        return config.build(MEAN_TEACHER, "objectives")
    return config.build(config.plain(config_files.load(name).objective), "objectives")


def statistics(params, part):
    """Return the running statistics of a part of a model."""
    flat = flatten_dict(params[part], sep="/")
    return {n: np.array(x) for n, x in flat.items() if n.rpartition("/")[2] in ("mean", "var")}


@pytest.mark.parametrize(
    "name", ["mean_teacher", "lape:runlocal,method=delores_m", "lape:runlocal,method=slicer"]
)
def test_running_statistics_of_what_does_not_learn_stay(name):
    objective = made(name)
    audio = (0.1 * np.random.default_rng(0).standard_normal((2, 4, SAMPLES))).astype(np.float32)
    length = np.full(4, SAMPLES, np.int32)
    batch = dict(
        audio=audio[0], length=length, label=np.eye(3, dtype=np.float32)[[0, 1, 2, 0]],
        unlabelled_audio=audio[1], unlabelled_length=length,
    )  # fmt: skip
    batch = jax.tree.map(jnp.asarray, batch)
    params, extra = objective.init(jax.random.key(0), batch)
    for frozen in (True, False) if name == "mean_teacher" else (True,):
        # What `adapt` freezes.
        given = held(params, lambda path, all_=not frozen: all_ or path[0].key == "head")
        loss = functools.partial(objective.loss, train=True)
        found = jax.jit(loss)(given, extra, batch, jax.random.key(1))
        teacher = found.extra["teacher"]
        assert jax.tree.structure(teacher) == jax.tree.structure(extra["teacher"])
        old, new = statistics(extra["teacher"], "encoder"), statistics(teacher, "encoder")
        assert old, "an encoder without batch norms shows nothing"
        assert frozen != any(np.abs(new[n] - old[n]).max() > 1e-6 for n in old)
        assert frozen == (found.renewed is None)
