"""Mixup: examples and labels that are weighted means of two (Zhang et al. 2018, arXiv:1710.09412).

Called by the methods of semi-supervised learning, on features.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array


class Clips(NamedTuple):
    """Features of clips, [B, T, F], and the samples of each before its padding, [B]."""

    spec: Any
    length: Any


def joined(*parts: Any) -> Any:
    """Return batches, trees alike, one behind the other."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def mixup(
    key: Array, alpha: float, one: Clips, other: Clips, *label: Array, folded: bool = True
) -> tuple[Any, ...]:
    """Return mixed clips, and mixed labels: share * one + (1 - share) * other.

    The share is one number for the whole batch; a mixed clip is as
    long as the longer of the two.

    Args:
      key: of the share.
      alpha: it is drawn from Beta(alpha, alpha); 0: it is 1.
      one, other: equally many.
      label: of both, in this order; none: none are mixed.
      folded: a share below a half is taken for the other's, so that `one` prevails (MixMatch).

    Raises:
      ValueError: they are not equally many.
    """
    if one.spec.shape != other.spec.shape:
        raise ValueError(
            f"mixup: got features of {one.spec.shape} and {other.spec.shape}, wanted the same shape: "
            "batches with and without labels of one size (data.batch_size)."
        )
    if not alpha:
        return (one, *label[:1])
    share = jax.random.beta(key, alpha, alpha)
    share = fold(share) if folded else share
    spec = mixed(share, one.spec, other.spec)
    clips = Clips(spec, jnp.maximum(one.length, other.length))
    return (clips, mixed(share, *label)) if label else (clips,)


def fold(share: Array) -> Array:
    """Return the larger of a share and what it leaves."""
    return jnp.maximum(share, 1 - share)


def mixed(share: Any, one: Array, other: Array) -> Array:
    """Return share * one + (1 - share) * other."""
    return share * one + (1 - share) * other


def mixed_match(
    key: Array, alpha: float, one: Clips, label: Array, other: Clips, guess: Array
) -> tuple[Clips, Array, Clips, Array]:
    """Mix clips with and without labels, each with others of all of them in random order.

    Berthelot et al. 2019, MixMatch (arXiv:1905.02249); with one share for those with labels and one for those
    without, as in the code of arXiv:2102.08183.

    Returns:
      Those with labels and their labels, those without and theirs.
    """
    order_key, one_key, other_key = jax.random.split(key, 3)
    if not alpha:
        return one, label, other, guess
    size = len(label)
    both, both_labels = joined((one, label), (other, guess))
    order = jax.random.permutation(order_key, len(both_labels))
    both, both_labels = jax.tree.map(lambda x: x[order], (both, both_labels))
    first, rest = (jax.tree.map(part, both) for part in (lambda x: x[:size], lambda x: x[size:]))
    one, label = mixup(one_key, alpha, one, first, label, both_labels[:size])
    other, guess = mixup(other_key, alpha, other, rest, guess, both_labels[size:])
    return one, label, other, guess
