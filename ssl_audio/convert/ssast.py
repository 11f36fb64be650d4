"""Published SSAST state dicts → our parameters (and the pieces that SSAMBA's share)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

State = Mapping[str, np.ndarray]


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


def shared(reader: "Reader", encoder: dict[str, Any], specials: tuple[str, ...]) -> dict[str, Any]:
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


def stacked(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the parameters of all layers along a new first axis."""
    first = layers[0]
    return {
        k: stacked([layer[k] for layer in layers])
        if isinstance(v, dict)
        else np.stack([layer[k] for layer in layers])
        for k, v in first.items()
    }


class Reader:
    """Take arrays out of a state dict, remembering what was asked for."""

    def __init__(self, state: State):
        self.state = {k.removeprefix("module."): np.asarray(v) for k, v in state.items()}
        self.taken: set[str] = set()
        self.missing: list[str] = []

    def has(self, name: str) -> bool:
        """Tell whether there is an array of this name."""
        return name in self.state

    def take(self, name: str) -> np.ndarray:
        """Return an array; a missing one is noted and reported by `finish`."""
        if name not in self.state:
            self.missing.append(name)
            return np.zeros((1, 1, 1, 1), np.float32)
        self.taken.add(name)
        return self.state[name]

    def count(self, prefix: str) -> int:
        """Return the number of layers whose names start so."""
        numbers = {int(k[len(prefix) :].split(".")[0]) for k in self.state if k.startswith(prefix)}
        if not numbers:
            raise ValueError(
                f"state dict: no key starts with '{prefix}'; is it a checkpoint of another model? "
                f"It has {', '.join(list(self.state)[:5])} …"
            )
        return 1 + max(numbers)

    def dense(self, name: str, change: Callable = np.transpose) -> dict[str, np.ndarray]:
        """Return a Linear's weight as a kernel, with its bias."""
        return {"kernel": change(self.take(f"{name}.weight")), "bias": self.take(f"{name}.bias")}

    def norm(self, name: str) -> dict[str, np.ndarray]:
        """Return a norm's weight as its scale, with its bias if it has one."""
        found = {"scale": self.take(f"{name}.weight")}
        return found | ({"bias": self.take(f"{name}.bias")} if self.has(f"{name}.bias") else {})

    def finish(self, ignore: tuple[str, ...]) -> None:
        """Raise ValueError unless every key was taken or starts with one of `ignore`."""
        left = [k for k in self.state if k not in self.taken and not k.startswith(ignore)]
        if self.missing or left:
            raise ValueError(
                f"state dict: missing keys: {', '.join(self.missing) or 'none'}; "
                f"keys nothing wants: {', '.join(left) or 'none'}."
            )
