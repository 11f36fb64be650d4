"""Whether an evaluator's clips can be read and have the classes of the training, asked before step 1."""

from ssl_audio.data.decode import DecodeError
from ssl_audio.data.source import Source

TRIES = 3  # clips that are read


def check(source: Source, classes: int) -> None:
    """Open a source of labelled clips and compare its labels with the number of classes.

    Args:
      source: what will be evaluated.
      classes: number that the model tells apart.

    Raises:
      ValueError: no clip can be read, or a clip has no label or one that does not exist.
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
