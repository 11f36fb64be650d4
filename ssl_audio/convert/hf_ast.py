"""Audio Spectrogram Transformers of Hugging Face transformers (Gong et al. 2021, arXiv:2104.01778).

Their keys were renamed in transformers 5; both kinds are read, and each is written as it was read.
"""

import logging
from typing import Any

import numpy as np

from ssl_audio.convert import published
from ssl_audio.convert.base import (
    Converted,
    State,
    attention,
    build,
    count,
    dense,
    need,
    norm,
    plain_names,
    unstacked,
)
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import join, streams
from ssl_audio.data.entries import clips
from ssl_audio.frontend.fbank import STATS
from ssl_audio.heads.readout import special_tokens
from ssl_audio.tokens.patchify import grid as grid_of

log = logging.getLogger(__name__)

PREFIX = "audio_spectrogram_transformer."

# Ours and the names within a layer: since transformers 5, and before ("old").
NAMES = {
    "new": dict(
        layers="layers",
        q="attention.q_proj",
        k="attention.k_proj",
        v="attention.v_proj",
        out="attention.o_proj",
        up="mlp.fc1",
        down="mlp.fc2",
    ),
    "old": dict(
        layers="encoder.layer",
        q="attention.attention.query",
        k="attention.attention.key",
        v="attention.attention.value",
        out="attention.output.dense",
        up="intermediate.dense",
        down="output.dense",
    ),
}


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the state dict of ASTForAudioClassification, or of ASTModel (no classifier).

    Options are those of the model's config.json: num_attention_heads (default: width / 64),
    frequency_stride, time_stride (10), num_mel_bins (128), max_length (1024), layer_norm_eps (1e-12),
    hidden_size, num_hidden_layers, intermediate_size, patch_size, qkv_bias, num_labels, id2label,
    problem_type; beside it, of preprocessor_config.json: mean, std, do_normalize, sampling_rate. At
    another rate than 16 kHz a frame has 400 samples, as in transformers alone; with torchaudio=true
    25 ms, as where torchaudio is installed beside it. `forward(input_values=[B, T, F])` takes normalised
    log-mel.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    prefix = "" if "embeddings.cls_token" in state else PREFIX
    style = (
        "old" if any(n.startswith(f"{prefix}{NAMES['old']['layers']}.") for n in state) else "new"
    )
    names = NAMES[style]
    place = f"{prefix}embeddings.patch_embeddings.projection.weight"
    first = f"{prefix}{names['layers']}.0"
    kernel, table, hidden = need(
        state, place, f"{prefix}embeddings.position_embeddings", f"{first}.{names['up']}.bias"
    )
    asked.only("hidden_act", "gelu")
    width = asked.found("hidden_size", len(kernel), f"{place} {kernel.shape}")
    depth = asked.found(
        "num_hidden_layers", count(state, f"{prefix}{names['layers']}."), f"{names['layers']}.*"
    )
    asked.found("intermediate_size", len(hidden), f"{names['up']}.bias {hidden.shape}")
    asked.found("patch_size", kernel.shape[2], f"{place} {kernel.shape}")
    bias = asked.found("qkv_bias", f"{first}.{names['q']}.bias" in state, f"{names['q']}.bias")
    patch, stride = (
        kernel.shape[2:],
        tuple(asked.get(name, 10) for name in ("frequency_stride", "time_stride")),
    )
    bins, frames = asked.get("num_mel_bins", 128), asked.get("max_length", 1024)
    rows, columns = grid_of(frames, bins, patch, stride)
    if rows * columns + 2 != table.shape[1]:
        raise ValueError(
            f"position_embeddings has {table.shape[1]} rows; frequency_stride={stride[0]}, "
            f"time_stride={stride[1]}, num_mel_bins={bins}, max_length={frames} mean {rows} x "
            f"{columns} patches and 2 special tokens = {rows * columns + 2}. Give these options (or "
            "the model's folder, with its config.json)."
        )
    eps = asked.get("layer_norm_eps", 1e-12)
    layer_norm = dict(kind="norms:LayerNorm", eps=eps)
    heads = asked.heads("num_attention_heads", width)
    frontend = _frontend(asked, bins, frames)
    objective: dict[str, Any] = dict(
        frontend=frontend,
        tokenizer=dict(kind="patchify", width=width, patch=patch, stride=stride),
        encoder=dict(
            kind="stack",
            width=width,
            depth=depth,
            special=2,
            positions=dict(kind="positions:Learned", grid=(rows, columns)),
            block=dict(
                kind="blocks:PreNorm",
                mixer=dict(kind="attention", heads=heads, bias=bias),
                norm=layer_norm,
                mlp=len(hidden) / width,
            ),
            final_norm=layer_norm,
        ),
    )
    data = clips(frontend["window"] + (frames - 1) * frontend["hop"], rate=frontend["rate"])
    problem = asked.get("problem_type")
    if "classifier.dense.bias" in state or "classifier.dense.weight" in state:
        (linear,) = need(state, "classifier.dense.weight")
        classes = asked.found("num_labels", len(linear), f"classifier.dense.weight {linear.shape}")
        head = dict(kind="classify:Classifier", classes=classes, pool="special", eps=eps)
        single = problem == "single_label_classification"
        objective |= dict(kind="tagging", head=head, criterion="softmax" if single else "sigmoid")
        data["entries"]["label"] = _labels(asked, classes)
    else:
        objective |= dict(kind="features")
    asked.finish()

    config = dict(
        objective=objective,
        data=data,
        inference=dict(pad="training"),
        reference=dict(prefix=prefix, names=style),
    )
    built, params, left = build(config, lambda p: to_state_dict(p, config), state)

    def outputs(params, input_values):
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, input_values)
        encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
        hidden, _ = streams(built.encoder, params["encoder"], tokens)
        found = {f"hidden_{i}": x for i, x in enumerate(hidden)}
        found |= {"last_hidden_state": join(encoded), "pooler_output": special_tokens(encoded)}
        if "head" in params:
            found["logits"] = built.head.apply({"params": params["head"]}, encoded)
        return found

    return Converted(config, params, outputs, left)


def _labels(asked: Options, classes: int) -> dict[str, Any]:
    """Return the config of the labels; names of classes where the model's config tells some."""
    found = asked.get("id2label") or {}
    names = [found.get(str(i), found.get(i)) for i in range(classes)]
    known = all(isinstance(n, str) and n != f"LABEL_{i}" for i, n in enumerate(names))
    return dict(kind="entries:Labels", classes=classes) | (dict(names=names) if known else {})


def _frontend(asked: Options, bins: int, frames: int) -> dict[str, Any]:
    """Return the config of the front end, as the feature extractor says."""
    asked.only("feature_size", 1)
    asked.only("padding_value", 0.0)  # in the log-mel, before it is normalised
    rate = asked.get("sampling_rate", 16_000)
    window, hop = (rate // 40, rate // 100) if asked.get("torchaudio", False) else (400, 160)
    if rate != 16_000:
        log.warning(
            "sampling_rate=%d: frames of %d samples, %d apart. transformers takes 400 and 160 by "
            "itself, and 25 and 10 ms where torchaudio is installed: see the option torchaudio.",
            rate, window, hop,
        )  # fmt: skip
    mean = asked.get("mean", STATS["audioset"]["mean"])
    std = asked.get("std", STATS["audioset"]["std"])
    if not asked.get("do_normalize", True):
        mean, std = 0.0, 0.5
    return dict(
        kind="fbank",
        rate=rate,
        bins=bins,
        hop=hop,
        window=window,
        frames=frames,
        mean=mean,
        std=std,
        remove_mean=False,
    )


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of transformers: the old ones, if nothing is known.

    Raises:
      ValueError: the encoder is not of this kind (two special tokens, attention).
    """
    known = config.get("reference", {})
    prefix, names = known.get("prefix", PREFIX), NAMES[known.get("names", "old")]
    tokenizer, encoder = params["tokenizer"], params["encoder"]
    patch = config["objective"]["tokenizer"]["patch"]
    positions = encoder["positions"]
    embeddings = f"{prefix}embeddings"
    projection = f"{embeddings}.patch_embeddings.projection"
    state = {
        f"{embeddings}.cls_token": encoder["special"][None, :1],
        f"{embeddings}.distillation_token": encoder["special"][None, 1:],
        f"{embeddings}.position_embeddings": np.concatenate(
            [positions["special"], positions["table"]]
        )[None],
        f"{projection}.weight": tokenizer["kernel"].T.reshape(-1, 1, *patch),
        f"{projection}.bias": tokenizer["bias"],
    }
    for i, layer in enumerate(unstacked(encoder["layers"])):
        at = f"{prefix}{names['layers']}.{i}"
        mixer, mlp = layer["mixer"], layer["mlp"]
        state |= attention({n: f"{at}.{names[n]}" for n in ("q", "k", "v", "out")}, mixer)
        state |= norm(f"{at}.layernorm_before", layer["norm_mixer"])
        state |= norm(f"{at}.layernorm_after", layer["norm_mlp"])
        state |= dense(f"{at}.{names['up']}", mlp["up"])
        state |= dense(f"{at}.{names['down']}", mlp["down"])
    state |= norm(f"{prefix}layernorm", encoder["final_norm"])
    if "head" in params:
        state |= norm("classifier.layernorm", params["head"]["norm"])
        state |= dense("classifier.dense", params["head"]["linear"]["dense"])
    return state


def reference_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return what config.json holds beside such a state dict."""
    objective = config["objective"]
    encoder, tokenizer, frontend = (objective[n] for n in ("encoder", "tokenizer", "frontend"))
    block = encoder["block"]
    width, stride = encoder["width"], tokenizer["stride"]
    found: dict[str, Any] = dict(
        model_type="audio-spectrogram-transformer",
        hidden_size=width,
        num_hidden_layers=encoder["depth"],
        num_attention_heads=block["mixer"]["heads"],
        intermediate_size=round(block["mlp"] * width),
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=encoder["final_norm"]["eps"],
        patch_size=tokenizer["patch"][0],
        qkv_bias=block["mixer"].get("bias", True),
        frequency_stride=stride[0],
        time_stride=stride[1],
        max_length=frontend["frames"],
        num_mel_bins=frontend["bins"],
    )
    if "head" in objective:
        found |= published.names(config, objective["head"]["classes"])
    kind = "ASTForAudioClassification" if "head" in objective else "ASTModel"
    return found | dict(architectures=[kind])


def extractor_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return what preprocessor_config.json holds beside such a state dict."""
    return published.ast_extractor(config)


def reference(model: Converted) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run transformers with a converted model's parameters: inputs, and outputs to be met.

    Raises:
      ImportError: torch or transformers is not there.
    """
    import torch
    import transformers

    options = reference_config(model.config)
    settings = transformers.ASTConfig(**{k: v for k, v in options.items() if k != "model_type"})
    tagging = "head" in model.params
    kind = transformers.ASTForAudioClassification if tagging else transformers.ASTModel
    theirs = kind(settings).eval()
    for names in NAMES:
        known = dict(prefix=PREFIX if tagging else "", names=names)
        state = to_state_dict(model.params, model.config | dict(reference=known))
        if state.keys() == theirs.state_dict().keys():
            break
    theirs.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in state.items()})
    shape = (2, options["max_length"], options["num_mel_bins"])
    values = np.random.default_rng(0).normal(0, 0.5, shape).astype(np.float32)
    with torch.no_grad():
        found = theirs(torch.from_numpy(values))
    names = ("logits",) if tagging else ("last_hidden_state", "pooler_output")
    return {"input_values": values}, {name: found[name].numpy() for name in names}
