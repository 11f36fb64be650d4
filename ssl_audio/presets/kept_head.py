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

SAME = ("kind", "root", "target")  # what two sources of the same labels of the same set agree in
PARTS = ("subset", "split", "segments", "folds")  # of a set; without one: all of it
WHOLE = "esc50"  # the subset that the other one is a part of
PLACES = ("root", "path")


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
        same = _resolved(seen["source"]) == _resolved(test["source"])
        return "these clips" if same and seen.get("fold") != test.get("fold") else ""
    if any(_resolved(seen).get(name) != _resolved(test).get(name) for name in SAME):
        return ""
    common = {
        name: _some(seen, name) & _some(test, name) for name in PARTS if _both(seen, test, name)
    }
    if not all(common.values()):
        return ""
    folds = ", ".join(map(str, sorted(common.get("folds", ()))))
    return f"fold {folds}" if folds else f"clips of {test['kind']}"


def _both(seen: Mapping[str, Any], test: Mapping[str, Any], name: str) -> bool:
    """Tell whether both are of some parts only: else one of them has all that the other has."""
    return bool(_some(seen, name) and _some(test, name))


def _some(source: Mapping[str, Any], name: str) -> set[Any]:
    """Return the parts of a set that a source is of; none: of all."""
    value = source.get(name) or ()
    return ({value} if isinstance(value, str) else set(value)) - {WHOLE}


def _sets(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which published sets are learned from, each as KIND or KIND/SUBSET."""
    inner = (_inner(source) for source in written.sources(data).values())
    return tuple(sorted({"/".join(filter(None, (s["kind"], s.get("subset")))) for s in inner}))


def _inner(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the source of all labels, where one is of few of them."""
    return source["source"] if source.get("kind") == "few_labels" else source


def _resolved(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a source, with one way to write its place."""
    found = {name: source[name] for name in source if name not in PLACES}
    for name in PLACES:
        if (where := source.get(name)) and "://" not in where:
            where = str(pathlib.Path(where).expanduser().resolve())
        found[name] = where
    return found
