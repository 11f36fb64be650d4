"""From the `optim` part of a config to optax: schedules, decay masks, per-path rates, averaging."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from ssl_audio.config import Duration, duration
from ssl_audio.distributed.sharding import path_name
from ssl_audio.objectives.base import Phase
from ssl_audio.train.plateau import reduce_on_plateau

BEFORE_LAYERS = "^tokenizer/|/(positions|special)(/|$)"


@dataclasses.dataclass(frozen=True)
class Optim:
    """An Adam optimizer and its schedule.

    Attributes:
      lr: peak learning rate.
      b1, b2, eps: Adam's.
      weight_decay: decoupled (AdamW), or `coupled` into the gradient before Adam (L2, as torch's Adam).
      decay: regex of the parameter paths that decay.
      warmup: duration of the linear rise from 0.
      warmup_hold: steps for which the warm-up rate is held (the published SSAST loop sets it every 50,
        so that its first 50 steps have rate 0).
      schedule: after warm-up: "constant", "cosine" or "linear" (to 0 at the end), "steps" or "exponential".
      steps_at, gamma: "steps" multiplies the rate by gamma at each of these durations, "exponential" at
        every step.
      plateau: multiply the rate by gamma when the mean loss over this duration has not improved for more
        than `patience` such spans in a row; 0 is off.
      patience: see plateau.
      clip: largest global gradient norm; 0 is off.
      rates: path regex → factor on the rate, first match; 0 freezes, and is not counted by `clip`.
      layer_decay: factor on the rate per layer counted down from the head; what comes before the layers
        learns slowest (Clark et al. 2020, arXiv:2003.10555, section 3.3). 1 is off.
      average: decay of the exponential moving average of the parameters kept beside them; 0 is off.
      average_every, average_from: keep their plain mean over snapshots instead, one at each of the first
        duration from the second on (Izmailov et al. 2018, arXiv:1803.05407); 0 is off.
    """

    lr: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    coupled: bool = False
    decay: str = r"(kernel|proj)$"
    warmup: Duration = 0
    warmup_hold: int = 1
    schedule: str = "constant"
    steps_at: tuple[Duration, ...] = ()
    gamma: float = 0.5
    plateau: Duration = 0
    patience: int = 2
    clip: float = 0.0
    rates: dict = dataclasses.field(default_factory=dict)
    layer_decay: float = 1.0
    average: float = 0.0
    average_every: Duration = 0
    average_from: Duration = 0

    def __post_init__(self):
        if self.average and self.average_every:
            raise ValueError("average and average_every exclude each other: choose one.")
        for name in ("lr", "eps", "weight_decay", "gamma", "clip", "layer_decay", "patience"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: wanted at least 0, got {getattr(self, name)}")
        for name in ("b1", "b2", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: wanted 0 to 1, and less than 1, got {getattr(self, name)}"
                )
        if self.warmup_hold < 1:
            raise ValueError(f"warmup_hold: wanted at least 1, got {self.warmup_hold}")

    def rate(self, total: int, epoch: int | None = None) -> optax.Schedule:
        """Return step → learning rate."""
        warmup = duration(self.warmup, total=total, epoch=epoch)
        if self.schedule == "constant":
            after = optax.constant_schedule(1.0)
        elif self.schedule == "cosine":
            after = optax.cosine_decay_schedule(1.0, max(1, total - warmup))
        elif self.schedule == "linear":
            after = optax.linear_schedule(1.0, 0.0, max(1, total - warmup))
        elif self.schedule == "steps":
            at = [duration(s, total=total, epoch=epoch) - warmup for s in self.steps_at]
            after = optax.piecewise_constant_schedule(1.0, dict.fromkeys(at, self.gamma))
        elif self.schedule == "exponential":
            after = optax.exponential_decay(1.0, 1, self.gamma)
        else:
            raise ValueError(
                f"config.optim.schedule: '{self.schedule}'; wanted constant, cosine, linear, steps or "
                "exponential."
            )

        def schedule(step):
            rising = step // self.warmup_hold * self.warmup_hold / max(warmup, 1)
            return self.lr * jnp.where(step < warmup, rising, after(jnp.maximum(step - warmup, 0)))

        return schedule

    def make(
        self, phases: tuple[Phase, ...], total: int, epoch: int | None = None
    ) -> dict[str, optax.GradientTransformationExtraArgs]:
        """Return one gradient transformation per phase."""
        return {phase.name: self._chain(phase, total, epoch) for phase in phases}

    def learns(self, path: Any) -> bool:
        """Return whether the parameter at a path of JAX is updated: no rate of 0 freezes it."""
        return _factor(self.rates, path) != 0

    def scaling(self) -> optax.GradientTransformation:
        """Return what turns gradients into updates, before decay and rate."""
        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def _chain(self, phase, total, epoch):
        def matching(pattern):
            return lambda params: jax.tree_util.tree_map_with_path(
                lambda path, _: re.search(pattern, path_name(path)) is not None, params
            )

        # What is frozen counts in no norm: it is clipped as if only the rest had gradients.
        steps = [_without(self.rates)] if self.clip and 0 in self.rates.values() else []
        steps += [optax.clip_by_global_norm(self.clip)] if self.clip else []
        decay = optax.add_decayed_weights(self.weight_decay, matching(self.decay))
        if self.weight_decay and self.coupled:
            steps.append(decay)
        steps.append(self.scaling())
        if self.weight_decay and not self.coupled:
            steps.append(decay)
        steps.append(optax.scale_by_learning_rate(self.rate(total, epoch)))
        if self.plateau:
            span = duration(self.plateau, total=total, epoch=epoch)
            steps.append(
                # It counts the span that decides.
                reduce_on_plateau(factor=self.gamma, patience=self.patience + 1, span=span)
            )
        if self.rates or phase.trains != ".*":
            steps.append(_scale_by_path(self.rates, phase.trains))
        if self.layer_decay != 1:
            steps.append(_scale_by_layer(self.layer_decay))
        if self.average:
            steps.append(track_average(lambda count: 1 - self.average))
        if self.average_every:
            every, start = (
                duration(d, total=total, epoch=epoch)
                for d in (self.average_every, self.average_from)
            )
            steps.append(track_average(lambda count: snapshot_weight(count, every, start)))
        return optax.with_extra_args_support(optax.chain(*steps))


def _factor(rates: dict, path: Any) -> float:
    """Return the factor on the rate of the parameter at a path."""
    name = path_name(path)
    return next((float(f) for pattern, f in rates.items() if re.search(pattern, name)), 1.0)


def _without(rates: dict) -> optax.GradientTransformation:
    """Replace the gradients of what `rates` freezes by zeros."""

    def zero(path, gradient):
        return gradient if _factor(rates, path) else jnp.zeros_like(gradient)

    return optax.stateless(lambda grads, _: jax.tree_util.tree_map_with_path(zero, grads))


def _scale_by_path(rates: dict, trains: str) -> optax.GradientTransformation:
    """Scale each update by the factor of its path; by 0 outside `trains`."""

    def factor(path):
        return _factor(rates, path) if re.search(trains, path_name(path)) else 0.0

    return optax.stateless(
        lambda updates, _: jax.tree_util.tree_map_with_path(lambda p, u: u * factor(p), updates)
    )


def _scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Scale the updates of stacked layers [L, …] by decay^(L - l), of what precedes them by decay^(L + 1)."""

    def update(updates, _):
        named = jax.tree_util.tree_leaves_with_path(updates)
        depths = {len(u) for path, u in named if "/layers/" in path_name(path)}
        if len(depths) != 1:
            raise ValueError(
                f"config.optim.layer_decay: wanted one stack of layers, got depths {depths or 'none'}."
            )
        (depth,) = depths

        def scale(path, u):
            name = path_name(path)
            if "/layers/" in name:
                factor = decay ** (depth - jnp.arange(depth, dtype=u.dtype))
                return u * factor.reshape(-1, *[1] * (u.ndim - 1))
            return u * decay ** (depth + 1) if re.search(BEFORE_LAYERS, name) else u

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.stateless(update)


def track_average(weight: Callable[[Any], Any]) -> optax.GradientTransformation:
    """Keep an average of the parameters in the state; pass updates through.

    Args:
      weight: number of updates done → share of the newest parameters in the average.
    """

    def init(params):
        return {"average": params, "count": jnp.zeros((), jnp.int32)}

    def update(updates, state, params=None):
        new, count = optax.apply_updates(cast(Any, params), updates), state["count"] + 1
        share = weight(count)
        average = jax.tree.map(lambda a, p: (1 - share) * a + share * p, state["average"], new)
        return updates, {"average": average, "count": count}

    return optax.GradientTransformation(init, update)


def snapshot_weight(count: Any, every: int, start: int) -> Any:
    """Return the share that makes the mean of snapshots; before the first one the newest is all."""
    since = jnp.maximum(count - start, 0)
    return jnp.where(since % every == 0, 1 / (1 + since // every), 0.0)
