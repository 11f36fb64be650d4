"""Codes drawn one column after another from a language model that remembers (`backbones/codes_lm.py`)."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.backbones.codes_lm import CodesLm, Memory, apart
from ssl_audio.quantizers.patterns import NONE, Pattern

EVERY = 50  # columns between two reports of how far it is


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a code is drawn from logits.

    Attributes:
      guidance: logits are those without the condition plus so many times the difference of those with it
        (Ho & Salimans 2022, arXiv:2207.12598); 1: with it.
      temperature: logits are divided by it; 0: the likeliest code.
      top_k: of the likeliest codes only; 0: all.
      top_p: of the likeliest codes only that together have this probability; 1: all (nucleus sampling,
        Holtzman et al. 2020, arXiv:1904.09751).
    """

    guidance: float = 3.0
    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 1.0

    def __post_init__(self):
        for name, fits, wanted in (
            ("guidance", self.guidance >= 0, "0 or more"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, up to 1"),
        ):
            if not fits:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted {wanted}.")

    def kept(self, logits: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
        """Return logits after temperature, with those left out at minus infinity."""
        logits = logits / self.temperature if self.temperature else logits
        codes = logits.shape[-1]
        if 0 < self.top_k < codes:
            least = jax.lax.top_k(logits, self.top_k)[0][..., -1:]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        if self.top_p < 1:
            falling = -jnp.sort(-logits, axis=-1)
            p = jax.nn.softmax(falling, -1)
            before = jnp.cumsum(p, -1) - p  # of the likelier ones; the likeliest always stays
            count = jnp.sum(before < self.top_p, -1, keepdims=True)
            least = jnp.take_along_axis(falling, count - 1, -1)
            logits = jnp.where(logits < least, -jnp.inf, logits)
        return logits

    def draw(self, keys: Any, logits: Float[Array, "B Q V"]) -> Int[Array, "B Q"]:
        """Return a code of each example and book; a key of each example."""
        if not self.temperature:
            return jnp.argmax(logits, -1)
        kept = self.kept(logits)
        return jax.vmap(jax.random.categorical)(keys, kept)


def check_seeds(first: int, count: int) -> None:
    """Raise ValueError unless so many seeds from the first one on are numbers of 32 bits."""
    most = 2**32 - count
    if (
        isinstance(first, bool)
        or not isinstance(first, (int, np.integer))
        or not 0 <= first <= most
    ):
        raise ValueError(f"seed: got {first!r}, wanted a whole number from 0 to {most}.")


class Saying:
    """A compiled way to say T steps of codes, whatever the conditions and begins; see `Generator.say`.

    All columns that hold a begin go through the model at once, then one after another. The begins of a batch
    may have different lengths: where one is longer, its codes are taken in place of what is drawn.

    Attributes:
      columns: of the pattern.
      traces: how often the two programs were traced: once each for one shape of the conditions.
    """

    def __init__(self, model: CodesLm, pattern: Pattern, sampling: Sampling, steps: int):
        self._model, self._pattern, self._sampling = model, pattern, sampling
        self._table = pattern.places(steps)
        self.columns, self._steps = len(self._table), steps
        self.traces = 0
        self._first = jax.jit(self._read)
        self._next = jax.jit(self._continued, donate_argnums=(1,))

    def __call__(
        self,
        params: Any,
        given: Float[np.ndarray, "B M C"],
        valid: np.ndarray,
        begins: Sequence[Int[np.ndarray, "_ Q"]],
        seeds: Sequence[tuple[int, ...]],
        told: Callable[[int], None] | None = None,
    ) -> list[Int[np.ndarray, "T Q"]]:
        """Return the codes of each example.

        Args:
          params: of the model.
          given: conditions.
          valid: which parts of them exist.
          begins: codes that are known.
          seeds: numbers that an example's draws follow from.
          told: called with the number of columns so far.
        """
        rows, none = len(begins), self._model.codes
        known = np.full((rows, self._steps, self._model.books), NONE, np.int32)
        for row, begin in zip(known, begins, strict=True):
            row[: len(begin)] = begin[: self._steps]
        columns = np.asarray(self._pattern.spread(jnp.asarray(known), none))
        open_ = np.nonzero((columns == NONE).any((0, 2)))[0]
        begin = int(open_[0]) if len(open_) else self.columns
        keys = jnp.stack(
            [functools.reduce(jax.random.fold_in, s, jax.random.key(0)) for s in seeds]
        )
        if self._sampling.guidance != 1:  # both halves at once; the second hears nothing
            given = np.concatenate([given, given])
            valid = np.concatenate([valid, np.zeros_like(valid)])
        state = self._first(params, jnp.asarray(columns), given, valid, begin)
        for until in [*range(begin + EVERY, self.columns, EVERY), self.columns]:
            state = self._next(params, state, keys, until)
            if told is not None:
                jax.block_until_ready(state)
                told(until)
        found, _ = self._pattern.gathered(state[0], self._steps, 0)
        return list(np.asarray(found))

    def _twice(self, x: Array) -> Array:
        return jnp.concatenate([x, x]) if self._sampling.guidance != 1 else x

    def _read(self, params, columns, given, valid, begin):
        """Return (columns, memory of those before `begin` - 1, `begin`)."""
        self.traces += 1
        shown = self._twice(jnp.where(columns == NONE, self._model.codes, columns))
        weights = {"params": params}
        _, memory = cast(
            tuple[Any, Memory],
            self._model.apply(weights, shown, given, valid, length=self.columns, logits=False),
        )
        # The memory of later columns is overwritten before anything attends to it.
        (cache, keys), before = memory.layers, begin - 1
        cache = cache._replace(length=jnp.full_like(cache.length, before))
        layers = apart((cache, keys), self._model.depth)
        return columns, Memory(layers, memory.valid, jnp.asarray(before, jnp.int32)), begin

    def _continued(self, params, state, keys, until):
        """Say the columns up to `until`."""
        self.traces += 1
        table, sampling = jnp.asarray(self._table), self._sampling
        weights = {"params": params | {"layers": apart(params["layers"], self._model.depth)}}

        def more(state):
            return state[2] < until

        def column(state):
            columns, memory, at = state
            last = jax.lax.dynamic_slice_in_dim(columns, at - 1, 1, 1)
            logits, memory = self._model.apply(weights, self._twice(last), memory=memory)
            logits = logits[:, 0].astype(jnp.float32)
            if sampling.guidance != 1:
                with_, without = jnp.split(logits, 2)
                logits = without + sampling.guidance * (with_ - without)
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, at)
            drawn = sampling.draw(own, logits).astype(columns.dtype)
            now = jax.lax.dynamic_index_in_dim(columns, at, 1, keepdims=False)
            drawn = jnp.where(now == NONE, drawn, now)
            drawn = jnp.where(table[at] == NONE, self._model.codes, drawn)
            return (
                jax.lax.dynamic_update_slice_in_dim(columns, drawn[:, None], at, 1),
                memory,
                at + 1,
            )

        return jax.lax.while_loop(more, column, state)
