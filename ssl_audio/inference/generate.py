"""Generate sound from words: ssl-audio generate --checkpoint RUN "rain on a roof" --seconds 5 --output DIR

Writes 0000.wav, 0001.wav, … and manifest.csv, a table of them with texts and seeds, which `train` reads.
The same command goes on after a kill. Options that a model does not know are refused.
"""

from __future__ import annotations

import argparse
import csv
import functools
import inspect
import io
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_audio import startup
from ssl_audio.inference import kinds

MANIFEST = "manifest.csv"
# What is handed on to the model if it is given, and only then.
HANDED = ("guidance", "temperature", "top_k", "top_p", "stride", "steps")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio generate`."""
    made = startup.parser("generate", __doc__)
    made.add_argument("texts", nargs="*", metavar="TEXT", help='one sound each; "": without words')
    made.add_argument("--texts-from", metavar="FILE", help="further texts, one a line")
    made.add_argument(
        "--checkpoint", required=True, metavar="RUN", help="a workdir of train, or a folder"
    )
    made.add_argument(
        "--step", type=startup.step, help='which checkpoint, or "best"; default: the newest'
    )
    made.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    made.add_argument(
        "--seconds", type=_above_zero, metavar="S",
        help="default: 10, of a diffusion model that of its training clips, which is the longest",
    )  # fmt: skip
    made.add_argument("--count", type=_count, default=1, metavar="N", help="sounds of each text")
    made.add_argument(
        "--seed", type=int, default=0, help="of the first sound; the next has one more"
    )
    made.add_argument(
        "--begin", metavar="FILE", help="a sound that all continue; --seconds counts it, too"
    )
    made.add_argument("--guidance", type=float, help="how much the words count; 1: as in training")
    made.add_argument("--temperature", type=float, help="0: always the likeliest code")
    made.add_argument(
        "--top-k", type=int, metavar="K", help="draw among the K likeliest codes; 0: all"
    )
    made.add_argument(
        "--top-p", type=float, metavar="P", help="… that together have this probability"
    )
    made.add_argument(
        "--stride",
        type=_above_zero,
        metavar="S",
        help="what each go adds to sound longer than a window",
    )
    made.add_argument("--steps", type=_count, help="of a diffusion model's sampler")
    made.add_argument("--batch-size", type=_count, help="sounds at the same time")
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, generate and write."""
    args = parser().parse_args(argv)
    if not args.texts and not args.texts_from:
        parser().error("give a TEXT, or --texts-from FILE")
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks.

    Raises:
      ValueError: a model that generates nothing, options that it does not know, a folder with other sounds.
    """
    from ssl_audio.storage import atomic, opened

    more = opened.texts(args.texts_from) if args.texts_from else ()
    texts = [*args.texts, *more]
    texts = [text for text in texts for _ in range(args.count)]
    folder = pathlib.Path(args.output).expanduser()
    atomic.check_folder(folder)
    handed = {name: getattr(args, name) for name in HANDED if getattr(args, name) is not None}
    rows = [
        {
            "path": f"{number:04d}.wav",
            "text": text,
            "seed": str(args.seed + number),
            "seconds": "" if args.seconds is None else f"{args.seconds:g}",
            "checkpoint": args.checkpoint + ("" if args.step is None else f", step {args.step}"),
            "begin": args.begin or "",
            **{name: f"{value:g}" for name, value in handed.items()},
        }
        for number, text in enumerate(texts)
    ]
    todo = _missing(folder, rows)
    if todo:
        _generate(args, texts, todo, handed, folder, rows)
    print(f"{folder}: {len(rows)} sounds and {MANIFEST}")


def _generate(
    args: argparse.Namespace,
    texts: Sequence[str],
    todo: Sequence[int],
    handed: Mapping[str, Any],
    folder: pathlib.Path,
    rows: Sequence[Mapping[str, str]],
) -> None:
    import dataclasses

    from tqdm import tqdm

    from ssl_audio.inference.load import load
    from ssl_audio.storage import atomic

    model = load(args.checkpoint, args.step, trust=args.trust)
    kinds.check(model, "generator", f"--checkpoint {args.checkpoint}")
    known = inspect.signature(model.generate).parameters
    asked = {**handed, **({"begins": args.begin} if args.begin else {})}
    if unknown := [name for name in asked if name not in known]:
        shown = "--begin" if unknown[0] == "begins" else f"--{unknown[0].replace('_', '-')}"
        raise ValueError(f"{shown}: a {type(model).__name__} does not know it; leave it out.")
    if args.batch_size:
        if not hasattr(model, "batch_size"):
            raise ValueError(
                f"--batch-size: a {type(model).__name__} does not know it; leave it out."
            )
        model = dataclasses.replace(model, batch_size=args.batch_size)
    begin = _begin(args.begin, model.rate) if args.begin else None
    if args.seconds is not None:
        handed = {**handed, "seconds": args.seconds}
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(folder / MANIFEST, _table(rows))  # first: it says what the sounds are of
    most = getattr(model, "batch_size", 1)
    with tqdm(
        total=len(rows), initial=len(rows) - len(todo), unit="sound", dynamic_ncols=True
    ) as bar:
        for group in _groups(todo, most):
            done = bar.n
            more: dict[str, Any] = dict(handed)
            if begin is not None:
                more |= dict(begins=[begin] * len(group), begins_rate=model.rate)
            if "told" in known:
                more["told"] = functools.partial(_show, bar, done, len(group))
            asked_for = [texts[i] for i in group]
            sounds = model.generate(asked_for, seed=args.seed + group[0], **more)
            for i, sound in zip(group, sounds, strict=True):
                _write(folder / rows[i]["path"], sound, model.rate)
            bar.n = done + len(group)
            bar.refresh()


def _show(bar: Any, done: int, size: int, columns: int, whole: int) -> None:
    """Show a part of a group of `size` sounds, after `done` others."""
    bar.n = round(done + size * columns / whole, 2)
    bar.refresh()


def _groups(numbers: Sequence[int], most: int) -> list[list[int]]:
    """Return numbers in groups of at most so many that follow one another, as their seeds do."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] + 1 == number and len(found[-1]) < most:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def _missing(folder: pathlib.Path, rows: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the numbers of sounds that are not there yet.

    Raises:
      ValueError: the folder has sounds of another command, or without a manifest.
    """
    manifest, taken = folder / MANIFEST, sorted(folder.glob("*.wav"))
    # Without sounds it is of a command that was refused, and may be given again in other words.
    if manifest.is_file() and taken:
        with open(manifest, newline="", encoding="utf-8") as file:
            if file.read() != _table(rows):
                raise ValueError(
                    f"{manifest}: of another command; wanted the one that wrote it, to go on, or a new "
                    "--output."
                )
    elif taken:
        raise ValueError(f"{folder}: has {taken[0].name} already; give a new --output.")
    return [i for i, row in enumerate(rows) if not (folder / row["path"]).is_file()]


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: pathlib.Path, sound: Any, rate: int) -> None:
    """Write a WAV file of 32-bit floats: what exceeds 1 is not cut.

    By SciPy, for libsndfile puts the time of day into such files, and the same sound is to be the same bytes.
    """
    import numpy as np
    from scipy.io import wavfile

    from ssl_audio.storage import atomic

    with atomic.file(path) as file:
        wavfile.write(file, rate, np.asarray(sound, np.float32))


def _begin(path: str, rate: int) -> Any:
    from ssl_audio.data.decode import decode

    return decode(path, rate)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a whole number, 1 or more")
    return int(text)


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number above 0")
    return value
