"""`finetune:adapt=…`: what it sets, and what it refuses."""

import dataclasses

import pytest
from published import load
from reference import ROOT

from ssl_audio import config
from ssl_audio.layers.lora import Lora
from ssl_audio.objectives.adapted import Adapted
from ssl_audio.train.run import Run

CONFIG = ROOT / "configs/finetune.py"


def test_adapters_and_the_head_alone():
    for text, rank, alpha in (
        ("lora,rank=4,alpha=8", 4, 8.0),
        ("lora", 8, 16.0),
        ("head", 0, 16.0),
    ):
        options = config.plain(load(CONFIG, f"runlocal,adapt={text}"))
        want = dict(kind="lora", **dataclasses.asdict(Lora(rank=rank, alpha=alpha)))
        assert options["adapt"] == want, "all options, so that the command line can change each"
        run = config.make(Run, options)
        assert isinstance(run.objective, Adapted) and run.objective.criterion == "softmax"
        assert dataclasses.replace(run).objective.objective is not run.objective


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("adapt=qlora", "wanted lora, or head"),
        ("rank=4", "without adapt=lora there is no adapter"),
        ("adapt=head,rank=4", "adapt=head has no adapter"),
    ],
)
def test_what_would_change_nothing_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        load(CONFIG, f"runlocal,{text}")


def test_what_is_frozen_must_be_pretrained(tmp_path):
    with pytest.raises(ValueError, match="must be pretrained"):
        load(CONFIG, f"esc10,root={tmp_path},adapt=lora")
