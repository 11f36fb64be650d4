"""Microsoft's CLAP of 2022 (Cnn14 and BERT) and of 2023 (HTSAT and GPT-2).

Elizalde et al., arXiv:2206.04769 and arXiv:2309.05767.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
from ssl_audio.convert import clap, clap_names, cnn14
from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    count,
    dense,
    need,
    norm,
    plain_names,
    unstacked,
)
from ssl_audio.convert.minilm import bert_parts, bert_state
from ssl_audio.convert.options import Options
from ssl_audio.data.entries import clips
from ssl_audio.presets.text import gpt2

AUDIO, TEXT = "audio_encoder.", "caption_encoder."
HTSAT = f"{AUDIO}base.htsat."
# Counters and tables that are counted anew, heads that are not asked, and the front end of the files.
UNUSED = re.compile(
    r"(relative_position_index|attn_mask|position_ids|token_type_ids|num_batches_tracked)$"
    r"|\.base\.(pooler|fc_audioset|htsat\.tscam_conv|htsat\.head)\."
    r"|\.(spectrogram_extractor|logmel_extractor)\.|\.h\.\d+\.attn\.(masked_)?bias$"
)
END = " <|endoftext|>"  # what GPT-2's texts end with
GPT2 = {"mixer": {"qkv": "c_attn", "out": "c_proj"}, "mlp": {"up": "c_fc", "down": "c_proj"}}


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of either model.

    Options: sample_rate (44100), duration (5 s with Cnn14, 7 s with HTSAT), hop_size (320), fmin (50),
    fmax (14000; with HTSAT 8000, unless the stored mel bank is that of 14000 Hz at a rate of 32 kHz, as
    published); others of `convert/cnn14.py`; of HTSAT in `audio_config` those of `convert/clap.py`; of the
    text model in `text_config`: num_attention_heads or n_head (width / 64) and others of its
    config.json; tokenizer, the file to cut text with.

    `forward(waveform=[B, S], input_ids=[B, W], attention_mask=)` gives audio_embeds and text_embeds, not
    normalised, and logits_per_audio. GPT-2's vector is that of the last word the mask leaves.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`; a mel bank of other options.
    """
    state = plain_names(state_dict)
    kept = {name: value for name, value in state.items() if UNUSED.search(name)}
    text = Options(options.pop("text_config", None) or {})
    audio = Options(options.pop("audio_config", None) or {})
    asked = Options({"sample_rate": 44_100, **options})
    if any(name.startswith(HTSAT) for name in state):
        sound, samples = _htsat(state, audio, asked)
    else:
        parts, width = cnn14.cnn14_parts(state, asked, f"{AUDIO}base.")
        sound = dict(**parts, pool=dict(kind="pools:MaxMean", width=width))
        samples = round(asked.get("duration", 5) * parts["frontend"]["rate"])
    words, most, end = _words(state, text)
    (out,) = need(state, f"{AUDIO}projection.linear1.weight")
    projector = dict(kind="projectors:Msclap", out=len(out))
    config: dict[str, Any] = dict(
        objective=dict(
            kind="contrastive",
            towers=dict(
                audio=dict(kind="towers:Tower", **sound, projector=projector),
                text=dict(kind="towers:Tower", length="text_length", **words, projector=projector),
            ),
        ),
        data=clips(samples, rate=sound["frontend"]["rate"], fill="repeat"),
    )
    if file := asked.get("tokenizer"):
        cut = dict(kind="text:Pretrained", file=file, end=end)
        length = min(most, words["tokenizer"]["length"])
        config["data"]["entries"]["text"] = dict(kind="text", words=cut, length=length)
    for given in (audio, text, asked):
        given.finish()
    blank = {
        "audio": jax.ShapeDtypeStruct((1, samples), np.float32),
        "text": jax.ShapeDtypeStruct((1, 1), np.int32),
    }
    state = {name: value for name, value in state.items() if name not in kept}
    built, params, left = build(config, lambda p: to_state_dict(p, config), state, blank=blank)
    towers = built.towers

    def outputs(params, waveform, input_ids, attention_mask=None):
        valid = jnp.ones(input_ids.shape, bool) if attention_mask is None else attention_mask > 0
        given = {"audio": (towers["audio"].frontend(waveform),), "text": (input_ids, valid)}
        z = {}
        for name, inputs in given.items():
            tower, weights = towers[name], params[name]
            encoded = tower.encode_inputs(weights, *inputs)
            z[name] = tower.project(weights, tower.pooled(weights, encoded))
        scores = losses.unit(z["audio"]) @ losses.unit(z["text"]).T
        return {
            "audio_embeds": z["audio"],
            "text_embeds": z["text"],
            "logits_per_audio": jnp.exp(params["logit_scale"][0, 0]) * scores,
        }

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under Microsoft's names."""
    del config
    audio, text = params["audio"], params["text"]
    if "pool" in audio:
        state = cnn14.cnn14_state(audio, audio["pool"]["dense"], f"{AUDIO}base.")
    else:
        theirs = clap_names.to_laion(clap.htsat_state(audio))
        state = {n.replace(clap_names.LAION[0][0], HTSAT, 1): v for n, v in theirs.items()}
    state |= (bert_state if "norm" in text["tokenizer"] else _gpt2_state)(text, f"{TEXT}base.")
    for prefix, tower in ((AUDIO, audio), (TEXT, text)):
        at, projector = f"{prefix}projection", tower["projector"]
        state |= dense(f"{at}.linear1", projector["first"])
        state |= dense(f"{at}.linear2", projector["second"])
        state |= norm(f"{at}.layer_norm", projector["norm"])
    return state | {"logit_scale": params["logit_scale"].reshape(())}


def _htsat(state: State, audio: Options, asked: Options) -> tuple[dict[str, Any], int]:
    """Return the parts of an audio tower of HTSAT, and the samples of a clip."""
    laion = clap_names.LAION[0][0]
    theirs = {n.replace(HTSAT, laion, 1): v for n, v in state.items() if n.startswith(HTSAT)}
    rate, low = asked.get("sample_rate"), float(asked.get("fmin", 50))
    high, size = float(asked.get("fmax", 8_000)), asked.get("window_size", 1024)
    bank = state.get(f"{HTSAT}{cnn14.MEL}")
    if bank is not None:
        size = asked.found("window_size", 2 * len(bank) - 2, f"{cnn14.MEL} {bank.shape}")
    top = dict(sampling_rate=rate, hop_length=asked.get("hop_size", 320), fft_window_size=size)
    top["nb_max_samples"] = round(asked.get("duration", 7) * rate)
    theirs = {n: v for n, v in theirs.items() if not UNUSED.search(n)}
    parts, samples, _ = clap.htsat_parts(clap_names.to_transformers(theirs), audio, Options(top))
    frontend = parts["frontend"] | dict(low=low, high=high, sixteen_bit=False)
    if bank is not None:
        # The published model lays the bands out for 32 kHz, whatever the rate of its audio.
        layouts = ((rate, low, high), (32_000, 50.0, 14_000.0))
        frontend |= cnn14.stored_bank(bank, frontend["bins"], size, *layouts)
    return parts | dict(frontend=frontend), samples


def _words(state: State, asked: Options) -> tuple[dict[str, Any], int, str]:
    """Return the parts of the text tower, the most words of a text, and what it ends with."""
    at = f"{TEXT}base."
    if f"{at}wte.weight" not in state:
        return (
            bert_parts(state, asked, at, first=0) | dict(pool=dict(kind="pools:ClsToken")),
            100,
            "",
        )
    words, places, inner = need(
        state, f"{at}wte.weight", f"{at}wpe.weight", f"{at}h.0.mlp.c_fc.bias"
    )
    width = asked.found("n_embd", words.shape[1], f"wte {words.shape}")
    asked.only("activation_function", "gelu_new")
    asked.only("layer_norm_epsilon", 1e-5)
    parts = gpt2(
        vocab=asked.found("vocab_size", len(words), f"wte {words.shape}"),
        width=width,
        depth=asked.found("n_layer", count(state, f"{at}h."), "h.*"),
        heads=asked.heads("n_head", width),
        length=asked.found("n_positions", len(places), f"wpe {places.shape}"),
        ratio=len(inner) / width,
    )
    return parts, 77, END


def _gpt2_state(params: Any, prefix: str) -> dict[str, np.ndarray]:
    """Return a text tower's parameters under GPT-2's names; its layers hold [in, out] as ours do."""
    table, encoder = params["tokenizer"], params["encoder"]
    state = {f"{prefix}wte.weight": table["word"], f"{prefix}wpe.weight": table["position"]}
    for i, layer in enumerate(unstacked(encoder["layers"])):
        at = f"{prefix}h.{i}"
        for number, (part, theirs) in enumerate((("mixer", "attn"), ("mlp", "mlp")), 1):
            state |= norm(f"{at}.ln_{number}", layer[f"norm_{part}"])
            for ours, name in GPT2[part].items():
                state[f"{at}.{theirs}.{name}.weight"] = layer[part][ours]["kernel"]
                state[f"{at}.{theirs}.{name}.bias"] = layer[part][ours]["bias"]
    return state | norm(f"{prefix}ln_f", encoder["final_norm"])
