"""ResUNet30 with a condition, of universal source separation (arXiv:2305.07447) and AudioSep."""

import re
from typing import Any

import jax
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

PREFIXES = ("ss_model.", "")  # of a Lightning checkpoint, alone
# In checkpoints, but nothing that comes out depends on them.
IDLE = re.compile(
    r"base\.decoder_block\d+\.bn2\.|film\.decoder_block\d+->beta2\.|base\.i?stft\.|.*num_batches_tracked$"
)


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the separator; the query and event nets beside it are kept for the way back.

    Options: n_fft (twice the frequencies), hop (320), sample_rate (32000). Held against the arrays: channels,
    condition_size, audio_channels, kernel. `forward(mixture=[B, C, S], condition=[B, D])` gives waveform,
    waveform_zero_condition, mag, after_bn0, encoder_block1_pool and two biases of the condition.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    given, asked = plain_names(state_dict), Options(options)
    prefix = next(p for p in PREFIXES if f"{p}base.bn0.weight" in given or not p)
    state = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    kept = {n: v for n, v in given.items() if not n.startswith(prefix)}
    kept |= {f"{prefix}{n}": state.pop(n) for n in list(state) if IDLE.match(n)}
    bins, before, condition = need(
        state,
        "base.bn0.weight",
        "base.pre_conv.weight",
        "film.encoder_block1->conv_block1->beta1.weight",
    )
    depth = count(state, "base.encoder_block") - 1
    downs = need(
        state, *(f"base.encoder_block{i + 1}.conv_block1.conv1.weight" for i in range(depth))
    )
    channels, where = tuple(len(w) for w in downs), f"pre_conv {before.shape}"
    kernel = asked.found("kernel", downs[0].shape[2:], f"encoder_block1 {downs[0].shape}")
    asked.found("channels", channels, "encoder_block*")
    asked.found("condition_size", condition.shape[1], f"film {condition.shape}")
    sounds = asked.found("audio_channels", before.shape[1], where)
    size = asked.found("n_fft", 2 * (len(bins) - 1), f"bn0 {bins.shape}")
    slope, rate = asked.get("leaky_relu_slope", 0.01), asked.get("sample_rate", 32_000)
    asked.only("time_downsample_ratio", 2 ** (depth - 1))
    objective = dict(
        kind="separation",
        spectrum=dict(kind="spectrum", rate=rate, size=size, hop=asked.get("hop", 320)),
        model=dict(
            kind="resunet",
            maps=3 * sounds,
            channels=channels,
            kernel=kernel,
            norm=dict(kind="norms:BatchNorm", momentum=0.01),
            slope=slope,
        ),
    )
    asked.get("note")
    asked.finish()
    config = dict(objective=objective, reference=dict(prefix=prefix))
    blank = {
        "audio": jax.ShapeDtypeStruct((1, 2 * size, sounds), np.float32),
        "condition": jax.ShapeDtypeStruct((1, condition.shape[1]), np.float32),
    }
    built, params, left = build(config, lambda p: _written(p, depth), state, blank=blank)

    def outputs(params, mixture, condition):
        audio, weights = mixture.swapaxes(1, 2), {"params": params["model"]}
        audio = audio[..., 0] if sounds == 1 else audio
        magnitude, _, _ = built.heard(audio)
        found: dict[str, Any] = {}
        for name, asked_for in (("", condition), ("_zero_condition", jnp.zeros_like(condition))):
            batch = {"audio": audio, "condition": asked_for}
            sound = built.separate(params, {}, batch)
            sound = sound[..., None] if sounds == 1 else sound
            found[f"waveform{name}"] = sound.swapaxes(1, 2)
        maps = {
            "mag": magnitude,
            "after_bn0": built.model.apply(weights, magnitude, True, method="normalised"),
            "encoder_block1_pool": built.model.apply(weights, magnitude, condition, method="first"),
        }
        found |= {name: jnp.moveaxis(value, 3, 1) for name, value in maps.items()}
        model = params["model"]
        for name, film in (
            ("encoder_block1_beta1", model["down_0"]["film_0"]),
            (
                f"decoder_block{depth}_conv_block2_beta2",
                model[f"up_{depth - 1}"]["block"]["film_1"],
            ),
        ):
            bias = condition @ film["kernel"] + film["bias"][None]
            found[f"film_{name}"] = bias[:, :, None, None]
        return found

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters under their names."""
    prefix = config.get("reference", {}).get("prefix", "")
    depth = len(config["objective"]["model"]["channels"])
    return {f"{prefix}{name}": value for name, value in _written(params, depth).items()}


def _written(params: Any, depth: int) -> dict[str, np.ndarray]:
    model = params["model"]
    state = stored_norm("base.bn0", model["bins_norm"])
    state |= image_conv("base.pre_conv", model["before"]) | image_conv(
        "base.after_conv", model["after"]
    )
    for i in range(depth):
        state |= _block(f"encoder_block{i + 1}", "conv_block1", model[f"down_{i}"])
        name, up = f"decoder_block{i + 1}", model[f"up_{i}"]
        state |= stored_norm(f"base.{name}.bn1", up["norm_0"])
        state |= dense(f"film.{name}->beta1", up["film_0"])
        # Of a transposed convolution, whose first axis is the input's.
        state[f"base.{name}.conv1.weight"] = up["kernel"].transpose(2, 3, 0, 1)
        state |= _block(name, "conv_block2", up["block"])
    return state | _block(f"conv_block{depth + 1}a", "conv_block1", model["middle"])


def _block(name: str, part: str, params: Any) -> dict[str, np.ndarray]:
    state = {}
    for i in (0, 1):
        state |= stored_norm(f"base.{name}.{part}.bn{i + 1}", params[f"norm_{i}"])
        state |= image_conv(f"base.{name}.{part}.conv{i + 1}", params[f"conv_{i}"])
        state |= dense(f"film.{name}->{part}->beta{i + 1}", params[f"film_{i}"])
    if "shortcut" in params:
        state |= image_conv(f"base.{name}.{part}.shortcut", params["shortcut"])
    return state
