"""Models whose training needed other entries than sound are checked when they are loaded, too."""

import jax
import numpy as np
import pytest

import ssl_audio
from ssl_audio import config, config_files
from ssl_audio.storage import exported


def test_parameters_of_a_model_of_pictures_are_checked(tmp_path, caplog):
    options = config.plain(config_files.load("terrain:stage=pixels,runlocal"))
    objective = config.build(options["objective"], "objectives")
    entry = config.build(options["data"]["entries"]["pixels"], "data")
    batch = {name: np.zeros((1, *shape), kind) for name, (shape, kind) in entry.spec().items()}
    params, extra = jax.jit(objective.init)(jax.random.key(0), batch)
    params = jax.tree.map(np.asarray, params)
    exported.write(tmp_path / "whole", params, options, extra=extra)
    assert "segment" in " ".join(ssl_audio.load(tmp_path / "whole").offers)
    assert "cannot be checked" not in caplog.text
    narrow = jax.tree.map(lambda x: x[..., :1], params)
    exported.write(tmp_path / "narrow", narrow, options, extra=extra)
    with pytest.raises(ValueError, match="shape"):
        ssl_audio.load(tmp_path / "narrow")
