import json

import jax
import numpy as np
import pytest
import reference

from ssl_audio.tokens.masking import Cluster

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", reference.golden_files("ssast_patch_mask_sampler*.npz"))
def test_cluster_has_the_reference_distribution(path):
    data = np.load(path)
    for tag, case in json.loads(str(data["config"]))["cases"].items():
        grid, draws = tuple(case["grid"]), 10_000
        cluster = Cluster(case["mask"])
        draw = jax.jit(cluster, static_argnums=(1, 2))
        index = np.asarray(draw(jax.random.key(0), draws, grid))
        masked = np.zeros((draws, grid[0] * grid[1]), bool)
        np.put_along_axis(masked, index, True, axis=1)
        assert (masked.sum(1) == case["mask"]).all()
        wanted = data[f"{tag}/mask_frequency_per_position"]
        # Estimates, with a standard error of at most 0.5 / sqrt(draws): 0.008 and 0.005 here.
        error = np.abs(masked.mean(0) - wanted)
        assert error.max() < 4 * 0.5 * (1 / case["draws"] + 1 / draws) ** 0.5
        assert error.mean() < 0.01
        # The spread within a draw, which position frequencies cannot see: clusters are contiguous.
        samples = data[f"{tag}/samples"]
        ours, theirs = (np.mean(np.diff(x, axis=1) == 1, axis=1) for x in (index, samples))
        standard_error = np.hypot(theirs.std() / len(theirs) ** 0.5, ours.std() / len(ours) ** 0.5)
        assert abs(ours.mean() - theirs.mean()) < 5 * standard_error
        assert abs(ours.std() - theirs.std()) < 5 * theirs.std() / (2 * len(theirs)) ** 0.5
