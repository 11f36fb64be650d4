"""DAC (Kumar et al. 2023, arXiv:2306.06546) of transformers or of the package descript-audio-codec."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config as configs
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
from ssl_audio.convert.oobleck import convolution, written
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips

FIRST = {"transformers": "encoder.conv1", "descript": "encoder.block.0"}
BOOKS = "quantizer.quantizers."
LAYER: Any = re.compile(r"((?:en|de)coder(?:\.layers\.\d+)+)\.(.+)")  # of the names of `oobleck`
PARTS = ("snake1", "conv1", "snake2", "conv2")  # of a residual unit of transformers
# Options of descript-audio-codec → those of transformers.
THEIRS = {
    "encoder_dim": "encoder_hidden_size", "encoder_rates": "downsampling_ratios",
    "latent_dim": "hidden_size", "decoder_dim": "decoder_hidden_size",
    "decoder_rates": "upsampling_ratios", "sample_rate": "sampling_rate",
}  # fmt: skip


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a codec.

    Options, under the names of transformers or of descript-audio-codec: sampling_rate, which arrays cannot
    tell and which must be given (published: 16000, 24000, 44100), quantizer_dropout (0), the weights
    commitment_loss_weight (0.25) and codebook_loss_weight (1). What the arrays tell is held against them:
    encoder_hidden_size, downsampling_ratios, hidden_size, decoder_hidden_size, upsampling_ratios,
    n_codebooks, codebook_size, codebook_dim, hop_length.

    `forward(input_values=[B, 1, S])` gives what DacModel does of sound that its feature extractor has padded
    to a multiple of hop_length: audio_codes, quantized_representation, projected_latents, and audio_values,
    which are a few samples shorter than that if strides are odd.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state = plain_names(state_dict)
    asked = Options({THEIRS.get(name, name): value for name, value in options.items()})
    style = next((s for s, first in FIRST.items() if f"{first}.bias" in state), "transformers")
    gain = _normalised(state, FIRST[style])
    end = "weight" if gain is None else WEIGHT_NORM[gain][1]
    depth = count(state, "encoder.block.") - (0 if style == "transformers" else 3)

    def names(side: str, *ours: str) -> list[str]:
        return [f"{_name(f'{side}.layers.{n}', style, depth)}.{end}" for n in ours]

    into = names("encoder", *(f"{i + 1}.layers.4" for i in range(depth)))
    out = names("decoder", *(f"{i + 1}.layers.1" for i in range(depth)))
    stem, last, *downs = need(state, *names("encoder", "0", f"{depth + 2}"), *into, rank=3)
    begin, *ups = need(state, *names("decoder", "0"), *out, rank=3)
    books = count(state, BOOKS)
    entries = need(state, *(f"{BOOKS}{q}.codebook.weight" for q in range(books)), rank=2)
    if len({book.shape for book in entries}) > 1:
        shapes = ", ".join(str(book.shape) for book in entries)
        raise ValueError(f"codebooks of {shapes}: only books of one shape can be converted.")
    channels, down_strides, up_strides = len(stem), strides(state, *into), strides(state, *out)
    multiples = tuple(len(down) // channels for down in downs)
    narrowest = ups[-1].shape[1]
    for name, value in (
        ("encoder_hidden_size", channels),
        ("downsampling_ratios", down_strides),
        ("hidden_size", len(last)),
        ("decoder_hidden_size", len(begin)),
        ("upsampling_ratios", up_strides),
        ("n_codebooks", books),
        ("codebook_size", len(entries[0])),
        ("codebook_dim", entries[0].shape[1]),
        ("hop_length", hop := math.prod(down_strides)),
    ):
        asked.found(name, value, f"arrays of shape {stem.shape}, {entries[0].shape}, …")
    asked.only("model_type", "dac")
    asked.only("feature_size", 1)
    asked.only("padding_value", 0.0, 0)
    rate = asked.get("sampling_rate")
    if not isinstance(rate, int) or rate < 1:
        raise ValueError(
            f"option sampling_rate={rate}: the state dict does not tell it, wanted the sampling rate in Hz: "
            "give the option sampling_rate (published models: 16000, 24000, 44100)."
        )
    no_drop = asked.get("quantizer_dropout") is False  # the original's default
    same = dict(activation=dict(kind="oobleck:Snake"), norm="none" if gain is None else "weight")
    objective = dict(
        kind="codec",
        frontend=dict(kind="raw", rate=rate, standardise=False),
        tokenizer=dict(
            kind="oobleck", width=len(last), channels=channels, multiples=multiples,
            strides=down_strides, filled=True, **same,
        ),
        encoder=dict(kind="identity"),
        quantizer=dict(
            kind="factorised", books=books, codes=len(entries[0]), width=len(last),
            inner=entries[0].shape[1], norm=same["norm"],
            drop=0.0 if no_drop else asked.number("quantizer_dropout", 0.0),
            commitment=asked.number("commitment_loss_weight", 0.25),
            codebook=asked.number("codebook_loss_weight", 1.0),
        ),
        decoder=dict(
            kind="oobleck", sounds=1, channels=narrowest,
            multiples=(len(begin) // narrowest, *(up.shape[1] // narrowest for up in ups)),
            strides=up_strides, bias=True, tanh=True, **same,
        ),
    )  # fmt: skip
    asked.finish()
    samples = hop * max(1, round(rate / hop))
    reference = dict(names=style, weight_norm=gain)
    config = dict(objective=objective, data=clips(samples, rate=rate), reference=reference)
    blank = {
        "audio": jax.ShapeDtypeStruct((1, samples), np.float32),
        "length": jax.ShapeDtypeStruct((1,), np.int32),
    }
    built, params, left = build(config, lambda p: _written(p, style, gain), state, blank=blank)

    def outputs(params, input_values):
        audio = input_values.swapaxes(1, 2)
        vectors: Any = built.vectors(params, built.samples({"audio": audio})[0]).tokens.x
        weights = {"params": params["quantizer"]}
        stages: Any = built.quantizer.apply(weights, vectors, method="stages")
        codes, projected, *_ = zip(*stages, strict=True)
        quantised: Any = built.quantizer.apply(weights, jnp.stack(codes, -1), method="vectors")
        sound: Any = built.decoder.apply({"params": params["decoder"]}, quantised)
        return {
            "audio_codes": jnp.stack(codes, 1),
            "quantized_representation": quantised.swapaxes(1, 2),
            "projected_latents": jnp.concatenate(projected, -1).swapaxes(1, 2),
            "audio_values": sound[..., 0],
        }

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters under the names that were read.

    If none were, those of transformers, whose DacModel knows plain weights only.
    """
    return with_idle(params if "reference" in config else _plain(params), config)


def with_idle(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return all parameters: weights and their lengths apart."""
    known = config.get("reference", {})
    return _written(params, known.get("names", "transformers"), known.get("weight_norm"))


def reference_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of DacModel, or of descript-audio-codec if the names are its.

    Raises:
      ValueError: one that DacModel computes otherwise.
    """
    built: Any = configs.build(config["objective"], "objectives")
    encoder, quantizer, decoder = built.tokenizer, built.quantizer, built.decoder
    found = dict(
        encoder_hidden_size=encoder.channels,
        downsampling_ratios=list(encoder.strides),
        decoder_hidden_size=decoder.channels * decoder.multiples[0],
        n_codebooks=quantizer.books,
        codebook_size=quantizer.codes,
        codebook_dim=quantizer.inner,
        quantizer_dropout=quantizer.drop,
        sampling_rate=built.frontend.rate,
    )
    if config.get("reference", {}).get("names") == "descript":
        theirs = {ours: name for name, ours in THEIRS.items()}
        more = dict(latent_dim=encoder.width, decoder_rates=list(decoder.strides))
        return {theirs.get(name, name): value for name, value in found.items()} | more
    doubled = tuple(2 ** (i + 1) for i in range(len(encoder.strides)))
    wanted = {
        "tokenizer.multiples": (encoder.multiples, doubled),
        "tokenizer.width": (encoder.width, encoder.channels * doubled[-1]),
        "decoder.multiples": (decoder.multiples, (*doubled[::-1], 1)),
        "decoder.strides": (decoder.strides, encoder.strides[::-1]),
    }
    if differ := [f"{n} is {got}, wanted {w}" for n, (got, w) in wanted.items() if got != w]:
        raise ValueError(f"objective: DacModel has no such codec: {'; '.join(differ)}.")
    return found | dict(
        model_type="dac",
        architectures=["DacModel"],
        commitment_loss_weight=built.commitment * quantizer.commitment,
        codebook_loss_weight=built.commitment * quantizer.codebook,
    )


def _normalised(state: State, first: str) -> str | None:
    """Return how a state dict writes normalised weights, a key of WEIGHT_NORM; None: they are plain."""
    return next((k for k, (_, v) in WEIGHT_NORM.items() if f"{first}.{v}" in state), None)


def _plain(params: Any, name: str = "") -> Any:
    """Return parameters with the lengths of normalised weights multiplied in."""
    if not isinstance(params, dict):
        return params
    if "gain" not in params:
        return {inner: _plain(value, f"{name}/{inner}") for inner, value in params.items()}
    axes = (0, 2) if "/up_" in name else (0, 1)
    kernel = params["kernel"]
    length = np.sqrt(np.sum(kernel**2, axes, keepdims=True))
    kernel = kernel * (np.expand_dims(params["gain"], axes) / length)
    return {n: kernel if n == "kernel" else v for n, v in params.items() if n != "gain"}


def _written(params: Any, style: str, gain: str | None) -> dict[str, np.ndarray]:
    """Return the parameters under the names of a style."""
    depth = sum(name.startswith("down_") for name in params["tokenizer"])
    state = {}
    for name, value in written(params, depth, gain or "new").items():
        place, end = LAYER.fullmatch(name).groups()
        value = value[None, :, None] if end == "alpha" else value
        state[f"{_name(place, style, depth)}.{end}"] = value
    quantizer = params["quantizer"]
    for q, book in enumerate(quantizer["book"]):
        state[f"{BOOKS}{q}.codebook.weight"] = book
        for ours, theirs in (("into", "in_proj"), ("out", "out_proj")):
            name = f"{BOOKS}{q}.{theirs}"
            state |= convolution(name, quantizer[f"{ours}_{q}"], gain or "new")
    return state


def _name(place: str, style: str, depth: int) -> str:
    """Return what a layer is called, whose place in stable-audio-tools is "encoder.layers.1.layers.4"."""
    side, number, *inner = place.split(".layers.")
    down = side == "encoder"
    if style == "descript":
        return f"{side}.{'block' if down else 'model'}.{'.block.'.join([number, *inner])}"
    if not inner:
        ends = {0: "conv1", depth + 1: "snake1", depth + 2: "conv2"}
        return f"{side}.{ends[int(number)]}"
    block, first, *part = f"{side}.block.{int(number) - 1}", *map(int, inner)
    if part:
        return f"{block}.res_unit{first + (1 if down else -1)}.{PARTS[part[0]]}"
    return f"{block}.{({3: 'snake1', 4: 'conv1'} if down else {0: 'snake1', 1: 'conv_t1'})[first]}"
