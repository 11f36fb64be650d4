"""Go on from a trained classifier, head and all: two-stage fine-tuning, or more clips of the same classes.

A linear probe first, then everything (Kumar et al. 2022, arXiv:2202.10054): where the head begins at random,
its first gradients change features that were good. Called by `configs/finetune.py`.
"""

import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

from ssl_audio import config as options_of
from ssl_audio.storage import written


def of_fold(path: str, fold: int) -> str:
    """Return the run of a fold, where a path is the workdir of `ssl-audio folds`; otherwise the path."""
    within = pathlib.Path(path).expanduser() / f"fold{fold}"
    return str(within) if not written.is_run(path) and written.is_run(within) else path


def keep(config: Any, path: str) -> None:
    """Let a run that begins from another one's encoder begin from its head as well.

    Raises:
      ValueError: that run has no such head, or one of other classes.
    """
    theirs, ours = written.read(path), options_of.plain(config)
    if "head" not in theirs["objective"]:
        raise ValueError(
            f"keep_head: {path} has no head of classes; wanted a run of `finetune` or `folds`. Leave "
            "keep_head out to learn a new one."
        )
    got, wanted = theirs["objective"]["head"], ours["objective"]["head"]
    if got != wanted:
        raise ValueError(f"keep_head: the head of {path} is {got}, wanted {wanted}.")
    names, mine = written.labels(theirs), written.labels(ours)
    if not mine:  # a published set, which names its classes when it is read
        names, mine = (_sets(found["data"]) for found in (theirs, ours))
    if names != mine:
        pairs = itertools.zip_longest(names, mine, fillvalue="")
        first = next((a, b) for a, b in pairs if a != b)
        raise ValueError(
            f"keep_head: classes of {path} are others than those here, first {first[0]!r} for "
            f"{first[1]!r}; wanted the same in the same order. Leave keep_head out to learn a new head."
        )
    config.warm_start.encoder.take = "^(tokenizer|encoder|head)/"


def check_unseen(config: Any, path: str) -> None:
    """Raise ValueError if a run to begin from has learned from the labels of the clips of the test fold."""
    test = options_of.plain(config)["evals"].get("test", {}).get("source", {})
    data = written.read(path).get("data", {})
    if "label" not in data.get("entries", {}):
        return
    for seen in written.sources(data).values():
        if what := _shared(_inner(seen), test):
            raise ValueError(
                f"pretrained={path}: it has learned from the labels of {what}, which are the test here. Give "
                "a run that was tested on them, or the workdir of `ssl-audio folds` that holds all runs."
            )


def _shared(seen: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    """Return which clips of a test were among those of training; "": none, or they cannot be compared."""
    if seen.get("kind") == test.get("kind") == "labelled":  # of a user's own
        same = seen.get("source") == test.get("source")
        return "these clips" if same and seen.get("fold") != test.get("fold") else ""
    folds = set(seen.get("folds") or ()) & set(test.get("folds") or ())
    same = bool(folds) and _place(seen) == _place(test)
    return f"fold {', '.join(map(str, sorted(folds)))}" if same else ""


def _sets(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which published sets are learned from, each as KIND or KIND/SUBSET."""
    inner = (_inner(source) for source in written.sources(data).values())
    return tuple(sorted({"/".join(filter(None, (s["kind"], s.get("subset")))) for s in inner}))


def _inner(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the source of all labels, where one is of few of them."""
    return source["source"] if source.get("kind") == "few_labels" else source


def _place(source: Mapping[str, Any]) -> tuple[Any, ...]:
    root = source.get("root")
    return source.get("kind"), root and pathlib.Path(root).resolve(), source.get("subset")
