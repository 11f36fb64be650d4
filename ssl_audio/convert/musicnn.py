"""The VGG-like music taggers of the Python package musicnn (Pons and Serra 2019, arXiv:1909.06654).

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

EPS = 1e-3  # TensorFlow's
FRAMES = 187  # 3 s
NORM = "batch_normalization"
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
    """Convert a VGG-like tagger; the optimiser's arrays are kept for the way back.

    Options: n_frames (187, 3 s); audio_rep, a table, of which `identifier` ("mtt", the default, or "msd")
    tells the names of the classes and the windows of the maxima, and the other entries must be those that the
    published models have. num_classes_dataset is held against the arrays.

    The package itself runs the weights of "msd" with the windows of "mtt", not those they were trained with.

    The log-mel is that of `pre_processing="logC"`, log10(10000 E + 1), in single precision: the package
    rounds E to half, which is 1e-3 at most, and infinite where 10000 E is above 65504. Ends of clips are
    mirrored, as by librosa before 0.10, with which the models were trained.

    `forward(x=[B, T, F])` takes that log-mel, and gives logits, tags and pool1 to pool5 [B, t, f, D].

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state = plain_names(state_dict)
    kept = {name: value for name, value in state.items() if UNUSED.search(name)}
    state = {name: value for name, value in state.items() if name not in kept}
    asked = Options(options)
    kernels = need(state, *(f"{n + 1}CNN/kernel" for n in range(len(WINDOWS))))
    (tags,) = need(state, "dense/bias")
    classes = asked.found("num_classes_dataset", len(tags), f"dense/bias {tags.shape}")
    heard = dict(asked.get("audio_rep") or {})
    for name, wanted in HEARD.items():
        if (got := heard.get(name, wanted)) != wanted:
            raise ValueError(
                f"option audio_rep: {name} is {got!r}: only {wanted!r} can be converted."
            )
    data_name = heard.get("identifier", "mtt")
    if data_name not in POOLS:
        raise ValueError(
            f"option audio_rep: identifier is {data_name!r}: wanted {' or '.join(POOLS)}."
        )
    windows, strides = POOLS[data_name]
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
        encoder=dict(
            kind="vgg",
            channels=tuple(kernel.shape[3] for kernel in kernels),
            windows=windows,
            strides=strides,
            norm=dict(kind="norms:FrozenBatchNorm", eps=EPS),
            dropout=0.25,
        ),
        head=dict(kind="classify:Pooled", classes=classes, pool=dict(kind="pools:Flat")),
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
        maps = {f"pool{i + 1}": x.swapaxes(1, 2) for i, x in enumerate(encoded.layers)}
        logits = built.head.apply({"params": params["head"]}, encoded)
        return maps | {"logits": logits, "tags": jax.nn.sigmoid(logits)}

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of the checkpoint."""
    del config
    head = params["head"]["linear"]
    state = {"dense/kernel": head["kernel"], "dense/bias": head["bias"]}
    for name, part in params["encoder"].items():
        block = re.match(r"block(\d+)_", name)
        number = int(block[1]) + 1 if block else 0
        if name.endswith("_norm"):
            state |= _norm(f"{NORM}_{number}" if block else NORM, part)
        else:  # theirs has time before frequency
            state[f"{number}CNN/kernel"] = part["kernel"].transpose(1, 0, 2, 3)
            state[f"{number}CNN/bias"] = part["bias"]
    return state


def _norm(name: str, params: Any) -> dict[str, np.ndarray]:
    theirs = dict(scale="gamma", bias="beta", mean="moving_mean", var="moving_variance")
    return {f"{name}/{theirs[ours]}": value for ours, value in params.items()}
