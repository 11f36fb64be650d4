"""Latent prediction that goes on with mixtures, in which the features of both clips are to be retained.

Alex et al. 2025, SSLAM (ICLR 2025, openreview.net/forum?id=odU59TxdiB): the second stage, after EAT.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int, PRNGKeyArray, Spec
from ssl_audio.heads.readout import special_tokens
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.latent_prediction import LatentPrediction, averaged
from ssl_audio.structs import Loss
from ssl_audio.tokens.masking import others
from ssl_audio.tokens.order import reorder


@dataclasses.dataclass(frozen=True)
class Retention(LatentPrediction):
    """Regress a teacher's features of clips, of mixtures, and of both clips in a mixture.

    Each clip is mixed with its partner, the clip before it in the batch, but for two windows of columns
    that are the same in the whole batch. What `LatentPrediction` has is used as there; but the target of the
    special token is of the teacher's last layer, not of all.

    Attributes:
      unmixed: share of the columns that both windows have together; each gets half, rounded down.
      retention: weight of the mean error of what is to be retained. The released code sums errors, these
        over half as many tokens as the others, with weight 2: the same.
    """

    couples_examples: ClassVar[bool] = True

    unmixed: float = 0.46875
    retention: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.unmixed <= 1:
            raise ValueError(
                f"Retention: unmixed is {self.unmixed}; wanted a share above 0, and at most 1."
            )

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the loss over fresh mixtures and masks; a mixture has the masks of its clip."""
        mask_key, noise_key, key, layout_key = jax.random.split(key, 4)
        spec = self.heard(batch, key if train else None)
        clips, grid = len(spec), self.tokenizer.grid(*spec.shape[1:])
        mixed = self.mixed(layout_key, grid[1])
        # A mixture lies beside its clip, so that both stay on one device.
        both = _beside(spec, self.mixtures(spec, batch["length"], mixed))
        hidden = self.masking(mask_key, self.clones * clips, grid).reshape(clips, self.clones, -1)
        hidden = _beside(hidden, hidden).reshape(2 * clips * self.clones, -1)
        shown = others(hidden, grid[0] * grid[1])
        noise = self.gaps(noise_key, len(hidden), grid)
        encoded = self.visible(params, both, shown, key if train else None)
        made = self.reconstruct(params, encoded, noise)
        target, layers = self.targets(extra, both)
        last = jnp.mean(averaged(layers[-1:]), axis=1)
        clip = self.distance(special_tokens(encoded), jnp.repeat(last, self.clones, axis=0))

        def error(wanted: Float[Array, "K N D"], rows: Any) -> Float[Array, ""]:
            # [clips, 2, clones, …], of which all or the mixtures
            found, at = (
                x.reshape(clips, 2, self.clones, *x.shape[1:])[:, rows].reshape(-1, *x.shape[1:])
                for x in (made, hidden)
            )
            wanted = jnp.repeat(wanted, self.clones, axis=0)
            pair = (jnp.take_along_axis(x, at[..., None], axis=1) for x in (found, wanted))
            return jnp.mean(self.distance(*pair))

        parts = {
            "patch": error(target, slice(None)),
            "clip": jnp.mean(clip),
            "retention": error(self.retained(extra, spec, target[::2], mixed), slice(1, None)),
        }
        spread = {"target_deviation": jnp.mean(jnp.std(target, axis=(0, 1)))}
        weight = float(clips)
        metrics = {name: (weight * value, weight) for name, value in (parts | spread).items()}
        total = parts["patch"] + self.utterance * parts["clip"]
        total = total + self.retention * parts["retention"]
        return Loss(total=total, metrics=metrics, extra=extra)

    def window(self, columns: int) -> int:
        """Return the columns of each window that stays unmixed, of so many in all.

        Raises:
          ValueError: there are too few for two windows.
        """
        size = int(self.unmixed * columns / 2)
        if size < 1:
            raise ValueError(
                f"Retention: a share of {self.unmixed} of {columns} columns gives two windows of less than "
                f"one; use longer clips, or unmixed={2 / columns:.2f} or more."
            )
        return size

    def mixed(self, key: PRNGKeyArray, columns: int) -> Int[Array, " C"]:
        """Return the columns to mix, ascending, in a fresh layout.

        Of 64 columns, as published: 15 stay unmixed from one of 0 to 31 on, 15 more from one behind these up
        to 48 on; 34 are mixed.
        """
        size = self.window(columns)
        keys = jax.random.split(key)
        first = jax.random.randint(keys[0], (), 0, min(columns // 2, columns - 2 * size + 1))
        least = first + size
        most = jnp.maximum(columns - size - 1, least)
        second = jax.random.randint(keys[1], (), least, most + 1)
        place = jnp.arange(columns, dtype=jnp.int32)
        inside = [(place >= start) & (place < start + size) for start in (first, second)]
        return jnp.argsort(inside[0] | inside[1], stable=True)[: columns - 2 * size].astype(
            jnp.int32
        )

    def mixtures(self, spec: Spec, length: Int[Array, "B"], mixed: Int[Array, " C"]) -> Spec:
        """Return each clip with the louder of it and of its partner in every bin of the mixed columns.

        Padding is silent: it does not hide the other clip, as normalised padding would.
        """
        width, step = self.tokenizer.patch[1], self.tokenizer.stride[1]
        frame = jnp.arange(spec.shape[1])[:, None]
        start = mixed[None] * step
        there = jnp.any((frame >= start) & (frame < start + width), axis=1)
        sound = self.frontend.valid(length, spec.shape[1])[..., None]
        heard = jnp.where(sound, spec, -jnp.inf)
        other = jnp.where(there[None, :, None], jnp.roll(heard, 1, axis=0), -jnp.inf)
        louder = jnp.maximum(heard, other)
        return jnp.where(jnp.isfinite(louder), louder, spec)

    def retained(
        self,
        extra: Extra,
        spec: Spec,
        target: Float[Array, "B N D"],
        mixed: Int[Array, " C"],
    ) -> Float[Array, "B N D"]:
        """Return what a mixture's features should be: the clip's target, in mixed columns half of it.

        The other half is the teacher's of the partner, of which it hears the mixed columns only, at their
        places.

        Args:
          extra: holds the teacher.
          spec: the clips.
          target: the teacher's of them.
          mixed: columns.
        """
        if not len(mixed):
            return target
        weights = {"params": extra["teacher"]["tokenizer"]}
        tokens: Any = self.tokenizer.apply(weights, jnp.roll(spec, 1, axis=0))
        row = jnp.arange(tokens.grid[0], dtype=jnp.int32)[:, None]
        places = (row * tokens.grid[1] + mixed[None]).reshape(-1)
        part = reorder(tokens, jnp.broadcast_to(places[None], (len(spec), len(places))))
        partner = averaged(self.taught(extra, part))
        return (target + target.at[:, places].set(partner)) / 2


def _beside(one: Array, other: Array) -> Array:
    """Return [2 B, …]: each entry of `one`, followed by that of `other`."""
    return jnp.stack([one, other], axis=1).reshape(2 * len(one), *one.shape[1:])
