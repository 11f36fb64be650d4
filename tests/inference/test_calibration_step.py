"""A calibration is of the checkpoint that it was fitted to: `load` and `export` use it for no other."""

import dataclasses
import logging

import encoders
import pytest

from ssl_audio.convert.named import calibration as copied
from ssl_audio.inference import calibration
from ssl_audio.inference.calibration import Calibration
from ssl_audio.storage import exported

MADE = Calibration(0.5, (), (), 40)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Return a run with two checkpoints."""
    folder = tmp_path_factory.mktemp("steps") / "run"
    encoders.save(encoders.encoder(), folder, 2, 4)
    return folder


@pytest.mark.parametrize(
    ("of", "step", "used"),
    [
        (None, None, True), (None, 2, True), (4, None, True), (4, 4, True), (2, 2, True),
        (2, None, False), (4, 2, False),
    ],
)  # fmt: skip
def test_it_counts_for_its_own_step(workdir, tmp_path, caplog, of, step, used):
    dataclasses.replace(MADE, step=of).write(workdir)
    MADE.write(tmp_path)  # of what was exported before
    with caplog.at_level(logging.WARNING):
        found = calibration.fitted(workdir, step)
        copied(workdir, tmp_path, step)
    assert (found is not None) == used == (calibration.read(tmp_path) is not None)
    assert (f"fitted to step {of} and is not used for step" in caplog.text) != used


def test_an_exported_folder_has_no_steps(tmp_path):
    encoder = encoders.encoder()
    exported.write(tmp_path, encoder.params, encoder.config)
    made = dataclasses.replace(MADE, step=7)
    made.write(tmp_path)
    assert calibration.fitted(tmp_path, None) == made


def test_a_file_without_a_step_is_read(tmp_path):
    (tmp_path / calibration.NAME).write_text(
        '{"scale": 0.5, "clips": 40, "bias": [], "thresholds": []}'
    )
    assert calibration.read(tmp_path) == MADE
