"""Encoders that know the order of tokens only by convolution and by distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.config import build
from ssl_audio.layers.relative import BiasedAttention, RelativeBias, bucket
from ssl_audio.presets import speech
from ssl_audio.structs import Tokens
from ssl_audio.tokens.order import reorder


def test_buckets_are_exact_nearby_and_shared_far_away():
    found = bucket(np.arange(-300, 301), 32, 80)
    assert found[300] == 0 and found[301] == 17 and found[299] == 1
    assert len(np.unique(found[300 - 7 : 301 + 7])) == 15  # 7 at each side are told apart
    assert (found[:221] == 15).all() and (found[380:] == 31).all()
    assert (np.diff(found[301:]) >= 0).all()


def test_order_and_padding_do_not_matter_to_what_is_valid():
    positions = dict(kind="convolutions:Convolution", size=4, groups=2)
    options = speech.beats_stack(16, 2, 2) | dict(positions=positions, remat="none")
    encoder = build(options, "backbones")
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 8, 16)), jnp.float32)
    tokens = Tokens(x, jnp.arange(8)[None], (2, 4))
    shuffled = reorder(tokens, jnp.asarray([rng.permutation(8)]))
    valid = tokens.index % 4 < 3
    short = tokens.replace(valid=valid)
    kept = jnp.asarray([[0, 1, 2, 4, 5, 6]])
    alone = reorder(tokens, kept).replace(index=jnp.arange(6)[None], grid=(2, 3))

    @jax.jit
    def run(key):
        params = encoder.init(key, tokens)
        noisy = short.replace(x=jnp.where(valid[..., None], x, 99.0))
        return [encoder.apply(params, t).tokens for t in (tokens, shuffled, noisy, alone)]

    whole, other, padded, cut = run(jax.random.key(0))
    assert np.allclose(other.x[0], whole.x[0][shuffled.index[0]], atol=1e-5)
    assert np.allclose(padded.x[0][kept[0]], cut.x[0], atol=1e-4)
    assert not np.allclose(padded.x[0][0], whole.x[0][0], atol=1e-3)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="gate 'key': wanted one of none, query, input"):
        BiasedAttention(heads=2, gate="key")
    with pytest.raises(ValueError, match="distance above a fourth"):
        RelativeBias(heads=2, buckets=32, distance=8)
    with pytest.raises(ValueError, match="size 'huge': wanted one of tiny, base, large"):
        speech.sized("huge")
