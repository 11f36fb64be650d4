"""Published SSAST checkpoints (Gong et al. 2022), pretrained or fine-tuned, to ours and back."""

from typing import Any

import numpy as np

from ssl_audio.convert import patches, vit
from ssl_audio.convert.base import Converted, State, count, need, norm, plain_names
from ssl_audio.convert.options import Options
from ssl_audio.presets import patch_encoders


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert an SSAST state dict; a model without dist token is accepted, too.

    Options: heads (default: width / 64), embed_dim, depth, backbone_norm_eps; those of
    `patches.layout` and `patches.convert`. `forward(x=[B, T, F])` takes normalised log-mel.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state, asked = plain_names(state_dict), Options(options)
    (kernel,) = need(state, "v.patch_embed.proj.weight")
    specials = 2 if "v.dist_token" in state else 1
    shape = patches.layout(state, asked, specials)
    width = asked.found("embed_dim", len(kernel), f"v.patch_embed.proj.weight {kernel.shape}")
    depth = asked.found("depth", count(state, "v.blocks."), "v.blocks.*")
    (hidden,) = need(state, "v.blocks.0.mlp.fc1.bias")
    encoder = patch_encoders.encoder("ssast", "tiny", shape.table, depth) | dict(
        width=width, special=specials
    )
    block = encoder["block"]
    block["mixer"]["heads"] = asked.heads("heads", width)
    block["mlp"] = len(hidden) / width
    block["norm"]["eps"] = asked.get("backbone_norm_eps", block["norm"]["eps"])
    return patches.convert(
        state,
        asked,
        encoder=encoder,
        shape=shape,
        encoder_state=_encoder,
        insides=lambda _, __, found, ___: {f"block{i}": x for i, x in enumerate(found[1:])},
        finetuned=lambda *_: {},
    )


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the published names, without `module.`."""
    return patches.to_state_dict(params, config, _encoder)


def _encoder(params: Any) -> dict[str, np.ndarray]:
    return norm("v.norm", params["final_norm"]) | vit.layers("v.blocks", params["layers"])
