"""What a run tells people: progress bar, metrics.jsonl, loggers, pictures. Called by `loop.py`."""

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import math
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ssl_audio.config import Duration
from ssl_audio.storage import atomic, opened
from ssl_audio.train import flops, goodput, loggers, words
from ssl_audio.train.goodput import Goodput

log = logging.getLogger("ssl_audio")

STOPPED = "stopped"  # a file in the workdir: the run is to be started again
TICKS = (250, 500, 1000, 2000, 4000, 8000, 16_000)  # Hz, of pictures
# Differ from run to run.
SPEED = ("clips_per_second", "input_wait", "flops_utilisation", *goodput.NAMES)


@dataclasses.dataclass(frozen=True)
class Record:
    """What to write, and how often.

    Attributes:
      every: duration between metric records; each is the mean over the steps since the last.
      figures: duration between pictures; 0: only at the end.
      clips: number of clips in the pictures.
      logger: where numbers and pictures go beside the workdir's files: "tensorboard", "wandb", "mlflow",
        several with + between, or "none".
      progress: show the progress bar.
    """

    every: Duration = 50
    figures: Duration = "10%"
    clips: int = 4
    logger: str = "tensorboard"
    progress: bool = True

    def __post_init__(self):
        if self.clips < 0:
            raise ValueError(f"clips: wanted at least 0, got {self.clips}")
        loggers.names(self.logger)

    def check(self) -> None:
        """Raise ValueError unless the packages of the loggers are there."""
        loggers.check(self.logger)


class Recorder:
    """The metrics of a run; a context manager. Writes only where `lead` is True.

    `profile`: first and last step of a trace, for TensorBoard's or XProf's profiler. `spent`: of the run.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        record: Record,
        *,
        start: int,
        total: int,
        lead: bool,
        profile: tuple[int, int] | None = None,
        spent: Goodput | None = None,
    ):
        self.workdir, self.record, self.lead, self.total = workdir, record, lead, total
        self.sums: dict[str, tuple[float, float]] = {}
        self.spent = spent or Goodput()
        self.clock, self.clips, self.steps, self.waited = 0.0, 0, 0, 0.0
        self.profile, self.tracing = profile if lead else None, False
        self.flops, self.peak = 0.0, 0.0
        self.file: Any = None
        self.loggers: loggers.Loggers | None = None
        self.bar: Any = None
        self.bar_options: dict[str, Any] = {}
        self.begun = 0.0
        if not lead:
            return
        (workdir / "figures").mkdir(exist_ok=True)
        (workdir / STOPPED).unlink(missing_ok=True)
        path = workdir / "metrics.jsonl"
        keep_until(path, start)
        self.file = path.open("a")
        # Shown from the end of the first step on: its compilation would make every estimate hours.
        self.bar_options = dict(total=total, initial=start, unit="step", dynamic_ncols=True)
        self.begun = time.monotonic()
        log.info("preparing the step: to compile it takes up to some minutes, once")
        self.loggers = loggers.Loggers(record.logger, workdir, start)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        self._stop_trace()
        if self.lead:
            self.spent.report()
        for thing in (self.bar, self.file):
            if thing is not None:
                thing.close()
        if self.loggers is not None:
            self.loggers.close(failed=kind is not None)

    def price(self, count: Callable[[], float]) -> None:
        """Take the floating-point operations of a step from `count`, where the device's peak is known."""
        import jax

        peak = flops.peak(jax.devices()[0].device_kind)
        if peak is not None:
            self.peak = peak * jax.device_count()
            self.flops = count()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Mark a training step; begin and end the requested trace."""
        import jax

        if self.profile and number == self.profile[0]:
            jax.profiler.start_trace(str(self.workdir / "tensorboard"))
            self.tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if self.profile and number == self.profile[1]:
            self._stop_trace()

    def _stop_trace(self) -> None:
        if self.tracing:
            import jax

            self.tracing = False
            jax.profiler.stop_trace()
            log.info("profile: in %s; tensorboard --logdir shows it", self.workdir / "tensorboard")

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the body as waiting for input."""
        begun = time.monotonic()
        with self.spent.during("input"):
            yield
        self.waited += time.monotonic() - begun

    def stopped(self, number: int) -> None:
        """Say how to go on with a run that was asked to stop, to people and in file `stopped`."""
        message = f"stopped at step {number} of {self.total} and saved; the same command goes on."
        if self.lead:
            log.warning("%s", message)
            atomic.write(self.workdir / STOPPED, message + "\n")

    def add(self, metrics: Mapping[str, tuple[Any, Any]], clips: int) -> None:
        """Take in one step's (sum, weight) pairs."""
        for name, (value, weight) in metrics.items():
            total, mass = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (total + float(value), mass + float(weight))
        if self.clock:
            self.clips, self.steps = self.clips + clips, self.steps + 1
        else:  # the first step compiles: not counted as speed
            self.clock, self.waited = time.monotonic(), 0.0
            self._show_progress()
        if self.bar is not None:
            self.bar.update(1)

    def _show_progress(self) -> None:
        if not self.lead:
            return
        from tqdm import tqdm

        log.info("ready, and the first step made, in %.0f s", self.clock - self.begun)
        self.bar = tqdm(**self.bar_options, disable=not self.record.progress)

    def write(self, step: int, **more: float) -> dict[str, float]:
        """Write the means since the last call, with throughput; return them.

        A metric that nothing counted for since, as of labels that no clip had, has no mean and is left out.
        """
        now = time.monotonic()
        means = {
            name: total / mass
            for name, (total, mass) in self.sums.items()
            if name != "finite" and mass
        }
        means |= more | self.spent.shares()
        if self.clips:
            elapsed = now - self.clock
            means["clips_per_second"] = self.clips / elapsed
            means["input_wait"] = min(1.0, self.waited / elapsed)  # share of the time
            if self.peak:
                means["flops_utilisation"] = self.flops * self.steps / elapsed / self.peak
        self.sums, self.clock, self.clips, self.steps, self.waited = {}, now, 0, 0, 0.0
        self.log(step, means)
        if self.bar is not None:
            shown = {k: means[k] for k in ("loss", "accuracy", "clips_per_second") if k in means}
            self.bar.set_postfix(
                {k.replace("clips_per_second", "clips/s"): f"{v:.3g}" for k, v in shown.items()}
            )
        return means

    def log(self, step: int, values: Mapping[str, float], prefix: str = "") -> None:
        """Append one record to metrics.jsonl and pass it on to the loggers."""
        if not self.lead:
            return
        for name, value in values.items():
            if prefix and not math.isfinite(value):
                log.warning(
                    "step %d: %s%s is %s: too few clips or classes, or a model that has diverged.",
                    step, prefix, name, value,
                )  # fmt: skip
        named = {prefix + name: value for name, value in values.items()}
        self.file.write(json.dumps({"step": step, **named}) + "\n")
        self.file.flush()
        if self.loggers is not None:
            self.loggers.scalars(named, step)

    def pictures(self, step: int, images: Mapping[str, np.ndarray], frontend: Any = None) -> None:
        """Draw the columns of `images` (name → [B, T, F]) side by side, and the curves so far."""
        if not self.lead:
            return
        figures = {"curves": curves(self.workdir / "metrics.jsonl")}
        if images:
            figures["reconstructions"] = columns(images, frontend, f"step {step}")
        for name, figure in figures.items():
            if figure is None:
                continue
            path = self.workdir / "figures" / f"{name}.png"
            drawn = io.BytesIO()  # takes a second
            figure.savefig(drawn, dpi=110)
            atomic.write(path, drawn.getvalue())
            if name == "reconstructions":
                atomic.write(path.with_stem(f"{name}_{step:07d}"), drawn.getvalue())
            if self.loggers is not None:
                self.loggers.figure(name, drawn.getvalue(), step)


def span(text: str) -> tuple[int, int]:
    """Return (first, last) of "10:20", for argparse."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"wanted FIRST:LAST, as 10:20; got {text!r}")
    return int(match[1]), int(match[2])


def keep_until(path: pathlib.Path, step: int) -> None:
    """Drop the records after `step`, and a last line cut off by a kill: a resumed run repeats them."""
    if not path.exists():
        return
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    kept = [line for line in lines if _step(line) <= step]
    atomic.write(path, "".join(line + "\n" for line in kept))


def at(path: pathlib.Path, step: int) -> dict[str, float]:
    """Return all that a metrics.jsonl says of a step."""
    lines = path.read_bytes().decode("utf-8", "replace").splitlines() if path.exists() else []
    found: dict[str, float] = {}
    for line in lines:
        if _step(line) == step:
            found |= json.loads(line)
    found.pop("step", None)
    return found


def known(path: pathlib.Path, step: int, names: Iterable[str]) -> tuple[dict[str, float], set[str]]:
    """Return all that a metrics.jsonl says of a step, and which evaluators it has a record of there."""
    lines = path.read_bytes().decode("utf-8", "replace").splitlines() if path.exists() else []
    records = [json.loads(line).keys() - {"step"} for line in lines if _step(line) == step]
    # Metrics of an objective may begin with the same name, but stand beside others.
    done = {
        n for n in names for keys in records if keys and all(k.startswith(f"{n}/") for k in keys)
    }
    return at(path, step), done


def _step(line: str) -> float:
    """Return the step of a record; infinity for a line that is none, so that it is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")


def columns(images: Mapping[str, np.ndarray], frontend: Any = None, title: str = "") -> Any:
    """Return a figure: one row per clip, one column per name, time to the right, frequency up.

    Args:
      images: name → features [B, T, F]; NaN is drawn grey. The first gives each row its colours.
      frontend: made the features. None, or without bands: frames, features and values as they are.
      title: of the whole.
    """
    from librosa import display
    from matplotlib.figure import Figure

    names = list(images)
    rows, frames, bins = images[names[0]].shape
    bands = getattr(frontend, "frequencies", None)
    if bands is None:
        units = ("frame", "feature", "value")
        x, y = _edges(np.arange(frames)), _edges(np.arange(bins))
    else:
        units = ("s", "kHz", "dB")
        images = {name: frontend.decibels(image) for name, image in images.items()}
        x = (frontend.centre + _edges(np.arange(frames)) * frontend.hop) / frontend.rate
        # Whole patches may leave out some at the top. Left to itself, `specshow` would draw bands from
        # `low` to `high` and not where they have their peaks: up to one band off.
        y = _edges(np.asarray(bands)[:bins])
    figure = Figure(figsize=(4 * len(names) + 0.8, 1.7 * rows + 0.8), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, len(names), squeeze=False, sharex=True, sharey=True)
    for r in range(rows):
        low, high = np.nanpercentile(images[names[0]][r], [1, 99.5])
        for axis, name in zip(axes[r], names, strict=True):
            axis.set_facecolor("0.75")
            mesh = display.specshow(
                images[name][r].T, x_coords=x, y_coords=y, ax=axis, cmap="magma", vmin=low,
                vmax=max(high, low + 1),
            )  # fmt: skip
            axis.set_title(name if r == 0 else "", fontsize=10)
            axis.tick_params(labelsize=8)
        bar = figure.colorbar(mesh, ax=axes[r], label=units[2], pad=0.01)
        bar.ax.tick_params(labelsize=8)
    _scale(axes[0, 0], None if bands is None else y)
    for axis in axes.flat:
        axis.set(xlabel=units[0], ylabel=units[1])
        axis.label_outer()
    return figure


def _scale(axis: Any, bands: np.ndarray | None) -> None:
    """Set the ticks of shared axes; with the bounds of `bands`, Hz, all bands are as tall."""
    from matplotlib.ticker import AutoLocator, ScalarFormatter

    axis.xaxis.set_major_locator(AutoLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
    if bands is None:
        axis.yaxis.set_major_locator(AutoLocator())
        axis.yaxis.set_major_formatter(ScalarFormatter())
        return
    # A model sees bands and not Hz, and its patches are so many bands high.
    number = np.arange(len(bands))
    there = (lambda hz: np.interp(hz, bands, number), lambda at: np.interp(at, number, bands))
    axis.set_yscale("function", functions=there)
    axis.set_yticks([hz for hz in TICKS if bands[0] <= hz <= bands[-1]])
    axis.yaxis.set_major_formatter(lambda hz, _: f"{hz / 1000:g}")


def _edges(centres: np.ndarray) -> np.ndarray:
    """Return the bounds [N + 1] of cells around N ascending centres."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def curves(path: pathlib.Path) -> Any:
    """Return a figure of every metric in a metrics.jsonl against the step, or None."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    series: dict[str, list[tuple[int, float]]] = {}
    wanted = "the metrics that a run writes, a step and numbers a line"
    for i, record in enumerate(opened.json_lines(path, wanted), 1):
        with opened.reading(f"{path}, record {i}", wanted):
            numbers = {name: float(value) for name, value in record.items()}
            for name in numbers.keys() - {"step", *SPEED}:
                series.setdefault(name, []).append((int(numbers["step"]), numbers[name]))
    if not series:
        return None
    wide = min(3, len(series))
    tall = -(-len(series) // wide)
    figure = Figure(figsize=(4 * wide, 2.6 * tall), layout="constrained")
    axes = figure.subplots(tall, wide, squeeze=False).ravel()
    for axis in axes[len(series) :]:
        axis.set_visible(False)
    for axis, (name, points) in zip(axes, sorted(series.items()), strict=False):
        marker = "o" if len(points) == 1 else ""
        axis.plot(*zip(*points, strict=True), lw=1.2, marker=marker)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylabel(words.unit(name), fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=7)
    return figure
