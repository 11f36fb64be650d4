"""Numbers of a run that mean nothing are refused with the field's name."""

import argparse

import jax
import pytest

from ssl_audio import config, config_files, startup
from ssl_audio.distributed import sharding
from ssl_audio.train.loop import train
from ssl_audio.train.optim import Optim
from ssl_audio.train.run import Run


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.warmup=-5", r"config\.optim\.warmup: duration '?-5"),
        ("eval_every=1.2.3", r"config\.eval_every: duration '1\.2\.3'"),
        ("eval_every=soon", r"config\.eval_every: duration 'soon'"),
        ("record.every=-1", r"config\.record\.every: duration"),
        ("checkpoint.every=-5", r"config\.checkpoint\.every: duration"),
        ("eval_every=-5%", r"config\.eval_every: duration '-5%'"),
        ("objective.encoder.drop_path=1.5", r"drop_path is 1\.5"),
    ],
)
def test_durations_and_rates_are_refused_with_their_field(override, message):
    options = config_files.load("ssamba:runlocal", [f"--config.{override}"])
    with pytest.raises(ValueError, match=message):
        config.make(Run, options)


def test_durations_of_every_form_are_taken():
    run = config.make(
        Run, config_files.load("ssamba:runlocal", ["--config.optim.steps_at=('5%', 3)"])
    )
    assert run.optim.steps_at == ("5%", 3) and run.steps == "4"
    with pytest.raises(ValueError, match=r"config\.optim\.steps_at\[1\]: duration -3"):
        config.make(Run, config_files.load("ssamba:runlocal", ["--config.optim.steps_at=(5, -3)"]))


def test_a_run_has_a_step(tmp_path):
    with pytest.raises(ValueError, match=r"config\.steps: '0' is 0, wanted at least 1"):
        train(config_files.load("ssamba:runlocal", ["--config.steps=0"]), tmp_path / "run")


@pytest.mark.parametrize("text", ["7", "nan", "-0.1", "1e-2x"])
def test_a_share_is_one(text):
    with pytest.raises(argparse.ArgumentTypeError, match="got .*, wanted a share from 0 to 1"):
        startup.share(text)
