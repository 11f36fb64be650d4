"""What must not change unnoticed: resolved configs, parameter tables, first losses.

UPDATE_GOLDEN=1 python -m pytest -m golden tests/golden   writes the files anew; read the diff.
"""

import json
import os
import pathlib

import jax
import pytest
from published import CONFIGS, argument, load

from ssl_audio import config
from ssl_audio.sharding import path_name
from ssl_audio.train import Run, train

pytestmark = pytest.mark.golden
HERE = pathlib.Path(__file__).parent
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))
each = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)


def committed(name, text):
    """Return the committed text, after replacing it when asked to."""
    file = HERE / name
    if UPDATE:
        file.write_text(text)
    assert file.exists(), f"{file}: missing; UPDATE_GOLDEN=1 writes it"
    return file.read_text()


@each
@pytest.mark.parametrize("runlocal", [False, True], ids=["full", "runlocal"])
def test_resolved_config(path, runlocal):
    text = config.text(load(path, argument(path, runlocal=runlocal)))
    assert text == committed(f"{path.stem}{'_runlocal' * runlocal}_config.txt", text)


@each
def test_parameter_table(path):
    run = config.make(Run, load(path, "runlocal"))
    zeros = {k: jax.ShapeDtypeStruct(*v) for k, v in run.data.spec().items() if k != "index"}
    params, _ = jax.eval_shape(run.objective.init, jax.random.key(0), zeros)
    lines = [
        f"{path_name(p)} {'x'.join(map(str, v.shape))} {v.dtype}\n"
        for p, v in jax.tree_util.tree_leaves_with_path(params)
    ]
    text = "".join(sorted(lines))
    assert text == committed(f"{path.stem}_runlocal_parameters.txt", text)


@each
def test_first_losses(path, tmp_path):
    options = config.plain(load(path, "runlocal"))
    options["sharding"] = {"data": 1, "fsdp": 1}
    options["record"] = {"every": 1, "figures": 0, "tensorboard": False, "progress": False}
    train(options, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines[:3]]
    want = committed(
        f"{path.stem}_runlocal_losses.txt", "".join(f"{loss:.8g}\n" for loss in losses)
    )
    assert losses == pytest.approx([float(x) for x in want.split()], rel=1e-4)
