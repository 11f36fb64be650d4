"""Batches of several pipelines side by side: names, sizes, order, hosts."""

import dataclasses

import jax
import numpy as np
import pytest

from ssl_audio.data.beside import Beside
from ssl_audio.data.entries import Audio, ClipNumber, Labels
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.distributed import sharding

SOURCE = Synthetic(size=12, seconds=0.1)
OTHER = Pipeline(
    {"rest": SOURCE}, batch_size=6, seed=7, entries={"audio": Audio(800), "n": ClipNumber()}
)
BOTH = Beside(
    {"sounds": SOURCE},
    batch_size=4,
    entries={"audio": Audio(800), "label": Labels(12)},
    beside={"unlabelled": OTHER},
)


def first(data, step=0, **where):
    batches = data.batches(step, **where)
    batch = next(batches)
    batches.close()
    return batch


def test_each_has_its_own_size_and_is_what_it_is_alone():
    batch = first(BOTH, 3)
    assert {name: value.shape for name, value in batch.items()} == {
        name: shape for name, (shape, _) in BOTH.spec().items()
    }
    assert batch["audio"].shape == (4, 800) and batch["unlabelled_audio"].shape == (6, 800)
    own = Pipeline(
        **{f.name: getattr(BOTH, f.name) for f in dataclasses.fields(Pipeline) if f.init}
    )
    for name, value in first(own, 3).items():
        np.testing.assert_array_equal(value, batch[name])
    for name, value in first(OTHER, 3).items():
        np.testing.assert_array_equal(value, batch[f"unlabelled_{name}"])
    np.testing.assert_array_equal(batch["unlabelled_clip"], batch["unlabelled_index"])


def test_each_size_must_divide_over_devices_and_parts():
    mesh = jax.make_mesh((2, 1), ("data", "fsdp"))
    sharding.check_batch(BOTH.batch_sizes, mesh)
    with pytest.raises(
        ValueError,
        match=r"config\.data\.beside\.unlabelled\.batch_size: 6 is not divisible by 2 devices x 2 acc.* 4, 8",
    ):
        sharding.check_batch(BOTH.batch_sizes, mesh, accumulate=2)


def test_hosts_have_a_share_of_each():
    whole = first(BOTH, 1)
    parts = [first(BOTH, 1, shard=i, shards=2) for i in range(2)]
    for name, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="beside: none given"):
        dataclasses.replace(BOTH, beside={})
    slower = dataclasses.replace(OTHER, rate=8000)
    with pytest.raises(ValueError, match=r"beside.unlabelled.rate: got 8000 Hz, wanted .* 16000"):
        dataclasses.replace(BOTH, beside={"unlabelled": slower})


def test_collections_name_the_sources_of_both():
    assert set(BOTH.collections()) == {"sounds", "unlabelled.rest"}
    assert "unlabelled: rest: " in BOTH.describe()


def test_an_epoch_is_that_of_the_longest():
    assert BOTH.epoch_steps == 3 and OTHER.epoch_steps == 2
    longer = dataclasses.replace(OTHER, batch_size=2)
    assert dataclasses.replace(BOTH, beside={"unlabelled": longer}).epoch_steps == 6
