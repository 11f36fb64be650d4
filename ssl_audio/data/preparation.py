"""Writing a source to shards: all of it (`prepare`), or parts of it on several machines (`Preparation`).

`prepare.py` is the command line. Finished files are kept, a partial one is redone.
"""

import collections
import dataclasses
import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from ssl_audio.data import shards
from ssl_audio.data.channels import CHANNELS
from ssl_audio.data.clip_columns import PLACE, Columns
from ssl_audio.data.decode import DecodeError, rate_fault
from ssl_audio.data.labelled import columns_of
from ssl_audio.data.reading import check_share
from ssl_audio.data.source import FIELDS, Example, Source, content
from ssl_audio.storage import atomic, division, opened
from ssl_audio.storage.division import WHOLE, Division, Part
from ssl_audio.storage.remote import place

SETTINGS = "settings.json"
SKIPPED = "skipped.txt"
PARTS = "parts"  # the folder that says which are done
READS = 16  # small files that are read at once, since each may come from an object store
SHORTEST = 0.01  # s; of a piece of a longer clip

_Place = tuple[str, float | None, float | None]  # file, start and end (s), as PLACE names them


def prepare(
    source: Source,
    output: str | os.PathLike,
    *,
    seconds: float = 0.0,
    shard_size: int = 512,
    max_bad_share: float = 0.01,
    workers: int = 0,
    compress: bool = True,
) -> shards.Shards:
    """Write every clip of `source` to ArrayRecord shards in `output` and return their reader.

    Args:
      source: what to read; its rate is the shards' rate.
      output: a new folder or address, or one that an earlier call with the same settings began.
      seconds: clips longer than this are cut into equal pieces; 0: never.
      shard_size: clips of the source per file.
      max_bad_share: above this share of unreadable clips it stops; unless 0, one is free.
      workers: decoding threads; 0: one per processor.
      compress: smaller files (about a quarter) that take twice as long to read.

    Raises:
      ValueError: too many unreadable clips (all named in `skipped.txt`), `output` holds something else, or
        another process is at work there.
    """
    work = Preparation(
        source, output, seconds=seconds, shard_size=shard_size, max_bad_share=max_bad_share,
        workers=workers, compress=compress,
    )  # fmt: skip
    work.do(WHOLE)
    return work.join()


class Preparation:
    """What `prepare` does, for several machines: each does parts, and one joins them.

    A part is some of the files that one machine would write. Arguments: those of `prepare`.
    """

    def __init__(
        self,
        source: Source,
        output: str | os.PathLike,
        *,
        seconds: float = 0.0,
        shard_size: int = 512,
        max_bad_share: float = 0.01,
        workers: int = 0,
        compress: bool = True,
    ):
        least = f"0 (never cut), or at least {SHORTEST} s"
        _check("seconds", seconds, seconds == 0 or SHORTEST <= seconds < math.inf, least)
        _check("shard_size", shard_size, shard_size >= 1, "at least 1 clip per file")
        _check("workers", workers, workers >= 0, "0 (one per processor), or a number of threads")
        _check("max_bad_share", max_bad_share, 0 <= max_bad_share <= 1, "a share from 0 to 1")
        self._source, self._root = source, place(output)
        self._max_bad_share, self._workers = max_bad_share, workers or _processors()
        rate = source.meta(0)["rate"]
        check_rate(rate)
        self._settings = {
            "version": 1,
            "name": source.info.name,
            "clips": len(source),
            "content": content(source),
            "rate": rate,
            "seconds": seconds,
            "shard_size": shard_size,
            "compress": compress,
        }
        channels = getattr(source, "channels", CHANNELS[0])
        if channels != CHANNELS[0]:  # shards from before this was kept are of the default
            self._settings["channels"] = channels
        self._key = hashlib.sha256(json.dumps(self._settings).encode()).hexdigest()[:16]
        self._files = -(-len(source) // shard_size)

    def do(self, part: Part) -> dict[str, int]:
        """Write the files of a part that are not there yet; return how many clips and bad ones it has.

        Raises:
          ValueError: see `prepare`; too many are unreadable if this part's alone are.
        """
        _claim(self._root, self._settings)
        if (self._root / shards.INDEX).is_file():
            return {}
        division = self._division(part.of)
        with division.work(part) as check:
            if check is None:
                return division.record(part) or {}
            clips, bad = self._write(division, part, check)
            division.finish(part, found := {"clips": clips, "bad": bad})
        return found

    def join(self) -> shards.Shards:
        """Write the index of all files, once all parts are done; may be repeated.

        Raises:
          ValueError: parts are missing, were made of another list, or hold too many unreadable clips.
        """
        if not (self._root / SETTINGS).is_file():
            raise ValueError(f"{self._root}: no part is there: {division.BEGIN}.")
        _claim(self._root, self._settings)
        if (self._root / shards.INDEX).is_file():
            if (self._root / PARTS / division.NAME).is_file():
                self._tidy()
            return shards.Shards(str(self._root))
        self._division(None).records()
        with ThreadPoolExecutor(READS) as pool:
            parts = list(pool.map(self._checked, range(self._files)))
        bad = {name: cause for part in parts for name, cause in part["bad"].items()}
        _list(self._root / SKIPPED, bad)
        check_share(bad, self._settings["clips"], self._max_bad_share)
        columns = {
            key: [value for part in parts for value in part["clips"][key]]
            for key in (*FIELDS, "samples")
        }
        columns |= _excerpts([part["clips"] for part in parts])
        if not columns["id"]:
            name = self._settings["name"]
            raise ValueError(f"{name}: no clip could be read; see {self._root / SKIPPED}")
        index = {
            "settings": self._settings,
            "info": dataclasses.asdict(self._source.info),
            "rate": self._settings["rate"],
            "count": len(columns["id"]),
            "shards": [
                {"file": f"{number:05d}.array_record", "count": len(part["clips"]["id"])}
                | dict(zip(("size", "sha256"), part["content"], strict=True))
                for number, part in enumerate(parts)
                if part["clips"]["id"]
            ],
            "clips": columns,
        }
        atomic.write(self._root / shards.INDEX, json.dumps(index))
        self._tidy()
        return shards.Shards(str(self._root))

    def _division(self, of: int | None) -> Division:
        return Division(self._root / PARTS, self._settings, of)

    def _write(self, division: Division, part: Part, check: Callable[[], None]) -> tuple[int, int]:
        size, total = self._settings["shard_size"], self._settings["clips"]
        seconds, compress = self._settings["seconds"], self._settings["compress"]
        numbers, bad = part.share(self._files), {}
        first, last = numbers.start * size, min(numbers.stop * size, total)
        skipped = (self._root if part == WHOLE else division.at(part)) / SKIPPED
        name = self._settings["name"]
        with (
            tqdm(
                total=last - first, unit="clip", desc=name if part == WHOLE else f"{name} {part}"
            ) as bar,
            ThreadPoolExecutor(self._workers) as pool,
        ):
            for number in numbers:
                check()
                clips = range(number * size, min((number + 1) * size, total))
                kept = self._kept(number)
                if kept:
                    found = kept
                    bar.update(len(clips))
                else:
                    reads = _read(self._source, clips, pool, bar)
                    path = self._root / f"{number:05d}.array_record"
                    found = {"key": self._key, **_shard(path, reads, seconds, compress)}
                    check()
                if found["bad"]:
                    bad |= found["bad"]
                    _list(skipped, bad)
                bar.set_postfix(skipped=len(bad))
                check_share(bad, total, self._max_bad_share)
                if not kept:
                    atomic.write(self._root / f"{number:05d}.json", json.dumps(found))
        return last - first, len(bad)

    def _kept(self, number: int) -> dict[str, Any] | None:
        """Return what an earlier call wrote about a file that is whole and of this very list, or None."""
        done, path = (self._root / f"{number:05d}{end}" for end in (".json", ".array_record"))
        found = _part(done) if done.is_file() and path.is_file() else None
        if found is None or found.get("key", self._key) != self._key:
            return None
        # Earlier versions have not noted size and SHA-256.
        found["content"] = found.get("content") or shards.content(path)
        return found if path.stat().st_size == found["content"][0] else None

    def _checked(self, number: int) -> dict[str, Any]:
        if found := self._kept(number):
            return found
        division = self._division(None)
        part = next(p for p in division.parts if number in p.share(self._files))
        raise ValueError(
            f"{self._root / f'{number:05d}.array_record'}: missing or cut, though part {part} was done: "
            f"remove {division.at(part)} and do that part again."
        )

    def _tidy(self) -> None:
        for number in range(self._files):
            (self._root / f"{number:05d}.json").unlink(missing_ok=True)
        for path in list(self._root.glob(".*.partial")):  # of processes that were killed
            path.unlink(missing_ok=True)
        self._division(None).remove()


def _check(name: str, value: float, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"--{name.replace('_', '-')}: got {value}, wanted {wanted}.")


def _processors() -> int:
    """Return how many processors this process may use, which a cluster's scheduler may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _list(path: Any, bad: Mapping[str, str]) -> None:
    atomic.write(path, "".join(f"{name}\t{cause}\n" for name, cause in bad.items()))


def _part(path: Any) -> dict[str, Any]:
    """Return what an earlier call wrote about a finished shard."""
    wanted = "what `ssl-audio prepare` writes about a finished file; remove it to redo that one"
    found = opened.json_file(path, wanted)
    clips = opened.member(found, "clips", dict, path)
    opened.member(found, "bad", dict, path)
    for key in (*FIELDS, "samples"):
        opened.member(clips, key, list, path)
    return found


def check_rate(rate: int) -> None:
    """Raise ValueError unless a rate, Hz, is one to resample to."""
    if cause := rate_fault(rate):
        raise ValueError(f"--rate: got {cause}")


def _claim(root: Any, settings: dict[str, Any]) -> None:
    path = root / SETTINGS
    if not path.is_file():
        atomic.check_folder(root)
        root.mkdir(parents=True, exist_ok=True)
        others = [entry.name for entry in root.iterdir() if not entry.name.startswith(".")]
        if others and not path.is_file():  # parts may begin at the same time
            raise ValueError(f"{root}: not empty, and not begun by prepare: {others[0]}, …")
        if not others:
            mark = f".{uuid.uuid4().hex}"
            atomic.write(path, json.dumps(settings, indent=1), mark=mark)
    before = opened.json_file(path, "the settings that `ssl-audio prepare` writes")
    differ = [key for key in {**settings, **before} if before.get(key) != settings.get(key)]
    if differ:
        changes = ", ".join(f"{key} {before.get(key)} -> {settings.get(key)}" for key in differ)
        raise ValueError(
            f"{root} was begun with other settings or clips ({changes}): choose another folder"
        )


def _read(
    source: Source, numbers: range, pool: ThreadPoolExecutor, bar: tqdm
) -> Iterator[tuple[Example, _Place, np.ndarray | str]]:
    """Yield what is known of each clip, its place and its audio, or why there is none, a few ahead."""
    columns = columns_of(source)

    def read(i: int) -> np.ndarray | str:
        try:
            return source[i]["audio"]
        except DecodeError as error:
            return str(error)

    waiting: collections.deque = collections.deque()
    for i in numbers:
        waiting.append((i, pool.submit(read, i)))
        if len(waiting) > 4 * (os.cpu_count() or 1):
            i, future = waiting.popleft()
            yield source.meta(i), _place(source, columns, i), future.result()
            bar.update()
    for i, future in waiting:
        yield source.meta(i), _place(source, columns, i), future.result()
        bar.update()


def _place(source: Source, columns: Columns | None, i: int) -> _Place:
    """Return of a clip its file and what it is of it; the id of one that is of no file."""
    if columns is None or "path" not in columns.arrays:
        return source.meta(i)["id"], None, None
    path, start, end = (columns.get(name, i) for name in PLACE)
    return path or source.meta(i)["id"], start, end


def _excerpts(parts: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return the places of all clips, as columns; nothing where each is a file of its own.

    Those who divide clips keep clips of one file together by them; see `labelled.py`.
    """
    if not all(name in part for part in parts for name in PLACE):
        return {}  # an earlier version began
    found = {name: [value for part in parts for value in part[name]] for name in PLACE}
    return found if len(set(found["path"])) < len(found["path"]) else {}


def _shard(
    path: Any,
    reads: Iterator[tuple[Example, _Place, np.ndarray | str]],
    seconds: float,
    compress: bool,
) -> dict[str, Any]:
    """Write one file; return the columns of its clips and the causes of those left out."""
    clips: dict[str, list] = {key: [] for key in (*FIELDS, "samples", *PLACE)}
    bad: dict[str, str] = {}

    def pieces() -> Iterator[np.ndarray]:
        for meta, (path, start, end), audio in reads:
            if isinstance(audio, str):
                bad[meta["id"]] = audio
                continue
            count = -(-len(audio) // round(seconds * meta["rate"])) if seconds else 1
            for n, piece in enumerate(np.array_split(audio, count)):
                for key in FIELDS:
                    clips[key].append(meta.get(key))
                clips["samples"].append(len(piece))
                if count > 1:
                    clips["id"][-1] = f"{meta['id']}#{n}"
                    start = end if n else start or 0.0
                    end = start + len(piece) / meta["rate"]
                for key, value in zip(PLACE, (path, start, end), strict=True):
                    clips[key].append(value)
                yield piece

    content = shards.write_records(path, pieces(), compress=compress)
    return {"clips": clips, "bad": bad, "content": content}
