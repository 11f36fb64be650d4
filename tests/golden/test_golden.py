"""What must not change unnoticed: resolved configs, parameter tables. (First losses: tests/entry.)

UPDATE_GOLDEN=1 python -m pytest -m golden   writes the files anew; read the diff.
"""

import jax
import pytest
from published import CONFIGS, argument, committed, load

from ssl_audio import config
from ssl_audio.distributed.sharding import path_name
from ssl_audio.train.run import Run

pytestmark = pytest.mark.golden
each = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)


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
