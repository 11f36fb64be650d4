"""New captions of a class from elements of known ones (MixCap: Ghosh et al. 2025, arXiv:2410.02056).

The paper asks a language model. Here a grammar fills a sentence, offline; a model of your own is a callback
with the signature of `propose`.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence

import numpy as np

MOST_WORDS = 25
KEPT = 0.75  # share of a class's elements that are offered at a time
_SPLIT = re.compile(r"\s*(?:,|;|\band then\b|\band\b|\bwhile\b|\bfollowed by\b|\bwith\b)\s*")
_SCENE = re.compile(r"\b(?:in|at|on|by|inside|outside|near|under)\b .*")
RELATIONS = ("while", "and", "followed by", "with")


@dataclasses.dataclass(frozen=True)
class Elements:
    """What captions are made of, beside the label.

    Attributes:
      events: what else is heard, as "a dog barks".
      scenes: where, or by whom, with its preposition: "in a park".
    """

    events: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()

    def __or__(self, other: "Elements") -> "Elements":
        """Return the elements of both, each once."""
        pairs = (self.events, other.events), (self.scenes, other.scenes)
        return Elements(*(tuple(dict.fromkeys((*a, *b))) for a, b in pairs))


# For classes whose captions say little else; of everyday sounds.
GENERIC = Elements(
    events=(
        "a dog barks in the distance", "people talk quietly", "rain falls", "wind blows", "a door closes",
        "footsteps pass", "a car drives by", "birds chirp", "music plays softly", "a clock ticks",
    ),
    scenes=(
        "in a small room", "in a large hall", "on a busy street", "in a park", "in a kitchen",
        "near a river", "in a garage", "at a train station",
    ),
)  # fmt: skip


def mined(texts: Sequence[str], label: str) -> Elements:
    """Return the elements of captions: parts between "and", "while", …, but for those that say the label.

    Args:
      texts: captions.
      label: in words.
    """
    said = set(words(label))
    found = Elements()
    for text in texts:
        for part in _SPLIT.split(text.strip().rstrip(".").lower()):
            place = _SCENE.search(part)
            event = part[: place.start()].strip() if place else part
            scenes = (
                (place.group().strip(),) if place and not said & set(words(place.group())) else ()
            )
            events = (event,) if event and not said & set(words(event)) else ()
            found |= Elements(events, scenes)
    return found


def propose(
    label: str,
    elements: Elements,
    count: int,
    rng: np.random.Generator,
    template: str = "Sound of a {}",
) -> list[str]:
    """Return captions that name the label, with one or two events and at most one scene of the elements.

    Of the elements three quarters, drawn anew, are at hand for each.

    Args:
      label: in words.
      elements: to be drawn from.
      count: of captions.
      rng: the only source of chance.
      template: of what comes first, with "{}".
    """
    found = []
    for _ in range(count):
        events, scenes = (_some(part, rng) for part in (elements.events, elements.scenes))
        text = template.replace("{}", label)
        for event in events[: 1 + int(rng.integers(2))]:
            text = _longer(text, f"{RELATIONS[int(rng.integers(len(RELATIONS)))]} {event}")
        if scenes and rng.random() < 0.75:
            text = _longer(text, scenes[0])
        found.append(text)
    return found


def reflect(
    label: str,
    accepted: Sequence[str],
    caption: str,
    rng: np.random.Generator,
    template: str = "Sound of a {}",
) -> str:
    """Return another caption in place of one whose sound was rejected.

    Its elements that accepted captions have least often are left out, and one that they have more often comes
    in.

    Args:
      label: in words.
      accepted: captions of the class whose sounds were accepted.
      caption: the rejected one.
      rng: the only source of chance.
      template: of what comes first, with "{}".
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in accepted:
        own = mined([text], label)
        counts.update((*own.events, *own.scenes))
    old = mined([caption], label)
    pool = mined(accepted, label)

    def better(mine: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
        kept = [one for one in mine if counts[one]]
        fresh = [one for one in others if one not in mine]
        weights = np.array([counts[one] for one in fresh], float)
        if not len(fresh):
            return tuple(kept)
        return (*kept, fresh[int(rng.choice(len(fresh), p=weights / weights.sum()))])

    text = template.replace("{}", label)
    for event in better(old.events, pool.events)[:2]:
        text = _longer(text, f"and {event}")
    for scene in better(old.scenes, pool.scenes)[-1:]:
        text = _longer(text, scene)
    return text


def words(text: str) -> list[str]:
    """Return the words of a text, lower case."""
    return re.findall(r"\w+", text.lower())


def _some(part: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    count = int(np.ceil(KEPT * len(part)))
    return [part[i] for i in rng.permutation(len(part))[:count]]


def _longer(text: str, more: str) -> str:
    return f"{text} {more}" if len(words(f"{text} {more}")) <= MOST_WORDS else text
