"""Wide-ResNet-28 as SSLH has it for semi-supervised learning (Cances et al. 2022, arXiv:2102.08183)."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    count,
    dense,
    image_conv,
    need,
    plain_names,
    stored_norm,
)
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips
from ssl_audio.objectives import statistics

ROTATION = "fc_rot."
UNUSED = re.compile(r"num_batches_tracked$")


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of SSLH's WideResNet28 or WideResNet28Rot to a tagger.

    Options: sample_rate (44100) and seconds (5), of the clips it is for. width, n_classes, rot_size, layers,
    stem_channels, channels and n_params are held against the arrays. The log-mel is SSLH's: 64 bands, FFT of
    2048, hop 512, dB without normalisation.

    The second head, which tells how a spectrogram was flipped, has no place in a tagger: it is kept.

    `forward(x=[B, 1, F, T])` gives logits, after_stem_pool and after_layer1; with the second head logits_rot;
    of one pass in training mode logits_train_mode, bn1_running_mean_after_train and
    bn1_running_var_after_train.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state = plain_names(state_dict)
    kept = {name: value for name, value in state.items() if UNUSED.search(name)}
    asked = Options(options)
    stem, tags = need(state, "conv1.weight", "fc.weight")
    stages = 1 + max((int(n[5]) for n in state if re.match(r"layer\d\.", n)), default=0)
    depths = tuple(count(state, f"layer{i}.") for i in range(1, stages))
    last = need(state, *(f"layer{i}.0.conv2.weight" for i in range(1, stages)))
    channels = asked.found("channels", tuple(len(w) for w in last), "layer*.0.conv2.weight")
    where = f"conv1.weight {stem.shape}"
    asked.found("stem_channels", len(stem), where)
    asked.found("width", len(stem) // 16, where)
    asked.found("layers", depths, "layer*")
    classes = asked.found("n_classes", len(tags), f"fc.weight {tags.shape}")
    asked.only("fmin", 0.0)
    if (turned := state.get(f"{ROTATION}weight")) is not None:
        asked.found("rot_size", len(turned), f"{ROTATION}weight {turned.shape}")
    learned = sum(v.size for n, v in state.items() if "running" not in n and n not in kept)
    asked.found("n_params", learned, "all arrays that are learned")
    rate, seconds = asked.get("sample_rate", 44_100), asked.get("seconds", 5)
    asked.finish()
    config: dict[str, Any] = dict(
        objective=dict(
            kind="tagging",
            frontend=sslh_mel(rate),
            tokenizer=dict(kind="bins", norm=None),
            encoder=dict(
                kind="residual",
                channels=channels,
                depths=depths,
                kernel=stem.shape[-1],
                stride=1,
                norm=dict(kind="norms:BatchNorm"),
            ),
            head=dict(kind="classify:Classifier", classes=classes, eps=None),
        ),
        data=clips(round(seconds * rate), rate=rate),
    )
    state = {name: value for name, value in state.items() if name not in kept}
    built, params, left = build(
        config, lambda p: to_state_dict(p, config), state, unused=(ROTATION,)
    )

    def outputs(params, x):
        tokens = built.tokenizer.apply({}, jnp.swapaxes(x[:, 0], 1, 2))
        encoder, head = params["encoder"], params["head"]
        encoded = built.encoder.apply({"params": encoder}, tokens, layers=True)
        first = built.encoder.clone(channels=channels[:1], depths=(0,))
        stem = {name: encoder[name] for name in ("stem", "stem_norm")}
        pooled = first.apply({"params": stem}, tokens).tokens
        maps = {"after_stem_pool": pooled.x, "after_layer1": encoded.layers[0]}
        found = {
            name: jnp.swapaxes(value, 1, 2).reshape(len(x), -1, *pooled.grid)
            for name, value in maps.items()
        }
        found["logits"] = built.head.apply({"params": head}, encoded)
        if ROTATION + "weight" in left:
            mean = jnp.mean(encoded.tokens.x, axis=1)
            found["logits_rot"] = mean @ left[f"{ROTATION}weight"].T + left[f"{ROTATION}bias"][None]
        trained, after = statistics.applied(built.encoder, encoder, tokens, renew=True, train=True)
        found["logits_train_mode"] = built.head.apply({"params": head}, trained)
        for name in ("mean", "var"):
            found[f"bn1_running_{name}_after_train"] = after["stem_norm"][name]
        return found

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under SSLH's names."""
    del config
    state = {}
    for name, part in params["encoder"].items():
        if found := re.fullmatch(r"stage(\d+)_block(\d+)", name):
            at = f"layer{int(found[1]) + 1}.{found[2]}"
            for inner, value in part.items():
                if inner.startswith("shortcut"):
                    norm, theirs = inner.endswith("norm"), f"{at}.down_sample"
                    theirs += f".{int(norm)}"
                else:
                    norm, number = inner.startswith("norm"), int(inner[-1]) + 1
                    theirs = f"{at}.{'bn' if norm else 'conv'}{number}"
                state |= stored_norm(theirs, value) if norm else image_conv(theirs, value)
        else:
            norm = name.endswith("norm")
            state |= stored_norm("bn1", part) if norm else image_conv("conv1", part)
    return state | dense("fc", params["head"]["linear"]["dense"])


def sslh_mel(rate: int) -> dict[str, Any]:
    """Return the config of SSLH's log-mel: dB, not normalised.

    Args:
      rate: sampling rate, Hz.
    """
    return dict(
        kind="mel", rate=rate, bins=64, hop=512, window=2048, low=0.0, high=rate / 2, scale="htk", area=False
    )  # fmt: skip
