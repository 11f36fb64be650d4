"""One query of several modalities: words, a sound, a picture, features; called by `audio_text.py`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ssl_audio import config as configs
from ssl_audio.inference import branches
from ssl_audio.storage import written

NOTHING: Mapping[str, Any] = MappingProxyType({})


def takes(objective: Any) -> dict[str, Any]:
    """Return modality → tower of all that can be asked with; those of fused towers, too."""
    found: dict[str, Any] = {}
    for name, tower in objective.towers.items():
        found |= getattr(tower, "towers", {name: tower})
    return found


def fused(objective: Any, name: str) -> str:
    """Return the name of the tower that merges this modality with others; "": it has one of its own."""
    if name in objective.towers:
        return ""
    inner = {n: getattr(t, "towers", {}) for n, t in objective.towers.items()}
    return next((n for n, towers in inner.items() if name in towers), "")


def vector(
    model: Any,
    *,
    text: str | None = None,
    audio: Any = None,
    sample_rate: int | None = None,
    image: Any = None,
    features: Mapping[str, Any] = NOTHING,
    weights: Mapping[str, float] = NOTHING,
    alpha: float | None = None,
) -> np.ndarray:
    """Return the unit vector [D] of a query; see `AudioTextModel.embed_query`."""
    given: dict[str, Any] = dict(text=text, audio=audio, image=image) | dict(features)
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        raise ValueError("query: wanted words, a sound, a picture or features.")
    there = takes(model.objective)
    if unknown := [name for name in given if name not in there]:
        raise ValueError(
            f"query by {unknown[0]}: this model is asked with {', '.join(sorted(there))}."
        )
    groups: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        groups.setdefault(fused(model.objective, name) or name, {})[name] = value
    vectors = {}
    for tower, parts in groups.items():
        if tower == "audio":
            vectors[tower] = model.embed_audio(audio, sample_rate)
            continue
        batch: dict[str, np.ndarray] = {}
        for name, value in parts.items():
            batch |= _arrays(model, name, value, there[name])
        vectors[tower] = model.embed_batch(tower, batch)[0]
    # What is found is sound, or whatever the first tower takes.
    widths = {name: v.shape[-1] for name, v in vectors.items()}
    if len({model.width, *widths.values()}) > 1:
        found = {next(iter(model.objective.towers)): model.width, **widths}
        raise ValueError(
            f"query by {', '.join(given)}: vectors of {apart(found)} are of different spaces, and cannot be "
            "compared; ask with what this model was trained to compare."
        )
    # Weights are of modalities; those that a tower merges by itself have none.
    if inside := sorted(weights.keys() & {n for n in given if fused(model.objective, n)}):
        raise ValueError(
            f"weight of '{inside[0]}': this model merges it with others by itself; leave it out."
        )
    found = vectors[next(iter(vectors))]
    if len(vectors) > 1 or weights:
        found = branches.merged(vectors, weights)
    if alpha is None:
        return found
    share = branches.shares(branches.names(model.objective), branches.CHOSEN, alpha)
    return branches.query(found, share)


def apart(widths: Mapping[str, int]) -> str:
    """Return modalities and the lengths of their vectors in words."""
    return " and ".join(f"{name} [{width}]" for name, width in widths.items())


def _arrays(model: Any, name: str, value: Any, tower: Any) -> dict[str, np.ndarray]:
    """Return what a tower takes of one query, with the batch axis."""
    if name == "text":
        if not isinstance(value, str):
            raise ValueError(f"query: text: got {type(value).__name__}, wanted words.")
        ids, lengths = model.text.encode([value])
        return {name: ids, tower.length: lengths}
    if not (options := written.entry(model.config, name)):
        raise ValueError(
            f"query by {name}: in training it came out of another entry (data.entries.{name} is missing), so "
            "that nothing says how it is prepared; ask with something else."
        )
    entry = configs.build(options, "data")
    if name == "image":
        return {name: entry.prepared(value)[None]}
    return {key: np.asarray(array)[None] for key, array in entry.prepared(value).items()}
