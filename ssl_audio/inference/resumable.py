"""Work on many clips that goes on after a kill, and may be divided among machines; then one output.

`embed`, `predict` and `events` say what to compute for a clip and how to write it; here is the order.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio.data import channels
from ssl_audio.data.reading import check_share
from ssl_audio.storage import division
from ssl_audio.storage.division import Division, Part
from ssl_audio.storage.partial_results import Joined, Parts
from ssl_audio.storage.remote import Remote

if TYPE_CHECKING:
    from ssl_audio.inference.encoder import Encoder

log = logging.getLogger(__name__)

Check = Callable[[], None]  # raises when the work is another's now


@dataclasses.dataclass(frozen=True)
class Work:
    """What is to be done with each of some clips.

    Attributes:
      keys: of the clips; those of equal keys are done once in a part.
      settings: what results that are kept depend on.
      compute: (where results go, numbers of the clips that it lacks, how many clips with those it has, a
        check) → the keys of those that could not be read, and why.
      write: (results, keys that have none and why, files in which averaging channels loses much).
      max_bad_share: of the clips of all parts.
      what, did: they are, and what was done with them, in messages.
      files: of the keys' sound, in the order of the keys; one that has changed since is done again.
    """

    keys: Sequence[str]
    settings: Mapping[str, Any]
    compute: Callable[[Parts, Sequence[int], int, Check], dict[str, str]]
    write: Callable[[Parts | Joined, Mapping[str, str], int], None]
    max_bad_share: float
    what: str = "files"
    did: str = "embedded"
    files: Sequence[str] = ()


def begin(
    module: str, args: argparse.Namespace, output: pathlib.Path | Remote
) -> pathlib.Path | Remote | None:
    """Return the folder of partial results; None: there is nothing left to do here.

    Args:
      module: of the verb.
      args: of the command line, with the options of `division`.
      output: the file to write.
    """
    folder = output.with_name(f"{output.name}.parts")
    if args.engine:
        division.spread(module, args, folder, gpu=True)
        return None
    if args.merge and not (folder / division.NAME).is_file() and output.is_file():
        print(
            f"{output}: no part is left to merge; the file stays as an earlier run or merge wrote it"
        )
        return None
    return folder


def run(work: Work, args: argparse.Namespace, folder: pathlib.Path | Remote) -> None:
    """Do all of it, or the part that `args.part` names, or join what all parts found (`args.merge`)."""
    keys = work.keys
    if not (args.part or args.merge):
        return run_whole(work, folder)
    listed = hashlib.sha256(json.dumps(list(keys)).encode()).hexdigest()[:16]
    whole = {**work.settings, "files": len(keys), "list": listed}
    divided = Division(folder, whole, args.part.of if args.part else None)
    if args.part:
        return _part(work, divided, args.part)
    if not divided.merged:
        _join(work, divided)
    divided.remove()


def run_whole(work: Work, folder: pathlib.Path | Remote) -> None:
    """Do all of it, and write it; the folder of partial results is there in between."""
    parts = Parts(folder, work.settings)
    bad = _missing(work, parts, range(len(work.keys)))
    work.write(parts, bad, channels.lost())
    parts.remove()


def _missing(
    work: Work, parts: Parts, numbers: range, check: Check = lambda: None
) -> dict[str, str]:
    """Compute what is not there yet; return what could not be read, and why."""
    files = {work.keys[i]: work.files[i] for i in numbers if work.files}
    if again := parts.forget_changed(files):
        log.warning("%d %s changed since they were finished, and are done again", again, work.what)
    finished = parts.finished
    first = dict(reversed([(work.keys[i], i) for i in numbers]))
    left = sorted(i for key, i in first.items() if key not in finished)
    before = sum(work.keys[i] in finished for i in numbers)
    if before:
        log.info("%d of %d %s were finished before", before, len(numbers), work.what)
    channels.forget()
    return work.compute(parts, left, len(first), check)


def _part(work: Work, divided: Division, part: Part) -> None:
    """Do one part, unless that was done."""
    with divided.work(part) as check:
        if check is None:
            print(f"part {part}: done before")
            return
        parts, numbers = Parts(divided.at(part), work.settings), part.share(len(work.keys))
        bad = _missing(work, parts, numbers, check)
        done = {work.keys[i] for i in numbers} & parts.finished
        check()
        divided.finish(part, {"files": len(done), "bad": bad, "lost": channels.lost()})
    print(f"part {part}: {len(done)} {work.what} {work.did}, {len(bad)} skipped")


def _join(work: Work, divided: Division) -> None:
    """Write what all parts found, in the order in which one machine would."""
    records, some = divided.records(), []
    for part, record in zip(divided.parts, records, strict=True):
        parts = Parts(divided.at(part), work.settings)
        if len(parts.finished) != record["files"]:
            raise ValueError(
                f"{divided.at(part)}: {len(parts.finished)} {work.what}, but part {part} had "
                f"{record['files']}: remove this folder and do the part again."
            )
        some.append(parts)
    bad = {key: cause for record in records for key, cause in record["bad"].items()}
    check_share(bad, len(work.keys), work.max_bad_share)
    work.write(Joined(some), bad, sum(record["lost"] for record in records))


def digest(encoder: Encoder) -> str:
    """Return what differs between checkpoints, wherever they lie."""
    import jax

    found = hashlib.sha256(json.dumps(encoder.config, sort_keys=True, default=str).encode())
    for values in jax.tree.leaves(encoder.params):
        found.update(np.ravel(values).view(np.uint8).data)
    return found.hexdigest()[:16]


def tell(bad: Mapping[str, str], left_out: str, lost: int) -> None:
    """Say what was not read, and of which files averaging channels loses much."""
    for cause in dict.fromkeys(bad.values()):
        print(f"skipped {cause}")
    if left_out:
        print(f"left out: {left_out}")
    if lost:
        print(
            f"averaging channels loses more than {channels.MOST_LOST:g} dB in {lost} of these files: "
            "--channels loudest keeps it"
        )
