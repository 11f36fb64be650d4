"""A run's config names its optimizer by class; it is ours, and the run is read back as any other."""

import json
import pathlib

import pytest

from ssl_audio import config, config_files, slots
from ssl_audio.storage import written
from ssl_audio.train import muon, optim, sgd
from ssl_audio.train.run import Run


@pytest.mark.parametrize(
    "kind, wanted", [("sgd:Sgd", sgd.Sgd), ("muon:Muon", muon.Muon), ("optim:Optim", optim.Optim)]
)
def test_the_config_of_a_run_is_read_back_whatever_its_optimizer(kind, wanted, tmp_path):
    found = config.plain(config_files.load("lape:runlocal"))
    assert found["optim"]["kind"] == "sgd:Sgd"
    found["optim"] = dict(kind=kind, lr=0.5)
    (tmp_path / written.CONFIG).write_text(json.dumps(found))
    run = config.make(Run, written.read(tmp_path))
    assert type(run.optim) is wanted and run.optim.lr == 0.5
    assert not slots.packages(found)


def test_kinds_of_every_file_that_holds_optimizers_are_ours():
    folder = pathlib.Path(slots.__file__).parent / "train"
    for path in folder.glob("[a-z]*.py"):
        assert slots.package(f"{path.stem}:Some") == slots.PACKAGE
    assert slots.package("mylab:Sgd") == "mylab"
