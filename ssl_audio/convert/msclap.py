"""Microsoft's CLAP of 2022, Cnn14 and BERT (Elizalde et al., arXiv:2206.04769)."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
from ssl_audio.convert import cnn14
from ssl_audio.convert.base import Converted, State, build, dense, need, norm, plain_names
from ssl_audio.convert.minilm import bert_parts, bert_state, text_config, trace
from ssl_audio.convert.options import Options

AUDIO, TEXT = "audio_encoder.", "caption_encoder."
# The pooler of BERT and the tags of PANNs are not asked; see also `cnn14.UNUSED`.
UNUSED = re.compile(r"\.base\.(pooler\.|fc_audioset\.|embeddings\.(position|token_type)_ids$)")
WORDS = 100  # of a text, at most


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of the CLAP of 2022; that of 2023 has other towers and is refused.

    Options: sample_rate (44100), duration (5 s), hop_size, fmin, fmax and others of `convert/cnn14.py`;
    num_attention_heads (width / 64) and others of BERT's config.json in `text_config`; tokenizer, the
    file to cut text with. `forward(waveform=[B, S], input_ids=[B, W], attention_mask=)` gives
    audio_embeds and text_embeds, not normalised, and logits_per_audio.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state = plain_names(state_dict)
    if any(name.startswith(f"{AUDIO}base.htsat.") for name in state):
        raise ValueError(
            "state dict: HTSAT and GPT-2, the CLAP of 2023; only that of 2022 (Cnn14, BERT) can be "
            "converted."
        )
    kept = {n: v for n, v in state.items() if UNUSED.search(n) or cnn14.UNUSED.search(n)}
    text = Options(options.pop("text_config", None) or {})
    asked = Options({"sample_rate": 44_100, **options})
    parts, width = cnn14.cnn14_parts(state, asked, f"{AUDIO}base.")
    words = bert_parts(state, text, f"{TEXT}base.", first=0)
    (out,) = need(state, f"{AUDIO}projection.linear1.weight")
    projector = dict(kind="projectors:Msclap", out=len(out))
    audio = dict(**parts, pool=dict(kind="pools:MaxMean", width=width))
    words |= dict(pool=dict(kind="pools:Start"))
    rate = parts["frontend"]["rate"]
    config: dict[str, Any] = dict(
        objective=dict(
            kind="contrastive",
            towers=dict(
                audio=dict(kind="towers:Tower", **audio, projector=projector),
                text=dict(kind="towers:Tower", length="text_length", **words, projector=projector),
            ),
        ),
        data=dict(samples=round(asked.get("duration", 5) * rate), rate=rate, fill="repeat"),
    )
    if found := text_config(asked, min(WORDS, words["tokenizer"]["length"])):
        config["data"]["text"] = found
    for given in (text, asked):
        given.finish()
    blank = {
        "audio": jax.ShapeDtypeStruct((1, config["data"]["samples"]), np.float32),
        "text": jax.ShapeDtypeStruct((1, 1), np.int32),
    }
    state = {name: value for name, value in state.items() if name not in kept}
    built, params, left = build(config, lambda p: to_state_dict(p, config), state, blank=blank)
    towers = built.towers

    def outputs(params, waveform, input_ids, attention_mask=None):
        encoded, _ = cnn14.trace(towers["audio"], params["audio"], waveform)
        vectors = {
            "audio": towers["audio"].pooled(params["audio"], encoded),
            "text": trace(towers["text"], params["text"], input_ids, attention_mask)["pooled"],
        }
        z = {name: towers[name].project(params[name], vector) for name, vector in vectors.items()}
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
    state = cnn14.cnn14_state(audio, audio["pool"]["dense"], f"{AUDIO}base.")
    state |= bert_state(text, f"{TEXT}base.")
    for prefix, tower in ((AUDIO, audio), (TEXT, text)):
        at, projector = f"{prefix}projection", tower["projector"]
        state |= dense(f"{at}.linear1", projector["first"])
        state |= dense(f"{at}.linear2", projector["second"])
        state |= norm(f"{at}.layer_norm", projector["norm"])
    return state | {"logit_scale": params["logit_scale"].reshape(())}
