"""Protocols that ask a model of sound and words: labels, captions, order, questions. Called by `tasks.py`."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from ssl_audio.data.banks import bank
from ssl_audio.data.captions import with_names
from ssl_audio.data.source import Source
from ssl_audio.eval import base, metrics, retrieval
from ssl_audio.eval.listening import Listening
from ssl_audio.eval.protocols import Case, Outcome, Protocol, halves, one_hot, unit, wilson
from ssl_audio.eval.zero_shot import zero_shot

TEMPLATES = ("This is a sound of {}.",)
NEEDS = ("clips", "words")
DIGITS = 5  # of similarities: rounding must not decide between equal ones


def _similar(audio: np.ndarray, text: np.ndarray) -> np.ndarray:
    return np.round(unit(audio) @ unit(text).T, DIGITS)


def captions_of(source: Source, numbers: np.ndarray) -> list[tuple[str, ...]]:
    """Return the captions of some clips.

    Raises:
      ValueError: a clip has none.
    """
    metas = [source.meta(int(i)) for i in numbers]
    texts = [m.get("text") or () for m in metas]
    if missing := [m["id"] for m, said in zip(metas, texts, strict=True) if not said]:
        raise ValueError(f"{source.info.name}: clip {missing[0]} has no caption (`text`).")
    return [(said,) if isinstance(said, str) else tuple(said) for said in texts]


@dataclasses.dataclass(frozen=True)
class Words(Protocol):
    """Labels in words, nothing learned: balanced accuracy; of clips with several labels mAP.

    Balanced, so that always saying one class gives 1 / C. Equal to accuracy where classes are equally large.
    """

    templates: tuple[str, ...] = TEMPLATES
    bank: str = ""  # see `data.banks`

    metric = "balanced accuracy"
    needs = NEEDS

    @property
    def about(self) -> str:  # noqa: D102
        return f"bank {self.bank}" if self.bank else " / ".join(self.templates)

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        numbers, audio = listening.shared(source)
        names = source.info.labels
        prompts = bank(self.bank) if self.bank else None
        text = listening.labels(names, self.templates, prompts)
        y = base.truth(source, [source.meta(int(i)) for i in numbers])
        hot = y if y.ndim == 2 else one_hot(y, len(names))
        ideal = {"clips": hot, "labels": np.eye(len(names), dtype=np.float32)}
        vectors = {"clips": audio, "labels": text}
        return Case(vectors, ideal, dict(hot=hot, several=source.info.multilabel))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        hot, several = case.truth["hot"], case.truth["several"]
        audio, text = unit(case.vectors["clips"]), unit(case.vectors["labels"])
        similar = _similar(audio, text)
        more = zero_shot(audio, text, hot, multilabel=several)
        said = text[hot.argmax(axis=1)]
        if audio.shape == said.shape:
            more |= retrieval.modality_gap(audio, said)
        rate = metrics.mean_average_precision if several else metrics.balanced_accuracy

        def score(rows: np.ndarray) -> float:
            return rate(similar[rows], hot[rows])

        rows = np.arange(len(hot))
        share = hot.mean(axis=0)
        chance = float(share[share > 0].mean()) if several else 1 / int(np.sum(share > 0))
        value = score(rows)
        interval = halves(score, rows, seed) if several else wilson(value, len(hot))
        return Outcome(value, chance, len(hot), interval, more)


@dataclasses.dataclass(frozen=True)
class Captions(Protocol):
    """Find a clip by its caption: recall among the first `k`; equal similarities count as chance."""

    k: int = 10

    needs = NEEDS

    @property
    def metric(self) -> str:  # type: ignore[override]  # depends on k
        """Return its name."""
        return f"R@{self.k}"

    @property
    def about(self) -> str:  # noqa: D102
        return "text to audio"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        numbers, audio = listening.shared(source)
        clips, texts = retrieval.together(source, numbers, captions_of(source, numbers))
        audio = audio[clips]
        owner = np.repeat(np.arange(len(texts)), [len(said) for said in texts])
        text = listening.words([said for some in texts for said in some])
        # Clips with the same words are the same answer to a model that knows no more than the words.
        kinds = {said: k for k, said in enumerate(dict.fromkeys(itertools.chain(*texts)))}
        hot = np.zeros((len(texts), len(kinds)), np.float32)
        for i, some in enumerate(texts):
            hot[i, [kinds[said] for said in some]] = 1
        words = one_hot(np.array([kinds[said] for some in texts for said in some]), len(kinds))
        vectors, ideal = {"clips": audio, "captions": text}, {"clips": hot, "captions": words}
        return Case(vectors, ideal, dict(owner=owner))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        owner, audio = case.truth["owner"], case.vectors["clips"]
        similar = _similar(case.vectors["captions"], audio)
        value = float(np.mean(retrieval.recall(similar, owner, self.k)))
        rank = retrieval.ranks(similar, owner)
        more = retrieval.recalls(similar, owner)
        more["median_rank"] = float(np.floor(np.median(rank)) + 1)
        more["relative_rank"] = float(np.mean(rank) / max(1, len(audio) - 1))
        chance = min(1.0, self.k / len(audio))
        return Outcome(value, chance, len(owner), wilson(value, len(owner)), more)


@dataclasses.dataclass(frozen=True)
class Order(Protocol):
    """Two clips and two captions that differ in order or attributes alone: all four comparisons right.

    The group score of CompA (Ghosh et al. 2023, arXiv:2310.08753), as in Winoground; "text": each clip is
    nearer to its own caption, "audio": each caption to its own clip. Equal similarities stand in random
    order: chance is 1/6, and 1/4 of either half. Examples 2j and 2j + 1 are a pair.
    """

    metric = "group score"
    needs = NEEDS

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        numbers, audio = listening.shared(source)
        whole = np.isin(numbers ^ 1, numbers)
        numbers, audio = numbers[whole], audio[whole]
        texts = [said[0] for said in captions_of(source, numbers)]
        ideal = np.eye(len(texts), dtype=np.float32)
        vectors = {"clips": audio, "captions": listening.words(texts)}
        return Case(vectors, dict.fromkeys(vectors, ideal), {})

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        audio, text = (x.reshape(-1, 2, x.shape[-1]) for x in case.vectors.values())
        pairs = zip(audio, text, strict=True)
        found = np.stack([_compared(_similar(a, t)) for a, t in pairs])
        group, by_text, by_audio = found.mean(axis=0).tolist()
        more = dict(text=by_text, audio=by_audio)
        return Outcome(group, 1 / 6, len(found), wilson(group, len(found)), more)


def _compared(s: np.ndarray) -> np.ndarray:
    """Return (group, text, audio) of similarities [2 clips, 2 captions], means over orders of equal ones."""
    keys = s.ravel()
    orders = np.array(list(itertools.permutations(range(4))))
    # Rank of each similarity, in each order that equal ones can stand in.
    place = np.argsort(np.lexsort((orders, np.broadcast_to(keys, orders.shape)), axis=1), axis=1)
    own, (first, second) = place[:, [0, 3]], (place[:, 1], place[:, 2])
    text = (own[:, 0] > first) & (own[:, 1] > second)
    audio = (own[:, 0] > second) & (own[:, 1] > first)
    return np.array([np.mean(text & audio), np.mean(text), np.mean(audio)])


@dataclasses.dataclass(frozen=True)
class Choice(Protocol):
    """Questions with answers to choose from, by similarity of sound and answer; equal ones count as chance.

    A clip has its right answer as `text` and the wrong ones as `negatives`; a clip with a label and neither
    is asked for its class among `choices`, in the words of `template`.
    """

    choices: int = 4
    template: str = TEMPLATES[0]

    metric = "accuracy"
    needs = NEEDS

    @property
    def about(self) -> str:  # noqa: D102
        return f"one of several answers; of classes: {self.template}"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        numbers, audio = listening.shared(source)
        asked = [self._answers(source, int(i), seed) for i in numbers]
        kinds = {text: k for k, text in enumerate(dict.fromkeys(itertools.chain(*asked)))}
        # Of each clip the numbers of its answers' texts, the right one first.
        answers = [np.array([kinds[text] for text in some]) for some in asked]
        right = np.array([some[0] for some in answers])
        vectors = {"clips": audio, "answers": listening.words(list(kinds))}
        ideal = {"clips": one_hot(right, len(kinds)), "answers": np.eye(len(kinds), dtype="f4")}
        return Case(vectors, ideal, dict(answers=answers))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        answers = case.truth["answers"]
        similar = _similar(case.vectors["clips"], case.vectors["answers"])
        first = np.zeros(1, int)
        found = [
            retrieval.recall(row[some][None], first, 1)[0]
            for row, some in zip(similar, answers, strict=True)
        ]
        value = float(np.mean(found))
        chance = float(np.mean([1 / len(some) for some in answers]))
        return Outcome(value, chance, len(found), wilson(value, len(found)))

    def _answers(self, source: Source, number: int, seed: int) -> list[str]:
        """Return the answers to choose from, the right one first."""
        meta: Any = source.meta(number)
        if meta.get("text"):
            wrong = [text for text in meta.get("negatives", ()) if text != meta["text"]]
            if not wrong:
                raise ValueError(f"{source.info.name}: clip {meta['id']} has no `negatives`.")
            right = meta["text"] if isinstance(meta["text"], str) else meta["text"][0]
            return [right, *wrong]
        names = with_names(meta, source.info.labels).get("names", ())
        if len(names) != 1:
            raise ValueError(f"{source.info.name}: clip {meta['id']} has no answer and no label.")
        rng = np.random.default_rng((seed, 25, number))
        others = [n for n in source.info.labels if n != names[0]]
        drawn = rng.choice(len(others), min(self.choices - 1, len(others)), replace=False)
        said = [names[0], *(others[k] for k in drawn)]
        return [self.template.replace("{}", name.replace("_", " ")) for name in said]
