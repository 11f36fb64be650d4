"""The music taggers of the Python package musicnn (Pons and Serra 2019, arXiv:1909.06654), and its VGGs.

Their checkpoints are TensorFlow's: a folder, or `package:musicnn/MTT_vgg` where the package is installed.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from ssl_audio.backbones.vgg import STRIDES, WINDOWS
from ssl_audio.convert.base import Converted, State, build, need, plain_names
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips

FROZEN = dict(kind="norms:FrozenBatchNorm", eps=1e-3)  # TensorFlow's default
FRAMES = 187  # 3 s
NORM = "batch_normalization"
VGG = "1CNN/kernel"  # a name that only they have
# Of musicnn, in the order of the checkpoint.
CONVOLUTIONS = ("timbral0", "timbral1", "temporal0", "temporal1", "temporal2")
CONVOLUTIONS += ("over_time0", "over_time1", "over_time2")
UNUSED = re.compile(r"/Adam(_1)?$|^beta[12]_power$")  # the optimiser's
# What they heard, under the names of their config's `audio_rep`.
HEARD: Mapping[str, Any] = MappingProxyType(
    dict(resample_sr=16_000, hop=256, n_fft=512, n_mels=96, spectrogram_type="mel")
)
# By the name of the data in their config: the classes, the 50 most frequent tags; and the windows and strides
# of the maxima, as the graph beside each checkpoint has them.
TAGS: Mapping[str, str] = MappingProxyType(
    {
        "mtt": "guitar,classical,slow,techno,strings,drums,electronic,rock,fast,piano,ambient,beat,violin,"
        "vocal,synth,female,indian,opera,male,singing,vocals,no vocals,harpsichord,loud,quiet,flute,woman,"
        "male vocal,no vocal,pop,soft,sitar,solo,man,classic,choir,voice,new age,dance,male voice,"
        "female vocal,beats,harp,cello,no voice,weird,country,metal,female voice,choral",
        "msd": "rock,pop,alternative,indie,electronic,female vocalists,dance,00s,alternative rock,jazz,"
        "beautiful,metal,chillout,male vocalists,classic rock,soul,indie rock,Mellow,electronica,80s,folk,"
        "90s,chill,instrumental,punk,oldies,blues,hard rock,ambient,acoustic,experimental,"
        "female vocalist,guitar,Hip-Hop,70s,party,country,easy listening,sexy,catchy,funk,electro,"
        "heavy metal,Progressive rock,60s,rnb,indie pop,sad,House,happy",
    }
)
APART = ((1, 4), (4, 1), (2, 2), (2, 2), (4, 4))
POOLS: Mapping[str, Any] = MappingProxyType({"mtt": (WINDOWS, STRIDES), "msd": (APART, APART)})


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a tagger, musicnn or VGG; the optimiser's arrays are kept for the way back.

    Options: n_frames (187, 3 s); audio_rep, a table, of which `identifier` ("mtt", the default, or "msd")
    tells the names of the classes and the windows of the maxima, and the other entries must be those that the
    published models have. num_classes_dataset is held against the arrays.

    The package itself runs the weights of "msd" with the windows of "mtt", not those they were trained with.

    The log-mel is that of `pre_processing="logC"`, log10(10000 E + 1), in single precision: the package
    rounds E to half, which is 1e-3 at most, and infinite where 10000 E is above 65504. Ends of clips are
    mirrored, as by librosa before 0.10, with which the models were trained.

    `forward(x=[B, T, F])` takes that log-mel, and gives logits and tags; of a VGG pool1 to pool5
    [B, t, f, D], of musicnn frontend, cnn1, cnn2 and cnn3 [B, T, D].

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state = plain_names(state_dict)
    kept = {name: value for name, value in state.items() if UNUSED.search(name)}
    state = {name: value for name, value in state.items() if name not in kept}
    asked = Options(options)
    vgg = VGG in state
    last = "dense" if vgg else "dense_1"
    (tags,) = need(state, f"{last}/bias")
    classes = asked.found("num_classes_dataset", len(tags), f"{last}/bias {tags.shape}")
    heard = dict(asked.get("audio_rep") or {})
    for name, wanted in HEARD.items():
        if (got := heard.get(name, wanted)) != wanted:
            raise ValueError(
                f"option audio_rep: {name} is {got!r}: only {wanted!r} can be converted."
            )
    data_name = heard.get("identifier", "mtt").partition("_")[0]  # "mtt_float16"
    if data_name not in POOLS:
        raise ValueError(
            f"option audio_rep: identifier is {data_name!r}: wanted {' or '.join(POOLS)}."
        )
    asked.only("pre_processing", "logC")
    frames = asked.get("n_frames", FRAMES)
    asked.finish()
    rate, hop = HEARD["resample_sr"], HEARD["hop"]
    objective = dict(
        kind="tagging",
        # log10(10000 E + 1) = (10 log10(E + 1e-4) + 40) / 10
        frontend=dict(
            kind="mel", rate=rate, bins=HEARD["n_mels"], hop=hop, window=HEARD["n_fft"], low=0.0,
            high=rate / 2, added=1e-4, mean=-40.0, std=10.0, frames=frames,
        ),
        tokenizer=dict(kind="bins", norm=None),
        encoder=_vgg(state, data_name) if vgg else _musicnn(state),
        head=dict(
            kind="classify:Pooled",
            classes=classes,
            pool=dict(kind="pools:Flat") if vgg else _penultimate(state),
        ),
        criterion="sigmoid",
    )  # fmt: skip
    data = clips(-(-frames * hop // 1000) * 1000, rate=rate)
    if "identifier" in heard:
        names = tuple(TAGS[data_name].split(","))
        data["entries"]["label"] = dict(kind="entries:Labels", classes=classes, names=names)
    config: dict[str, Any] = dict(objective=objective, data=data)
    built, params, left = build(config, lambda p: to_state_dict(p, config), state)

    def outputs(params, x):
        tokens = built.tokenizer.apply({}, x)
        encoded: Any = built.encoder.apply({"params": params["encoder"]}, tokens, layers=True)
        names = "frontend cnn1 cnn2 cnn3".split()
        if vgg:
            names = [f"pool{i + 1}" for i in range(len(WINDOWS))]
        found = dict(zip(names, encoded.layers, strict=True))
        maps = {n: x.swapaxes(1, 2) if vgg else x for n, x in found.items()}
        logits = built.head.apply({"params": params["head"]}, encoded)
        return maps | {"logits": logits, "tags": jax.nn.sigmoid(logits)}

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of the checkpoint."""
    del config
    encoder, head = params["encoder"], params["head"]
    state = _norm(NORM, encoder["input_norm"])
    if "pool" not in head:
        for i in range(len(WINDOWS)):
            conv, norm = encoder[f"block{i}_conv"], encoder[f"block{i}_norm"]
            state |= _conv(f"{i + 1}CNN", conv) | _norm(f"{NORM}_{i + 1}", norm)
        return state | _dense("dense", head["linear"])
    for i, name in enumerate(CONVOLUTIONS):
        state |= _conv(f"conv2d_{i}" if i else "conv2d", encoder[name])
        state |= _norm(f"{NORM}_{i + 1}", encoder[f"{name}_norm"])
    pool, count = head["pool"], len(CONVOLUTIONS)
    flat = {name: _alternating(value) for name, value in pool["norm0"].items()}
    dense = pool["dense"] | dict(kernel=_alternating(pool["dense"]["kernel"]))
    state |= _norm(f"{NORM}_{count + 1}", flat) | _norm(f"{NORM}_{count + 2}", pool["norm1"])
    return state | _dense("dense", dense) | _dense("dense_1", head["linear"])


def _vgg(state: State, data_name: str) -> dict[str, Any]:
    """Return the config of the encoder."""
    kernels = need(state, *(f"{n + 1}CNN/kernel" for n in range(len(WINDOWS))))
    windows, strides = POOLS[data_name]
    return dict(
        kind="vgg",
        channels=tuple(kernel.shape[3] for kernel in kernels),
        windows=windows,
        strides=strides,
        norm=FROZEN,
        dropout=0.25,
    )


def _musicnn(state: State) -> dict[str, Any]:
    """Return the config of the encoder, whose numbers of convolutions are those of the package."""
    names = ["conv2d", *(f"conv2d_{i}" for i in range(1, len(CONVOLUTIONS)))]
    shapes = [kernel.shape for kernel in need(state, *(f"{name}/kernel" for name in names))]
    of = {
        kind: [s for n, s in zip(CONVOLUTIONS, shapes, strict=True) if n.startswith(kind)]
        for kind in ("timbral", "temporal", "over_time")
    }
    return dict(
        kind="musicnn",
        timbral=tuple(shape[1] for shape in of["timbral"]),
        temporal=tuple(shape[0] for shape in of["temporal"]),
        timbral_channels=of["timbral"][0][3],
        temporal_channels=of["temporal"][0][3],
        channels=of["over_time"][0][3],
        depth=len(of["over_time"]),
        norm=FROZEN,
    )


def _penultimate(state: State) -> dict[str, Any]:
    """Return the config of what makes a clip's vector."""
    (bias,) = need(state, "dense/bias")
    pool = dict(kind="pools:MeanAndMax")
    return dict(kind="pools:Penultimate", pool=pool, width=len(bias), norm=FROZEN)


def _alternating(value: np.ndarray) -> np.ndarray:
    """Return the features of means, then of maxima, as theirs: a maximum and a mean by turns."""
    mean, most = np.split(value, 2)
    return np.stack([most, mean], axis=1).reshape(value.shape)


def _conv(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return a convolution; theirs has time before frequency, and one over time is of a single band."""
    kernel = params["kernel"]
    kernel = kernel[:, :, None] if kernel.ndim == 3 else kernel.transpose(1, 0, 2, 3)
    return {f"{name}/kernel": kernel, f"{name}/bias": params["bias"]}


def _dense(name: str, params: Any) -> dict[str, np.ndarray]:
    return {f"{name}/kernel": params["kernel"], f"{name}/bias": params["bias"]}


def _norm(name: str, params: Any) -> dict[str, np.ndarray]:
    theirs = dict(scale="gamma", bias="beta", mean="moving_mean", var="moving_variance")
    return {f"{name}/{theirs[ours]}": value for ours, value in params.items()}
