"""Patterns of codebooks against audiocraft's: exact."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden_files

from ssl_audio.quantizers import patterns

pytestmark = pytest.mark.parity


def made(options):
    """Return the pattern that a case of a golden file describes."""
    kind = options["kind"]
    more = {k: tuple(v) for k, v in options.items() if k in ("delays", "flattening")}
    if kind == "delay":
        more |= dict(first=options.get("flatten_first", 0), empty=options.get("empty_initial", 0))
    kinds = dict(
        delay=patterns.Delay,
        parallel=patterns.Parallel,
        unroll=patterns.Unrolled,
        coarse=patterns.CoarseFirst,
        coarse_first=patterns.CoarseFirst,
    )
    return kinds[kind](options["n_q"], **more)


@pytest.mark.parametrize("path", golden_files("codebook_patterns*.npz"))
def test_sequences_masks_and_the_way_back(path):
    file = np.load(path, allow_pickle=False)
    options = json.loads(str(file["config_json"]))
    special, compared = options["special_token"], 0
    for name, case in options["cases"].items():
        pattern, steps = made(case), case["timesteps"]

        def want(what, name=name):
            found = file[f"out/{name}/{what}"]
            return found.swapaxes(-1, -2)

        codes = jnp.asarray(file[f"in/{name}/codes"]).swapaxes(1, 2)
        for trained, end in ((False, ""), (True, "_valid")):
            sequence = pattern.spread(codes, special, trained=trained)
            np.testing.assert_array_equal(sequence, want(f"sequence{end}"))
            there = pattern.places(steps, trained=trained) != patterns.NONE
            np.testing.assert_array_equal(there, want(f"mask{end}") > 0)
        back, there = pattern.gathered(pattern.spread(codes, special), steps, special)
        np.testing.assert_array_equal(back, want("reverted"))
        np.testing.assert_array_equal(there, want("reverted_mask") > 0)
        logits = jnp.asarray(file[f"in/{name}/logits_valid"]).transpose(0, 3, 2, 1)
        back, there = pattern.gathered(logits, steps, -99, trained=True, predicted=True)
        wanted = file[f"out/{name}/logits_reverted_fill_-99"].transpose(0, 3, 2, 1)
        np.testing.assert_array_equal(back, wanted)
        np.testing.assert_array_equal(there, want("logits_mask") > 0)
        compared += 1
    assert compared == len(options["cases"]) > 0
