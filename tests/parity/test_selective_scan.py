"""The scan against the published formula: outputs, last state and every gradient."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ssl_audio.layers.scan import selective_scan

BY_TIME = ("u", "delta", "B", "C", "z")  # stored [B, channels, N]


def as_ours(name: str, x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, 1, 2) if name in BY_TIME else x


@pytest.mark.parity
@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("path", reference.golden_files("selective_scan*.npz"))
def test_selective_scan_equals_published_formula(path, implementation):
    with np.load(path) as stored:
        golden = dict(stored)
    cases = json.loads(str(golden["config"]))["cases"]
    assert cases
    for tag, case in cases.items():
        inputs = {k: as_ours(k, golden[f"{tag}/in/{k}"]) for k in case["present"]}
        dy, dlast = as_ours("u", golden[f"{tag}/in/dy"]), golden[f"{tag}/in/dlast"]
        run = partial(
            selective_scan,
            delta_softplus=case["softplus"],
            return_last_state=True,
            implementation=implementation,
        )

        @jax.jit
        def both(inputs, dy, dlast, run=run):
            outputs, pull = jax.vjp(lambda x: run(**x), inputs)
            return outputs, pull((dy, dlast))[0]

        (y, last), of_y = both(inputs, dy, jnp.zeros_like(dlast))
        _, of_both = both(inputs, dy, dlast)
        np.testing.assert_allclose(y, as_ours("u", golden[f"{tag}/out/y"]), rtol=0, atol=1e-5)
        np.testing.assert_allclose(last, golden[f"{tag}/out/last_state"], rtol=0, atol=1e-5)
        for loss, gradients in (("grad_y", of_y), ("grad_y_last", of_both)):
            for name, got in gradients.items():
                wanted = as_ours(name, golden[f"{tag}/{loss}/{name}"])
                error = np.linalg.norm(got - wanted) / max(np.linalg.norm(wanted), 1e-30)
                assert error <= 1e-5, (tag, loss, name, error)
