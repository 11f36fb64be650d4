"""Where frames lie: a click is loudest in the frame whose centre is nearest."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend.fbank import Fbank
from ssl_audio.frontend.mel import Mel
from ssl_audio.frontend.stft import Stft


@pytest.mark.parametrize(
    "frontend", [Fbank(bins=40), Mel(bins=40), Stft()], ids=["fbank", "mel", "stft"]
)
def test_a_click_is_loudest_where_its_frame_says_that_it_is(frontend):
    frame = 11
    click = round(frontend.centre + frame * frontend.hop)
    audio = 1e-4 * np.random.default_rng(0).normal(size=(1, 24 * frontend.hop + frontend.window))
    audio[0, click] = 1.0
    spec = frontend(jnp.asarray(audio, jnp.float32))
    assert int(jnp.argmax(jnp.sum(spec[0], axis=1))) == frame
