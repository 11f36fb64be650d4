"""Encoders of T5, T5 1.1 and Flan-T5 (`T5EncoderModel` of transformers): a text tower."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    count,
    dense,
    need,
    plain_names,
    unstacked,
)
from ssl_audio.convert.minilm import text_config
from ssl_audio.convert.options import Options
from ssl_audio.layers.t5 import ACTIVATIONS
from ssl_audio.presets.text import t5

TIED = "encoder.embed_tokens.weight"  # the same array as shared.weight
BLOCK = "encoder.block."
BIAS = f"{BLOCK}0.layer.0.SelfAttention.relative_attention_bias.weight"
WIDEST = 512  # words, where neither option nor tokenizer says


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the state dict of a T5EncoderModel; a whole T5 model's decoder is left out.

    Options are those of config.json: relative_attention_max_distance (128), layer_norm_epsilon (1e-6);
    others are held against the arrays. `forward(input_ids=[B, W], attention_mask=)` gives
    last_hidden_state, hidden_states [L + 1, …] (the last one after the norm) and position_bias.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    words, table, q = need(state, "shared.weight", BIAS, f"{BLOCK}0.layer.0.SelfAttention.q.weight")
    feed = f"{BLOCK}0.layer.1.DenseReluDense"
    gated = f"{feed}.wi_0.weight" in state
    (hidden,) = need(state, f"{feed}.{'wi_0' if gated else 'wi'}.weight")
    buckets, heads = table.shape
    width = asked.found("d_model", words.shape[1], f"shared {words.shape}")
    activation = ACTIVATIONS[int(gated)]
    parts = t5(
        vocab=asked.found("vocab_size", len(words), f"shared {words.shape}"),
        width=width,
        depth=asked.found("num_layers", count(state, BLOCK), f"{BLOCK}*"),
        heads=asked.found("num_heads", heads, f"relative_attention_bias {table.shape}"),
        size=asked.found("d_kv", len(q) // heads, f"q {q.shape}"),
        hidden=asked.found("d_ff", len(hidden), f"{feed} {hidden.shape}"),
        activation=asked.found("feed_forward_proj", activation, feed),
        buckets=asked.found("relative_attention_num_buckets", buckets, f"{table.shape}"),
        distance=asked.get("relative_attention_max_distance", 128),
        eps=asked.get("layer_norm_epsilon", 1e-6),
    )
    tower = dict(kind="towers:Tower", length="text_length", **parts)
    text = text_config(asked, WIDEST)
    asked.finish()
    config: dict[str, Any] = dict(
        objective=dict(kind="contrastive", towers=dict(text=tower), edges=()),
        data=dict(entries=dict(text=text)) if text else {},
    )
    built, params, left = build(
        config,
        lambda p: to_state_dict(p, config),
        state,
        unused=(TIED, "decoder.", "lm_head."),
        blank={"text": np.zeros((1, 1), np.int32), "text_length": np.ones(1, np.int32)},
    )
    tower = built.towers["text"]

    def outputs(params, input_ids, attention_mask=None):
        own = params["text"]
        valid = None if attention_mask is None else jnp.asarray(attention_mask) > 0
        tokens: Any = tower.tokenizer.apply({"params": own["tokenizer"]}, input_ids, valid)
        encoder = own["encoder"]
        bias = tower.encoder.pair_bias.apply({"params": encoder["pair_bias"]}, tokens.x.shape[1])
        x, hidden = tokens.x, [tokens.x]
        # Block by block, for a stack clears what padding holds, and the reference does not.
        for layer in unstacked(encoder["layers"]):
            more = dict(dtype=jnp.float32, train=False, pair_bias=bias)
            x = tower.encoder.block.apply({"params": layer}, x, tokens.index, valid, None, **more)
            hidden.append(x)
        last = tower.encoder.final_norm.apply({"params": encoder["final_norm"]}, x)
        found = {"last_hidden_state": last, "hidden_states": jnp.stack([*hidden[:-1], last])}
        pooled = tower.pooled(own, tower.encoder.apply({"params": encoder}, tokens))
        return found | {"position_bias": bias[None], "mean_pooled": pooled}

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of T5EncoderModel."""
    del config
    own = params["text"]
    encoder = own["encoder"]
    state = {
        "shared.weight": own["tokenizer"]["word"],
        BIAS: encoder["pair_bias"]["table"],
        "encoder.final_layer_norm.weight": encoder["final_norm"]["scale"],
    }
    for i, layer in enumerate(unstacked(encoder["layers"])):
        at, mixer, feed = f"{BLOCK}{i}.layer", layer["mixer"], layer["mlp"]
        for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o")):
            state |= dense(f"{at}.0.SelfAttention.{theirs}", mixer[ours])
        state[f"{at}.0.layer_norm.weight"] = layer["norm_mixer"]["scale"]
        state[f"{at}.1.layer_norm.weight"] = layer["norm_mlp"]["scale"]
        up = "wi_0" if "gate" in feed else "wi"
        for ours, theirs in (("up", up), ("gate", "wi_1"), ("down", "wo")):
            if ours in feed:
                state |= dense(f"{at}.1.DenseReluDense.{theirs}", feed[ours])
    return state
