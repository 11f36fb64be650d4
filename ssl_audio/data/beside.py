"""Batches of one pipeline with those of others beside them, each of its own size: labelled and unlabelled."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_audio.data.pipeline import Pipeline
from ssl_audio.slots import AnySource


@dataclass(frozen=True)
class Beside(Pipeline):
    """A pipeline whose batches also hold what others give, under names that begin with theirs.

    With `beside=dict(unlabelled=…)` a batch has "audio" [B, S] and "unlabelled_audio" [U, S]. Everything
    else (names of classes, `ids`) is of the pipeline itself; an epoch is that of the longest, and the others
    begin anew within it. Clips are drawn for each by itself, from its own seed and the step alone.

    Attributes:
      beside: name → another pipeline, with its own sources, entries, batch size and seed.
    """

    beside: Mapping[str, Pipeline] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        if not self.beside:
            raise ValueError("beside: none given; without one take kind='pipeline'.")
        for name, other in self._others:
            if other.rate != self.rate:
                raise ValueError(
                    f"beside.{name}.rate: got {other.rate} Hz, wanted that of data.rate, {self.rate} Hz."
                )
            if both := {f"{name}_{array}" for array in other.spec()} & super().spec().keys():
                raise ValueError(f"beside.{name}: the entries already give {', '.join(both)}.")

    def batches(
        self, start_step: int = 0, *, shard: int = 0, shards: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield this host's part of each batch, and of those beside it; see `Pipeline.batches`."""
        where = dict(shard=shard, shards=shards)
        with contextlib.ExitStack() as open_:

            def reading(batches: Any) -> Iterator[dict[str, np.ndarray]]:
                return open_.enter_context(contextlib.closing(batches))

            own = reading(super().batches(start_step, **where))
            others = [(n, reading(p.batches(start_step, **where))) for n, p in self._others]
            for batch in own:
                for name, other in others:
                    batch |= {f"{name}_{array}": value for array, value in next(other).items()}
                yield batch

    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Return the shape and type of each entry of a global batch, without reading anything."""
        found = super().spec()
        for name, other in self._others:
            found |= {f"{name}_{array}": value for array, value in other.spec().items()}
        return found

    def check(self) -> None:
        """Open every source.

        Raises:
          ValueError: one is missing, or its rate is another.
        """
        super().check()
        for name, other in self._others:
            try:
                other.check()
            except ValueError as error:
                raise ValueError(f"beside.{name}: {error}") from error

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return of each source the number of clips and a digest of their metadata."""
        found = super().collections()
        for name, other in self._others:
            found |= {f"{name}.{source}": about for source, about in other.collections().items()}
        return found

    def describe(self) -> str:
        """Return a line per source (clips, classes, licence) and one about the batches, of each pipeline."""
        parts = [super().describe(), *(f"{n}: {p.describe()}" for n, p in self._others)]
        return "\n".join(parts)

    @property
    def all_sources(self) -> dict[str, AnySource]:
        """Return the sources of each pipeline, by the names that `collections` gives them."""
        return super().all_sources | {
            f"{name}.{source}": value
            for name, other in self._others
            for source, value in other.all_sources.items()
        }

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Return the clips of each pipeline in a batch, by the name of the option that says so."""
        return super().batch_sizes | {
            f"beside.{name}.{option}": size
            for name, other in self._others
            for option, size in other.batch_sizes.items()
        }

    @property
    def epoch_steps(self) -> int:
        """Return the steps in which each pipeline has drawn as many clips as it has, or more."""
        return max(super().epoch_steps, *(other.epoch_steps for _, other in self._others))

    @property
    def _others(self) -> list[tuple[str, Pipeline]]:
        return sorted(
            self.beside.items()
        )  # not the order of the config, which a round trip may change
