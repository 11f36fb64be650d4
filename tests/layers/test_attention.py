"""The attention core: every form against numpy, gradients, cache, memory, choice, errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.layers import attention
from ssl_audio.layers.attention import Attention, attend, empty_cache, weights
from ssl_audio.layers.relative import BiasedAttention
from ssl_audio.layers.t5 import T5Attention
from ssl_audio.layers.windows import WindowAttention

LENGTH = 7
BIASES = (None, "heads", "keys", "gated")


def qkv(length=LENGTH, dtype=jnp.float32):
    g = np.random.default_rng(0)
    return tuple(jnp.asarray(0.7 * g.standard_normal((2, length, 3, 8)), dtype) for _ in range(3))


def given(bias, causal, valid, pairs):
    """Return the options of `attend`; some queries see no key."""
    g = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(g.standard_normal(shape), jnp.float32)  # noqa: E731
    options = {"causal": causal}
    if bias is not None:
        options["bias"] = draw(2, 1, 1, LENGTH) if bias == "keys" else draw(3, LENGTH, LENGTH)
    if bias == "gated":
        options["gate"] = draw(2, 3, LENGTH)
    if valid:  # the second has its padding first: with causal, its first queries see nothing
        options["valid"] = jnp.array([[1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1]], bool)
    if pairs:
        options["pairs"] = jnp.asarray(g.random((3, LENGTH, LENGTH)) < 0.6).at[:, 4].set(False)
    return options


def naive(q, k, v, causal, bias=0.0, gate=1.0, valid=(True,) * LENGTH, pairs=True):
    """Attention and its gradients, for sin(3 y) as that of the result, by the formula in float64."""
    q, k, v = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (q, k, v))
    bias, gate = np.asarray(bias, np.float64), np.asarray(gate, np.float64)[..., None]
    seen = np.asarray(valid)[..., None, None, :] & np.asarray(pairs)
    seen = seen & (np.tri(LENGTH, dtype=bool) if causal else True)
    share = np.exp(q @ k.swapaxes(2, 3) + gate * bias) * seen
    total = share.sum(-1, keepdims=True)
    share = share / np.where(total > 0, total, 1)
    y = share @ v
    dy = np.sin(3 * y)
    dshare = dy @ v.swapaxes(2, 3)
    ds = share * (dshare - (share * dshare).sum(-1, keepdims=True))
    gradients = {"q": ds @ k, "k": ds.swapaxes(2, 3) @ q, "v": share.swapaxes(2, 3) @ dy}
    gradients = {name: x.swapaxes(1, 2) for name, x in gradients.items()}
    dbias = ds * gate
    dbias = dbias.reshape(-1, *dbias.shape[4 - bias.ndim :]).sum(0) if bias.ndim < 4 else dbias
    alike = tuple(a for a, n in enumerate(bias.shape) if n == 1)
    gradients |= {"bias": dbias.sum(alike, keepdims=True), "gate": (ds * bias).sum(-1)}
    return y.swapaxes(1, 2), share, gradients


COMBINATIONS = list(itertools.product(BIASES, *[(False, True)] * 3))
every = pytest.mark.parametrize("bias, causal, valid, pairs", COMBINATIONS)


@every
def test_every_form_equals_the_formula(bias, causal, valid, pairs):
    """Seven queries, three at a time. Where a query sees nothing: zeros, and no NaN in a gradient."""
    options = given(bias, causal, valid, pairs)
    floats = {name: options.pop(name) for name in ("bias", "gate") if name in options}
    floats |= dict(zip("qkv", qkv(), strict=True))

    @jax.jit
    def run(floats):
        def form(name):
            call = lambda f: attend(**f, **options, implementation=name, block=3)  # noqa: E731
            y, pull = jax.vjp(call, floats)
            return y, *pull(jnp.sin(3 * y))

        rest = {name: x for name, x in floats.items() if name != "v"}
        return form("plain"), form("blockwise"), weights(**rest, **options)

    y, share, gradients = naive(**floats, **options)
    *forms, found = run(floats)
    np.testing.assert_allclose(found, share, rtol=0, atol=1e-6)
    for got, slopes in forms:
        np.testing.assert_allclose(got, y, rtol=0, atol=4e-6)
        for name, slope in slopes.items():
            np.testing.assert_allclose(slope, gradients[name], rtol=0, atol=2e-5, err_msg=name)
    if pairs:
        assert not y[:, 4].any() and not forms[0][0][:, 4].any()


@every
def test_what_cudnn_is_given(monkeypatch, bias, causal, valid, pairs):
    """All pairs written out and an even length, as its kernel wants them; JAX's other stands in for it."""
    fused = jax.nn.dot_product_attention
    even = LENGTH + 1

    def stand_in(q, k, v, *, bias, mask, implementation, **options):
        assert implementation == "cudnn" and q.ndim == 4 and q.shape[1] == k.shape[1] == even
        for name in ("query_seq_lengths", "key_value_seq_lengths"):
            np.testing.assert_array_equal(options[name], [LENGTH] * 2)
        for x in (bias, mask):
            assert x is None or (x.ndim == 4 and x.shape[2:] == (even, even))
        assert bias is None or bias.dtype == q.dtype
        return fused(q, k, v, bias=bias, mask=mask, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    options = given(bias, causal, valid, pairs)
    got = attend(*qkv(dtype=jnp.float16), **options, implementation="cudnn")
    y, _, _ = naive(*qkv(dtype=jnp.float16), **options)
    np.testing.assert_allclose(got, y, rtol=0, atol=1e-2)


@pytest.mark.parametrize("length", [LENGTH, LENGTH + 1])
def test_cudnn_takes_gradients_at_any_length(length, monkeypatch):
    """JAX's own checks, which an odd length does not pass; nothing runs."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91200)
    q = jax.ShapeDtypeStruct((2, length, 3, 64), jnp.bfloat16)

    def loss(*qkv):
        return jnp.sum(attend(*qkv, implementation="cudnn").astype(jnp.float32))

    found = jax.eval_shape(jax.grad(loss, argnums=(0, 1, 2)), q, q, q)
    assert [x.shape for x in found] == [q.shape] * 3


@pytest.mark.gpu
def test_cudnn_equals_the_formula():
    if jax.default_backend() != "gpu":
        pytest.skip("no NVIDIA GPU")
    low = qkv(dtype=jnp.bfloat16)
    for combination in COMBINATIONS:
        options = given(*combination)
        got = attend(*low, **options, implementation="cudnn").astype(jnp.float32)
        np.testing.assert_allclose(got, naive(*low, **options)[0], rtol=0, atol=3e-2)


@pytest.mark.parametrize("form", ["plain", "blockwise"])
def test_batches_may_have_several_axes(form):
    """As windows of clips do: with a bias of each window, and one that lacks leading axes."""
    q, k, v = (jnp.stack([x, 2 * x, 3 * x], 1) for x in qkv())
    bias = jnp.asarray(np.random.default_rng(1).standard_normal((3, 1, LENGTH, LENGTH)))
    valid = jnp.arange(LENGTH)[None, None] < jnp.array([[7, 6, 5], [4, 3, 2]])[..., None]
    options = dict(implementation=form, block=3)
    got = attend(q, k, v, bias=bias, valid=valid, **options)
    for i in range(3):
        alone = attend(q[:, i], k[:, i], v[:, i], bias=bias[i], valid=valid[:, i], **options)
        np.testing.assert_allclose(got[:, i], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["plain", "blockwise"])
def test_queries_may_start_later_than_the_keys(form):
    q, k, v = qkv()
    whole = attend(q, k, v, causal=True, implementation="plain")
    late = jax.jit(
        lambda s: attend(q[:, 3:], k, v, causal=True, start=s, implementation=form, block=3)
    )
    np.testing.assert_allclose(late(3), whole[:, 3:], rtol=0, atol=1e-6)


MODULES = {
    "attention": (Attention(2), {}),
    "causal": (Attention(2, causal=True), {}),
    "t5": (T5Attention(2, size=4), {"pair_bias": (2, LENGTH, LENGTH)}),
    "relative": (BiasedAttention(2, gate="query"), {"pair_bias": (2, LENGTH, LENGTH)}),
}


@pytest.mark.parametrize("module, more", MODULES.values(), ids=MODULES)
def test_modules_have_the_blockwise_form(module, more, monkeypatch):
    g = np.random.default_rng(0)
    more = {
        name: jnp.asarray(g.standard_normal(shape), jnp.float32) for name, shape in more.items()
    }
    x = jnp.asarray(g.standard_normal((2, LENGTH, 8)), jnp.float32)
    valid = jnp.arange(LENGTH)[None] < jnp.array([[7], [4]])
    plain, long = (module.copy(implementation=i, block=3) for i in ("plain", "blockwise"))
    called = []
    blockwise = attention._blockwise
    monkeypatch.setattr(attention, "_blockwise", lambda *a: called.append(a[-1]) or blockwise(*a))
    params = plain.init(jax.random.key(0), x, None, valid, **more)
    wanted = plain.apply(params, x, None, valid, **more)
    assert not called
    got = long.apply(params, x, None, valid, **more)
    assert called == [3]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


def test_a_window_may_hold_nothing_valid():
    """Its tokens get nothing but the bias of the output; no gradient is NaN."""
    mixer = WindowAttention(2, rows=4)
    x = jax.random.normal(
        jax.random.key(1), (1, 4 * 7, 8)
    )  # two windows of four columns, one padded
    valid = jnp.tile(jnp.arange(7) < 4, 4)[None]
    params = mixer.init(jax.random.key(0), x)
    y, pull = jax.vjp(lambda p, x: mixer.apply(p, x, None, valid), params, x)
    assert not y[~valid].any() and y[valid].all()
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(pull(jnp.sin(y))))


def test_decoding_with_a_cache_equals_the_causal_pass():
    """Three tokens at once, then one by one, in a cache longer than the text and full of rubbish."""
    mixer = Attention(2, causal=True)
    x = jax.random.normal(jax.random.key(1), (2, LENGTH, 8))
    params = mixer.init(jax.random.key(0), x)
    whole = mixer.apply(params, x)
    memory = mixer.start(2, 8, jnp.float32, LENGTH + 3)
    memory = memory._replace(k=memory.k + 9, v=memory.v + 9)
    traced = []

    @jax.jit
    def step(x, memory):
        traced.append(x.shape)
        return mixer.apply(params, x, memory=memory)

    found = []
    for part in jnp.split(x, [3, 4, 5, 6], axis=1):
        y, memory = step(part, memory)
        found.append(y)
    np.testing.assert_allclose(jnp.concatenate(found, 1), whole, rtol=0, atol=1e-6)
    assert len(traced) == 2 and int(memory.length) == LENGTH
    assert (memory.k[:, LENGTH:] == 9).all()


def test_cache_by_hand_equals_the_causal_pass_token_by_token():
    q, k, v = qkv()
    cache, rows = empty_cache(2, LENGTH, 3, 8, jnp.float32), []
    for n in range(LENGTH):
        cache = cache.write(k[:, n : n + 1], v[:, n : n + 1])
        rows.append(attend(q[:, n : n + 1], cache.k, cache.v, causal=True, start=n))
    wanted = attend(q, k, v, causal=True)
    np.testing.assert_allclose(jnp.concatenate(rows, 1), wanted, rtol=0, atol=1e-6)


def test_blockwise_memory_grows_with_the_length_not_its_square():
    def temp(form, length, **options):
        x = jax.ShapeDtypeStruct((1, length, 2, 8), np.float32)
        call = lambda *x: jnp.sum(attend(*x, implementation=form, block=64, **options))  # noqa: E731
        gradient = jax.jit(jax.grad(call, argnums=(0, 1, 2)))
        return gradient.lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    scores = 4 * 2 * 2048**2
    assert temp("plain", 2048) > scores
    assert temp("blockwise", 2048) < scores / 4
    valid = jnp.ones((1, 2048), bool)
    assert temp("blockwise", 2048, causal=True, valid=valid) < scores / 4


def test_choice(monkeypatch, caplog):
    choose, none = attention._choose, attention._terms(None, None, None, None, None)
    short, long = qkv(), qkv(attention.LONG)
    assert choose(*short, none) == "plain" and choose(*long, none) == "blockwise"
    attention._say.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose(*short, none) == "plain", "float32"
    low = qkv(dtype=jnp.bfloat16)
    with caplog.at_level("WARNING"):
        assert [choose(*low, none) for _ in range(2)] == ["plain"] * 2
    (record,) = caplog.records
    assert "not using cuDNN" in record.getMessage()
    monkeypatch.setattr(attention, "_cudnn", lambda q, k, v, terms: q)
    assert choose(*low, none) == "cudnn"


def test_fields_and_errors():
    x = jnp.ones((1, 4, 6))
    for module in (Attention, T5Attention, BiasedAttention):
        with pytest.raises(ValueError, match="got implementation 'flash'; wanted one of auto, pl"):
            module(2, implementation="flash")
    with pytest.raises(ValueError, match="got implementation 'flash'"):
        attend(*qkv(), implementation="flash")
    with pytest.raises(ValueError, match="'cudnn' for float32; wanted bfloat16 or float16"):
        Attention(2, implementation="cudnn").init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="a gate without a bias"):
        attend(*qkv(), gate=jnp.ones((2, 3, LENGTH)))
    with pytest.raises(ValueError, match="width 6 is not divisible by 4 attention heads"):
        Attention(4).init(jax.random.key(0), x)


def test_memory_needs_a_causal_mixer_no_padding_and_room():
    x, mixer = jnp.ones((2, 4, 6)), Attention(2, causal=True)

    def init(mixer, length=4, **more):
        memory = mixer.start(2, 6, jnp.float32, length)
        jax.eval_shape(lambda: mixer.init(jax.random.key(0), x, memory=memory, **more))

    init(mixer)
    with pytest.raises(ValueError, match="only goes with causal=True"):
        init(Attention(2))
    with pytest.raises(ValueError, match="memory and padding"):
        init(mixer, valid=jnp.ones((2, 4), bool))
    with pytest.raises(ValueError, match="got 4 tokens for a cache of 3"):
        init(mixer, length=3)
