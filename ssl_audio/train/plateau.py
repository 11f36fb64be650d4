"""A learning rate that falls where the loss no longer does, for losses of either sign."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_audio.objectives.base import MAIN


def reduce_on_plateau(
    factor: float, patience: int, span: int, rtol: float = 1e-4
) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by `factor` each time that `patience` spans in a row were no improvement.

    A span is the mean of `span` losses. It improves if it is lower than the best so far by more than
    `rtol` of the best's size. `optax.contrib.reduce_on_plateau` (0.2.8; its pull request 1767) asks for
    less than (1 - rtol) times the best: below 0 that is more than the best, so that a loss that stands
    still, or rises a little each time, improves for ever. Above 0 both do the same, and the state is
    optax's, so that older runs continue.
    """

    def init(params):
        return optax.contrib.reduce_on_plateau(factor, patience, rtol).init(params)

    def look(state: Any) -> Any:
        improved = state.avg_value < state.best_value - rtol * jnp.abs(state.best_value)
        # The first mark is infinite, and infinity less infinity is no number.
        improved |= jnp.isinf(state.best_value) & jnp.isfinite(state.avg_value)
        without = jnp.where(improved, 0, state.plateau_count + 1)
        falls = without == patience
        return state._replace(
            best_value=jnp.where(improved, state.avg_value, state.best_value),
            plateau_count=jnp.where(falls, 0, without),
            scale=jnp.where(falls, state.scale * factor, state.scale),
            count=jnp.zeros_like(state.count),
            avg_value=jnp.zeros_like(state.avg_value),
        )

    def update(updates, state: Any, params=None, **extra_args):
        del params
        count = state.count + 1
        mean = (state.count * state.avg_value + extra_args["value"]) / count
        state = state._replace(count=count, avg_value=mean.astype(state.avg_value.dtype))
        state = jax.tree.map(
            # At least: a run may go on with a shorter span than it has already counted.
            lambda after, before: jnp.where(count >= span, after, before),
            look(state),
            state,
        )
        return jax.tree.map(lambda update: state.scale * update, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def scale(opt_state: Mapping[str, Any]) -> float:
    """Return what plateaus have multiplied updates of the main phase by so far, after an update."""
    kind, chain = optax.contrib.ReduceLROnPlateauState, opt_state.get(MAIN, ())
    links: Any = [link for link in chain if isinstance(link, kind)]
    return math.prod(float(link.scale) for link in links)
