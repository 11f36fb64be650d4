"""EnCodec (Défossez et al. 2022, arXiv:2210.13438) of transformers or of audiocraft, as in AudioGen."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.convert.base import (
    WEIGHT_NORM,
    Converted,
    State,
    build,
    count,
    need,
    norm,
    plain_names,
    strides,
    weight_norm,
)
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips
from ssl_audio.inference.codec import overlapped
from ssl_audio.layers.seanet import Conv

BOOK = "quantizer.layers.{}.codebook.{}"
LEARNING = re.compile(r"quantizer\.layers\.\d+\.codebook\.(inited|cluster_size|embed_avg)")
# Names of audiocraft → those of transformers.
FROM_AUDIOCRAFT = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.conv\.conv\.|\.convtr\.convtr\.", ".conv."),
    (r"\.conv\.norm\.|\.convtr\.norm\.", ".norm."),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
)
TO_AUDIOCRAFT = (
    (r"^(encoder|decoder)\.layers\.", r"\1.model."),
    (r"^quantizer\.layers\.(\d+)\.codebook\.", r"quantizer.vq.layers.\1._codebook."),
)


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a codec.

    Options, under the names of transformers: sampling_rate (24000), use_causal_conv (true), pad_mode
    ("reflect"), dilation_growth_rate (2), normalize (false), chunk_length_s and overlap (none), and
    target_bandwidths (that of all books), which `forward` goes through. What the arrays tell is held against
    them: hidden_size, codebook_dim, num_filters, kernel_size, last_kernel_size, residual_kernel_size,
    compress, codebook_size, num_quantizers, num_lstm_layers, num_residual_layers, audio_channels, norm_type,
    use_conv_shortcut, upsampling_ratios, hop_length.

    `forward(input_values=[B, C, S], padding_mask=[B, S])` gives what EncodecModel does. For every bandwidth:
    audio_codes_bw…, last_frame_pad_length_bw…, audio_values_bw… and, where chunks are normalised,
    audio_scales_bw…. Without chunks also encoder_layer0, encoder_embeddings, quantized_embeddings (of all
    books) and decoder_of_unquantized.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    given = plain_names(state_dict)
    style, given = (
        ("audiocraft", _renamed(given)) if _is_audiocraft(given) else ("transformers", given)
    )
    kept = {name: value for name, value in given.items() if LEARNING.fullmatch(name)}
    state = {name: value for name, value in given.items() if name not in kept}
    asked, gain = Options(options), weight_norm(state, "encoder.layers.0.conv")
    need(state, "encoder.layers.0.conv.bias")
    (book,) = need(state, BOOK.format(0, "embed"), rank=2)
    normed = "encoder.layers.0.norm.weight" in state
    direction = "weight" if normed else WEIGHT_NORM[gain][1]

    def kernel(place: str) -> np.ndarray:
        return need(state, f"{place}.conv.{direction}", rank=3)[0]

    layers = count(state, "encoder.layers.")
    strided = [i for i in range(1, layers - 1) if f"encoder.layers.{i}.conv.{direction}" in state]
    if not strided:
        need(state, f"encoder.layers.3.conv.{direction}")
    units = strided[0] - 2
    recurrent = {n[-1] for n in state if re.match(r"encoder\.layers\.\d+\.lstm\.bias_ih_l", n)}
    first, last = kernel("encoder.layers.0"), kernel(f"encoder.layers.{layers - 1}")
    unit = kernel("encoder.layers.1.block.1") if units else np.zeros((1, 2, 3))
    ratios = strides(state, *(f"encoder.layers.{i}.conv.{direction}" for i in reversed(strided)))
    books = count(state, "quantizer.layers.")
    for name, value in (
        ("num_filters", first.shape[0]),
        ("audio_channels", first.shape[1]),
        ("kernel_size", first.shape[2]),
        ("last_kernel_size", last.shape[2]),
        ("hidden_size", last.shape[0]),
        ("codebook_size", len(book)),
        ("codebook_dim", book.shape[1]),
        ("residual_kernel_size", unit.shape[2]),
        ("compress", unit.shape[1] // unit.shape[0]),
        ("num_lstm_layers", len(recurrent)),
        ("num_residual_layers", units),
        ("norm_type", "time_group_norm" if normed else "weight_norm"),
        ("use_conv_shortcut", any(".shortcut." in name for name in state)),
        ("num_quantizers", books),
        ("upsampling_ratios", ratios),
        ("hop_length", hop := math.prod(ratios)),
    ):
        asked.found(name, value, f"arrays of shape {first.shape}, {unit.shape}, {last.shape}, …")
    asked.only("trim_right_ratio", 1.0)
    asked.only("model_type", "encodec")
    rate = asked.get("sampling_rate", 24_000)
    seconds, overlap = asked.get("chunk_length_s"), asked.get("overlap")
    chunk = int(seconds * rate) if seconds else 0
    step = max(1, int((1 - overlap) * chunk)) if chunk and overlap is not None else chunk
    bits = math.ceil(math.log2(len(book))) * math.ceil(rate / hop)  # a second of one book
    widths = asked.get("target_bandwidths", (books * bits / 1000,))
    same = dict(
        channels=first.shape[0], kernel=first.shape[2], last_kernel=last.shape[2],
        unit_kernel=unit.shape[2], compress=unit.shape[1] // unit.shape[0], units=units,
        recurrent=len(recurrent), shortcut=any(".shortcut." in name for name in state),
        growth=asked.get("dilation_growth_rate", 2), causal=asked.get("use_causal_conv", True),
        pad=asked.get("pad_mode", "reflect"), norm="group" if normed else "weight",
    )  # fmt: skip
    objective = dict(
        kind="codec",
        frontend=dict(kind="raw", rate=rate, standardise=False),
        tokenizer=dict(kind="seanet", width=last.shape[0], strides=ratios[::-1], **same),
        encoder=dict(kind="identity"),
        quantizer=dict(kind="residual", books=books, codes=len(book), width=book.shape[1]),
        decoder=dict(kind="seanet", sounds=first.shape[1], strides=ratios, **same),
        normalise=asked.get("normalize", False),
        chunk=chunk,
        step=step,
    )
    asked.finish()
    config = dict(
        objective=objective,
        data=clips(chunk or rate, rate=rate),
        reference=dict(names=style, weight_norm=gain),
    )
    blank = {
        "audio": jax.ShapeDtypeStruct((1, chunk or rate, first.shape[1]), np.float32),
        "length": jax.ShapeDtypeStruct((1,), np.int32),
    }
    built, params, left = build(config, lambda p: _written(p, objective, gain), state, blank=blank)

    def outputs(params, input_values, padding_mask=None):
        x = input_values if padding_mask is None else input_values * padding_mask[:, None]
        audio = x.swapaxes(1, 2)
        parts = (
            [audio]
            if not chunk
            else [audio[:, begin : begin + chunk] for begin in range(0, audio.shape[1], step)]
        )
        found = {}
        encoded = [built.codes(params, {}, {"audio": part}) for part in parts]
        most = encoded[0][0].shape[1]
        missing = most - encoded[-1][0].shape[1]
        for width in widths:
            used = min(books, max(1, math.floor(width * 1000 / bits)))
            end = f"_bw{width}".replace(".", "p")
            codes = [codes[..., :used] for codes, _ in encoded]
            found[f"audio_codes{end}"] = jnp.stack(
                [jnp.pad(c, ((0, 0), (0, most - c.shape[1]), (0, 0))).swapaxes(1, 2) for c in codes]
            )
            found[f"last_frame_pad_length{end}"] = jnp.asarray(missing)
            if built.normalise:
                found[f"audio_scales{end}"] = jnp.stack([scale[:, None] for _, scale in encoded])
            heard = [
                built.sound(params, {}, {"codes": c, "scale": scale})
                for c, (_, scale) in zip(codes, encoded, strict=True)
            ]
            found[f"audio_values{end}"] = overlapped(heard, step).swapaxes(1, 2)
        if chunk:
            return found
        heard, _ = built.samples({"audio": audio})
        stem = Conv(
            first.shape[0],
            first.shape[2],
            causal=same["causal"],
            pad=same["pad"],
            norm=same["norm"],
        )
        vectors: Any = built.vectors(params, heard).tokens.x
        (codes, _), quantizer = encoded[0], {"params": params["quantizer"]}
        decoder = {"params": params["decoder"]}
        begun: Any = stem.apply({"params": params["tokenizer"]["first"]}, heard)
        return found | {
            "encoder_layer0": jnp.swapaxes(begun, 1, 2),
            "encoder_embeddings": vectors.swapaxes(1, 2),
            "quantized_embeddings": built.quantizer.apply(
                quantizer, codes, method="vectors"
            ).swapaxes(1, 2),
            "decoder_of_unquantized": built.decoder.apply(decoder, vectors).swapaxes(1, 2),
        }

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters under the names that were read; of transformers, if none were."""
    known = config.get("reference", {})
    style = known.get("names", "transformers")
    state = _written(params, config["objective"], known.get("weight_norm", "new"), style)
    if style == "transformers":
        return state
    for pattern, new in TO_AUDIOCRAFT:
        state = {re.sub(pattern, new, name): value for name, value in state.items()}
    return state


def _is_audiocraft(state: State) -> bool:
    return any(name.startswith("encoder.model.") for name in state)


def _renamed(state: State) -> dict[str, np.ndarray]:
    """Return a state dict of audiocraft under the names of transformers."""
    found = {}
    for name, value in state.items():
        for pattern, new in FROM_AUDIOCRAFT:
            name = re.sub(pattern, new, name)
        found[name] = value
    return found


def _written(
    params: Any, objective: dict[str, Any], gain: str, style: str = "transformers"
) -> dict[str, np.ndarray]:
    """Return the parameters under the names of transformers; inside a layer, those of `style`."""
    state = {BOOK.format(q, "embed"): book for q, book in enumerate(params["quantizer"]["book"])}
    for side, part in (("encoder", "tokenizer"), ("decoder", "decoder")):
        for ours, theirs in _places(side, objective[part]):
            state |= _written_layer(theirs, ours, params[part], gain, style)
    return state


def _places(side: str, options: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the layers of a side: our name, and that of transformers."""
    units, found = options["units"], [("first", f"{side}.layers.0")]
    down, place = side == "encoder", 1
    recurrent = [(f"memory/lstm_{i}", f"lstm_{i}") for i in range(options["recurrent"])]

    def lstm():
        nonlocal place
        found.extend((ours, f"{side}.layers.{place}.{theirs}") for ours, theirs in recurrent)
        place += bool(recurrent)

    if not down:
        lstm()
    for i in range(len(options["strides"])):
        strided = (f"down_{i}", units + 1) if down else (f"up_{i}", 1)
        found.append((strided[0], f"{side}.layers.{place + strided[1]}"))
        for j in range(units):
            unit = f"{side}.layers.{place + j + (0 if down else 2)}"
            found += [
                (f"unit_{i * units + j}/first", f"{unit}.block.1"),
                (f"unit_{i * units + j}/second", f"{unit}.block.3"),
            ]
            if options["shortcut"]:
                found.append((f"unit_{i * units + j}/shortcut", f"{unit}.shortcut"))
        place += units + 2
    if down:
        lstm()
    return [*found, ("last", f"{side}.layers.{place + 1}")]


def _written_layer(
    name: str, ours: str, params: Any, gain: str, style: str
) -> dict[str, np.ndarray]:
    """Return the layer at `ours` under its name, "….lstm_0" for the first recurrent one."""
    for part in ours.split("/"):
        params = params[part]
    if ".lstm_" in name:
        stem, number = name.split(".lstm_")
        state = {
            "weight_ih": params["input"]["kernel"].T,
            "weight_hh": params["kernel"].T,
            "bias_ih": params["input"]["bias"],
            "bias_hh": params["bias"],
        }
        return {f"{stem}.lstm.{key}_l{number}": value for key, value in state.items()}
    up = ours.startswith("up_")
    kernel = params["kernel"].transpose((1, 2, 0) if up else (2, 1, 0))
    inner = "convtr" if up else "conv"
    conv, after = f"{name}.conv", f"{name}.norm"
    if style == "audiocraft":
        conv, after = f"{name}.{inner}.{inner}", f"{name}.{inner}.norm"
    state = {f"{conv}.bias": params["bias"]}
    if "gain" not in params:
        return state | {f"{conv}.weight": kernel} | norm(after, params["norm"])
    length, direction = WEIGHT_NORM[gain]
    return state | {
        f"{conv}.{length}": params["gain"][:, None, None],
        f"{conv}.{direction}": kernel,
    }
