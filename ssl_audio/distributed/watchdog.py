"""Threads that say which process is silent or has died, and end this one when a step hangs or another failed.

`processes.py` starts them. Each process keeps a counter in the key-value store of `jax.distributed`; what
ends with a process, its connection to process 0, `rendezvous.py` reports at once.
"""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

AGAIN = getattr(os, "EX_TEMPFAIL", 75)  # exit status: the same command may well succeed
INTERRUPTED = 130  # exit status after Ctrl-C
GOES_ON = "The same command goes on from the last checkpoint."
STATE = "ssl_audio/watch/"
BEAT, FAILED = f"{STATE}beat/", f"{STATE}failed/"
LOOKS, QUIET = 12, 4  # looks per heartbeat; the part of it after which a silence is reported


class Watch(threading.Thread):
    """Reports a silence after a quarter of `heartbeat` and ends this process after all of it.

    Args:
      client: the key-value store, or None for a process alone.
      index: of this process.
      names: what to call each process, by number.
      heartbeat: s without a sign of life after which a process counts as dead.
      step_timeout: s that a step may take, compilation included; 0: as long as it likes.

    Attributes:
      unreached: returns which processes this one cannot reach; asked when a step takes long.
    """

    unreached: Callable[[], list[str]] = list

    def __init__(
        self,
        client: Any,
        index: int,
        names: Mapping[int, str],
        heartbeat: float,
        step_timeout: float,
    ):
        super().__init__(name="watch", daemon=True)
        self.client, self.index, self.names = client, index, names
        self.heartbeat, self.step_timeout = heartbeat, step_timeout
        self.interval = min(heartbeat, step_timeout or heartbeat) / LOOKS
        self.number, self.begun = 0, 0.0  # the step under way, and since when; 0: none is
        self.heard: dict[int, float] = {}  # process: when its counter last moved
        self.beats: dict[int, str] = {}
        self.answered = time.monotonic()  # when process 0 last did
        self.quiet: set[int] = set()
        self.gone: set[int] = set()
        self.told = self.posted = False
        self.over = threading.Event()
        self.leaving = threading.Lock()

    def begin(self, number: int) -> None:
        """Note that a step begins."""
        self.number, self.begun = number, time.monotonic()
        file = _file()
        if self.step_timeout and file:  # also ends a process whose interpreter is stuck
            late = self.step_timeout + 4 * self.interval
            faulthandler.dump_traceback_later(late, exit=True, file=file)

    def end(self) -> None:
        """Note that the step has ended."""
        self.begun = 0.0
        faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        """Look until the run is over."""
        if self.client is not None:
            # A thread of its own: where the connection is cut, an exchange does not return.
            threading.Thread(target=self._exchange, name="exchange", daemon=True).start()
            threading.Thread(target=self._try_others, name="reach", daemon=True).start()
        before = time.monotonic()
        while not self.over.wait(self.interval):
            now = time.monotonic()
            if self.client is not None:
                self._excuse(now - before - self.interval)
                self._judge(now)
            begun = self.begun
            if self.step_timeout and begun and now - begun > self.step_timeout:
                self._hung()
            before = time.monotonic()

    def fail(self, reason: str, status: int) -> None:
        """Tell the other processes that this one is about to end, and how."""
        if self.client is None or self.over.is_set() or self.told:
            return
        self.told = True
        # A collective fails on all sides when one dies: let the others find out which.
        if "RuntimeError" in reason:
            self.over.wait(1.25 * self.heartbeat)
        self.posted = True
        # Whoever pressed Ctrl-C here found nothing that has to be mended.
        self._post(self.index, reason, AGAIN if status == INTERRUPTED else status)

    def lost(self, other: int) -> None:
        """Note that the connection to a process has closed, as happens when that process ends."""
        self.gone.add(other)
        if self.over.is_set() or self.posted or self.beats.get(other) == "done":
            return
        if self.index == 0:
            beats, failures = self._read()
            if other in failures:
                reason, status = failures[other]
                self._leave(f"{self.name_of(other)} ended: {reason}", status)
            if beats.get(other) == "done":
                return
        reason = "it was killed, or its connection was closed"
        if other:
            self._post(other, reason, AGAIN)
        self._leave(f"{self.name_of(other)} has ended without a word: {reason}", AGAIN)

    def outlast(self) -> None:
        """Let the others read why process 0 ends, before its end tells them only that it did."""
        deadline = time.monotonic() + 3 * self.interval + 1
        while time.monotonic() < deadline and len(self.gone) < len(self.names) - 1:
            time.sleep(0.05)

    def close(self) -> None:
        """Stop looking; the others stop expecting signs of life."""
        self.over.set()
        self.end()
        if self.is_alive():
            self.join(self.heartbeat)
        if self.client is not None:
            self._set("done")

    def _set(self, beat: str) -> None:
        self.client.key_value_set(f"{BEAT}{self.index}", beat, allow_overwrite=True)

    def _post(self, who: int, reason: str, status: int) -> None:
        def post():
            with contextlib.suppress(Exception):  # the error matters more than telling the others
                self.client.key_value_set(f"{FAILED}{who}", text, allow_overwrite=True)

        text = json.dumps([reason, status])
        thread = threading.Thread(target=post, daemon=True)
        thread.start()
        thread.join(max(1.0, self.interval))  # process 0 may have gone, and never answers then

    def _read(self) -> tuple[dict[int, str], dict[int, tuple[str, int]]]:
        found = dict(self.client.key_value_dir_get(STATE))  # in one exchange: a link may be slow
        beats, failures = (
            {int(key.removeprefix(what)): text for key, text in found.items() if what in key}
            for what in (BEAT, FAILED)
        )
        return beats, {who: tuple(json.loads(text)) for who, text in failures.items()}

    def _exchange(self) -> None:
        beat = 0
        while not self.over.wait(self.interval):
            beat += 1
            try:
                self._set(f"{beat} {self.number}")
                self.answered = time.monotonic()
                beats, failures = self._read()
            except Exception:  # whatever it is, the heartbeat decides
                continue
            self.answered = now = time.monotonic()
            for other, text in beats.items():
                if self.beats.get(other) != text:
                    self.beats[other], self.heard[other] = text, now
            failures.pop(self.index, None)
            for other, (reason, status) in failures.items():
                if not self.told:
                    self.over.wait(min(self.interval, 2))  # to say the same, if it has to
                self._leave(f"{self.name_of(other)} ended: {reason}", status)

    def _try_others(self) -> None:
        """End this process where a step waits for one that cannot be reached, though process 0 can."""
        failed: list[str] = []
        while not self.over.wait(self.heartbeat / 2):
            if not self.begun or time.monotonic() - self.begun < self.heartbeat:
                failed = []
                continue
            before, failed = failed, self.unreached()
            if still := [line for line in failed if line in before]:
                reason = "; ".join(still[:4])
                self._post(self.index, reason, AGAIN)
                self.over.wait(2 * self.interval)  # for the others to read it
                self._leave(reason, AGAIN)

    def _excuse(self, late: float) -> None:
        """Count no silence for which this process was itself stopped."""
        if late > max(1.0, 2 * self.interval):
            self.answered += late
            self.heard = {other: since + late for other, since in self.heard.items()}
            self._say(f"did not run for {late:.0f} s: stopped, or the machine was too busy.")

    def _judge(self, now: float) -> None:
        silent = {0: now - self.answered} if self.index else {}
        if now - self.answered < 2 * self.interval:  # else nothing is known of the others
            for other in self.names:
                if other not in (0, self.index) and self.beats.get(other) != "done":
                    silent[other] = now - self.heard.setdefault(other, now)
        for other, seconds in silent.items():
            what = "no answer from" if other == 0 else "no sign of life from"
            if seconds >= self.heartbeat:
                reason = f"{what} {self.name_of(other)} for {seconds:.0f} s (SSL_AUDIO_HEARTBEAT)"
                if other:
                    self._post(other, f"no sign of life for {seconds:.0f} s", AGAIN)
                self._leave(reason, AGAIN)
            elif seconds >= self.heartbeat / QUIET and other not in self.quiet:
                self.quiet.add(other)
                step = self.beats.get(other, "").rpartition(" ")[2]
                when = f"at step {step} when last heard" if step else "which said nothing yet"
                self._say(
                    f"{what} {self.name_of(other)} for {seconds:.0f} s, {when}. "
                    f"This process ends in {self.heartbeat - seconds:.0f} s unless it is heard "
                    f"(SSL_AUDIO_HEARTBEAT={self.heartbeat:g}); then the same command goes on from the last "
                    "checkpoint."
                )
            elif seconds < 2 * self.interval and other in self.quiet:
                self.quiet.remove(other)
                self._say(f"{self.name_of(other)} is heard again.")

    def _hung(self) -> None:
        where = "; ".join(
            f"{self.name_of(k)} at step {beat.rpartition(' ')[2]}"
            for k, beat in sorted(self.beats.items())
        )
        self._say(
            f"step {self.number} has not ended within {self.step_timeout:g} s "
            f"(SSL_AUDIO_STEP_TIMEOUT). {where}. This one is here:"
        )
        if file := _file():
            faulthandler.dump_traceback(file=file, all_threads=True)
        self.fail(f"step {self.number} hangs", AGAIN)
        if self.index:
            time.sleep(2 * self.interval)  # for the others to read why
        self._leave("a step hangs", AGAIN)

    def name_of(self, other: int) -> str:
        """Return a process's number, machine and process id."""
        return self.names.get(other, f"process {other}")

    def _leave(self, why: str, status: int) -> None:
        self.leaving.acquire()  # never released: the first reason is the one
        what = GOES_ON if status == AGAIN else "Starting again will not help before that is mended."
        self._say(f"ends: {why.rstrip('.')}. {what}")
        self.posted = True
        if self.index == 0:
            self.outlast()
        # Not sys.exit: the main thread waits in a collective that will never end.
        os._exit(status)

    def _say(self, what: str) -> None:
        print(f"process {self.index}: {what}", file=sys.stderr, flush=True)


def _file() -> Any:
    """Return the file behind standard error, or None: in a notebook sys.stderr need not be one."""
    streams: tuple[Any, ...] = sys.stderr, sys.__stderr__
    for stream in streams:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed
            if stream.fileno() >= 0:
                return stream
    return None
