"""BERT-shaped sentence encoders: all-MiniLM-L6-v2 and others (sentence-transformers, or bare BertModel).

`bert_state` and `bert_parts` also serve the text towers of other families.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
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
from ssl_audio.convert.options import Options
from ssl_audio.presets.text import bert

QKV = ("query", "key", "value")
BUFFERS = ("position_ids", "token_type_ids")  # of the embeddings: counted anew here


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the state dict of a BertModel whose sentence vector is the mean of its words.

    Options are those of config.json: num_attention_heads (default: 12 for all-MiniLM-L6-v2's width of
    384, else width / 64), layer_norm_eps (1e-12); others are held against the arrays. Of
    `ssl_audio.convert.files.read`: tokenizer, the file to cut text with. `forward(input_ids=[B, W],
    attention_mask=, token_type_ids=)` gives every layer and the embedding.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    parts = bert_parts(state, asked, "", heads=12, first=0)
    tower = dict(kind="towers:Tower", length="text_length", **parts)
    objective = dict(kind="contrastive", towers=dict(text=tower), edges=())
    text = text_config(asked, parts["tokenizer"]["length"])
    asked.finish()
    config = dict(objective=objective, data=dict(entries=dict(text=text)) if text else {})
    ids = np.zeros((1, 1), np.int32)
    built, params, left = build(
        config,
        lambda p: to_state_dict(p, config),
        state,
        unused=("embeddings.position_ids", "pooler.dense."),
        blank={"text": ids, "text_length": np.ones(1, np.int32)},
    )
    tower = built.towers["text"]
    pooler = {n: jnp.asarray(v) for n, v in left.items() if n.startswith("pooler.")}

    def outputs(params, input_ids, attention_mask=None, token_type_ids=None):
        found = trace(tower, params["text"], input_ids, attention_mask, token_type_ids)
        hidden = found["last_hidden_state"]
        mean = found.pop("pooled")
        embedding = losses.unit(mean)
        found |= {"mean_pooled": mean, "embedding": embedding, "cosine": embedding @ embedding.T}
        if pooler:
            first = hidden[:, 0] @ pooler["pooler.dense.weight"].T
            found["pooler_output"] = jnp.tanh(first + pooler["pooler.dense.bias"][None])
        return found

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of BertModel."""
    del config
    return bert_state(params["text"], "")


def bert_state(params: Any, prefix: str) -> dict[str, np.ndarray]:
    """Return a text tower's parameters under BERT's names."""
    table, at = params["tokenizer"], f"{prefix}embeddings"
    state = {
        f"{at}.word_embeddings.weight": table["word"],
        f"{at}.position_embeddings.weight": table["position"],
        f"{at}.token_type_embeddings.weight": table["type"],
    } | norm(f"{at}.LayerNorm", table["norm"])
    for i, layer in enumerate(unstacked(params["encoder"]["layers"])):
        at = f"{prefix}encoder.layer.{i}"
        mixer, mlp = layer["mixer"], layer["mlp"]
        thirds = zip(*(np.split(v, 3, axis=-1) for v in mixer["qkv"].values()), strict=True)
        for name, third in zip(QKV, thirds, strict=True):
            part = dict(zip(mixer["qkv"], third, strict=True))
            state |= dense(f"{at}.attention.self.{name}", part)
        state |= dense(f"{at}.attention.output.dense", mixer["out"])
        state |= norm(f"{at}.attention.output.LayerNorm", layer["norm_mixer"])
        state |= dense(f"{at}.intermediate.dense", mlp["up"])
        state |= dense(f"{at}.output.dense", mlp["down"])
        state |= norm(f"{at}.output.LayerNorm", layer["norm_mlp"])
    if "pool" in params:
        state |= dense(f"{prefix}pooler.dense", params["pool"]["dense"])
    return state


def bert_parts(
    state: State,
    asked: Options,
    prefix: str,
    *,
    heads: int | None = None,
    first: int | None = None,
    pooler: bool = False,
) -> dict[str, Any]:
    """Return the config of a text tower's tokenizer, encoder and pool.

    Args:
      state: reference name → array.
      asked: the text model's own options.
      prefix: of its names.
      heads: when the options do not tell: so many if the width is 384; else of width 64.
      first: row of the first word's place; None: after the padding's (RoBERTa).
      pooler: whether the tower ends in BERT's pooler.
    """
    at = f"{prefix}embeddings"
    words, places, types, hidden = need(
        state,
        f"{at}.word_embeddings.weight",
        f"{at}.position_embeddings.weight",
        f"{at}.token_type_embeddings.weight",
        f"{prefix}encoder.layer.0.intermediate.dense.bias",
    )
    width = asked.found("hidden_size", words.shape[1], f"word_embeddings {words.shape}")
    asked.found("vocab_size", len(words), f"word_embeddings {words.shape}")
    asked.found("max_position_embeddings", len(places), f"position_embeddings {places.shape}")
    asked.found("type_vocab_size", len(types), f"token_type_embeddings {types.shape}")
    asked.found("intermediate_size", len(hidden), f"intermediate.dense {hidden.shape}")
    asked.only("hidden_act", "gelu")
    asked.only("position_embedding_type", "absolute")
    if heads is not None and width == 384 and asked.get("num_attention_heads") is None:
        asked.given["num_attention_heads"] = heads
    depth = count(state, f"{prefix}encoder.layer.")
    return bert(
        vocab=len(words),
        width=width,
        depth=asked.found("num_hidden_layers", depth, f"{prefix}encoder.layer.*"),
        heads=asked.heads("num_attention_heads", width),
        hidden=len(hidden),
        places=len(places),
        first=asked.get("pad_token_id", 1) + 1 if first is None else first,
        types=len(types),
        eps=asked.get("layer_norm_eps", 1e-12),
        pooler=pooler,
    )


def text_config(asked: Options, most: int) -> dict[str, Any]:
    """Return the config of the text of batches, if the checkpoint came with a tokenizer's file."""
    file, length = asked.get("tokenizer"), asked.get("max_seq_length")
    if not file:
        return {}
    return dict(kind="text", words=dict(kind="text:Pretrained", file=file), length=length or most)


def trace(tower: Any, params: Any, ids: Any, mask: Any = None, types: Any = None) -> dict[str, Any]:
    """Run a text tower: its last tokens, its vector, and what comes after each part of it.

    Block by block, for a stack clears what padding holds, and the reference does not.
    """
    valid = jnp.ones(ids.shape, bool) if mask is None else jnp.asarray(mask) > 0
    tokens: Any = tower.tokenizer.apply({"params": params["tokenizer"]}, ids, valid, types)
    x, found = tokens.x, {"inter_embeddings": tokens.x}
    for i, layer in enumerate(unstacked(params["encoder"]["layers"])):
        options = dict(dtype=jnp.float32, train=False)
        x = tower.encoder.block.apply({"params": layer}, x, tokens.index, valid, None, **options)
        found[f"inter_layer{i}"] = x
    encoded = tower.encoder.apply({"params": params["encoder"]}, tokens)
    return found | {"last_hidden_state": x, "pooled": tower.pooled(params, encoded)}
