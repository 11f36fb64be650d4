"""Windows of a sequence through a causal stack: exact, in constant memory, refused where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.backbones import stream
from ssl_audio.backbones.stack import Stack
from ssl_audio.layers.blocks import MirroredPair, PreNorm
from ssl_audio.layers.mamba import Mamba
from ssl_audio.layers.norms import RMSNorm, TimeNorm
from ssl_audio.structs import Tokens

WIDTH = 8


def causal(**changes):
    block = PreNorm(mixer=Mamba(causal=True, state=3), norm=RMSNorm(), mlp=2.0)
    return Stack(**dict(width=WIDTH, depth=2, block=block) | changes)


def tokens(count):
    x = np.random.default_rng(0).standard_normal((2, count, WIDTH)).astype(np.float32)
    index = jnp.broadcast_to(jnp.arange(count)[None], (2, count))
    return Tokens(x=jnp.asarray(x), index=index, grid=(1, count))


def test_windows_give_what_the_whole_gives():
    stack, whole = causal(), tokens(20)
    params = jax.jit(stack.init)(jax.random.key(0), whole)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)
    assert "backward" not in params["layers"]["mixer"]
    wanted = jax.jit(stack.apply)({"params": params}, whole).tokens.x
    windows = jnp.split(whole.x, [2, 11], axis=1)  # the first is shorter than the convolution
    got = list(stream.encode_windows(stack, params, windows))
    np.testing.assert_allclose(jnp.concatenate(got, 1), wanted, rtol=0, atol=1e-5)


def test_memory_does_not_grow():
    stack = causal()
    params = jax.eval_shape(stack.init, jax.random.key(0), tokens(4))["params"]
    memory = jax.eval_shape(lambda: stream.start(stack, 2))
    for count in (1, 50):
        x = jax.ShapeDtypeStruct((2, count, WIDTH), np.float32)
        y, after = jax.eval_shape(lambda p, x, m: stream.advance(stack, p, x, m), params, x, memory)
        assert after == memory and y.shape == x.shape


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(block=PreNorm(mixer=Mamba())), "Mamba, whose tokens see later ones"),
        (dict(block=MirroredPair(mixer=Mamba(causal=True))), "got MirroredPair blocks"),
        (dict(special=1), "a stack with special"),
        (dict(final_norm=TimeNorm()), "TimeNorm mixes tokens"),
    ],
)
def test_what_cannot_be_exact_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        stream.check(causal(**changes))


def test_memory_needs_a_causal_mixer_and_no_padding():
    x, mixer = tokens(4).x, Mamba(causal=True)
    memory = mixer.start(2, WIDTH, jnp.float32)
    with pytest.raises(ValueError, match="only goes with causal=True"):
        jax.eval_shape(lambda: Mamba().init(jax.random.key(0), x, memory=memory))
    with pytest.raises(ValueError, match="memory and padding"):
        valid = jnp.ones((2, 4), bool)
        jax.eval_shape(lambda: mixer.init(jax.random.key(0), x, valid=valid, memory=memory))
