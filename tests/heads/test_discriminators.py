"""What a codec's discriminators hear: samples a period apart, bands of a spectrum, clips of one level."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.heads.discriminators import Periods, Several, Spectra


def sound(samples=90):
    return jax.random.normal(jax.random.key(0), (2, samples))


def test_a_period_hears_samples_one_period_apart():
    made = Periods(periods=(3, 7), channels=(2, 3))
    weights = made.init(jax.random.key(1), sound())
    said: Any = made.apply(weights, sound())
    # 90 samples are 30 rows of 3; a stride of 3 leaves 10. They are mirrored to 91 for 13 rows of 7.
    assert [scores.shape for scores, _ in said] == [(2, 10, 3), (2, 5, 7)]
    assert [x.shape for x in said[0][1]] == [(2, 10, 3, 2), (2, 10, 3, 3)]
    slope = jax.grad(lambda x: made.apply(weights, x)[0][0][0, 4, 1])(sound())
    heard = np.flatnonzero(slope[0])
    assert len(heard) > 5 and set(heard % 3) == {1} and not slope[1].any()


def test_bands_have_convolutions_of_their_own():
    made = Spectra(windows=(32,), channels=2, dilations=(1,), slope=0.1, edges=(0.25, 0.5))
    weights = made.init(jax.random.key(1), sound())
    names = {n for n in weights["params"] if n.endswith("_0")}
    assert names == {"conv_32_0_0", "conv_32_1_0", "conv_32_2_0"}
    (scores, inner) = made.apply(weights, sound())[0]
    # Of 17 lines, bands have 4, 4 and 9; a stride of 2 leaves 2, 2 and 5.
    assert len(inner) == 9 and [x.shape[2] for x in inner[::3]] == [4, 4, 9]
    assert scores.shape[2] == 9
    for edges in ((0.5, 0.25), (0.0, 0.5), (0.5, 0.5)):
        with pytest.raises(ValueError, match="wanted rising shares between 0 and 1"):
            Spectra(edges=edges)


def test_several_hear_every_clip_at_one_level():
    made = Several((Periods((2,), (2,)), Spectra((32,), 2, (1,))))
    weights = made.init(jax.random.key(1), sound())
    assert set(weights["params"]) == {"part_0", "part_1"}
    said: Any = made.apply(weights, sound())
    louder: Any = made.apply(weights, 0.1 * sound() + 3)
    assert len(said) == 2
    for (a, _), (b, _) in zip(said, louder, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)
    level = (sound() - jnp.mean(sound(), 1)[:, None]) * 0.8
    level = level / jnp.max(jnp.abs(level), 1)[:, None] * 0.8
    alone = Periods((2,), (2,)).apply({"params": weights["params"]["part_0"]}, level)
    np.testing.assert_allclose(said[0][0], alone[0][0], rtol=1e-4, atol=1e-5)
