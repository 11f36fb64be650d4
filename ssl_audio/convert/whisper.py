"""The encoder of Whisper (Radford et al. 2022, arXiv:2212.04356), of transformers, OpenAI or CTranslate2.

All three are brought to the names of transformers first; the way back gives the names that were read.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_audio.convert.base import (
    Converted,
    State,
    attention,
    build,
    conv,
    count,
    dense,
    need,
    norm,
    plain_names,
    unstacked,
)
from ssl_audio.convert.options import Options
from ssl_audio.convert.trace import streams
from ssl_audio.data.entries import clips

PREFIXES = ("model.encoder.", "encoder.", "")  # with a head, without one, of the encoder alone
RATE, HOP, WINDOW = 16_000, 160, 400
LAYER = "layers.{}."
# Names of transformers → those of OpenAI and of CTranslate2, without "weight" and "bias".
OPENAI = {
    "self_attn_layer_norm": "attn_ln",
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
CTRANSLATE2 = {
    "self_attn_layer_norm": "self_attention/layer_norm",
    "self_attn.out_proj": "self_attention/linear_1",
    "final_layer_norm": "ffn/layer_norm",
    "fc1": "ffn/linear_0",
    "fc2": "ffn/linear_1",
}
FUSED = "self_attention/linear_0"  # CTranslate2's query, key and value
KEYS = re.compile(r"layers\.\d+\.self_attn\.k_proj\.bias$")
QKV = ("q_proj", "k_proj", "v_proj")
POSITIONS = "embed_positions.weight"
UNHEARD = """decoder_attention_heads decoder_layers decoder_ffn_dim decoder_layerdrop encoder_layerdrop
max_target_positions n_text_ctx n_text_head n_text_layer n_text_state n_vocab""".split()
DECODER = ("decoder.", "model.decoder.", "proj_out.", "decoder/")


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the encoder; arrays of the decoder are kept for the way back.

    Options: encoder_attention_heads (OpenAI: n_audio_head; the width / 64), layer_norm_eps (1e-5). Sizes
    are held against the arrays: d_model, encoder_layers, encoder_ffn_dim, num_mel_bins, max_source_positions,
    and OpenAI's n_audio_state, n_audio_layer, n_audio_ctx, n_mels. Settings of the feature extractor must be
    those of Whisper.
    `forward(input_features=[B, F, T])` takes log-mel as the feature extractor gives it.

    Keys have no bias in the published model. Ours has one, which begins at 0 and changes nothing: a number
    added to all scores of a query does not reach its softmax.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    given, asked = plain_names(state_dict), Options(options)
    style, prefix = _style(given)
    state = TO_OURS[style](given, prefix)
    kernel, table, hidden = need(state, "conv1.weight", POSITIONS, "layers.0.fc1.bias")
    width, bins = kernel.shape[0], kernel.shape[1]
    for names, value, where in (
        ("d_model n_audio_state", width, f"conv1.weight {kernel.shape}"),
        ("num_mel_bins n_mels", bins, f"conv1.weight {kernel.shape}"),
        ("max_source_positions n_audio_ctx", len(table), f"{POSITIONS} {table.shape}"),
        ("encoder_layers n_audio_layer", depth := count(state, "layers."), "layers.*"),
        ("encoder_ffn_dim", len(hidden), f"fc1.bias {hidden.shape}"),
    ):
        for name in names.split():
            asked.found(name, value, where)
    asked.only("activation_function", "gelu")
    asked.only("scale_embedding", False)
    _check_extractor(asked, bins, len(table))
    heads = _heads(asked, given, width)
    layer_norm = dict(kind="norms:LayerNorm", eps=asked.get("layer_norm_eps", 1e-5))
    for name in UNHEARD:
        asked.get(name)
    asked.finish()
    objective = dict(
        kind="features",
        # (log10 + 4) / 4, with log10 a tenth of our dB.
        frontend=dict(
            kind="mel", rate=RATE, bins=bins, hop=HOP, window=WINDOW, low=0.0, high=RATE / 2,
            frames=2 * len(table), cut=True, top_db=80.0, mean=-40.0, std=40.0,
        ),
        tokenizer=dict(kind="conv_stem", width=width),
        encoder=dict(
            kind="stack",
            width=width,
            depth=depth,
            positions=dict(
                kind="positions:Learned", grid=(1, len(table)), cut="start", special=False
            ),
            block=dict(
                kind="blocks:PreNorm",
                mixer=dict(kind="attention", heads=heads),
                norm=layer_norm,
                mlp=len(hidden) / width,
            ),
            final_norm=layer_norm,
        ),
    )  # fmt: skip
    config = dict(
        objective=objective,
        data=clips(2 * len(table) * HOP),
        inference=dict(pad="silence"),
        reference=dict(names=style, prefix=prefix),
    )
    unplaced = {n: v for n, v in given.items() if n.startswith(DECODER) or not np.ndim(v)}
    built, params, left = build(config, _written, state)

    def outputs(params, input_features):
        spec = input_features.swapaxes(1, 2)
        tokens = built.tokenizer.apply({"params": params["tokenizer"]}, spec)
        encoded = built.encoder.apply({"params": params["encoder"]}, tokens)
        hidden, _ = streams(built.encoder, params["encoder"], tokens)
        found = {f"hidden_{i}": x for i, x in enumerate(hidden)}
        return found | {"last_hidden_state": encoded.tokens.x}

    return Converted(config, params, outputs, unplaced | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the encoder's parameters under the names that were read: those of transformers, if none were."""
    known = config.get("reference", {})
    style, prefix = known.get("names", "transformers"), known.get("prefix", PREFIXES[0])
    state = {n: v for n, v in _written(params).items() if not KEYS.search(n)}
    return TO_THEIRS[style](state, prefix)


def _heads(asked: Options, given: State, width: int) -> int:
    """Return the number of attention heads, which CTranslate2's file holds and others' options tell.

    Raises:
      ValueError: two of them say different numbers; see `Options.heads`.
    """
    ours, openai, inside = "encoder_attention_heads", "n_audio_head", "encoder/num_heads"
    if (said := given.get(inside)) is not None:
        heads, where = int(said), inside
    else:
        where = ours if asked.get(openai) is None else openai
        heads = asked.heads(where, width)
    for name in (ours, openai):
        asked.found(name, heads, where)
    return heads


def with_idle(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return all parameters under the names of transformers; biases of keys, which change nothing, too."""
    del config
    return _written(params)


def _written(params: Any) -> dict[str, np.ndarray]:
    """Return parameters under the names of transformers, with biases of the keys."""
    tokenizer, encoder = params["tokenizer"], params["encoder"]
    state = conv("conv1", tokenizer["first"]) | conv("conv2", tokenizer["second"])
    state[POSITIONS] = encoder["positions"]["table"]
    for i, layer in enumerate(unstacked(encoder["layers"])):
        at, mixer, mlp = LAYER.format(i), layer["mixer"], layer["mlp"]
        names = {k: f"{at}self_attn.{n}" for k, n in zip("qkv", QKV, strict=True)}
        state |= attention(names | {"out": f"{at}self_attn.out_proj"}, mixer)
        state |= norm(f"{at}self_attn_layer_norm", layer["norm_mixer"])
        state |= norm(f"{at}final_layer_norm", layer["norm_mlp"])
        state |= dense(f"{at}fc1", mlp["up"]) | dense(f"{at}fc2", mlp["down"])
    return state | norm("layer_norm", encoder["final_norm"])


def _style(state: State) -> tuple[str, str]:
    """Return whose names a state dict has, and what stands before those of the encoder.

    Raises:
      ValueError: nobody's.
    """
    if "encoder/conv1/weight" in state:
        return "ctranslate2", "encoder/"
    for prefix in PREFIXES:
        for style, name in (("transformers", POSITIONS), ("openai", "positional_embedding")):
            if f"{prefix}{name}" in state:
                return style, prefix
    need(state, f"model.encoder.{POSITIONS}")
    raise AssertionError("need raises")


def _inside(state: State, prefix: str) -> dict[str, np.ndarray]:
    found = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    return {n: v for n, v in found.items() if not n.startswith(DECODER)}


def _with_key_biases(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a state dict with zeros for the biases of the keys."""
    places = {
        n: n.replace("q_proj", "k_proj") for n in state if n.endswith("self_attn.q_proj.bias")
    }
    return state | {key: np.zeros_like(state[query]) for query, key in places.items()}


def _from_transformers(state: State, prefix: str) -> dict[str, np.ndarray]:
    return _with_key_biases(_inside(state, prefix))


def _to_transformers(state: State, prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _openai(name: str, back: bool) -> str:
    """Return a name of transformers for one of OpenAI, or (back) the other way round."""
    pairs = {"embed_positions.weight": "positional_embedding", "layer_norm.": "ln_post."}
    inner = {f".{a}.": f".{b}." for a, b in OPENAI.items()}
    if not back:
        pairs, inner = ({b: a for a, b in some.items()} for some in (pairs, inner))
    for old, new in pairs.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    match = re.fullmatch(r"(?:blocks|layers)(\.\d+)(\..*\.)(\w+)", name)
    if not match:
        return name
    number, middle, end = match.groups()
    return f"{'blocks' if back else 'layers'}{number}{inner.get(middle, middle)}{end}"


def _from_openai(state: State, prefix: str) -> dict[str, np.ndarray]:
    return _with_key_biases({_openai(n, False): v for n, v in _inside(state, prefix).items()})


def _to_openai(state: State, prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}{_openai(name, True)}": value for name, value in state.items()}


def _ctranslate2(name: str) -> str:
    """Return CTranslate2's name, inside the encoder, for one of transformers that is not of q, k or v."""
    if name == POSITIONS:
        return "position_encodings/encodings"
    stem, _, end = name.rpartition(".")
    match = re.fullmatch(r"layers\.(\d+)\.(.*)", stem)
    place = f"layer_{match[1]}/{CTRANSLATE2[match[2]]}" if match else stem.replace(".", "/")
    ends = {"weight": "gamma", "bias": "beta"} if "layer_norm" in place else {}
    return f"{place}/{ends.get(end, end)}"


def _from_ctranslate2(state: State, prefix: str) -> dict[str, np.ndarray]:
    given = _inside(state, prefix)
    fused = re.compile(rf"layer_(\d+)/{FUSED}/(weight|bias)")
    names = [*(f"conv{i}.{end}" for i in (1, 2) for end in ("weight", "bias")), POSITIONS]
    names += ["layer_norm.weight", "layer_norm.bias"]
    layers = sorted({int(m[1]) for m in map(fused.fullmatch, given) if m})
    names += [
        f"layers.{i}.{n}.{e}" for i in layers for n in CTRANSLATE2 for e in ("weight", "bias")
    ]
    found = {n: given.pop(theirs) for n in names if (theirs := _ctranslate2(n)) in given}
    for name in [n for n in given if fused.fullmatch(n)]:
        number, end = fused.fullmatch(name).groups()  # pyright: ignore[reportOptionalMemberAccess]
        for part, value in zip(QKV, np.split(given.pop(name), 3), strict=True):
            found[f"layers.{number}.self_attn.{part}.{end}"] = value
    return found | {n: v for n, v in given.items() if np.ndim(v)}


def _to_ctranslate2(state: State, prefix: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, value in state.items():
        if ".self_attn." not in name or "out_proj" in name:
            found[prefix + _ctranslate2(name)] = value
        elif match := re.fullmatch(r"layers\.(\d+)\.self_attn\.q_proj\.(\w+)", name):
            number, end = match.groups()
            parts = [state.get(f"layers.{number}.self_attn.{part}.{end}") for part in QKV]
            parts = [np.zeros_like(value) if part is None else part for part in parts]
            found[f"{prefix}layer_{number}/{FUSED}/{end}"] = np.concatenate(parts)
    return found


TO_OURS = dict(transformers=_from_transformers, openai=_from_openai, ctranslate2=_from_ctranslate2)
TO_THEIRS = dict(transformers=_to_transformers, openai=_to_openai, ctranslate2=_to_ctranslate2)


def _check_extractor(asked: Options, bins: int, positions: int) -> None:
    """Hold the settings of WhisperFeatureExtractor against what our front end does."""
    frames = 2 * positions
    wanted: Mapping[str, Any] = dict(
        feature_size=bins, sampling_rate=RATE, hop_length=HOP, n_fft=WINDOW, padding_value=0.0,
        nb_max_frames=frames, n_samples=frames * HOP, chunk_length=frames * HOP // RATE, dither=0.0,
    )  # fmt: skip
    for name, value in wanted.items():
        asked.only(name, value)
