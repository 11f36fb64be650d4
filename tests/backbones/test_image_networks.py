"""Networks on log-mels as images: sizes as published, columns, statistics, and layers of different sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.backbones.audio_ntt import AudioNtt
from ssl_audio.backbones.cnn import VGG_LIKE, Cnn
from ssl_audio.backbones.crnn import Crnn
from ssl_audio.backbones.densenet import Densenet
from ssl_audio.backbones.residual import RESNET18, WRN28, Residual
from ssl_audio.config import build
from ssl_audio.inference.encoder import Encoder
from ssl_audio.objectives import statistics
from ssl_audio.tokens.bins import Bins

VGG = Cnn(**{k: v for k, v in VGG_LIKE.items() if k != "norm"})
FROM_NORMS = 2 * 2 * (32 + 64 + 128)  # scales and biases: a Cnn's default norm has them too


def shapes(network, bins=96, frames=96):
    """Return what a network gives for one clip, and its parameters, as shapes."""

    def made(key):
        tokens = Bins(norm=None).apply({}, jnp.zeros((1, frames, bins)))
        return network.init_with_output(key, tokens, layers=True)

    out, variables = jax.eval_shape(made, jax.random.key(0))
    return out, variables["params"]


def learned(params):
    return sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key not in ("mean", "var")
    )


# Published or of the released code, less a head of 10 classes, or for torchvision's three-channel stem
# 11,689,512 and 7,978,856 less 1000 classes and two thirds of the stem. The last two: counted by hand.
@pytest.mark.parametrize(
    "network, width, wanted",
    [
        (Residual(**WRN28), 64, 369_402 - 650),
        (Residual(**WRN28, times=2), 128, 1_471_978 - 1_290),
        (Residual(**WRN28, times=4), 256, 5_876_682 - 2_570),
        (Residual(**RESNET18), 512, 11_689_512 - 513_000 - 2 * 64 * 49),
        (Densenet(), 1024, 7_978_856 - 1_025_000 - 2 * 64 * 49),
        (AudioNtt(), 2048, 5_321_856 + 2048 * 256),
        (VGG, 128, 9 * (32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + FROM_NORMS),
        (Crnn(), 128, 25 * (128 + 2 * 128**2) + 6 * 128 + 2 * 3 * 64 * (256 + 64 + 2)),
    ],
    ids=["wrn28-1", "wrn28-2", "wrn28-4", "resnet18", "densenet121", "audio_ntt", "vgg", "crnn"],
)
def test_sizes_are_the_published_ones(network, width, wanted):
    out, params = shapes(network)
    assert out.tokens.x.shape[-1] == width
    assert getattr(network, "width", width) == width
    assert learned(params) == wanted
    columns = 96 // getattr(network, "joined", 1)
    assert out.tokens.grid[1] == columns and out.tokens.x.shape[1] == out.tokens.index.shape[1]


def test_layers_differ_in_size():
    taps = shapes(AudioNtt(width=8), bins=64, frames=40)[0].layers
    assert [tap.shape for tap in taps] == [(1, 20, 2048), (1, 10, 1024), (1, 5, 512)]
    stages = shapes(Residual(**WRN28), bins=16, frames=32)[0].layers
    assert [stage.shape for stage in stages] == [(1, 128, 16), (1, 32, 32), (1, 8, 64)]


@pytest.mark.parametrize(
    "network",
    [
        Residual((4, 6), (1, 1), kernel=7, stride=2),
        Densenet((1, 2), growth=4, stem=6, bottleneck=2),
        AudioNtt(8, 4, dropout=0.0),
        Crnn((4, 4), (2, 2), kernel=3, hidden=3),
    ],
    ids=["residual", "densenet", "audio_ntt", "crnn"],
)
def test_training_renews_statistics_and_every_parameter_has_a_gradient(network):
    spec = jnp.asarray(np.random.default_rng(0).standard_normal((3, 32, 16)), jnp.float32)
    tokens = Bins(norm=None).apply({}, spec)
    params = network.init(jax.random.key(0), tokens)["params"]

    def loss(params):
        out, after = statistics.applied(
            network, params, tokens, renew=True, train=True, rngs={"drop_path": jax.random.key(1)}
        )
        x = out.tokens.x
        weights = jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
        return jnp.sum(x * weights), statistics.renewed(params, after)

    found, new = jax.jit(jax.grad(loss, has_aux=True))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        stored = path[-1].key in ("mean", "var")
        assert stored != bool(jnp.any(leaf != 0)), path
    norms = sum(path[-1].key == "mean" for path, _ in jax.tree_util.tree_leaves_with_path(params))
    assert norms > 0 and len(jax.tree.leaves(new)) == 2 * norms


def test_wrong_fields_are_refused():
    for make, message in (
        (lambda: Residual((4,), (1, 1)), "one of each for every stage"),
        (lambda: Residual(times=0), "times 0: wanted at least 1"),
        (lambda: Densenet(()), "one layer or more"),
        (lambda: Crnn((4,), (2, 2)), "one of each for every convolution"),
        (lambda: Cnn(pool="median"), "pool 'median': wanted one of mean, max"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_a_trained_tagger_without_parameters_in_its_tokenizer_embeds_and_classifies():
    options = dict(
        kind="tagging",
        frontend=dict(kind="mel", rate=8000, bins=16, hop=80, window=160, low=0.0, high=4e3),
        tokenizer=dict(kind="bins", norm=None),
        encoder=dict(
            kind="residual", channels=(4, 6), depths=(1, 1), norm=dict(kind="norms:BatchNorm")
        ),
        head=dict(kind="classify:Pooled", classes=3, pool=dict(kind="pools:MeanAndMax")),
    )
    objective = build(options, "objectives")
    audio = dict(kind="entries:Audio", samples=8000)
    config = dict(objective=options, data=dict(entries=dict(audio=audio), rate=8000))
    blank = Encoder(objective, {}, config).blank()
    params, _ = jax.jit(objective.init)(jax.random.key(0), blank)
    kept = {name: tree for name, tree in params.items() if tree}  # what a checkpoint gives back
    assert kept.keys() == {"encoder", "head"}
    encoder = Encoder(objective, jax.tree.map(np.asarray, kept), config)
    sound = np.sin(np.arange(6000) / 5.0)
    assert encoder.num_layers == 0 and encoder.embed(sound, 8000).shape == (6,)
    assert jax.eval_shape(objective.logits, kept, {}, blank).shape == (1, 3)
    with pytest.raises(ValueError, match="layer: got 0; wanted -1 for the final one"):
        encoder.embed(sound, 8000, layer=0)
