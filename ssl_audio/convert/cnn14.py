"""Cnn14 of PANNs (Kong et al. 2020, arXiv:1912.10211): the tagger, and Cnn14_DecisionLevelMax.

`cnn14_parts` and `cnn14_state` also serve the audio tower of other families.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.backbones.cnn import halved
from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    clips,
    dense,
    need,
    plain_names,
    stored_norm,
)
from ssl_audio.convert.options import Options
from ssl_audio.frontend.mel import SCALES, mel_bands

TAGGER, SEGMENTS = "Cnn14", "Cnn14_DecisionLevelMax"
BLOCKS = 6
MEL = "logmel_extractor.melW"
# Counters, and the front end of the files, which is `frontend/mel.py`.
UNUSED = re.compile(r"num_batches_tracked$|(^|\.)(spectrogram_extractor|logmel_extractor)\.")
DECIBELS = re.compile(r"10\*log10\(max\(\.,\s*([0-9.e+-]+)\)\)")


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of PANNs' Cnn14 to a tagger, or to an audio tower.

    Options: kind ("Cnn14", or "Cnn14_DecisionLevelMax", whose arrays are the same); sample_rate
    (32000), hop_size (320), fmin (50), fmax (14000; None: half the rate); window_size (1024) where no
    mel bank is stored. classes_num, mel_bins, channels, embedding are held against the arrays, and all of
    them against the mel bank. tagger (true); false: a tower without the tags, to begin a model of audio
    and text with; its `embed` is PANNs' embedding.

    `forward(waveform=[B, S])` gives clipwise_output, of kind "Cnn14" embedding and of the other
    framewise_output [B, T, C]; spectrogram_power, logmel_db and after_conv_block1. `load(…).embed` averages
    the last feature map of a tagger, as of any encoder.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`; the mel bank is not that of the options; a
        tower of another kind than "Cnn14".
    """
    state = plain_names(state_dict)
    kept = {name: value for name, value in state.items() if UNUSED.search(name)}
    if options.get("fmax", 0) is None:
        options["fmax"] = options.get("sample_rate", 32_000) / 2
    asked = Options(options)
    asked.only("kind", TAGGER, SEGMENTS)
    asked.only("top_db", None)
    parts, width = cnn14_parts(state, asked, "")
    (tags,) = need(state, "fc_audioset.weight")
    classes = asked.found("classes_num", len(tags), f"fc_audioset.weight {tags.shape}")
    pool = dict(kind="pools:MaxMean", width=width)
    heads: dict[str, dict[str, Any]] = {
        TAGGER: dict(kind="classify:Pooled", pool=pool),
        SEGMENTS: dict(kind="classify:Segments", width=width),
    }
    kind, tagger = asked.get("kind", TAGGER), asked.get("tagger", True)
    asked.finish()
    rate = parts["frontend"]["rate"]
    data = clips(10 * rate, rate=rate)
    state = {name: value for name, value in state.items() if name not in kept}
    if not tagger:
        if kind != TAGGER:
            raise ValueError(f"option tagger=False: only kind {TAGGER!r} has an embedding.")
        return _tower(dict(**parts, pool=pool), data, state, kept)
    head = heads[kind] | dict(classes=classes)
    objective = dict(kind="tagging", **parts, head=head, criterion="sigmoid")
    config: dict[str, Any] = dict(objective=objective, data=data)
    built, params, left = build(config, lambda p: to_state_dict(p, config), state)

    def outputs(params, waveform):
        encoded, found = trace(built, params, waveform)

        def head(**how):
            kept = dict(capture_intermediates=True, mutable=["intermediates"])
            return built.head.apply({"params": params["head"]}, encoded, **how, **kept)

        logits, inside = head()
        found["clipwise_output"] = jax.nn.sigmoid(logits)
        if kind == TAGGER:
            return found | {"embedding": inside["intermediates"]["pool"]["__call__"][0]}
        segments = jax.nn.sigmoid(head(along=True)[0])
        frames = jnp.repeat(segments, built.encoder.joined, axis=1)
        missing = found["logmel_db"].shape[2] - frames.shape[1]
        frames = jnp.pad(frames, ((0, 0), (0, missing), (0, 0)), mode="edge")
        return found | {"framewise_output": frames}

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under PANNs' names."""
    del config
    if "audio" in params:
        return cnn14_state(params["audio"], params["audio"]["pool"]["dense"])
    head = params["head"]
    state = cnn14_state(params, head.get("pool", head)["dense"])
    return state | dense("fc_audioset", head["linear"])


def cnn14_parts(state: State, asked: Options, prefix: str) -> tuple[dict[str, Any], int]:
    """Return the config of frontend, tokenizer and encoder, and the width of the embedding.

    Args:
      state: reference name → array, mel bank included.
      asked: see `from_state_dict`.
      prefix: of the names.

    Raises:
      ValueError: not so many blocks, or the mel bank is not that of the options.
    """
    bins, embedding = need(state, f"{prefix}bn0.weight", f"{prefix}fc1.weight")
    at = f"{prefix}conv_block"
    found = {f"conv_block{n.removeprefix(at).partition('.')[0]}" for n in state if n.startswith(at)}
    found, wanted = sorted(found), [f"conv_block{n + 1}" for n in range(BLOCKS)]
    if found != wanted:
        raise ValueError(f"state dict: blocks {', '.join(found)}; Cnn14 has {', '.join(wanted)}.")
    channels = tuple(
        len(array) for array in need(state, *(f"{prefix}{n}.conv2.weight" for n in wanted))
    )
    channels = asked.found("channels", channels, "conv_block*.conv2.weight")
    mels = asked.found("mel_bins", len(bins), f"bn0.weight {bins.shape}")
    width = asked.found("embedding", len(embedding), f"fc1.weight {embedding.shape}")
    for name, only in (("window", "hann"), ("center", True), ("pad_mode", "reflect")):
        asked.only(name, only)
    bank = state.get(f"{prefix}{MEL}")
    window = asked.get("window_size", 1024)
    if bank is not None:
        window = asked.found("window_size", 2 * len(bank) - 2, f"{MEL} {bank.shape}")
    rate = asked.get("sample_rate", 32_000)
    low, high = float(asked.get("fmin", 50)), float(asked.get("fmax", 14_000))
    frontend = dict(
        kind="mel",
        rate=rate,
        bins=mels,
        hop=asked.get("hop_size", 320),
        window=window,
        low=low,
        high=high,
        floor=_floor(asked.get("log")),
    )
    if bank is not None:
        frontend |= stored_bank(bank, mels, window, (rate, low, high))
    encoder = dict(
        kind="cnn",
        channels=channels,
        convolutions=2,
        norm=dict(kind="norms:FrozenBatchNorm"),
        dropout=0.2,
    )
    return dict(frontend=frontend, tokenizer=dict(kind="bins"), encoder=encoder), width


def cnn14_state(params: Any, embedding: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Return tokenizer, encoder and the dense layer of the embedding under PANNs' names."""
    state = stored_norm(f"{prefix}bn0", params["tokenizer"]["norm"])
    for name, part in params["encoder"].items():
        block, conv = map(int, re.findall(r"\d+", name))
        at = f"{prefix}conv_block{block + 1}"
        if name.endswith("_norm"):
            state |= stored_norm(f"{at}.bn{conv + 1}", part)
        else:  # theirs has time before frequency
            state[f"{at}.conv{conv + 1}.weight"] = part["kernel"].transpose(3, 2, 1, 0)
    return state | dense(f"{prefix}fc1", embedding)


def trace(built: Any, params: Any, waveform: Any) -> tuple[Any, dict[str, Any]]:
    """Run frontend, tokenizer and encoder: the last tokens, and what comes after each part.

    Args:
      built: whatever has these three: an objective, or a tower.
      params: theirs.
      waveform: [B, S].
    """
    spec = built.frontend.log_mel(waveform)
    tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec)
    encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
    first = built.encoder.clone(channels=built.encoder.channels[:1])
    weights = {n: v for n, v in params["encoder"].items() if n.startswith("block0_")}
    cut = first.apply({"params": weights}, tokens).tokens
    image = halved(cut.x.reshape(len(cut.x), *cut.grid, -1))
    return encoded, {
        "spectrogram_power": built.frontend.power(waveform)[:, None],
        "logmel_db": spec[:, None],
        "after_conv_block1": image.transpose(0, 3, 2, 1),
    }


def _tower(
    parts: dict[str, Any], data: dict[str, Any], state: State, kept: dict[str, np.ndarray]
) -> Converted:
    """Return an audio tower by itself; the last layer stays among the unused arrays."""
    tower = dict(kind="towers:Tower", **parts)
    objective = dict(kind="contrastive", towers=dict(audio=tower), edges=())
    config: dict[str, Any] = dict(objective=objective, data=data)
    built, params, left = build(
        config, lambda p: to_state_dict(p, config), state, unused=("fc_audioset.",)
    )

    def outputs(params, waveform):
        audio = built.towers["audio"]
        encoded, found = trace(audio, params["audio"], waveform)
        return found | {"embedding": audio.pooled(params["audio"], encoded)}

    return Converted(config, params, outputs, kept | left)


def stored_bank(
    bank: np.ndarray, bins: int, window: int, *layouts: tuple[int, float, float]
) -> dict[str, Any]:
    """Return the options of `Mel` that make a stored mel bank [window / 2 + 1, bins].

    Args:
      bank: as stored.
      bins, window: of the frontend.
      *layouts: sampling rate and edges, Hz, of banks that it may be.

    Raises:
      ValueError: it is none of them.
    """
    for rate, low, high in layouts:
        for scale in SCALES:
            for area in (True, False):
                ours = mel_bands(bins, window, rate, low, high, scale, area).T
                same = ours.shape == bank.shape
                if same and np.abs(ours - bank).max() < 1e-4 * np.abs(bank).max():
                    return dict(scale=scale, area=area, low=low, high=high, bank_rate=rate)
    rate, low, high = layouts[0]
    raise ValueError(
        f"state dict: {MEL} is not the mel bank of {bins} bands from {low} to {high} Hz at {rate} Hz; "
        "give the options sample_rate, fmin and fmax."
    )


def _floor(text: str | None) -> float:
    """Return the least energy that the option `log` names."""
    if text is None:
        return 1e-10
    if not (match := DECIBELS.fullmatch(text.replace(" ", ""))):
        raise ValueError(f"option log={text!r}: wanted 10*log10(max(.,FLOOR)).")
    return float(match[1])
