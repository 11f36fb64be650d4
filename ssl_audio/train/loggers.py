"""Where a run's numbers and pictures go beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow.

`record.py` calls these by name. Each works in a thread of its own: training never waits for one, and goes
on without one that fails. metrics.jsonl is complete, whatever happens here.
"""

import importlib.util
import io
import json
import logging
import os
import pathlib
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ssl_audio.storage import atomic, opened

log = logging.getLogger("ssl_audio")

NONE = "none"
WAITING = 1000  # records; a logger that is further behind is given up
PATIENCE = 60  # s that a logger may take to finish at the end of a run
PROJECT = "ssl_audio"
RUN = "run.json"  # in a logger's folder of the workdir: what it goes on with after a restart


class Logger(Protocol):
    """What follows a run; made as Class(workdir, start), `start` being the step that the run goes on from."""

    def config(self, options: Mapping[str, Any]) -> None:
        """Note the run's config; once per start."""
        ...

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take in numbers of a step; there may be several calls per step."""
        ...

    def figure(self, name: str, png: bytes, step: int) -> None:
        """Take in a picture."""
        ...

    def close(self, failed: bool) -> None:
        """Write what is left; `failed`: the run ended with an error."""
        ...


class TensorBoard:
    """Event files in folder `tensorboard` of the workdir."""

    package, extra = "tensorboardX", ""

    def __init__(self, workdir: pathlib.Path, start: int):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=start or None)

    def config(self, options: Mapping[str, Any]) -> None:
        """Note the run's config, as indented text."""
        lines = (f"    {name} = {value}" for name, value in _leaves(options).items())
        self.writer.add_text("config", "\n".join(lines))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take in numbers of a step."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def figure(self, name: str, png: bytes, step: int) -> None:
        """Take in a picture."""
        import numpy as np

        self.writer.add_image(name, np.asarray(_picture(png)), step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Write what is left."""
        del failed
        self.writer.close()

    @staticmethod
    def look(workdir: pathlib.Path) -> str:
        """Return the command that shows it."""
        return f"tensorboard --logdir {workdir / 'tensorboard'}"


class WandB:
    """A run of Weights & Biases, in folder `wandb` of the workdir.

    Project, account and mode are those of its own variables (WANDB_PROJECT, WANDB_API_KEY, WANDB_MODE);
    without an account it writes files that `wandb sync` uploads later.
    """

    package, extra = "wandb", "wandb"

    def __init__(self, workdir: pathlib.Path, start: int):
        import wandb

        del start  # its own steps would have to rise: ours are a value of each record
        folder = workdir / "wandb"
        name = _known(folder).get("id") or uuid.uuid4().hex[:8]
        _remember(folder, {"id": name})
        offline = "WANDB_MODE" not in os.environ and not wandb.api.api_key
        self.wandb = wandb
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=str(workdir),
            id=name,
            name=os.environ.get("WANDB_NAME") or workdir.name,
            resume="allow",
            mode="offline" if offline else None,
            settings=wandb.Settings(console="off", silent=True),
        )
        if not self.run.offline and self.run.url:
            _remember(folder, {"id": name, "url": self.run.url})
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def config(self, options: Mapping[str, Any]) -> None:
        """Note the run's config."""
        self.run.config.update(dict(options), allow_val_change=True)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take in numbers of a step."""
        self.run.log({**values, "step": step})

    def figure(self, name: str, png: bytes, step: int) -> None:
        """Take in a picture."""
        self.run.log({f"figures/{name}": self.wandb.Image(_picture(png)), "step": step})

    def close(self, failed: bool) -> None:
        """Upload what is left, or write it."""
        self.run.finish(exit_code=int(failed))

    @staticmethod
    def look(workdir: pathlib.Path) -> str:
        """Return the address that shows it, or the command that uploads it."""
        folder = workdir / "wandb"
        if any(folder.glob("offline-run-*")):
            return f"wandb sync {folder}/offline-run-*"
        return _known(folder).get("url") or f"wandb sync {folder}/run-*"


class MLflow:
    """A run of MLflow; MLFLOW_TRACKING_URI says where, else a database in folder `mlflow` of the workdir."""

    package, extra = "mlflow", "mlflow"

    def __init__(self, workdir: pathlib.Path, start: int):
        import mlflow

        del start
        folder = workdir / "mlflow"
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        folder.mkdir(exist_ok=True)
        known = _known(folder)
        self.entities = mlflow.entities
        self.client = mlflow.MlflowClient(tracking_uri=uri or _database(folder))
        if known.get("id") and known.get("uri") == uri:
            self.name = known["id"]
            self.client.update_run(self.name, status="RUNNING")
        else:
            where = None if uri else (folder / "artifacts").as_uri()
            experiment = self._experiment(
                os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT, where
            )
            self.name = self.client.create_run(experiment, run_name=workdir.name).info.run_id
            _remember(folder, {"id": self.name, "uri": uri})

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        return found.experiment_id if found else self.client.create_experiment(name, artifacts)

    def config(self, options: Mapping[str, Any]) -> None:
        """Note the run's config: what is new as parameters, which cannot change, and all as a file."""
        known = self.client.get_run(self.name).data.params
        new = {_name(n): str(v)[:500] for n, v in _leaves(options).items()}
        made = [self.entities.Param(n, v) for n, v in new.items() if n not in known]
        for first in range(0, len(made), 100):  # as many as one request may hold
            self.client.log_batch(self.name, params=made[first : first + 100])
        self.client.log_dict(self.name, dict(options), "config.json")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take in numbers of a step."""
        now, metric = int(1000 * time.time()), self.entities.Metric
        made = [metric(_name(n), float(value), now, step) for n, value in values.items()]
        for first in range(0, len(made), 1000):
            self.client.log_batch(self.name, metrics=made[first : first + 1000])

    def figure(self, name: str, png: bytes, step: int) -> None:
        """Take in a picture."""
        self.client.log_image(self.name, _picture(png), key=name, step=step, synchronous=True)

    def close(self, failed: bool) -> None:
        """Say how the run ended."""
        self.client.set_terminated(self.name, "FAILED" if failed else "FINISHED")

    @staticmethod
    def look(workdir: pathlib.Path) -> str:
        """Return the command that shows it, or the address of the server."""
        folder = workdir / "mlflow"
        uri = _known(folder).get("uri") or _database(folder)
        return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


LOGGERS: Mapping[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def names(text: str) -> tuple[str, ...]:
    """Return the loggers that `record.logger` names: "wandb+tensorboard"; "none": none.

    Raises:
      ValueError: one is not known, or named twice.
    """
    found = tuple(text.split("+"))
    if found == (NONE,):
        return ()
    if not set(found) <= LOGGERS.keys() or len(set(found)) < len(found):
        raise ValueError(
            f"logger '{text}': wanted {', '.join(LOGGERS)} or {NONE}, several with + between."
        )
    return found


def check(text: str) -> None:
    """Raise ValueError unless the packages of the loggers are there; none is imported."""
    for name in names(text):
        made = LOGGERS[name]
        if importlib.util.find_spec(made.package) is None:
            raise ValueError(
                f"config.record.logger: {name} needs a package: pip install 'ssl_audio[{made.extra}]'"
            )


def look(workdir: pathlib.Path) -> dict[str, str]:
    """Return logger → how to look at what it has written of a run."""
    there = (name for name in LOGGERS if (workdir / name).is_dir())
    return {name: LOGGERS[name].look(workdir) for name in there}


class Background:
    """A logger at work in a thread; a failure is warned of once, and ends it."""

    def __init__(self, name: str, make: Callable[[], Logger]):
        self.name, self.make, self.failed = name, make, False
        self.waiting: queue.Queue = queue.Queue(WAITING)
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def ask(self, method: str, *args: Any) -> None:
        """Let the logger do something as soon as it can."""
        if not self.failed:
            try:
                self.waiting.put_nowait((method, args))
            except queue.Full:
                self._give_up(f"{WAITING} records behind")

    def wait(self, until: float) -> None:
        """Wait for it to finish, until a time of the monotonic clock."""
        if not self.failed:
            self.thread.join(max(0.0, until - time.monotonic()))
        if self.thread.is_alive() and not self.failed:
            self._give_up(f"not done {PATIENCE} s after the run's end")

    def _work(self) -> None:
        try:
            logger = self.make()
            method = ""
            while method != "close" and not self.failed:
                method, args = self.waiting.get()
                getattr(logger, method)(*args)
        except BaseException as error:  # some end the program where there is no network
            self._give_up(opened.short(error))

    def _give_up(self, why: str) -> None:
        if not self.failed:
            self.failed = True
            log.warning(
                "record.logger: %s: %s; the run goes on without it. metrics.jsonl has all numbers.",
                self.name, why,
            )  # fmt: skip


class Loggers:
    """All loggers of a run."""

    def __init__(self, text: str, workdir: pathlib.Path, start: int):
        self.workdir = workdir

        def maker(name: str) -> Callable[[], Logger]:
            return lambda: LOGGERS[name](workdir, start)

        self.all = [Background(name, maker(name)) for name in names(text)]
        path = workdir / "config.json"
        if self.all and path.exists():
            self._ask("config", opened.json_file(path, "the config of a run"))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Pass on numbers."""
        self._ask("scalars", dict(values), step)

    def figure(self, name: str, png: bytes, step: int) -> None:
        """Pass on a picture."""
        self._ask("figure", name, png, step)

    def close(self, failed: bool) -> None:
        """Wait for all to finish, and say how to look at what they wrote."""
        until = time.monotonic() + PATIENCE
        self._ask("close", failed)
        for one in self.all:
            one.wait(until)
        ways = look(self.workdir)
        for one in self.all:
            if not one.failed and one.name in ways:
                log.info("to look at the run with %s: %s", one.name, ways[one.name])

    def _ask(self, method: str, *args: Any) -> None:
        for one in self.all:
            one.ask(method, *args)


def _leaves(options: Any, path: str = "") -> dict[str, Any]:
    """Return path → value of a config."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping) and value:
            for key in sorted(value):
                yield from walk(value[key], f"{path}.{key}" if path else str(key))
        else:
            yield path, value

    return dict(walk(options, path))


def _name(text: str) -> str:
    """Return a name as MLflow allows it: its characters, 250 at most, and a path that needs no resolving."""
    parts = re.sub(r"[^\w\-./ ]", "_", text).split(
        "/"
    )  # a regex of config.optim.rates ends with one
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:250].rstrip("/") or "_"


def _picture(png: bytes) -> Any:
    """Return an image without transparency; Pillow comes with matplotlib, which drew it."""
    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("RGB")


def _database(folder: pathlib.Path) -> str:
    return f"sqlite:///{folder / 'runs.db'}"


def _known(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / RUN
    return opened.json_file(path, "the name of a logger's run") if path.exists() else {}


def _remember(folder: pathlib.Path, what: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    atomic.write(folder / RUN, json.dumps(what) + "\n")
