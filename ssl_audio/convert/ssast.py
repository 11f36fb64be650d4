"""Published SSAST state dicts → our parameters (and the pieces that SSAMBA's share)."""

from typing import Any

import numpy as np

from ssl_audio.convert.base import Reader, State, stacked


def to_params(state: State) -> dict[str, Any]:
    """Convert a pretraining or fine-tuning state dict of SSAST.

    Args:
      state: reference name → array; the `module.` prefix of data-parallel checkpoints is accepted.

    Returns:
      Parameters of `MaskedSpectrogram` (pretraining) or `Tagging` (fine-tuning) with the same sizes.

    Raises:
      ValueError: keys are missing or left over; both are listed.
    """
    reader = Reader(state)
    specials = ("v.cls_token", "v.dist_token") if reader.has("v.dist_token") else ("v.cls_token",)

    def layer(i: int) -> dict[str, Any]:
        block = f"v.blocks.{i}"
        return {
            "norm_mixer": reader.norm(f"{block}.norm1"),
            "mixer": {
                "qkv": reader.dense(f"{block}.attn.qkv"),
                "out": reader.dense(f"{block}.attn.proj"),
            },
            "norm_mlp": reader.norm(f"{block}.norm2"),
            "mlp": {
                "up": reader.dense(f"{block}.mlp.fc1"),
                "down": reader.dense(f"{block}.mlp.fc2"),
            },
        }

    layers = [layer(i) for i in range(reader.count("v.blocks."))]
    encoder = {"layers": stacked(layers), "final_norm": reader.norm("v.norm")}
    return shared(reader, encoder, specials)


def shared(reader: Reader, encoder: dict[str, Any], specials: tuple[str, ...]) -> dict[str, Any]:
    """Add what SSAST and SSAMBA have in common to a converted encoder."""
    kernel = reader.take("v.patch_embed.proj.weight")
    table = reader.take("v.pos_embed")[0]
    params = {
        "tokenizer": {
            "kernel": kernel.reshape(kernel.shape[0], -1).T,
            "bias": reader.take("v.patch_embed.proj.bias"),
        },
        "encoder": encoder
        | {
            "special": np.concatenate([reader.take(name)[0] for name in specials]),
            "positions": {"special": table[: len(specials)], "table": table[len(specials) :]},
        },
    }
    if reader.has("mask_embed"):
        params["mask_token"] = reader.take("mask_embed").reshape(-1)
        for ours, theirs in (("discriminate", "cpredlayer"), ("reconstruct", "gpredlayer")):
            params[ours] = {
                "first": {"dense": reader.dense(f"{theirs}.0")},
                "second": {"dense": reader.dense(f"{theirs}.2")},
            }
    if reader.has("mlp_head.0.weight"):
        params["head"] = {
            "norm": reader.norm("mlp_head.0"),
            "linear": {"dense": reader.dense("mlp_head.1")},
        }
    reader.finish(ignore=("v.head", "p_input_"))
    return params
