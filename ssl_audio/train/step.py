"""The generic training step: gradients of one objective, one update per phase, the rest unchanged."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_audio.distributed.sharding import path_name
from ssl_audio.objectives.base import MAIN, Batch, Objective, check_renewed, held, replaced
from ssl_audio.structs import Loss, TrainState

Metrics = Mapping[str, Any]


def init_state(
    objective: Objective, txs: Mapping[str, Any], key: jax.Array, batch: Batch
) -> TrainState:
    """Return the state of a run that has not begun. Jit it with the layout of its output."""
    init_key, key = jax.random.split(key)
    params, extra = objective.init(init_key, batch)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={p.name: txs[p.name].init(p.part(params)) for p in objective.phases},
        extra=extra,
        key=key,
    )


def make_train_step(
    objective: Objective,
    txs: Mapping[str, Any],
    *,
    accumulate: int = 1,
    learns: Callable[[Any], bool] = lambda path: True,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return (state, batch) → (state, metrics); metrics are name → (sum, weight).

    Args:
      objective: supplies loss, phases and refresh.
      txs: phase name → optax transformation.
      accumulate: split the batch in so many parts and average their gradients, each mean in the loss over
        what the parts have of it (`Loss.means`): the gradients of the whole batch.
      learns: whether the parameter at a path is updated; others do not count in "gradient_norm". Running
        statistics of what does not learn are used in training as in evaluation, and stay as they are.

    A step whose loss or gradients are not finite leaves the state as it was, but for the count, and
    reports metric "finite" 0.

    Raises:
      ValueError: accumulation with an objective that couples the examples of a batch; when it is traced,
        an objective that leaves running statistics as they were.
    """
    if accumulate > 1 and objective.couples_examples:
        raise ValueError(
            f"config.accumulate: {type(objective).__name__} compares the examples of a batch with each "
            "other, so accumulation would change its loss; use more devices or a smaller batch."
        )

    def updated(path):
        name = path_name(path)
        return learns(path) and any(phase.covers(name) for phase in objective.phases)

    def gradients(params, extra, batch, key, phase):
        def total(part, extra, batch, key, amounts=None):
            whole = held(phase.replaced(params, part), updated)
            loss: Loss = getattr(objective, phase.loss)(whole, extra, batch, key, train=True)
            check_renewed(objective, whole, loss)
            if amounts:
                means = loss.means or {}
                shares = (
                    jnp.sum(term * amount / amounts[name]) for name, (term, amount) in means.items()
                )
                loss = dataclasses.replace(loss, total=accumulate * sum(shares))
            return loss.total, loss

        grad = jax.grad(total, has_aux=True)
        if accumulate == 1:
            grads, loss = grad(phase.part(params), extra, batch, key)
            return grads, loss
        # Strided parts keep every device's share of the batch on that device.
        parts = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0), batch
        )

        def add(carry, part):
            grads, total_, extra = carry
            new, loss = grad(learned, extra, *part, amounts)
            grads = jax.tree.map(lambda a, b: a + b / accumulate, grads, new)
            return (grads, total_ + loss.total / accumulate, loss.extra), (
                loss.metrics,
                loss.renewed,
            )

        learned = phase.part(params)
        start = (jax.tree.map(jnp.zeros_like, learned), jnp.zeros((), jnp.float32), extra)
        keys = jax.random.split(key, accumulate)

        def count(extra, part):  # without gradients; what the amounts do not need is not compiled
            loss = total(learned, extra, *part)[1]
            return loss.extra, {name: amount for name, (_, amount) in (loss.means or {}).items()}

        counted = jax.lax.scan(count, extra, (parts, keys))[1]
        amounts = jax.tree.map(lambda n: jnp.maximum(jnp.sum(n, axis=0), 1e-6), counted)
        (grads, total_, extra), (metrics, renewed) = jax.lax.scan(add, start, (parts, keys))
        metrics = jax.tree.map(lambda m: jnp.sum(m, axis=0), metrics)
        renewed = jax.tree.map(lambda x: jnp.mean(x, axis=0), renewed)
        return grads, Loss(total_, metrics, extra, renewed)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        params, extra, opt_state, report = state.params, state.extra, dict(state.opt_state), {}
        finite = jnp.array(True)
        for number, phase in enumerate(objective.phases):
            key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), number)
            grads, loss = gradients(params, extra, batch, key, phase)
            extra, norm = loss.extra, optax.tree.norm(grads)
            finite &= jnp.isfinite(loss.total) & jnp.isfinite(norm)
            part = phase.part(params)  # the rest has neither gradients nor an optimizer's state
            updates, opt_state[phase.name] = txs[phase.name].update(
                grads, opt_state[phase.name], part, value=loss.total
            )
            params = phase.replaced(params, optax.apply_updates(part, updates))
            params = params if loss.renewed is None else replaced(params, loss.renewed)
            alone = len(objective.phases) == 1 or phase.name == MAIN
            prefix = "" if alone else f"{phase.name}/"
            report |= {prefix + name: value for name, value in loss.metrics.items()}
            report[f"{prefix}loss"] = (loss.total, 1.0)
            named = jax.tree_util.tree_leaves_with_path(grads)
            counted = optax.tree.norm([gradient for path, gradient in named if learns(path)])
            report[f"{prefix}gradient_norm"] = (counted, 1.0)
        extra = objective.refresh(params, extra, state.step)
        new = (params, opt_state, extra)
        old = (state.params, dict(state.opt_state), state.extra)
        params, opt_state, extra = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
        report["finite"] = (finite.astype(jnp.float32), 1.0)
        state = TrainState(state.step + 1, params, opt_state, extra, state.key)
        return state, report

    return step
