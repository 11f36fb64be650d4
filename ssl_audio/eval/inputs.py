"""Whether an evaluator's clips can be read and have the classes of the training, asked before step 1."""

from collections.abc import Sequence
from typing import Any

from ssl_audio.data.decode import DecodeError
from ssl_audio.data.source import Source

TRIES = 3  # clips that are read


def check(source: Source, classes: int, training: Any = None) -> None:
    """Open a source of labelled clips and compare its classes.

    Args:
      source: what will be evaluated.
      classes: number that the model tells apart.
      training: the batches that it learns from, with `sources`; None: unknown.

    Raises:
      ValueError: no clip can be read, a clip has no label or one that does not exist, or the classes
        have other names or numbers than in training.
    """
    check_readable(source)
    for i in range(len(source)):
        label = (meta := source.meta(i)).get("label")
        if label is None:
            raise ValueError(f"clip {meta['id']} has no label.")
        wrong = [n for n in (label if isinstance(label, tuple) else (label,)) if n >= classes]
        if wrong:
            raise ValueError(
                f"clip {meta['id']} has label {wrong[0]}, and there are {classes} classes, from 0."
            )
    if training is not None:
        check_names(source, training)


def check_names(source: Source, training: Any) -> None:
    """Compare the names of classes, whose order gives them their numbers, with those of training.

    Raises:
      ValueError: they differ, with the names.
    """
    mine = source.info.labels
    for name, other in training.sources.items():
        theirs = other.info.labels
        if "label" in training.spec() and mine and theirs and mine != theirs:
            raise ValueError(
                f"other classes than in data.sources.{name}. Only here: {_few(mine, theirs)}; only there: "
                f"{_few(theirs, mine)}{_order(mine, theirs)}. Label numbers follow these names: give both "
                "the same, as with `labels` of a manifest."
            )


def check_readable(source: Source) -> None:
    """Raise ValueError when none of the first clips can be read."""
    causes = []
    for i in range(min(TRIES, len(source))):
        try:
            source[i]
        except DecodeError as error:
            causes.append(str(error))
        else:
            return
    raise ValueError(f"no clip could be read: {'; '.join(causes) or 'there is none'}.")


def _few(some: Sequence[str], others: Sequence[str]) -> str:
    only = [name for name in some if name not in others]
    return ", ".join(only[:8]) + (f" and {len(only) - 8} more" if len(only) > 8 else "") or "none"


def _order(some: Sequence[str], others: Sequence[str]) -> str:
    return "; the order differs" if sorted(some) == sorted(others) else ""
