"""Numbers of a run that mean nothing are refused with the field's name."""

import jax
import pytest

from ssl_audio.distributed import sharding
from ssl_audio.train.optim import Optim


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1.0),
        ("lr", float("inf")),
        ("weight_decay", -0.1),
        ("clip", -1.0),
        ("b1", 2.0),
        ("b2", -0.5),
        ("average", 1.0),
        ("warmup_hold", 0),
    ],
)
def test_numbers_of_the_optimizer_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name}: wanted .*, got {value}"):
        Optim(**{"lr": 1e-3, name: value})


def test_a_batch_is_split_in_one_part_or_more():
    mesh = jax.make_mesh((1, 1), ("data", "fsdp"))
    with pytest.raises(ValueError, match=r"config\.accumulate: wanted at least 1, got 0"):
        sharding.check_batch(8, mesh, 0)
