"""The protocol that asks a model for a caption of each clip; called by `tasks.py`."""

import dataclasses

import numpy as np

from ssl_audio.data.captions import with_names
from ssl_audio.data.source import Source
from ssl_audio.eval import captions
from ssl_audio.eval.listening import Absent, Listening
from ssl_audio.eval.protocols import CONTROLS, Case, Outcome, Protocol, halves
from ssl_audio.eval.word_protocols import captions_of

PERFECT, RANDOM, CONSTANT = CONTROLS


@dataclasses.dataclass(frozen=True)
class Captioning(Protocol):
    """Say in words what is heard: of captions that follow a template, the share that has exactly its words.

    That is a mean over different captions, so that always saying one gives 1 over their number. Of free
    captions CIDEr-D by aac-metrics, from 0 to 10; chance is that of other clips' captions. Whatever
    `captions.measured` gives is recorded, too.

    Attributes:
      template: of clips without `text`: "{}" is the label. "": captions are free.
    """

    template: str = "a sound of {}"

    needs = ("captions",)

    @property
    def metric(self) -> str:  # type: ignore[override]  # depends on the captions
        """Return its name."""
        return "exact match" if self.template else "CIDEr-D"

    @property
    def best(self) -> float | None:  # type: ignore[override]  # likewise
        """Return 1; of free captions None: clips with several have no highest CIDEr-D."""
        return 1.0 if self.template else None

    @property
    def about(self) -> str:  # noqa: D102
        return f"the clips' own words, or {self.template}" if self.template else ""

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        if not self.template:
            try:
                captions.library()
            except RuntimeError as error:
                raise Absent(str(error)) from None
            if len(source) < 4:
                raise ValueError(
                    f"{len(source)} clips, wanted at least 4: CIDEr-D counts words over clips, and its "
                    "interval is of halves of them."
                )
        numbers, said = listening.captions(source)
        truth = self._truth(source, numbers)
        made = {"said": np.array(said, object)}
        ideal = {"said": np.array([some[0] for some in truth], object)}
        return Case(made, ideal, dict(truth=truth))

    def controlled(self, case: Case, control: str, seed: int = 0) -> Case:  # noqa: D102
        right = case.ideal["said"]
        kinds = np.unique(right.astype(str)).astype(object)
        drawn = np.random.default_rng((seed, 28)).choice(kinds, len(right))
        said = {PERFECT: right, RANDOM: drawn, CONSTANT: np.full(len(right), kinds[0], object)}
        return dataclasses.replace(case, vectors={"said": said[control]})

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        said, truth = case.vectors["said"].tolist(), case.truth["truth"]
        more = captions.measured(said, truth)
        kinds = {captions.plain(some[0]) for some in truth}
        if self.template:
            value, chance = more.pop("exact_balanced"), 1 / len(kinds)

            def score(rows: np.ndarray) -> float:
                return captions.balanced([said[i] for i in rows], [truth[i] for i in rows])
        else:
            value, others = (
                more.pop("cider_d"),
                np.roll(case.ideal["said"], len(said) // 2).tolist(),
            )
            chance = captions.compared(others, truth, java=False)["cider_d"]

            def score(rows: np.ndarray) -> float:
                some = [truth[i] for i in rows]
                return captions.compared([said[i] for i in rows], some, java=False)["cider_d"]

        times = 50 if self.template else 10
        interval = halves(score, np.arange(len(said)), seed, times=times, most=self.best or np.inf)
        return Outcome(value, chance, len(said), (max(0.0, interval[0]), interval[1]), more)

    def _truth(self, source: Source, numbers: np.ndarray) -> list[tuple[str, ...]]:
        metas = [source.meta(int(i)) for i in numbers]
        if not self.template or all(meta.get("text") for meta in metas):
            return captions_of(source, numbers)
        named = [with_names(meta, source.info.labels).get("names", ()) for meta in metas]
        if missing := [meta["id"] for meta, names in zip(metas, named, strict=True) if not names]:
            raise ValueError(
                f"{source.info.name}: clip {missing[0]} has neither words nor a label."
            )
        return [(self.template.replace("{}", names[0].replace("_", " ")),) for names in named]
