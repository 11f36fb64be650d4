"""A thread that says which process has died, and ends this one when a step hangs or another failed.

`processes.py` starts it. Each process keeps a counter in the key-value store of `jax.distributed`. What
ends the survivors of a dead process is JAX's own heartbeat, which no busy interpreter can delay.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from typing import Any

AGAIN = getattr(os, "EX_TEMPFAIL", 75)  # exit status: the same command may well succeed
BEAT, FAILED, NAME = "ssl_audio/beat/", "ssl_audio/failed/", "ssl_audio/name/"


class Watch(threading.Thread):
    """Looks four times per `heartbeat`.

    Args:
      client: the key-value store, or None for a process alone.
      index, count: of this process; of all.
      heartbeat: s without a sign of life after which JAX ends all; half as long is reported.
      step_timeout: s that a step may take, compilation included; 0: as long as it likes.
    """

    def __init__(self, client: Any, index: int, count: int, heartbeat: float, step_timeout: float):
        super().__init__(name="watch", daemon=True)
        self.client, self.index, self.count = client, index, count
        self.heartbeat, self.step_timeout = heartbeat, step_timeout
        self.interval = min(heartbeat, step_timeout or heartbeat) / 4
        self.number, self.begun = 0, 0.0  # the step under way, and since when; 0: none is
        self.names: dict[int, str] = {}
        self.steps: dict[int, str] = {}
        self.missing: set[int] = set()
        self.told = False
        self.over = threading.Event()
        if client is not None:
            client.key_value_set(f"{NAME}{index}", f"{socket.gethostname()}, pid {os.getpid()}")

    def begin(self, number: int) -> None:
        """Note that a step begins."""
        self.number, self.begun = number, time.monotonic()
        if self.step_timeout:  # also ends a process whose interpreter is stuck
            faulthandler.dump_traceback_later(self.step_timeout + 4 * self.interval, exit=True)

    def end(self) -> None:
        """Note that the step has ended."""
        self.begun = 0.0
        faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        """Look until the run is over."""
        seen: dict[int, tuple[str, float]] = {}
        beats = 0
        while not self.over.wait(self.interval):
            now, beats = time.monotonic(), beats + 1
            if self.client is not None:
                self._exchange(f"{beats} {self.number}", seen, now)
            begun = self.begun
            if self.step_timeout and begun and now - begun > self.step_timeout:
                self._hung()

    def fail(self, reason: str) -> None:
        """Tell the other processes that this one is about to end."""
        if self.client is None or self.over.is_set() or self.told:
            return
        self.told = True
        # A collective fails on all sides when one dies: let the heartbeat find out which.
        if "RuntimeError" in reason:
            self.over.wait(1.25 * self.heartbeat)
        with contextlib.suppress(Exception):  # its own error matters more than telling the others
            self.client.key_value_set(f"{FAILED}{self.index}", reason, allow_overwrite=True)

    def outlast(self) -> None:
        """Let the others read why process 0 ends, before its end aborts them without a word."""
        deadline = time.monotonic() + 2.5 * self.interval  # they look, and leave the next time
        with contextlib.suppress(Exception):
            while time.monotonic() < deadline:
                failed = self.client.key_value_dir_get(FAILED)
                if len(failed) == self.count:
                    deadline = min(deadline, time.monotonic() + 0.5)
                time.sleep(0.1)

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

    def _exchange(self, beat: str, seen: dict[int, tuple[str, float]], now: float) -> None:
        try:
            self._set(beat)
            beats = _numbered(self.client.key_value_dir_get(BEAT))
            failed = _numbered(self.client.key_value_dir_get(FAILED))
            if len(self.names) < self.count:
                self.names = _numbered(self.client.key_value_dir_get(NAME))
        except Exception as error:
            if not self.over.is_set():
                first = str(error).splitlines()[0]
                self._leave(f"{self.name_of(0)}, the coordinator, does not answer: {first}")
            return
        for other in range(self.count):
            text = beats.get(other, "")
            if other not in seen or seen[other][0] != text:
                seen[other] = (text, now)
            self.steps[other] = text.rpartition(" ")[2]
            if other == self.index or text == "done":
                continue
            silent = now - seen[other][1]
            if silent > self.heartbeat / 2 and other not in self.missing:
                self.missing.add(other)
                self._say(
                    f"no sign of life from {self.name_of(other)} for {silent:.0f} s, last at step "
                    f"{self.steps[other] or '?'}. If it has died, this process ends within "
                    f"{self.heartbeat:g} s (SSL_AUDIO_HEARTBEAT); the same command goes on from the "
                    "last checkpoint."
                )
            elif silent == 0 and other in self.missing:
                self.missing.remove(other)
                self._say(f"{self.name_of(other)} is back.")
        failed.pop(self.index, None)
        for other, reason in failed.items():
            time.sleep(self.interval)  # time for this process to say the same, if it has to
            self._leave(f"{self.name_of(other)} ended: {reason}")

    def _hung(self) -> None:
        where = "; ".join(
            f"{self.name_of(k)} at step {step}" for k, step in sorted(self.steps.items())
        )
        self._say(
            f"step {self.number} has not ended within {self.step_timeout:g} s "
            f"(SSL_AUDIO_STEP_TIMEOUT). {where}. This one is here:"
        )
        faulthandler.dump_traceback(all_threads=True)
        self.fail(f"step {self.number} hangs")
        time.sleep(self.interval)  # for the others to read why
        self._leave("a step hangs")

    def name_of(self, other: int) -> str:
        """Return a process's number, machine and process id."""
        return f"process {other} ({self.names.get(other, 'which never reported')})"

    def _leave(self, why: str) -> None:
        self._say(f"ends: {why}. The same command goes on from the last checkpoint.")
        # Not sys.exit: the main thread waits in a collective that will never end.
        os._exit(AGAIN)

    def _say(self, what: str) -> None:
        print(f"process {self.index}: {what}", file=sys.stderr, flush=True)


def _numbered(found: list[tuple[str, str]]) -> dict[int, str]:
    return {int(key.rpartition("/")[2]): value for key, value in found}
