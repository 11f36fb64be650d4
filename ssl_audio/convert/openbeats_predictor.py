"""The predictor of masked tokens in OpenBEATs (Bharadwaj et al. 2025, arXiv:2507.14129).

It is part of an objective, so the config describes only the predictor and its head.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config as configs
from ssl_audio import losses
from ssl_audio.convert import beats
from ssl_audio.convert.base import Converted, State, dense, fill, need, norm, plain_names
from ssl_audio.convert.options import Options
from ssl_audio.structs import Tokens

PREFIX = "decoder_blocks."
SMOOTHING = 0.1


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a predictor.

    Options: those of `beats` about layers, encoder_embed_dim, decoder_embed_dim, decoder_layers and
    codebook_vocab_size. `forward(visible=[B, K, D], ids_keep=[B, K], kept_mask=[B, N])` gives logits
    [B, N, V]; target [B, N] adds the cross-entropy with label smoothing of places that were not kept.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    embed, codes = need(state, "decoder_embed.weight", "decoder_pred.weight")
    where = f"decoder_embed.weight {embed.shape}"
    width = asked.found("decoder_embed_dim", embed.shape[0], where)
    asked.found("encoder_embed_dim", embed.shape[1], where)
    where = f"decoder_pred.weight {codes.shape}"
    count = asked.found("codebook_vocab_size", len(codes), where)
    encoder = beats.stack(state, asked, PREFIX, width)
    asked.found("decoder_layers", encoder["depth"], f"{PREFIX}*")
    # One norm after the last layer, wherever those of the layers are.
    encoder |= dict(first_norm=None, final_norm=dict(kind="norms:LayerNorm", eps=1e-5))
    asked.finish()
    config: dict[str, Any] = dict(
        predictor=dict(kind="restore:Restored", encoder=encoder),
        head=dict(kind="codes:Codes", codes=count),
        reference=beats.style(state, PREFIX),
    )
    predictor = configs.build(config["predictor"], "backbones")
    head = configs.build(config["head"], "heads")

    def fresh(key):
        visible = Tokens(jnp.zeros((1, 1, embed.shape[1])), jnp.zeros((1, 1), jnp.int32), (1, 2))
        encoded, made = predictor.init_with_output(key, visible)
        return {"predictor": made["params"], "head": head.init(key, encoded.tokens.x)["params"]}

    shapes = jax.eval_shape(fresh, jax.random.key(0))
    params, left = fill(shapes, lambda p: to_state_dict(p, config), state)

    def outputs(params, visible, ids_keep, kept_mask, target=None, restore_ids=None):
        del restore_ids  # ids_keep says the same
        tokens = Tokens(visible, ids_keep, (1, kept_mask.shape[1]))
        encoded = predictor.apply({"params": params["predictor"]}, tokens, kept=kept_mask)
        logits = head.apply({"params": params["head"]}, encoded.tokens.x)[:, :, 0]
        found = {"logits": logits}
        if target is not None:
            value = losses.code_cross_entropy(logits, target, SMOOTHING)
            masked = (~kept_mask).astype(value.dtype)
            found["loss_masked_ce_ls0.1"] = jnp.sum(value * masked) / jnp.sum(masked)
        return found

    return Converted(config, params, outputs, left)


def to_state_dict(params: Any, config: Any) -> dict[str, np.ndarray]:
    """Return parameters of ours under OpenBEATs' names."""
    predictor, head = params["predictor"], params["head"]
    encoder = predictor["encoder"]
    state = {"mask_token": predictor["mask_token"][None, None]}
    state |= dense("decoder_embed", predictor["embed"])
    state |= norm("decoder_norm", encoder["final_norm"])
    state |= dense("decoder_pred", {name: value[..., 0, :] for name, value in head.items()})
    return state | beats.layers(PREFIX, encoder, config.get("reference", {}).get("tables", 1))
