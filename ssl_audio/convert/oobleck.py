"""Oobleck, the autoencoder of Stable Audio (Evans et al. 2024, arXiv:2402.04825), of stable-audio-tools."""

import math
from typing import Any

import jax
import numpy as np

from ssl_audio.convert.base import (
    WEIGHT_NORM,
    Converted,
    State,
    build,
    count,
    need,
    plain_names,
    strides,
)
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips
from ssl_audio.layers.oobleck import DILATIONS
from ssl_audio.objectives.autoencoder import divergence, posterior

PREFIXES = ("pretransform.model.", "autoencoder.", "")  # inside a model of sound, alone
KERNEL = WEIGHT_NORM["old"][1]


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the encoder and the decoder.

    Options: sample_rate (44100). Held against the arrays: io, channels, latent, c_mults, strides.

    `forward(audio=[B, C, S], noise=[B, D, N])` gives encoder_out, mean, std, latent (with the noise), kl,
    decoded and decoded_from_mean; without noise latent is the mean.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    given, asked = plain_names(state_dict), Options(options)
    prefix = next(p for p in PREFIXES if f"{p}encoder.layers.0.{KERNEL}" in given or not p)
    state = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    kept = {n: v for n, v in given.items() if not n.startswith(prefix)}
    depth = count(state, "encoder.layers.") - 3
    names = [_strided(i, KERNEL) for i in range(depth + 1)]
    first, *downs, last = need(state, *names, f"encoder.layers.{depth + 2}.{KERNEL}", rank=3)
    channels, where = len(first), f"encoder.layers.0 {first.shape}"
    ratios = strides(state, *names[1:])
    multiples = tuple(len(down) // channels for down in downs)
    for name, value in (
        ("io", sounds := first.shape[1]),
        ("channels", channels),
        ("latent", len(last) // 2),
        ("c_mults", multiples),
        ("strides", ratios),
    ):
        asked.found(name, value, where)
    rate = asked.get("sample_rate", 44_100)
    asked.finish()
    objective = dict(
        kind="autoencoder",
        frontend=dict(kind="raw", rate=rate, standardise=False),
        tokenizer=dict(
            kind="oobleck", width=len(last), channels=channels, multiples=multiples, strides=ratios
        ),
        encoder=dict(kind="identity"),
        decoder=dict(
            kind="oobleck",
            sounds=sounds,
            channels=channels,
            multiples=(*multiples[::-1], 1),
            strides=ratios[::-1],
        ),
    )
    samples = math.prod(ratios) * max(1, round(rate / math.prod(ratios)))
    config = dict(
        objective=objective, data=clips(samples, rate=rate), reference=dict(prefix=prefix)
    )
    blank = {
        "audio": jax.ShapeDtypeStruct((1, samples, sounds), np.float32),
        "length": jax.ShapeDtypeStruct((1,), np.int32),
    }
    built, params, left = build(config, lambda p: written(p, depth), state, blank=blank)

    def outputs(params, audio, noise=None):
        x = built.encoded(params, {"audio": audio.swapaxes(1, 2)}).tokens.x
        mean, deviation = posterior(x)
        latent = mean if noise is None else mean + deviation * noise.swapaxes(1, 2)
        found = {
            "encoder_out": x,
            "mean": mean,
            "std": deviation,
            "latent": latent,
            "decoded": built.decoded(params, latent),
            "decoded_from_mean": built.decoded(params, mean),
        }
        found = {name: value.swapaxes(1, 2) for name, value in found.items()}
        return found | {"kl": divergence(mean, deviation)}

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters under the names of stable-audio-tools."""
    depth = len(config["objective"]["tokenizer"]["strides"])
    prefix = config.get("reference", {}).get("prefix", "")
    return {f"{prefix}{name}": value for name, value in written(params, depth).items()}


def _strided(number: int, end: str) -> str:
    """Return the name of the first convolution (0) of the encoder, or of the one of a stride."""
    return f"encoder.layers.{number}.{'layers.4.' if number else ''}{end}"


def written(params: Any, depth: int, gain: str = "old") -> dict[str, np.ndarray]:
    """Return encoder and decoder as the layers of stable-audio-tools, nested lists of `layers`.

    Args:
      params: of an objective with an `oobleck` tokenizer and decoder.
      depth: strides.
      gain: how weight normalisation is written, a key of WEIGHT_NORM.
    """
    state = {}
    for side, tree in (("encoder", params["tokenizer"]), ("decoder", params["decoder"])):
        at, down = f"{side}.layers.", side == "encoder"
        state |= convolution(f"{at}0", tree["first"], gain)
        for i in range(depth):
            block = f"{at}{i + 1}.layers."
            state |= _units(f"{block}{{}}.layers.", tree[f"units_{i}"], 0 if down else 2, gain)
            state |= _snake(f"{block}{3 if down else 0}", tree[f"snake_{i}"])
            strided = tree[f"{'down' if down else 'up'}_{i}"]["conv"]
            state |= convolution(f"{block}{4 if down else 1}", strided, gain, up=not down)
        state |= _snake(f"{at}{depth + 1}", tree["snake"])
        state |= convolution(f"{at}{depth + 2}", tree["last"], gain)
    return state


def convolution(name: str, params: Any, gain: str, up: bool = False) -> dict[str, np.ndarray]:
    """Return a convolution over time under a Conv1d's names, or (`up`) a ConvTranspose1d's.

    Its weights are normalised, written as `gain` of WEIGHT_NORM has it, or plain.
    """
    kernel = params["kernel"].transpose((1, 2, 0) if up else (2, 1, 0))
    bias = {f"{name}.bias": params["bias"]} if "bias" in params else {}
    if "gain" not in params:
        return {f"{name}.weight": kernel} | bias
    length, direction = WEIGHT_NORM[gain]
    lengths = {f"{name}.{length}": params["gain"][:, None, None]}
    return lengths | {f"{name}.{direction}": kernel} | bias


def _units(name: str, params: Any, first: int, gain: str) -> dict[str, np.ndarray]:
    state = {}
    for i in range(len(DILATIONS)):
        at = name.format(first + i)
        for j in (0, 1):
            state |= _snake(f"{at}{2 * j}", params[f"snake_{i}_{j}"])
            state |= convolution(f"{at}{2 * j + 1}", params[f"conv_{i}_{j}"], gain)
    return state


def _snake(name: str, params: Any) -> dict[str, np.ndarray]:
    return {f"{name}.{end}": value for end, value in params.items()}
