"""A trained classifier on labelled clips: predictions, their scores, a report per class.

An evaluator of `train/loop.py`; `folds.py` writes its report.
"""

import contextlib
import csv
import dataclasses
import functools
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio.data.reading import examples
from ssl_audio.data.source import by_names, multi_hot
from ssl_audio.distributed import processes, sharding
from ssl_audio.eval import inputs, metrics
from ssl_audio.inference.windows import spread
from ssl_audio.slots import AnySource
from ssl_audio.storage import atomic, opened
from ssl_audio.structs import TrainState


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

    Attributes:
      source: labelled clips, read once, in order.
      samples: clips are cut or zero-padded to so many.
      classes: C.
      batch_size: clips, over all hosts.
      views: of each clip, from its start to its end; their mean logits count.
      max_bad_share: of clips that cannot be read.
    """

    source: AnySource
    samples: int
    classes: int
    batch_size: int = 32
    views: int = 1
    max_bad_share: float = 0.01

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
        found = self.predict(objective, state.params, state.extra, mesh)
        return scores(found.logits, found.labels, multilabel=self.source.info.multilabel)

    def predict(
        self, objective: Any, params: Any, extra: Any, mesh: jax.sharding.Mesh
    ) -> Predictions:
        """Return the logits of all clips, the same on every host.

        Raises:
          ValueError: an objective without "logits", a clip without a label, too many unreadable.
        """
        self._check_objective(objective)
        sharding.check_batch(self.batch_size, mesh)
        program = _program(objective, mesh, self.views)
        numbers, logits = [], []
        for batch in self._batches():
            where = batch.pop("index")
            batch = sharding.put_batch(batch | {"index": where}, mesh)
            found, where = jax.device_get(program(params, extra, batch))
            logits.append(found[where >= 0])
            numbers += where[where >= 0].tolist()
        metas = [self.source.meta(i) for i in numbers]
        return Predictions(
            ids=np.array([meta["id"] for meta in metas]),
            logits=np.concatenate(logits),
            labels=np.stack([self._label(meta) for meta in metas]),
        )

    def _check_objective(self, objective: Any) -> None:
        if "logits" not in objective.predictors():
            raise ValueError(f"classify: {type(objective).__name__} has no predictor 'logits'.")

    def _label(self, meta: Mapping[str, Any]) -> np.ndarray:
        label = meta.get("label")
        if label is None:
            raise ValueError(f"classify: clip {meta['id']} has no label.")
        return multi_hot(label, self.classes)

    def _batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield this host's rows of each batch; `index` is -1 on rows without a clip."""
        rows = self.batch_size // processes.count()
        first = rows * processes.index()
        starts = range(first, len(self.source) + first, self.batch_size)
        mine = [i for s in starts for i in range(s, min(s + rows, len(self.source)))]
        read: Any = examples(self.source, numbers=mine, max_bad_share=self.max_bad_share)
        with contextlib.closing(read):
            waiting = next(read, None)
            for start in starts:
                batch = {
                    "audio": np.zeros((rows, self.views, self.samples), np.float32),
                    "length": np.full((rows, self.views), self.samples, np.int32),
                    "index": np.full(rows, -1, np.int32),
                }
                while waiting is not None and waiting[0] < start + rows:
                    i, example = waiting
                    audio, length = spread(example["audio"], self.samples, self.views)
                    batch["audio"][i - start] = audio
                    batch["length"][i - start] = length
                    batch["index"][i - start] = i
                    waiting = next(read, None)
                yield batch


@functools.lru_cache(4)
def _program(objective: Any, mesh: jax.sharding.Mesh, views: int) -> Any:
    """Return the jitted (params, extra, batch) → (logits, index), whole on every host."""
    logits = objective.predictors()["logits"]

    def program(params, extra, batch):
        index = batch.pop("index")
        found = logits(params, extra, {k: v.reshape(-1, *v.shape[2:]) for k, v in batch.items()})
        return found.reshape(-1, views, found.shape[-1]).mean(1), index

    return jax.jit(program, out_shardings=sharding.replicated(mesh))


def scores(logits: np.ndarray, labels: np.ndarray, *, multilabel: bool) -> dict[str, float]:
    """Return name → score: "accuracy" where clips have one label, ranking metrics where several.

    Means over classes are over those that have a clip, as many as "classes" says.
    """
    if not multilabel:
        return {
            "accuracy": metrics.accuracy(logits, labels),
            "balanced_accuracy": metrics.balanced_accuracy(logits, labels),
            "classes": metrics.classes(labels),
        }
    return {
        "mAP": metrics.mean_average_precision(logits, labels),
        "AUC": metrics.macro_auc(logits, labels),
        "d_prime": metrics.d_prime(logits, labels),
        "lwlrap": metrics.lwlrap(logits, labels),
        "classes": metrics.classes(labels),
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
    table.writerows((n, c, *(f"{v:.4f}" for v in values)) for n, c, *values in rows)
    atomic.write(folder / "classes.csv", lines.getvalue())


def per_class(
    predictions: Predictions, names: Sequence[str], *, multilabel: bool
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the head and the rows of a table of the classes.

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
        return head, list(zip(names, support, values, strict=True))
    head = ("class", "clips", "precision", "recall", "F1")
    truth, said = predictions.labels.argmax(axis=1), predictions.logits.argmax(axis=1)
    none: Any = 0  # what a class that nothing was said to be scores
    found: Any = precision_recall_fscore_support(
        truth, said, labels=range(len(names)), zero_division=none
    )
    return head, list(zip(names, support, *found[:3], strict=True))


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
