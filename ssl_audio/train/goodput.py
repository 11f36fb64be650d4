"""Where a run's wall time goes: each moment belongs to one of KINDS, over all starts of the run.

`loop.py` says what is being done; the shares are in every record of metrics.jsonl, the seconds in every
checkpoint, so that a run that goes on knows what a kill has cost.
"""

import contextlib
import json
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger("ssl_audio")

# step: the devices compute; input: they wait for clips; compile; save: what the loop waits for, the rest of
# a save goes on beside steps; evaluation: with pictures; start: everything before the first step but
# compiling; restart: the same at later starts, and what was done between the last checkpoint and a kill.
KINDS: tuple[str, ...] = ("step", "input", "compile", "save", "evaluation", "start", "restart")
PREFIX = "goodput/"
NAMES = (*(PREFIX + kind for kind in KINDS), "elapsed")  # in a record


class Goodput:
    """The seconds of a run by kind; what is being done now is always of exactly one kind.

    Args:
      clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.kind, self.since = clock, "start", clock()
        self.spent: dict[str, float] = dict.fromkeys(KINDS, 0.0)

    def turn(self, kind: str) -> str:
        """From now on the time is of another kind; return the one of before."""
        now, before = self.clock(), self.kind
        self.spent[before] += now - self.since
        self.since, self.kind = now, kind
        return before

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Count the time of the body as of one kind, but for bodies of another kind inside it."""
        before = self.turn(kind)
        try:
            yield
        finally:
            self.turn(before)

    def seconds(self) -> dict[str, float]:
        """Return kind → seconds until now."""
        self.turn(self.kind)
        return dict(self.spent)

    def shares(self) -> dict[str, float]:
        """Return the shares of all kinds, whose sum is 1, and the seconds of all as "elapsed"."""
        seconds = self.seconds()
        total = sum(seconds.values())
        parts = {PREFIX + kind: value / total if total else 0.0 for kind, value in seconds.items()}
        return parts | {"elapsed": total}

    def resume(self, workdir: pathlib.Path, step: int) -> None:
        """Go on with a run from its checkpoint of `step`; to be called before metrics.jsonl is cut there.

        What earlier starts had done by then keeps its kind. What they did later, up to their last record,
        is lost to the restart, as is the time from the start of this one until now.
        """
        records = _records(workdir / "metrics.jsonl")
        by_then = [_saved(workdir, step), *(_spent(r) for r in records if r["step"] <= step)]
        known = max(by_then, key=lambda spent: sum(spent.values()))
        last = max((sum(_spent(record).values()) for record in records), default=0.0)
        lost = max(0.0, last - sum(known.values()))
        if lost >= 1:
            log.info("%.0f s of work after step %d are lost and made again", lost, step)
        own = sum(self.seconds().values())
        self.spent = {kind: known.get(kind, 0.0) for kind in KINDS}
        self.spent["restart"] += lost + own
        self.kind = "restart"

    def report(self) -> None:
        """Log the shares, for people."""
        shares = self.shares()
        told = ", ".join(
            f"{kind} {shares[PREFIX + kind]:.1%}" for kind in KINDS if self.spent[kind]
        )
        log.info("time: %.0f s; %s", shares["elapsed"], told)


def _records(path: pathlib.Path) -> list[Mapping[str, float]]:
    """Return the records that hold shares; lines that a kill has cut off are none."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
            record = json.loads(line)
            if {"step", *NAMES} <= record.keys():
                found.append({name: float(record[name]) for name in ("step", *NAMES)})
    return found


def _spent(record: Mapping[str, float]) -> dict[str, float]:
    return {kind: record[PREFIX + kind] * record["elapsed"] for kind in KINDS}


def _saved(workdir: pathlib.Path, step: int) -> dict[str, float]:
    """Return the seconds that a checkpoint holds; one of before this was written holds none."""
    from ssl_audio.storage import checkpoint  # which `ssl-audio train --help` need not load

    found = checkpoint.meta(workdir, step).get("goodput", {})
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return {kind: float(found[kind]) for kind in KINDS if kind in found}
    return {}
