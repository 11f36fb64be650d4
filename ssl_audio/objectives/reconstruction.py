"""How decoded sound is compared with recorded sound, and several such losses are balanced.

EnCodec (Défossez et al. 2022, arXiv:2210.13438) sections 3.4 and 3.5; DAC (Kumar et al. 2023,
arXiv:2306.06546) section 3.5; called by codecs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Wave
from ssl_audio.frontend.mel import Mel

Losses = Mapping[str, Callable[[Array], Array]]


class Gan(NamedTuple):
    """What scores of a discriminator cost.

    Attributes:
      fooling: of decoded sound, the codec.
      real, fake: of recorded and of decoded sound, the discriminator.
    """

    fooling: Callable[[Array], Array]
    real: Callable[[Array], Array]
    fake: Callable[[Array], Array]


GANS = {
    "hinge": Gan(lambda s: -s, lambda s: jax.nn.relu(1 - s), lambda s: jax.nn.relu(1 + s)),
    "least_squares": Gan(lambda s: (1 - s) ** 2, lambda s: (1 - s) ** 2, lambda s: s**2),
}
# Of magnitudes and of their logarithms: mean absolute and mean squared difference, as EnCodec; of the
# logarithms alone, absolute, as DAC.
SPECTRAL = ("magnitudes_and_logs", "logs")
JUDGED = ("adversarial", "matching")  # losses that a discriminator gives: `judged`


def balanced(
    losses: Losses,
    weights: Mapping[str, Any],
    norms: Mapping[str, Array],
    sound: Float[Array, "B S C"],
    decay: float,
) -> tuple[Array, dict[str, Array], dict[str, Any]]:
    """Return the losses' weighted mean, whose gradient at `sound` is balanced; new norms; metrics.

    The gradient of each loss is divided by the moving average of its norm, then weighted. That of each clip
    has a norm of about 1, however many there are, as in the released code: what is not balanced, such as the
    commitment, counts the less the larger the batch is.

    Args:
      losses: name → function of the sound.
      weights: of each.
      norms: of each, the sums of its gradients' norms and of their weights so far.
      sound: decoded.
      decay: of these sums.
    """
    gradient, value = jnp.zeros_like(sound), jnp.zeros(())
    after, metrics, whole = {}, {}, sum(weights[name] for name in losses)
    at, rows = jax.lax.stop_gradient(sound), float(len(sound))
    for name, loss in losses.items():
        found, slope = jax.value_and_grad(loss)(at)
        slope = slope * rows  # of each clip's own loss: norms do not fall as batches grow
        norm = jnp.mean(jnp.sqrt(jnp.sum(slope**2, (1, 2))))
        after[name] = decay * norms[name] + jnp.stack([norm, jnp.ones(())])
        mean = after[name][0] / after[name][1]
        gradient = gradient + weights[name] / whole / (mean + 1e-12) * slope
        value = value + weights[name] / whole * found
        metrics[name] = (found * rows, rows)
    descended = jnp.sum(jax.lax.stop_gradient(gradient) * sound)
    total = descended - jax.lax.stop_gradient(descended) + jax.lax.stop_gradient(value)
    return total, after, metrics


def weighted(
    losses: Losses, weights: Mapping[str, Any], sound: Float[Array, "B S C"]
) -> tuple[Array, dict[str, Any]]:
    """Return the losses' weighted sum, and metrics."""
    total, metrics, rows = jnp.zeros(()), {}, float(len(sound))
    for name, loss in losses.items():
        found = loss(sound)
        total = total + weights[name] * found
        metrics[name] = (found * rows, rows)
    return total, metrics


def spectral(
    spectra: Sequence[Mel], sound: Wave, wanted: Wave, how: str = SPECTRAL[0]
) -> Float[Array, ""]:
    """Return the mean over log-mels of how far they are apart, by one of SPECTRAL.

    Logarithms are natural ones of magnitudes. The weight of each scale is not published for EnCodec, and the
    same for DAC: all count the same.
    """
    total = jnp.zeros(())
    for mel in spectra:
        ours, theirs = (mel.log_mel(x) * (math.log(10) / 20) for x in (sound, wanted))
        if how == "logs":
            total = total + jnp.mean(jnp.abs(ours - theirs))
        else:
            total = total + jnp.mean(jnp.abs(jnp.exp(ours) - jnp.exp(theirs)))
            total = total + jnp.mean((ours - theirs) ** 2)
    return total / len(spectra)


def judged(said: Callable[[Wave], Any], x: Float[Array, "B S C"], gan: Gan) -> Losses:
    """Return the losses that a discriminator gives decoded sound, JUDGED.

    Args:
      said: clips → of each of its parts scores, and what came before them.
      x: recorded sound.
      gan: what scores cost.
    """

    def adversarial(sound):
        return cost([scores for scores, _ in said(mono(sound))], gan.fooling)

    def matching(sound):
        apart = [
            jnp.mean(jnp.abs(a - b))
            for (_, ours), (_, theirs) in zip(said(mono(sound)), said(mono(x)), strict=True)
            for a, b in zip(ours, theirs, strict=True)
        ]
        return jnp.mean(jnp.stack(apart))

    return dict(zip(JUDGED, (adversarial, matching), strict=True))


def cost(scores: Sequence[Array], of: Callable[[Array], Array]) -> Float[Array, ""]:
    """Return the mean over a discriminator's parts of what their scores cost on average."""
    return jnp.mean(jnp.stack([jnp.mean(of(some)) for some in scores]))


def mono(x: Float[Array, "B S C"]) -> Wave:
    """Return each channel as a clip."""
    return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1])
