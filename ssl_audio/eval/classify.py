"""A trained classifier on labelled clips: predictions, their scores, a report per class.

An evaluator of `train/loop.py`; `folds.py` writes its report.
"""

import contextlib
import csv
import dataclasses
import functools
import io
import itertools
import pathlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio.data import transforms
from ssl_audio.data.reading import examples
from ssl_audio.data.source import by_names, multi_hot
from ssl_audio.distributed import processes, sharding
from ssl_audio.eval import inputs, metrics
from ssl_audio.inference.averages import AVERAGES, averaged
from ssl_audio.inference.windows import apart, spread
from ssl_audio.slots import AnySource
from ssl_audio.storage import atomic, opened
from ssl_audio.structs import TrainState

FILLS = ("zeros", "repeat", "repeatpad")  # those that take no other clip


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions of a classifier for each clip that could be read."""

    ids: np.ndarray  # [n]
    logits: np.ndarray  # [n, C]
    labels: np.ndarray  # [n, C], multi-hot

    def save(self, path: pathlib.Path) -> None:
        """Write an .npz, whole or not at all."""
        with atomic.file(path) as file:
            np.savez(file, allow_pickle=False, **vars(self))

    @classmethod
    def load(cls, path: pathlib.Path) -> "Predictions":
        """Read what `save` wrote."""
        wanted = "the predictions that `ssl-audio folds` writes"
        found = cls(**opened.npz(path, wanted, [f.name for f in dataclasses.fields(cls)]))
        shape = (len(found.ids), *found.logits.shape[1:])
        if (
            found.ids.ndim != 1
            or found.logits.ndim != 2
            or {found.logits.shape, found.labels.shape} != {shape}
        ):
            shapes = ", ".join(f"{name} {value.shape}" for name, value in vars(found).items())
            raise opened.error(path, shapes, f"{wanted}: ids [n], logits and labels [n, C]")
        return found


@dataclasses.dataclass(frozen=True)
class Classify:
    """Compute the objective's "logits" for every clip of a source.

    A clip is cut into windows, and what the model says of them is averaged. `hop=samples // 2`,
    `fill="repeat"`, `average="sigmoid"` is the protocol of FSD50K (Fonseca et al. 2022,
    arXiv:2010.00475, section 5) with windows of one second.

    Attributes:
      source: labelled clips, read once, in order.
      samples: of a window. Shorter clips become one window: see `fill`.
      classes: C.
      batch_size: windows, over all hosts; a few more where the devices could not share so many evenly.
      views: windows of each clip, spread from its start to its end; with `hop`: must stay 1.
      hop: samples from each window to the next, from the start on; the last one ends with the clip.
        0: `views`.
      fill: what lengthens a clip shorter than a window: "zeros", "repeat" or "repeatpad"; see
        `data.transforms.fill`.
      average: what is averaged over a clip's windows: "logits", or the probabilities "softmax" (classes
        exclude each other) or "sigmoid"; see `averaged`. "none": every window counts as a clip.
      windows: score the windows, too, each as a clip: the names of those scores begin with "windows/".
      max_bad_share: of clips that cannot be read.
    """

    source: AnySource
    samples: int
    classes: int
    batch_size: int = 32
    views: int = 1
    hop: int = 0
    fill: str = "zeros"
    average: str = "logits"
    windows: bool = False
    max_bad_share: float = 0.01

    def __post_init__(self):
        if self.hop < 0 or self.views < 1 or (self.hop and self.views > 1):
            raise ValueError(
                f"classify: got views={self.views} and hop={self.hop}, wanted one of views=1 or more, "
                "and hop=1 or more."
            )
        for name, allowed in (("fill", FILLS), ("average", AVERAGES)):
            if getattr(self, name) not in allowed:
                given = getattr(self, name)
                raise ValueError(
                    f"classify: {name}: got {given!r}, wanted one of {', '.join(allowed)}."
                )

    def numbered(self, labels: tuple[str, ...]) -> "Classify":
        """Return the evaluator with the numbers that training has given these names of classes."""
        return dataclasses.replace(self, source=by_names(self.source, labels))

    def check(self, objective: Any, training: Any) -> None:
        """Open the clips and compare their labels with the number of classes; `training` has no say.

        Raises:
          ValueError: an objective without "logits"; see `inputs.check`.
        """
        self._check_objective(objective)
        del training
        inputs.check(self.source, self.classes)

    def run(self, objective: Any, state: TrainState, mesh: jax.sharding.Mesh) -> dict[str, float]:
        """Return the scores of a training state."""
        ways = (self.average, "none") if self.windows else (self.average,)
        found = self._predict(objective, state.params, state.extra, mesh, ways)
        several = self.source.info.multilabel
        of = [scores(each.logits, each.labels, multilabel=several) for each in found]
        return of[0] | {f"windows/{name}": value for each in of[1:] for name, value in each.items()}

    def predict(
        self, objective: Any, params: Any, extra: Any, mesh: jax.sharding.Mesh
    ) -> Predictions:
        """Return the logits of all clips, the same on every host.

        Raises:
          ValueError: an objective without "logits", a clip without a label, too many unreadable.
        """
        return self._predict(objective, params, extra, mesh, (self.average,))[0]

    def _predict(
        self,
        objective: Any,
        params: Any,
        extra: Any,
        mesh: jax.sharding.Mesh,
        ways: Sequence[str],
    ) -> list[Predictions]:
        """Return the predictions for each way to average windows, of one pass over the clips."""
        self._check_objective(objective)
        parts = mesh.shape["data"] * mesh.shape["fsdp"]
        rows = -(-self.batch_size // parts) * parts // processes.count()
        program = _program(objective, mesh)
        waiting: dict[int, list[np.ndarray]] = {}  # of clips whose last window is still to come
        done: dict[int, list[np.ndarray]] = {}
        with contextlib.closing(self._batches(rows)) as batches:
            for batch in batches:
                found, of = jax.device_get(program(params, extra, sharding.put_batch(batch, mesh)))
                for i, windows, logits in zip(of["index"], of["windows"], found, strict=True):
                    if i >= 0:
                        waiting.setdefault(int(i), []).append(logits)
                        if len(waiting[int(i)]) == windows:
                            logits = np.stack(waiting.pop(int(i)))
                            done[int(i)] = [averaged(logits, way) for way in ways]
                if not of["more"].any():
                    break
        numbers = sorted(done)
        metas = {i: self.source.meta(i) for i in numbers}
        return [
            Predictions(
                ids=np.array([metas[i]["id"] for i in numbers for _ in done[i][way]]),
                logits=np.concatenate([done[i][way] for i in numbers]),
                labels=np.stack([self._label(metas[i]) for i in numbers for _ in done[i][way]]),
            )
            for way in range(len(ways))
        ]

    def _check_objective(self, objective: Any) -> None:
        if "logits" not in objective.predictors():
            raise ValueError(f"classify: {type(objective).__name__} has no predictor 'logits'.")

    def _label(self, meta: Mapping[str, Any]) -> np.ndarray:
        label = meta.get("label")
        if label is None:
            raise ValueError(f"classify: clip {meta['id']} has no label.")
        return multi_hot(label, self.classes)

    def _batches(self, rows: int) -> Generator[dict[str, np.ndarray], None, None]:
        """Yield this host's `rows` of each batch, forever: hosts do not know how many windows others have.

        `index` is -1 on rows without a window; `windows`: of the row's clip; `more`: 1 while this host
        has windows for another batch.
        """
        with contextlib.closing(self._windows(rows)) as windows:
            group = list(itertools.islice(windows, rows))
            while True:
                after = list(itertools.islice(windows, rows))
                batch = {
                    "audio": np.zeros((rows, self.samples), np.float32),
                    "length": np.full(rows, self.samples, np.int32),
                    "index": np.full(rows, -1, np.int32),
                    "windows": np.zeros(rows, np.int32),
                    "more": np.full(rows, bool(after), np.int32),
                }
                for row, window in enumerate(group):
                    for name, value in window.items():
                        batch[name][row] = value
                yield batch
                group = after

    def _windows(self, rows: int) -> Generator[dict[str, Any], None, None]:
        """Yield the windows of this host's clips: of each batch of clips `rows` neighbours."""
        first = rows * processes.index()
        starts = range(first, len(self.source), rows * processes.count())
        mine = [i for s in starts for i in range(s, min(s + rows, len(self.source)))]
        read: Any = examples(self.source, numbers=mine, max_bad_share=self.max_bad_share)
        with contextlib.closing(read):
            for i, example in read:
                audio = transforms.fill(example["audio"], self.samples, self.fill, _no_more)
                cut, count = (apart, self.hop) if self.hop else (spread, self.views)
                windows, length = cut(audio, self.samples, count)
                for window in windows:
                    yield {"audio": window, "length": length, "index": i, "windows": len(windows)}


def _no_more() -> np.ndarray:
    raise AssertionError("other clips are for fill='join', which is refused")


@functools.lru_cache(4)
def _program(objective: Any, mesh: jax.sharding.Mesh) -> Any:
    """Return the jitted (params, extra, batch) → (logits, where they belong), whole on every host."""
    logits = objective.predictors()["logits"]

    def program(params, extra, batch):
        of = {name: batch.pop(name) for name in ("index", "windows", "more")}
        return logits(params, extra, batch), of

    return jax.jit(program, out_shardings=sharding.replicated(mesh))


def scores(logits: np.ndarray, labels: np.ndarray, *, multilabel: bool) -> dict[str, float]:
    """Return name → score: "accuracy" where clips have one label, ranking metrics where several.

    Means over classes are over those that have a clip, as many as "classes" says; those of AUC and d' over
    those that have clips with and without them, as many as "AUC_classes" says.
    """
    if not multilabel:
        return {
            "accuracy": metrics.accuracy(logits, labels),
            "balanced_accuracy": metrics.balanced_accuracy(logits, labels),
            "classes": metrics.classes(labels),
        }
    return {
        "mAP": metrics.mean_average_precision(logits, labels),
        "micro_mAP": metrics.micro_average_precision(logits, labels),
        "AUC": metrics.macro_auc(logits, labels),
        "d_prime": metrics.d_prime(logits, labels),
        "lwlrap": metrics.lwlrap(logits, labels),
        "classes": metrics.classes(labels),
        "AUC_classes": metrics.divided_classes(labels),
    }


def report(
    predictions: Predictions, names: Sequence[str], folder: pathlib.Path, *, multilabel: bool
) -> None:
    """Write classes.csv and, where clips have one label, confusion.png into a folder, which exists.

    `predictions` are those of all clips that count; for the rest see `per_class`.
    """
    head, rows = per_class(predictions, names, multilabel=multilabel)
    if not multilabel:
        truth, said = predictions.labels.argmax(axis=1), predictions.logits.argmax(axis=1)
        confusion(truth, said, names).savefig(folder / "confusion.png", dpi=110)
    lines = io.StringIO()
    table = csv.writer(lines)
    table.writerow(head)
    said = ((n, c, *("" if v is None else f"{v:.4f}" for v in values)) for n, c, *values in rows)
    table.writerows(said)
    atomic.write(folder / "classes.csv", lines.getvalue())


def per_class(
    predictions: Predictions, names: Sequence[str], *, multilabel: bool
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the head and the rows of a table of the classes; None: a class without a clip has no such value.

    The precision of a class that no clip was taken for is 0; without a clip of its own it has none.

    Args:
      predictions: of all clips that count.
      names: of the classes, in the order of their numbers.
      multilabel: score each class by its average precision instead of precision and recall.
    """
    from sklearn.metrics import precision_recall_fscore_support

    support = predictions.labels.sum(axis=0).astype(int)
    if multilabel:
        head = ("class", "clips", "average precision")
        values = metrics.average_precision(predictions.logits, predictions.labels)
        known = [None if np.isnan(v) else v for v in values]
        return head, list(zip(names, support, known, strict=True))
    head = ("class", "clips", "precision", "recall", "F1")
    truth, said = predictions.labels.argmax(axis=1), predictions.logits.argmax(axis=1)
    none: Any = 0  # what a class that nothing was said to be scores
    found: Any = precision_recall_fscore_support(
        truth, said, labels=range(len(names)), zero_division=none
    )
    taken = np.bincount(said, minlength=len(names))
    rows = []
    for row in zip(names, support, taken, *found[:3], strict=True):
        name, clips, alarms, precision, recall, f1 = row
        if not clips:
            precision, recall, f1 = (precision if alarms else None), None, None
        rows.append((name, clips, precision, recall, f1))
    return head, rows


def absent(names: Sequence[str], labels: np.ndarray) -> list[str]:
    """Return the classes that no clip of multi-hot labels [n, C] has: those that are in no mean."""
    return [name for name, clips in zip(names, labels.sum(axis=0), strict=True) if not clips]


def confusion(truth: np.ndarray, said: np.ndarray, names: Sequence[str]) -> Any:
    """Return a figure of the confusion matrix: a row per true class, in shares of its clips."""
    from matplotlib.figure import Figure
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(truth, said, labels=range(len(names)))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.5 + 0.32 * len(names)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    ticks = range(len(names))
    axis.set_xticks(ticks, names, rotation=90)
    axis.set_yticks(ticks, names)
    axis.set(xlabel="predicted", ylabel="true")
    if len(names) <= 30:
        for r, c in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[r, c] > 0.5 else "black"
            axis.text(c, r, str(counts[r, c]), ha="center", va="center", color=colour, fontsize=7)
    return figure
