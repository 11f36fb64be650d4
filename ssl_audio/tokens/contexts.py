"""What a model sees of a clip and what it is to predict of it: dense masks, one draw per clip.

Called by objectives that predict several sets of targets from one context. Their sizes may differ between
clips and draws, since nothing is cut out: who sees what is told by masks.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, PRNGKeyArray


@runtime_checkable
class Contexts(Protocol):
    """A function of a key, the number of clips and the grid of their tokens."""

    def __call__(
        self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]
    ) -> tuple[Bool[Array, "B N"], Bool[Array, "B S N"]]:
        """Return which tokens each clip's context has, and which each of its S sets of targets."""
        ...


@dataclasses.dataclass(frozen=True)
class Share:
    """Hide a random share of the tokens, the same for the batch, of random tokens: the only set of targets.

    Tuncay et al. 2025, Audio-JEPA (arXiv:2507.02915).

    Attributes:
      low, high: bounds of the share, uniform; as many tokens are seen as its complement gives, rounded down.
    """

    low: float = 0.4
    high: float = 0.6

    def __post_init__(self):
        if not 0 < self.low <= self.high < 1:
            raise ValueError(
                f"Share: low={self.low}, high={self.high}; wanted 0 < low <= high < 1."
            )

    def __call__(
        self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]
    ) -> tuple[Bool[Array, "B N"], Bool[Array, "B 1 N"]]:
        """Return the context of each clip, and all other tokens."""
        total = grid[0] * grid[1]
        share_key, key = jax.random.split(key)
        share = jax.random.uniform(share_key, (), minval=self.low, maxval=self.high)
        count = jnp.clip(jnp.floor(total * (1 - share)).astype(jnp.int32), 1, total - 1)
        rank = jax.vmap(lambda k: jax.random.permutation(k, total))(jax.random.split(key, batch))
        seen = rank < count
        return seen, ~seen[:, None]


@dataclasses.dataclass(frozen=True)
class SpanSets:
    """Several sets of spans of time columns to predict; the context is made of the gaps of other spans.

    In a set, and between gaps, int(p columns / length + u) spans, u uniform in [0, 1), start at different
    random columns, and may overlap. The context has what no span covers, less all targets; a draw whose
    context is too small is repeated (Yuksel et al. 2025, WavJEPA, arXiv:2509.23238).

    Attributes:
      hidden: p of the spans that the context lies between.
      target: p of each set.
      length: columns of a span.
      sets: S.
      least: share of the columns that a context has at least, if one of `tries` draws does; else the largest
        of them is taken.
      tries: draws.
    """

    hidden: float = 0.65
    target: float = 0.25
    length: int = 10
    sets: int = 4
    least: float = 0.1
    tries: int = 16

    def __post_init__(self):
        if min(self.length, self.sets, self.tries) < 1:
            raise ValueError(
                f"SpanSets: length={self.length}, sets={self.sets}, tries={self.tries}; wanted 1 or more."
            )
        for name in ("hidden", "target", "least"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"SpanSets: {name} is {getattr(self, name)}; wanted a share above 0 and below 1."
                )

    def __call__(
        self, key: PRNGKeyArray, batch: int, grid: tuple[int, int]
    ) -> tuple[Bool[Array, "B N"], Bool[Array, "B S N"]]:
        """Return context and sets of targets of each clip, of all rows of the chosen columns.

        Raises:
          ValueError: there are not more columns than a span has.
        """
        rows, columns = grid
        if columns <= self.length:
            raise ValueError(
                f"SpanSets: {columns} columns are not more than the {self.length} of a span; use longer "
                "clips, or a smaller length."
            )
        context, targets = jax.vmap(lambda k: self._draw(k, columns))(jax.random.split(key, batch))
        return jnp.tile(context, (1, rows)), jnp.tile(targets, (1, 1, rows))

    def _draw(self, key, columns):
        def once(key):
            keys = jax.random.split(key, self.sets + 1)
            targets = jax.vmap(lambda k: self._covered(k, columns, self.target))(keys[1:])
            hidden = self._covered(keys[0], columns, self.hidden)
            return ~hidden & ~jnp.any(targets, axis=0), targets

        contexts, targets = jax.vmap(once)(jax.random.split(key, self.tries))
        size = jnp.sum(contexts, axis=1)
        # The first that is large enough; if none is, the largest.
        enough = size >= self.least * columns
        first = jnp.where(jnp.any(enough), jnp.argmax(enough), jnp.argmax(size))
        return contexts[first], targets[first]

    def _covered(self, key, columns: int, p: float) -> Bool[Array, " columns"]:
        """Return which columns the spans cover."""
        count_key, start_key = jax.random.split(key)
        wanted = p * columns / self.length + jax.random.uniform(count_key)
        count = jnp.maximum(jnp.floor(wanted).astype(jnp.int32), 1)
        places = columns - self.length  # where a span may start
        starts = jax.random.permutation(start_key, places) < count
        reach = [jnp.pad(starts, (i, self.length - i)) for i in range(self.length)]
        return jnp.any(jnp.stack(reach), axis=0)
