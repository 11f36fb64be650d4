"""What checkpoints of timm-like vision transformers share: names of layers, tokens column by column.

Audio-MAE, ASiT and EAT transpose spectrograms: their tokens go down one time column after the other,
and their patches have time as the slow axis. Ours have frequency as the slow axis in both.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ssl_audio.convert.base import State, count, dense, need, norm, unstacked
from ssl_audio.convert.options import Options


def layers(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return stacked layers of attention and MLP under the names `NAME.0.norm1.weight`, …"""
    state = {}
    for i, layer in enumerate(unstacked(params)):
        at = f"{name}.{i}"
        state |= norm(f"{at}.norm1", layer["norm_mixer"])
        state |= attention(f"{at}.attn", layer["mixer"])
        state |= norm(f"{at}.norm2", layer["norm_mlp"])
        state |= mlp(f"{at}.mlp", layer["mlp"])
    return state


def attention(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return the fused map to queries, keys and values, the output map, and a gate's if there is one."""
    state = dense(f"{name}.qkv", params["qkv"]) | dense(f"{name}.proj", params["out"])
    return state | (dense(f"{name}.gate", params["gate"]) if "gate" in params else {})


def mlp(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return the two layers of a perceptron."""
    return dense(f"{name}.fc1", params["up"]) | dense(f"{name}.fc2", params["down"])


def blocks(
    state: State,
    options: Options,
    name: str,
    *,
    heads: str,
    eps: float,
    kind: str = "blocks:PreNorm",
) -> dict[str, Any]:
    """Return width, depth and block of the layers `NAME.0.…` as the config of a stack.

    Args:
      state: their state dict.
      options: of the conversion.
      name: of the layers.
      heads: the option that holds the number of attention heads.
      eps: of the layer norms.
      kind: of the block.
    """
    qkv, hidden = need(state, f"{name}.0.attn.qkv.weight", f"{name}.0.mlp.fc1.weight")
    width = qkv.shape[1]
    mixer = dict(
        kind="attention",
        heads=options.heads(heads, width),
        bias=f"{name}.0.attn.qkv.bias" in state,
    )
    if f"{name}.0.attn.gate.weight" in state:
        mixer["gate"] = True
    layer_norm = dict(kind="norms:LayerNorm", eps=eps)
    return dict(
        kind="stack",
        width=width,
        depth=count(state, f"{name}."),
        block=dict(kind=kind, mixer=mixer, norm=layer_norm, mlp=hidden.shape[0] / width),
        final_norm=layer_norm,
    )


@dataclasses.dataclass(frozen=True)
class TimeMajor:
    """How their order of tokens and pixels relates to ours.

    Attributes:
      grid: (frequency rows, time columns).
      patch: (mel bins, frames).
    """

    grid: tuple[int, int]
    patch: tuple[int, int]

    def table(self, rows: Any) -> Any:
        """Return our rows [N, D], one per token, in their order."""
        return rows.reshape(*self.grid, -1).swapaxes(0, 1).reshape(rows.shape)

    def kernel(self, ours: Any) -> Any:
        """Return our patch embedding [G, D] as the weight of their convolution."""
        return ours.reshape(*self.patch, -1).transpose(2, 1, 0)[:, None]

    def pixels(self, ours: Any) -> Any:
        """Return the values of patches [..., G] with time as the slow axis."""
        cut = ours.reshape(*ours.shape[:-1], *self.patch)
        return cut.swapaxes(-1, -2).reshape(ours.shape)

    def places(self, theirs: Any) -> Any:
        """Return token numbers of theirs as positions in our grid."""
        rows, columns = self.grid
        theirs = jnp.asarray(theirs, jnp.int32)
        return theirs % rows * columns + theirs // rows

    def joined(self, ours: Any) -> Any:
        """Return a sequence [B, P + N, D] that begins with P special tokens in their order."""
        special = ours.shape[1] - self.grid[0] * self.grid[1]
        return jnp.concatenate([ours[:, :special], self.tokens(ours[:, special:])], axis=1)

    def tokens(self, ours: Any) -> Any:
        """Return a sequence [B, N, D] of all our tokens in their order."""
        cut = ours.reshape(ours.shape[0], *self.grid, -1)
        return cut.swapaxes(1, 2).reshape(ours.shape)


def class_table(params: Any, order: TimeMajor) -> np.ndarray:
    """Return positions as one table [1, P + N, D] in their order, special tokens first."""
    return np.concatenate([params["special"], order.table(params["table"])])[None]
