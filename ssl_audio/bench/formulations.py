"""Other ways to write the same recurrence, to compare with: none of them is used elsewhere."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def associative(u, delta, A, B, C):
    """Scan [B, N, E] inputs with `lax.associative_scan` over [B, N, E, R] decays and inputs."""
    decay = jnp.exp(delta[..., None] * A[None, None])
    entering = (delta * u)[..., None] * B[:, :, None]
    _, h = lax.associative_scan(_compose, (decay, entering), axis=1)
    return jnp.einsum("bner,bnr->bne", h, C)


def chunked(u, delta, A, B, C, size: int = 64):
    """The same, `size` tokens at a time, recomputed for gradients."""
    batch, length, channels = u.shape

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, -length % size), (0, 0)))
        return jnp.moveaxis(x.reshape(batch, -1, size, x.shape[-1]), 1, 0)

    @jax.checkpoint
    def chunk(h, now):
        u, delta, B, C = now
        decay = jnp.exp(delta[..., None] * A[None, None])
        entering = (delta * u)[..., None] * B[:, :, None]
        decays, states = lax.associative_scan(_compose, (decay, entering), axis=1)
        states = states + decays * h[:, None]
        return states[:, -1], jnp.einsum("bner,bnr->bne", states, C)

    h = jnp.zeros((batch, *A.shape), u.dtype)
    _, y = lax.scan(chunk, h, [cut(x) for x in (u, delta, B, C)])
    return jnp.moveaxis(y, 0, 1).reshape(batch, -1, channels)[:, :length]


def _compose(left, right):
    return left[0] * right[0], right[0] * left[1] + right[1]


def torch_scan(u: Any, delta: Any, A: Any, B: Any, C: Any) -> Any:
    """Scan in PyTorch, a loop over tokens that keeps nothing it can do without."""
    import torch

    h = torch.zeros(u.shape[0], *A.shape)
    out = []
    for u_t, delta_t, B_t, C_t in zip(*(x.unbind(1) for x in (u, delta, B, C)), strict=True):
        h = torch.exp(delta_t[..., None] * A) * h + (delta_t * u_t)[..., None] * B_t[:, None]
        out.append((h * C_t[:, None]).sum(-1))
    return torch.stack(out, 1)


def torch_encoder(width: int, depth: int, mixer: dict[str, Any], mlp: float) -> Any:
    """Return a PyTorch encoder [B, N, D] → [B, N, D] of the same arithmetic as ours.

    `mixer` is its config: with `heads`, attention; else a bidirectional selective SSM.
    """
    from torch import nn

    if mixer.get("heads"):
        return nn.Sequential(
            *[
                nn.TransformerEncoderLayer(
                    width, mixer["heads"], round(mlp * width), 0.0, "gelu", 1e-6, True, True
                )
                for _ in range(depth)
            ]
        )
    return nn.Sequential(*[_torch_mamba(width) for _ in range(depth)])


def _torch_mamba(width: int, state: int = 16, taps: int = 4) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    inner, rank = 2 * width, -(-width // 16)

    class Direction(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(inner, inner, taps, groups=inner, padding=taps - 1)
            self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
            self.dt_proj = nn.Linear(rank, inner)
            rates = torch.arange(1.0, state + 1).log().expand(inner, state)
            self.a_log = nn.Parameter(rates.clone())
            self.skip = nn.Parameter(torch.ones(inner))

        def forward(self, u):
            mixed = self.conv(u.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2)
            u = functional.silu(mixed)
            dt, into, out = self.x_proj(u).split([rank, state, state], -1)
            step = functional.softplus(self.dt_proj(dt))
            return torch_scan(u, step, -self.a_log.exp(), into, out) + u * self.skip

    class Mamba(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.into, self.out = (
                nn.Linear(width, 2 * inner, bias=False),
                nn.Linear(inner, width, bias=False),
            )
            self.ahead, self.back = Direction(), Direction()

        def forward(self, x):
            u, z = self.into(self.norm(x)).chunk(2, -1)
            y = self.ahead(u) + self.back(u.flip(1)).flip(1)
            return x + self.out(y / 2 * functional.silu(z))

    return Mamba()


def torch_training_step(model: Any, x: Any, target: Any, dtype: str = "float32") -> Any:
    """Return a call that does one AdamW step of a PyTorch model on the mean squared error.

    A `dtype` other than float32 is that of autocast, for the forward pass.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    low = dtype != "float32"

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", getattr(torch, dtype), low):
            made = model(x)
        loss = torch.nn.functional.mse_loss(made.float(), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
