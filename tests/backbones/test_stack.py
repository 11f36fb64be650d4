"""The encoder with both mixers: padding, directions, drop-path, remat, precision, sizes, initial values."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx import bridge

from ssl_audio.config import build
from ssl_audio.heads.classify import PatchPredictor
from ssl_audio.layers import blocks
from ssl_audio.layers.attention import Attention
from ssl_audio.layers.mamba import Mamba
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.presets import patch_encoders
from ssl_audio.structs import Tokens
from ssl_audio.tokens.patchify import Patchify

NAMES = (
    "ssast",
    "ssamba_rms",
    "ssamba",
)  # PreNorm + attention, PreNorm + Mamba, MirroredPair + Mamba
GRID = (4, 5)
WIDTH = 32


@functools.cache
def encoder(name, **changes):
    options = (
        patch_encoders.encoder(name, "tiny", GRID)
        | dict(width=WIDTH, depth=2, drop_path=0.0)
        | changes
    )
    if name == "ssast":
        options["block"]["mixer"]["heads"] = 2
    return build(options, "backbones")


@functools.cache
def tokens(batch=2, count=20):
    x = np.random.default_rng(0).standard_normal((batch, count, WIDTH))
    index = jnp.broadcast_to(jnp.arange(count)[None], (batch, count))
    return Tokens(x=jnp.asarray(x, jnp.float32), index=index, grid=GRID)


@functools.cache
def shapes(name, depth=2):
    return jax.eval_shape(encoder(name, depth=depth).init, jax.random.key(0), tokens())["params"]


@functools.cache
def params(name, depth=2):
    """Return parameters large enough for every one of them to be felt (and without compiling)."""
    g = np.random.default_rng(1)
    around = {"scale": 1.0, "skip": 1.0, "a_log": 1.0, "dt_bias": -2.0}

    def draw(path, p):
        value = around.get(path[-1].key, 0.0) + 0.2 * g.standard_normal(p.shape)
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(name, depth))


@functools.cache
def apply(name, *, layers=False, train=False, **changes):
    """Return a compiled forward pass: (params, tokens, key) → Encoded."""

    def run(params, tokens, key=None):
        rngs = None if key is None else {"drop_path": key}
        return encoder(name, **changes).apply(
            {"params": params}, tokens, layers=layers, train=train, rngs=rngs
        )

    return jax.jit(run)


def close(a, b, atol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


@pytest.mark.parametrize("name", NAMES)
def test_padding_never_changes_a_valid_token(name):
    full, kept = tokens(), 13
    valid = jnp.arange(20)[None] < jnp.array([[kept], [17]])
    run = functools.partial(apply(name), params(name))
    clean = run(full.replace(valid=valid))
    noise = jnp.where(valid[..., None], full.x, 30 * full.x + 7)
    dirty = run(full.replace(x=noise, valid=valid))
    close(
        [jnp.where(valid[..., None], clean.tokens.x, 0), clean.special],
        [jnp.where(valid[..., None], dirty.tokens.x, 0), dirty.special],
        atol=0,
    )
    short = Tokens(x=full.x[:1, :kept], index=full.index[:1, :kept], grid=GRID)
    alone = run(short)
    close(alone.tokens.x, clean.tokens.x[:1, :kept], atol=2e-5)
    close(alone.special, clean.special[:1], atol=2e-5)
    assert np.abs(run(full).tokens.x[:, :kept] - clean.tokens.x[:, :kept]).max() > 1e-3


def mixer_params():
    return jax.tree.map(lambda p: p[0], params("ssamba_rms")["layers"]["mixer"])


def test_backward_is_the_flipped_forward_with_directions_swapped():
    p, run = mixer_params(), jax.jit(lambda p, x: Mamba().apply({"params": p}, x))
    swapped = p | {"forward": p["backward"], "backward": p["forward"]}
    y = run(p, tokens().x)
    close(y, run(swapped, tokens().x[:, ::-1])[:, ::-1], atol=1e-5)
    assert np.abs(y - run(swapped, tokens().x)).max() > 1e-2


def test_each_direction_looks_one_way():
    p = mixer_params()
    gradient = jax.jit(jax.grad(lambda x, p: jnp.sum(Mamba().apply({"params": p}, x)[0, 10])))

    def reach(silent):
        silence = jax.tree.map(jnp.zeros_like, p[silent])  # silu(0) = 0: this side says nothing
        return np.abs(gradient(tokens().x, p | {silent: silence})[0]).sum(-1) > 0

    ahead, back = reach("backward"), reach("forward")
    assert ahead[:11].all() and not ahead[11:].any()
    assert back[10:].all() and not back[:10].any()


def test_attention_is_softmax_of_scaled_products():
    x = tokens().x
    p = Attention(2).init(jax.random.key(0), x)["params"]
    p = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(jax.random.key(2), a.shape), p)
    qkv = np.asarray(x[0] @ p["qkv"]["kernel"] + p["qkv"]["bias"][None])
    heads = []
    for h in range(2):
        q, k, v = (qkv[:, part * WIDTH + 16 * h : part * WIDTH + 16 * (h + 1)] for part in range(3))
        scores = np.exp(q @ k.T / 4)
        heads.append(scores / scores.sum(1, keepdims=True) @ v)
    want = np.concatenate(heads, 1) @ p["out"]["kernel"] + p["out"]["bias"][None]
    close(Attention(2).apply({"params": p}, x)[0], want, atol=1e-4)
    with pytest.raises(ValueError, match="width 32 is not divisible by 5 attention heads"):
        Attention(5).init(jax.random.key(0), x)


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    x = jnp.broadcast_to(jnp.arange(1.0, 7.0).reshape(1, 2, 3), (4000, 2, 3))
    y = np.asarray(blocks.drop_path(x, 0.3, jax.random.key(0)))
    kept = y[:, 0, 0] != 0
    np.testing.assert_allclose(y[kept], np.asarray(x[kept]) / 0.7, rtol=1e-6)
    assert not y[~kept].any()
    assert np.mean(kept) == pytest.approx(0.7, abs=0.03)
    assert blocks.drop_path(x, 0.3, None) is x


def test_drop_path_rates():
    mixer = Mamba()
    np.testing.assert_allclose(
        blocks.PreNorm(mixer).rates(0.1, 24)[:, 0], np.linspace(0, 0.1, 24), atol=1e-7
    )
    pair = np.asarray(blocks.MirroredPair(mixer).rates(0.1, 24))
    assert pair.shape == (12, 2)
    want = np.concatenate([[0], np.linspace(0, 0.1, 24)[:-1]])
    np.testing.assert_allclose(pair.ravel(), want, atol=1e-7)
    assert pair.ravel()[[0, 1, 2, 23]] == pytest.approx([0, 0, 0.00435, 0.09565], abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_drop_path_acts_in_training_only_and_per_example(name):
    many = jax.tree.map(lambda a: jnp.repeat(a[:1], 400, axis=0), tokens())
    run = apply(name, train=True, drop_path=0.5)
    y = np.asarray(run(params(name), many, jax.random.key(0)).tokens.x)
    kinds, count = np.unique(np.round(y[:, 0, 0], 4), return_counts=True)
    # Two layers of rates 0 and 0.5 (one branch or two), or a pair of rate 0 and the last addition of 0.5.
    assert len(kinds) == (4 if name == "ssast" else 2)
    assert count.min() / 400 == pytest.approx(1 / len(kinds), abs=0.08)
    np.testing.assert_array_equal(y, run(params(name), many, jax.random.key(0)).tokens.x)
    still, none = apply(name, drop_path=0.5), apply(name)
    close(still(params(name), tokens()).tokens.x, none(params(name), tokens()).tokens.x, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "modes"), [("ssast", ("none", "full")), ("ssamba", ("none", "dots", "full"))]
)
def test_remat_changes_neither_value_nor_gradient(name, modes):
    found = {}
    for mode in modes:
        model = encoder(name, remat=mode)

        def loss(p, model=model):
            return jnp.mean(model.apply({"params": p}, tokens(), train=True).tokens.x ** 3)

        found[mode] = jax.jit(jax.value_and_grad(loss))(params(name))
    for mode in modes[1:]:
        close(found["none"], found[mode], atol=2e-6)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(found["none"][1])) > 1e-3


def test_an_unknown_remat_is_refused():
    with pytest.raises(ValueError, match="remat 'some': wanted one of none, dots, full"):
        encoder("ssast", remat="some")


@pytest.mark.parametrize("name", ["ssast", "ssamba"])
def test_bfloat16_computes_close_and_keeps_a_float32_stream(name):
    exact = apply(name, layers=True)(params(name), tokens())
    rough = apply(name, layers=True, dtype="bfloat16")(params(name), tokens())
    kept = jax.tree.leaves((rough.tokens.x, rough.special, rough.layers))
    assert {a.dtype for a in kept} == {jnp.dtype("float32")}
    held = jax.eval_shape(encoder(name, dtype="bfloat16").init, jax.random.key(0), tokens())
    assert {a.dtype for a in jax.tree.leaves(held)} == {jnp.dtype("float32")}
    error = np.abs(exact.tokens.x - rough.tokens.x)
    assert error.max() > 1e-4, "bfloat16 was not used"
    assert error.mean() < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_the_stream_after_each_block(name):
    model, p = encoder(name, depth=4), params(name, depth=4)
    plain, full = apply(name, depth=4)(p, tokens()), apply(name, depth=4, layers=True)(p, tokens())
    count = 4 // model.block.layers
    assert plain.layers is None and full.layers.shape == (count, 2, 20, WIDTH)
    assert full.tokens.x.shape == (2, 20, WIDTH) and full.special.shape == (2, model.special, WIDTH)
    close(plain.tokens.x, full.tokens.x, atol=1e-5)
    final = model.final_norm.apply({"params": p["final_norm"]}, full.layers[-1])
    close(final, full.tokens.x, atol=1e-5)
    # A shallower model with the first layers only stops where the deep one passes.
    first = jax.tree.map(lambda a: a[: 2 // model.block.layers], p["layers"])
    cut = apply(name, layers=True)(p | {"layers": first}, tokens())
    close(cut.layers[-1], full.layers[2 // model.block.layers - 1], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_layer_parameters_are_stacked(name):
    model = encoder(name, depth=4)
    assert set(shapes(name)) == {"layers", "special", "positions", "final_norm"}
    for p in jax.tree.leaves(shapes(name, depth=4)["layers"]):
        assert p.shape[0] == 4 // model.block.layers


def count(tree):
    return sum(p.size for p in jax.tree.leaves(tree))


def published(name, size):
    """Return the shapes of tokeniser and encoder at full size: 8 x 64 patches."""
    model = build(patch_encoders.encoder(name, size, (8, 64)), "backbones")
    patchify = Patchify(model.width)
    spec = jax.ShapeDtypeStruct((1, 1024, 128), jnp.float32)
    made, tokenizer = jax.eval_shape(patchify.init_with_output, jax.random.key(0), spec)
    return tokenizer["params"], jax.eval_shape(model.init, jax.random.key(0), made)["params"]


@pytest.mark.parametrize(
    ("size", "total"), [("tiny", 5_487_168), ("small", 21_591_168), ("base", 85_649_664)]
)
def test_ssast_has_the_published_number_of_parameters(size, total):
    assert count(published("ssast", size)) == total


@pytest.mark.parametrize(
    ("size", "total", "layer", "whole"),
    [
        ("tiny", 6_773_760, 282_240, 7_288_298 - 193_000),
        ("small", 25_049_088, 1_043_712, 26_224_106 - 385_000),
        ("base", 96_104_448, 4_004_352, 99_042_794 - 769_000),
    ],
)
def test_ssamba_has_the_published_number_of_parameters(size, total, layer, whole):
    tokenizer, model = published("ssamba", size)
    width = patch_encoders.SIZES[size][0]
    assert count(model["layers"]) == total == 24 * layer
    head = jax.eval_shape(PatchPredictor(256).init, jax.random.key(0), jnp.zeros((1, 1, width)))
    mask_token, dead = width, 2  # the reference counts two grid sizes as parameters
    assert count(tokenizer) + count(model) + 2 * count(head) + mask_token + dead == whole


def spread(x, bound):
    """Check a uniform distribution in ±bound."""
    x = np.asarray(x)
    assert np.abs(x).max() <= bound * 1.0001
    assert np.abs(x).max() > 0.97 * bound
    assert x.std() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_initial_values_of_ssast():
    width = 192
    options = patch_encoders.encoder("ssast", "tiny", (8, 16)) | dict(depth=2)
    model = build(options, "backbones")
    full = Tokens(x=jnp.zeros((1, 128, width)), index=jnp.arange(128)[None], grid=(8, 16))
    p = jax.jit(model.init)(jax.random.key(0), full)["params"]
    layers = p["layers"]
    for kernel in (
        layers["mixer"]["qkv"],
        layers["mixer"]["out"],
        layers["mlp"]["up"],
        layers["mlp"]["down"],
    ):
        assert np.std(kernel["kernel"]) == pytest.approx(0.02, rel=0.03)
        assert np.std(kernel["kernel"][0] - kernel["kernel"][1]) > 0.02, (
            "layers have values of their own"
        )
        assert not np.any(kernel["bias"])
    assert np.std(p["positions"]["table"]) == pytest.approx(0.02, rel=0.05)
    assert np.std(p["special"]) == pytest.approx(0.02, rel=0.2)
    assert np.std(p["positions"]["special"]) == pytest.approx(0.02, rel=0.2)
    for norm in (layers["norm_mixer"], layers["norm_mlp"], p["final_norm"]):
        assert np.all(norm["scale"] == 1) and not np.any(norm["bias"])
    tokenizer = Patchify(width).init(jax.random.key(0), jnp.zeros((1, 16, 128)))["params"]
    spread(tokenizer["kernel"], 1 / 16)
    spread(tokenizer["bias"], 1 / 16)
    head = PatchPredictor(256).init(jax.random.key(0), jnp.zeros((1, 1, width)))["params"]
    spread(head["first"]["dense"]["kernel"], width**-0.5)
    spread(head["second"]["dense"]["kernel"], width**-0.5)


def test_initial_values_of_ssamba():
    width, inner, rank, depth = 192, 384, 12, 24
    options = patch_encoders.encoder("ssamba", "tiny", (2, 2))
    model = build(options, "backbones")
    full = Tokens(x=jnp.zeros((1, 4, width)), index=jnp.arange(4)[None], grid=(2, 2))
    p = jax.jit(model.init)(jax.random.key(0), full)["params"]["layers"]
    for side in ("mixer_ahead", "mixer_mirrored"):
        mixer = p[side]
        spread(mixer["in_proj"], width**-0.5)
        spread(mixer["out_proj"], (inner * depth) ** -0.5)
        for direction in ("forward", "backward"):
            d = mixer[direction]
            spread(d["conv_kernel"], 0.5)
            spread(d["conv_bias"], 0.5)
            spread(d["x_proj"], inner**-0.5)
            spread(d["dt_proj"], rank**-0.5)
            want = np.broadcast_to(np.log(np.arange(1, 17)), d["a_log"].shape)
            np.testing.assert_allclose(d["a_log"], want, rtol=1e-6)
            assert np.all(d["skip"] == 1)
        step = np.log(np.logaddexp(0, np.asarray(mixer["forward"]["dt_bias"], np.float64)))
        assert step.min() >= np.log(1e-3) - 1e-3 and step.max() <= np.log(0.1) + 1e-3
        assert step.mean() == pytest.approx(np.log(1e-2), abs=0.1), "log-uniform from 0.001 to 0.1"
        assert step.std() == pytest.approx(np.log(100) / 12**0.5, rel=0.05)
        assert not np.any(mixer["backward"]["dt_bias"])


def test_an_odd_depth_has_no_pairs():
    with pytest.raises(ValueError, match="depth 3 is not a multiple of 2"):
        encoder("ssamba", depth=3)
    assert encoder("ssamba_rms", depth=3).depth == 3


def test_pairs_double_the_stream():
    """With silent mixers the stream is the embedding, doubled by every pair: 2^(pairs) x."""
    silent = jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.zeros_like(p) if path[-1].key == "out_proj" else p,
        params("ssamba", depth=4),
    )
    layers = apply("ssamba", depth=4, layers=True)(silent, tokens()).layers
    close(layers[1], 2 * layers[0], atol=1e-5)
    embedded = tokens().x + silent["positions"]["table"][None]
    close(layers[0], 2 * embedded, atol=1e-5)


def test_the_order_of_specials_and_the_grid_positions():
    """A token's place is its index, not where it stands: shuffled tokens give shuffled outputs."""
    order = np.random.default_rng(0).permutation(20)
    full = tokens()
    shuffled = full.replace(x=full.x[:, order], index=full.index[:, order])
    straight, mixed = (apply("ssast")(params("ssast"), t) for t in (full, shuffled))
    close(mixed.tokens.x, straight.tokens.x[:, order], atol=1e-5)
    close(mixed.special, straight.special, atol=1e-5)


class Inside(nn.Module):
    """The bridge wants parameter names that are no attributes of the module."""

    encoder: nn.Module

    @nn.compact
    def __call__(self, tokens):
        return self.encoder.copy(name="inside")(tokens)


@pytest.mark.parametrize("name", ["ssast", "ssamba"])
def test_runs_in_nnx_through_the_bridge(name):
    model = bridge.lazy_init(bridge.ToNNX(Inside(encoder(name)), rngs=nnx.Rngs(0)), tokens())
    own = nnx.to_pure_dict(nnx.state(model, nnx.Param))["inside"]
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, shapes(name))
    close(model(tokens()).tokens.x, apply(name)(own, tokens()).tokens.x, atol=1e-5)


def test_a_template_norm_is_copied_not_shared():
    p = shapes("ssast")["layers"]
    assert {"norm_mixer", "norm_mlp"} <= set(p)
    assert isinstance(encoder("ssast").block.norm, LayerNorm)
