"""Protocols on sound that a model makes: parts of mixtures, and sound from words. Called by `tasks.py`."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from ssl_audio.data.captions import with_names
from ssl_audio.data.derived import Fewer
from ssl_audio.data.source import Source, by_names
from ssl_audio.eval import features, generated
from ssl_audio.eval.listening import Listening
from ssl_audio.eval.mixtures import Mixtures
from ssl_audio.eval.protocols import CONTROLS, Case, Outcome, Protocol, Z, halves
from ssl_audio.inference.probe import Extract
from ssl_audio.slots import AnySource
from ssl_audio.storage import written

PERFECT, RANDOM, CONSTANT = CONTROLS
BINS = 64  # of log-mels, as `ssl-audio judge` takes them
HALVES = 20  # that are drawn for an interval


@dataclasses.dataclass(frozen=True)
class Pretended:
    """In place of a separator: "perfect" knows the parts, "constant" gives the mixture, "random" half of it.

    That half is of single samples, drawn.
    """

    control: str
    seed: int = 0

    def segments(self, extra: Any, batch: Any) -> Any:  # noqa: D102
        del extra
        return batch

    def condition(self, params: Any, extra: Any, batch: Any) -> Any:  # noqa: D102
        del params, extra
        return batch["audio"]

    def separate(self, params: Any, extra: Any, batch: Any) -> Any:  # noqa: D102
        del params, extra
        if self.control == PERFECT:
            return batch["condition"]
        if self.control == CONSTANT:
            return batch["audio"]
        kept = jax.random.bernoulli(jax.random.key(self.seed), 0.5, batch["audio"].shape)
        return batch["audio"] * kept


@dataclasses.dataclass(frozen=True)
class Separation(Protocol):
    """Each of two clips of different classes out of their mixture at one energy; see `Mixtures`.

    Mean over classes of the improvement of the signal-to-distortion ratio, dB. 0, chance, is the mixture as
    it is; half of it, which knows nothing either, gives 3 dB where sounds do not resemble each other
    ("SDRi_half").
    """

    pairs: int = 50
    seconds: float = 2.0  # of a clip, where a model does not say

    metric = "SDRi, dB"
    needs = ("parts",)
    best = None

    @property
    def about(self) -> str:  # noqa: D102
        return f"{self.pairs} pairs of clips of different classes, either asked for"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        made, labels = listening.separator(source.info.labels)
        config = getattr(getattr(listening, "model", None), "config", {})
        samples = written.entry(config, "audio").get("samples") or round(
            self.seconds * listening.rate
        )
        kept: AnySource = by_names(source, labels)
        # Numbers of mixtures do not grow with the batch: small, as some separators are large.
        mixtures = Mixtures(kept, samples, len(labels), self.pairs, min(10, self.pairs), seed)
        return Case({}, {}, dict(mixtures=mixtures, made=made))

    def controlled(self, case: Case, control: str, seed: int = 0) -> Case:  # noqa: D102
        made = Pretended(control, seed), {}, {}
        return dataclasses.replace(case, truth={**case.truth, "made": made})

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        gains = case.truth["mixtures"].measure(*case.truth["made"])

        def score(rows: np.ndarray) -> float:
            label, right = gains.label[rows], gains.right[rows]
            return float(np.mean([right[label == one].mean() for one in np.unique(label)]))

        count = len(gains.right)
        pairs = np.arange(count) % (count // 2)  # either sound of a pair is asked for
        more = {name: value for name, value in gains.scores.items() if name != "SDRi"}
        interval = halves(score, pairs, seed, most=np.inf)
        return Outcome(score(np.arange(count)), 0.0, count, interval, more)


@dataclasses.dataclass(frozen=True)
class Generation(Protocol):
    """Sound from the clips' words: Fréchet distance from the clips, of log-mel statistics; see `judge`.

    0 is best. Chance is the distance of white noise, a noise for each clip and as loud as it.

    Attributes:
      template: of the words, "{}" is the label; a clip's own `text` comes first.
      most: clips; the distance falls with their number.
    """

    template: str = "This is a sound of {}."
    most: int = 60

    metric = "Fréchet distance"
    needs = ("sound",)
    best = 0.0

    @property
    def about(self) -> str:  # noqa: D102
        return f"of mean and deviation of {BINS} log-mel bands; words: the clips' own, or {self.template}"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        some = Fewer(source, self.most, seed)
        clips = [np.asarray(some[i]["audio"], np.float32) for i in range(len(some))]
        if len(clips) < 2:
            raise ValueError(f"{len(clips)} clip, wanted two or more for their covariance.")
        texts = [self._said(some, i) for i in range(len(some))]
        rate = listening.rate
        made = listening.generated(texts, float(np.median([len(x) for x in clips])) / rate, seed)
        known = dict(clips=clips, rate=rate, noise=_vectors(_noises(clips, seed), rate))
        recorded = _vectors(clips, rate)
        return Case({"made": _vectors(made, rate)}, {"made": recorded}, known)

    def controlled(self, case: Case, control: str, seed: int = 0) -> Case:  # noqa: D102
        if control == PERFECT:
            return dataclasses.replace(case, vectors=case.ideal)
        # Another noise than that of which chance is.
        noises = _noises(case.truth["clips"], seed + 1, one=control == CONSTANT)
        return dataclasses.replace(case, vectors={"made": _vectors(noises, case.truth["rate"])})

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):  # threads that wait for a busy core are slower than none
            return self._scored(case, seed)

    def _scored(self, case: Case, seed: int) -> Outcome:
        recorded, made = case.ideal["made"], case.vectors["made"]
        wanted = generated.gaussian(recorded)
        value = generated.frechet(made, wanted)
        chance = generated.frechet(case.truth["noise"], wanted)

        # From halves of the clips, about their own mean: all halves lie farther off than the whole.
        rng, count = np.random.default_rng((seed, 27)), len(made)
        found = [
            generated.frechet(made[rng.permutation(count)[: max(2, count // 2)]], wanted)
            for _ in range(HALVES)
        ]
        half = Z * float(np.std(found))
        return Outcome(value, chance, count, (max(0.0, value - half), value + half))

    def _said(self, source: Source, number: int) -> str:
        meta: Any = source.meta(number)
        if meta.get("text"):
            return meta["text"] if isinstance(meta["text"], str) else meta["text"][0]
        names = with_names(meta, source.info.labels).get("names", ())
        if not names:
            raise ValueError(
                f"{source.info.name}: clip {meta['id']} has neither words nor a label."
            )
        return self.template.replace("{}", names[0].replace("_", " "))


def _noises(clips: list[np.ndarray], seed: int, *, one: bool = False) -> list[np.ndarray]:
    """Return white noise as long and as loud as each clip, a noise for each or one for all."""
    rng = np.random.default_rng((seed, 26))
    longest = rng.standard_normal(max(map(len, clips)))
    noises = [longest[: len(x)] if one else rng.standard_normal(len(x)) for x in clips]
    levels = [np.sqrt(np.mean(np.square(x, dtype=np.float64))) for x in clips]
    return [(noise * level).astype("f4") for noise, level in zip(noises, levels, strict=True)]


def _vectors(clips: list[np.ndarray], rate: int) -> np.ndarray:
    return np.stack([vector[0] for _, vector in _extract(rate)(clips)])


@functools.lru_cache(4)
def _extract(rate: int) -> Extract:
    return features.log_mel(rate, BINS)
