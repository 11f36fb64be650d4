"""The tasks of `ssl-audio benchmark`: data sets, where they come from, and what is asked of each.

The groups follow the tree of tasks of a survey of audio-language models (Su et al. 2025, arXiv:2501.15177).
A task is named SET/PROTOCOL. A new one is a row here.
"""

import dataclasses
import fnmatch
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_audio import config
from ssl_audio.data import derived, places
from ssl_audio.data.scenes import Scenes
from ssl_audio.data.source import Source
from ssl_audio.eval.captioning import Captioning
from ssl_audio.eval.listening import Absent
from ssl_audio.eval.moment_protocols import EVENTS, PSDS, SEGMENTS, Detection, Grounding
from ssl_audio.eval.protocols import (
    Clusters,
    Few,
    Linear,
    Lookup,
    Moments,
    Nearest,
    Protocol,
    Same,
)
from ssl_audio.eval.robustness import Robust
from ssl_audio.eval.sound_protocols import Generation, Separation
from ssl_audio.eval.word_protocols import Captions, Choice, Order, Words

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".json")


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, and how it is found under the folder of all of them.

    Attributes:
      group: of tasks.
      come: where it can be got, and under what licence.
      folders: names under the root, the first that exists is taken. None: it is computed.
      options: of the source, without root and rate; {}: a folder of classes or a table, see `places`.
      of: the source is made of another set's: its name.
    """

    group: str
    come: str
    folders: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    of: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """A set and a protocol."""

    name: str
    data: str
    protocol: Protocol

    @property
    def group(self) -> str:
        """Return which kind of task it is."""
        return self._groups.get(type(self.protocol), SETS[self.data].group)

    @property
    def _groups(self) -> Mapping[type, str]:
        return {
            Order: "order", Choice: "questions", Robust: "health", Moments: "detection",
            Detection: "detection", Grounding: "grounding", Separation: "separation",
            Generation: "generation", Captioning: "captioning",
        }  # fmt: skip


PAIRS: Mapping[str, Any] = dict(size=100)
SCENES: Mapping[str, Any] = dict(size=60, seconds=5.0, longest=2.0, gaps=(0.1, 1.0))
ESC = "github.com/karolpiczak/ESC-50 (CC BY-NC; the ten classes of ESC-10 CC BY)"
HERE = "computed, nothing to download"
AS_TABLE = "; a folder of classes, or a table of path and label"
AS_CAPTIONS = "; NAME.jsonl with path and text (a caption or a list of them)"
AS_PAIRS = "; NAME.jsonl with path and text, rows 2j and 2j + 1 a pair"
AS_QUESTIONS = "; NAME.jsonl with path, text (the right answer) and negatives (the wrong ones)"

SETS: Mapping[str, Data] = {
    "esc10": Data("sound events", ESC, ("esc10", "ESC-10", "esc50", "ESC-50", "ESC-50-master"),
                  dict(kind="sets.esc", subset="esc10")),
    "esc50": Data("sound events", ESC, ("esc50", "ESC-50", "ESC-50-master"),
                  dict(kind="sets.esc", subset="esc50")),
    "urbansound8k": Data("sound events", "urbansounddataset.weebly.com (CC BY-NC)",
                         ("urbansound8k", "UrbanSound8K"), dict(kind="sets.urbansound8k")),
    "fsd50k": Data("sound events", "zenodo.org/record/4060432 (CC BY)", ("fsd50k", "FSD50K"),
                   dict(kind="sets.fsd50k")),
    "synthetic": Data("sound events", HERE, options=dict(kind="synthetic", size=600)),
    "tut2017": Data("scenes", f"zenodo.org/record/400515 (TUT Acoustic Scenes 2017){AS_TABLE}", ("tut2017",)),
    "cochlscene": Data("scenes", f"zenodo.org/record/7080122 (CochlScene){AS_TABLE}", ("cochlscene",)),
    "vocalsound": Data("voice", f"github.com/YuanGongND/vocalsound (CC BY-SA){AS_TABLE}", ("vocalsound",)),
    "crema_d": Data("voice", f"github.com/CheyneyComputerScience/CREMA-D (ODbL){AS_TABLE}", ("crema_d",)),
    "ravdess": Data("voice", f"zenodo.org/record/1188976 (CC BY-NC-SA){AS_TABLE}", ("ravdess",)),
    "gtzan": Data("music", f"GTZAN genres{AS_TABLE}", ("gtzan",)),
    "nsynth": Data("music", f"magenta.tensorflow.org/datasets/nsynth (CC BY){AS_TABLE}", ("nsynth",)),
    "beijing_opera": Data("music", f"zenodo.org/record/1285212 (percussion){AS_TABLE}", ("beijing_opera",)),
    "notes": Data("music", HERE, options=dict(kind="derived:Notes")),
    "digits": Data("speech", "github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA)",
                   ("fsdd", "free-spoken-digit-dataset"), dict(kind="sets.spoken_digit")),
    "speakers": Data("speech", "github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA)",
                     ("fsdd", "free-spoken-digit-dataset"),
                     dict(kind="sets.spoken_digit", target="speaker")),
    "speech_commands": Data("speech", "tensorflow.org/datasets/catalog/speech_commands (CC BY)",
                            ("speech_commands",), dict(kind="sets.speech_commands")),
    "libricount": Data("speech", f"zenodo.org/record/1216072 (CC BY){AS_TABLE}", ("libricount",)),
    "voxlingua": Data("speech", f"bark.phon.ioc.ee/voxlingua107 (CC BY){AS_TABLE}", ("voxlingua",)),
    "clotho": Data("retrieval", f"zenodo.org/record/4783391{AS_CAPTIONS}", ("clotho",)),
    "audiocaps": Data("retrieval", f"github.com/cdjkim/audiocaps{AS_CAPTIONS}", ("audiocaps",)),
    "musiccaps": Data("retrieval", f"google/MusicCaps on the Hugging Face Hub{AS_CAPTIONS}", ("musiccaps",)),
    "song_describer": Data("retrieval", f"zenodo.org/record/10072001{AS_CAPTIONS}", ("song_describer",)),
    "counted": Data("order", HERE, options=dict(kind="derived:Counted")),
    "synthetic_pairs": Data("order", HERE, of="synthetic"),
    "esc10_pairs": Data("order", HERE, of="esc10"),
    "compa_order": Data("order", f"github.com/Sreyan88/CompA{AS_PAIRS}", ("compa_order",)),
    "compa_attribute": Data("order", f"github.com/Sreyan88/CompA{AS_PAIRS}", ("compa_attribute",)),
    "synthetic_scenes": Data("detection", HERE, of="synthetic"),
    "esc10_scenes": Data("detection", HERE, of="esc10"),
    "clotho_aqa": Data("questions", f"zenodo.org/record/6473207{AS_QUESTIONS}", ("clotho_aqa",)),
    "mmau": Data("questions", f"github.com/Sakshi113/MMAU{AS_QUESTIONS}", ("mmau",)),
    "muchomusic": Data("questions", f"zenodo.org/record/12709974{AS_QUESTIONS}", ("muchomusic",)),
}  # fmt: skip

_CLASSES = dict(linear=Linear())
_WORDS = dict(words=Words())
_FOLDS = _CLASSES | _WORDS
_ROBUST = {
    "noise": Robust(derived.Noisy()),
    "softer": Robust(derived.Softer()),
    "part": Robust(derived.Part()),
}
_SCENES: Mapping[str, Protocol] = dict(
    moments=Moments(), events=Detection(EVENTS), segments=Detection(SEGMENTS), psds=Detection(PSDS),
    grounding=Grounding(),
)  # fmt: skip
_ALL = dict(
    linear=Linear(), knn=Nearest(), few=Few(), lookup=Lookup(), clusters=Clusters(),
    **_WORDS, choice=Choice(), **_ROBUST,
)  # fmt: skip
_ASKED: Mapping[str, Mapping[str, Protocol]] = {
    "esc10": _ALL | dict(
        words_bank=Words(bank="esc"), separation=Separation(), generation=Generation(),
        captioning=Captioning(),
    ),
    "esc50": _ALL | dict(words_bank=Words(bank="esc")),
    "urbansound8k": _FOLDS,
    "fsd50k": dict(linear=Linear("split"), words=Words()),
    "synthetic": _ALL | dict(captioning=Captioning()),
    "digits": dict(
        linear=Linear("speakers"), few=Few(split="speakers"), lookup=Lookup(), words=Words(), **_ROBUST,
        separation=Separation(), generation=Generation(), captioning=Captioning(),
    ),
    "speakers": dict(linear=Linear("official"), same=Same()),
    "speech_commands": dict(linear=Linear("split"), words=Words()),
    "synthetic_pairs": dict(linear=Linear(), order=Order(), captions=Captions()),
    "esc10_pairs": dict(linear=Linear(), order=Order(), captions=Captions()),
    "compa_order": dict(order=Order()),
    "compa_attribute": dict(order=Order()),
    "synthetic_scenes": _SCENES,
    "esc10_scenes": _SCENES,
    "libricount": _CLASSES, "voxlingua": _CLASSES, "notes": _CLASSES, "counted": _CLASSES,
    "nsynth": _CLASSES,
}  # fmt: skip
_OF_GROUP: Mapping[str, Mapping[str, Protocol]] = {
    "retrieval": dict(captions=Captions(), captioning=Captioning(template="")),
    "questions": dict(choice=Choice()),
}


def _tasks() -> dict[str, Task]:
    found = {}
    for name, data in SETS.items():
        for kind, protocol in _ASKED.get(name, _OF_GROUP.get(data.group, _FOLDS)).items():
            found[f"{name}/{kind}"] = Task(f"{name}/{kind}", name, protocol)
    return found


TASKS: Mapping[str, Task] = _tasks()


def chosen(patterns: str) -> list[Task]:
    """Return the tasks of "all", or of names, groups, sets and patterns as esc10/*, with commas between.

    Raises:
      ValueError: one names no task.
    """
    found: dict[str, Task] = {}
    for pattern in patterns.split(","):
        pattern = pattern.strip()
        some = {
            name: task
            for name, task in TASKS.items()
            if pattern in ("all", task.group, task.data) or fnmatch.fnmatchcase(name, pattern)
        }
        if not some:
            groups = ", ".join(dict.fromkeys(task.group for task in TASKS.values()))
            raise ValueError(
                f"tasks: no task is called {pattern!r}. Wanted all, a group ({groups}), a set "
                f"({', '.join(SETS)}), or SET/PROTOCOL as esc10/linear; * stands for anything."
            )
        found |= some
    return list(found.values())


def source(name: str, root: str | None, rate: int, folds: Sequence[int] = ()) -> Source:
    """Return the clips of a set.

    Args:
      name: of the set.
      root: the folder of all sets; None: only those that are computed are there.
      rate: Hz.
      folds: keep these only; of a set that has some.

    Raises:
      Absent: it is not under `root`.
      ValueError: it is, and cannot be read.
    """
    data = SETS[name]
    if data.of:
        base = source(data.of, root, rate, folds)
        return derived.Pairs(base, **PAIRS) if data.group == "order" else Scenes(base, **SCENES)
    options: dict[str, Any] = dict(data.options)
    if not data.folders:
        options |= dict(rate=rate)
    elif not (place := _place(data, root)):
        names = " or ".join(data.folders)
        raise Absent(f"no {names} in {root or 'the root that was not given'}: {data.come}")
    elif options:
        options |= dict(root=place, rate=rate)
    else:
        options = places.source(place, rate)
    if folds:
        options["folds"] = tuple(folds)
    return config.build(options, "data", path=name)


def _place(data: Data, root: str | None) -> str:
    """Return the folder or table of a set; "": there is none."""
    if not root:
        return ""
    for name in data.folders:
        path = pathlib.Path(root).expanduser() / name
        tables = [path.with_name(name + end) for end in TABLE_ENDINGS]
        inside = [path / ("manifest" + end) for end in TABLE_ENDINGS]
        if data.options:
            tables, inside = [], []
        for place in (*tables, *inside, path):
            if place.exists():
                return str(place)
    return ""
