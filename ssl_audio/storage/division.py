"""Work divided among machines: each part is done once, by whoever comes first, and all are joined at the end.

`prepare`, `embed` and `search index` have the options; `storage/over_ray.py` hands out parts by itself.
"""

import argparse
import contextlib
import importlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ssl_audio.storage import atomic, lock, opened, over_ray

NAME, DONE = "division.json", "done.json"
BEGIN = "run the command with --part 1/N, …, N/N in place of --merge"
AGAIN = "run the same command with --part {} in place of --merge"
FEW = 5  # parts named in a message


class Part(NamedTuple):
    """Part `number`, from 1, of `of`."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.number}-of-{self.of}"

    def share(self, count: int) -> range:
        """Return which of `count` things are this part's: neighbours; sizes differ by one at most."""
        ends = (count * n // self.of for n in (self.number - 1, self.number))
        return range(*ends)


WHOLE = Part(1, 1)


def part(text: str) -> Part:
    """Return the part that I/N means, for argparse."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        of = of if of.isdecimal() and int(of) else "N"
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted I/N, from 1/{of} to {of}/{of}")
    return Part(int(number), int(of))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of work on several machines; `check` says whether they fit each other."""
    group = parser.add_argument_group(
        "several machines",
        "Every machine runs the same command with a --part of its own; a part that was finished is not\n"
        "done again, and one that is being done is refused. Then one runs it with --merge. With --engine\n"
        "ray one command does all of that on the machines of a Ray cluster.",
    )
    group.add_argument("--part", type=part, metavar="I/N", help="do part I of N, I from 1 to N")
    group.add_argument("--merge", action="store_true", help="join all parts, once they are done")
    group.add_argument("--engine", choices=("ray",), help="who runs the parts (ssl_audio[ray])")
    group.add_argument(
        "--parts", type=int, metavar="N", help="with --engine; default: 4 per machine or GPU"
    )


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a message if options contradict each other."""
    if args.part and args.merge:
        parser.error("--part and --merge: first all parts, then --merge alone")
    if args.engine and (args.part or args.merge):
        parser.error("--engine does all parts and merges them: give no --part and no --merge")
    if args.parts is not None and not args.engine:
        parser.error("--parts is of --engine ray; without it, give --part I/N")
    if args.parts is not None and args.parts < 1:
        parser.error(f"--parts: got {args.parts}, wanted at least 1")


def spread(module: str, args: argparse.Namespace, folder: Any, *, gpu: bool) -> Any:
    """Let a Ray cluster do all parts of a verb, join them here, and return what joining gives.

    Args:
      module: of the verb; its `run` takes such arguments.
      args: of the command line.
      folder: of the `Division`, which may have been begun.
      gpu: whether the verb computes with one.

    Raises:
      ValueError, RuntimeError: of the part that failed, by its number; the others stay done.
    """

    def calls(of: int) -> dict[str, argparse.Namespace]:
        given = {**vars(args), "engine": None, "parts": None}
        some = (Part(number, of) for number in range(1, of + 1))
        return {f"part {part}": argparse.Namespace(**{**given, "part": part}) for part in some}

    begun = opened.json_file(folder / NAME, "a division") if (folder / NAME).is_file() else {}
    if not begun.get("merged"):
        over_ray.run(f"{module}:run", calls, args.parts or begun.get("parts", 0), gpu=gpu)
    joined = {**vars(args), "engine": None, "parts": None, "merge": True}
    return importlib.import_module(module).run(argparse.Namespace(**joined))


class Division:
    """A folder that keeps which parts of some work are done, and what they hold.

    Args:
      folder: a path or an address, made when the first part begins.
      settings: what all parts must have in common: options, and a digest of the list that is divided.
      of: how many parts; None: as many as were begun, in order to join them.

    Raises:
      ValueError: it was begun with other settings or another number of parts; or not at all.
    """

    def __init__(self, folder: Any, settings: Mapping[str, Any], of: int | None):
        self.folder, self._settings = folder, dict(settings)
        self.merged = False  # its parts were joined, and a kill kept them from being removed
        path = folder / NAME
        if path.is_file():
            before = opened.json_file(path, "what a part of divided work writes")
            self.of = opened.member(before, "parts", int, path) if of is None else of
            kept = opened.member(before, "settings", dict, path)
            self.merged = before.get("merged", False)
            if self.merged and of is not None:
                raise ValueError(
                    f"{folder}: its parts were joined, and a kill kept them from being removed: run the "
                    "command with --merge once more, or remove the folder."
                )
            if not self.merged:
                self._refuse("begun", {"parts": before["parts"], **kept}, f"remove {folder}")
        elif of is None:
            raise ValueError(f"{folder}: no part is there: {BEGIN}.")
        else:
            self.of = of
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"parts": of, "settings": self._settings}, indent=1)
            # All parts may begin at once.
            atomic.write(path, text, mark=f".{uuid.uuid4().hex}")

    @property
    def parts(self) -> list[Part]:
        """All parts."""
        return [Part(number, self.of) for number in range(1, self.of + 1)]

    def at(self, part: Part) -> Any:
        """Return the folder of a part."""
        return self.folder / part.folder

    @contextlib.contextmanager
    def work(self, part: Part) -> Iterator[Callable[[], None] | None]:
        """Hold a part, for the body to do and `finish`.

        Gives what raises RuntimeError when another process has taken the part over; or None: it was finished.

        Raises:
          ValueError: another process is at work on it.
        """
        if self.record(part) is not None:
            yield None
            return
        hint = f"It does part {part}; wait for its end, or stop it."
        with lock.on(self.at(part), hint=hint) as held:
            yield held.check if self.record(part) is None else None

    def finish(self, part: Part, record: Mapping[str, Any]) -> None:
        """Note that a part is done, and what is to be known of it."""
        text = json.dumps({"parts": self.of, "settings": self._settings, "record": dict(record)})
        atomic.write(self.at(part) / DONE, text)

    def record(self, part: Part) -> dict[str, Any] | None:
        """Return what is known of a part that is done; None: it is not.

        Raises:
          ValueError: it was done with other settings, or of another list.
        """
        path = self.at(part) / DONE
        if not path.is_file():
            return None
        found = opened.json_file(path, "what a part writes when it is done")
        kept = opened.member(found, "settings", dict, path)
        hint = f"remove {self.at(part)} and do this part again"
        self._refuse(f"part {part} done", {"parts": found.get("parts"), **kept}, hint)
        return opened.member(found, "record", dict, path)

    def records(self) -> list[dict[str, Any]]:
        """Return what is known of all parts.

        Raises:
          ValueError: parts are missing, with their numbers and what to run.
        """
        found = [(part, self.record(part)) for part in self.parts]
        missing = [part for part, record in found if record is None]
        if missing:
            raise self.missing(missing)
        return [record for _, record in found if record is not None]

    def missing(self, some: list[Part]) -> ValueError:
        """Return the error about parts that are not there."""
        said = []
        for part in some[:FEW]:
            owner = lock.owner(self.at(part))
            state = f"begun by {owner}: wait for it, or " if owner else ""
            said.append(f"part {part} is missing: {state}{AGAIN.format(part)}")
        more = f"; and {len(some) - FEW} more" if len(some) > FEW else ""
        return ValueError(f"{self.folder}: {'; '.join(said)}{more}.")

    def remove(self) -> None:
        """Remove all parts, after what they hold was joined; a kill in between loses nothing."""
        joined = {"parts": self.of, "settings": self._settings, "merged": True}
        atomic.write(self.folder / NAME, json.dumps(joined))
        for part in self.parts:
            _clear(self.at(part))
        (self.folder / NAME).unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _refuse(self, what: str, before: Mapping[str, Any], hint: str) -> None:
        now = {"parts": self.of, **self._settings}
        differ = [key for key in {**now, **before} if before.get(key) != now.get(key)]
        if differ:
            changes = ", ".join(f"{key}: {before.get(key)}, now {now.get(key)}" for key in differ)
            raise ValueError(
                f"{self.folder}: {what} with other settings or of another list ({changes}): go on with "
                f"those, or {hint}."
            )


def _clear(folder: Any) -> None:
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        path.unlink(missing_ok=True)  # whoever was last at work gives back the lock just now
    folder.rmdir()
