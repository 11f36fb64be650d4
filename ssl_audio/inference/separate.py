"""Get sounds out of a mixture: ssl-audio separate --checkpoint RUN --output DIR FILE --classes dog rain

One .wav for each part at the model's rate, and rest.wav: what the parts leave of the recording, so that all
files together are the recording. separated.json says how loud each is. A recording of hours goes through
piece by piece. Each channel of a stereo file is separated; the parts are stereo.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import startup
from ssl_audio.inference import kinds
from ssl_audio.storage import atomic, opened

if TYPE_CHECKING:
    from ssl_audio.inference.separator import Separator, Wanted

PIECE = 30.0  # s that are decoded at once
REST, REPORT = "rest", "separated.json"
NOTHING = 1e-6  # peak of a part that is not written, where a whole level of classes is asked for
LARGEST = 2**32 - 2**16  # bytes of a WAV file; larger ones are RF64
TOLD = 600.0  # s of the recording, after which it is said how far it is

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio separate`."""
    made = startup.parser("separate", __doc__)
    made.add_argument("file", metavar="FILE", help="an audio file of any length")
    made.add_argument(
        "--checkpoint", required=True, metavar="RUN", help="a workdir of train, or a folder"
    )
    made.add_argument(
        "--step", type=startup.step, help='which checkpoint, or "best"; default: the newest'
    )
    made.add_argument("--output", required=True, metavar="DIR", help="folder of the parts")
    made.add_argument(
        "--classes", nargs="+", metavar="NAME", default=[],
        help='a part for each: classes of the model, or with --ontology what is below them; "all"',
    )  # fmt: skip
    made.add_argument(
        "--ontology", metavar="JSON", help="AudioSet's ontology.json: classes and their parents"
    )
    made.add_argument(
        "--level", type=int, metavar="N", help="a part for each class of level N of the ontology"
    )
    made.add_argument(
        "--query", nargs="+", metavar="EXAMPLE", default=[], help="a part for each file: what sounds like it"
    )  # fmt: skip
    made.add_argument(
        "--words", nargs="+", metavar="TEXT", default=[], help="a part for each text; see --text-model"
    )  # fmt: skip
    made.add_argument(
        "--text-model", metavar="RUN", help="an audio-text model whose vectors the separator was trained on"
    )  # fmt: skip
    made.add_argument(
        "--overlap", type=startup.share, default=0.0, metavar="SHARE",
        help="of a segment that is faded into the next, to 0.5; default: 0, as published",
    )  # fmt: skip
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, separate and write."""
    args = parser().parse_args(argv)
    if not (args.classes or args.query or args.words or args.level):
        parser().error("--classes, --level, --query, --words: wanted one of them")
    if args.level is not None and (args.level < 1 or not args.ontology):
        parser().error("--level: wanted 1 or more, and --ontology")
    if bool(args.words) != bool(args.text_model):
        parser().error("--words and --text-model: wanted both or neither")
    if args.ontology and not (args.classes or args.level):
        parser().error("--ontology is of --classes and --level")
    if args.overlap > 0.5:
        parser().error("--overlap: wanted 0 to 0.5")
    run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    from ssl_audio.data.decode import stated_channels, stated_seconds
    from ssl_audio.inference.load import load

    output = pathlib.Path(args.output).expanduser()
    atomic.check_folder(output)
    channels, seconds = stated_channels(args.file), stated_seconds(args.file)
    model = load(args.checkpoint, args.step, trust=args.trust)
    kinds.check(model, "separator", f"--checkpoint {args.checkpoint}")
    named, of_level = asked(model, args)
    wanted = [*named, *of_level]
    names = file_names([one.name for one in wanted])
    check_free(output, names, [args.file, *args.query])
    output.mkdir(parents=True, exist_ok=True)
    large = seconds * model.rate * channels * 4 > LARGEST
    powers, peaks, samples = np.zeros(len(names) + 2), np.zeros(len(names)), 0
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(_written(output / name, model.rate, channels, large))
            for name in (*names, f"{REST}.wav")
        ]
        told = TOLD
        for found in model.stream(
            recording(args.file, model.rate, channels), wanted, overlap=args.overlap
        ):
            rest = found.mixture - found.parts.sum(axis=0)
            for file, sound in zip(files, (*found.parts, rest), strict=True):
                file.write(sound.T)
            sounds = [*found.parts, rest, found.mixture]
            powers += [float(np.sum(np.square(sound, dtype=np.float64))) for sound in sounds]
            peaks = np.maximum(peaks, np.abs(found.parts).max(axis=(1, 2)))
            samples += found.mixture.shape[1]
            if samples / model.rate >= told:
                log.info("%.0f of %.0f s", samples / model.rate, seconds)
                told += TOLD
    quiet = peaks <= NOTHING
    for one, name, out in zip(named, names, quiet, strict=False):
        if out:
            log.warning("%s: silent: nothing of %r was found in the recording", name, one.name)
    quiet[: len(named)] = False  # a part that was asked for by name is there
    for name, out in zip(names, quiet, strict=True):
        if out:
            (output / name).unlink()
    levels = [_decibels(power, powers[-1]) for power in powers[:-1]]
    parts: list[dict[str, Any]] = [
        {"name": one.name, "file": name, "level_db": level}
        for one, name, level, out in zip(wanted, names, levels, quiet, strict=False)
        if not out
    ]
    report = {
        "recording": args.file,
        "checkpoint": args.checkpoint,
        "rate": model.rate,
        "channels": channels,
        "seconds": samples / model.rate,
        "overlap": args.overlap,
        "parts": parts,
        "rest_db": levels[-1],
    }
    atomic.write(output / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    for part in parts:
        log.info("%s: %s dB of the recording", part["file"], _text(part["level_db"]))
    log.info(
        "%s.wav: the parts leave %s dB of the recording; %.1f s at %d Hz in %s",
        REST, _text(levels[-1]), samples / model.rate, model.rate, output,
    )  # fmt: skip


def asked(model: Separator, args: argparse.Namespace) -> tuple[list[Wanted], list[Wanted]]:
    """Return the parts that the command line asks for, each by itself and as a whole level of classes.

    Raises:
      ValueError: the model cannot be asked so, knows no such class, or is asked for the same twice.
    """
    from ssl_audio.data import hierarchy
    from ssl_audio.data.decode import decode
    from ssl_audio.inference.load import load
    from ssl_audio.inference.separator import families

    sets: dict[str, list[str]] = {}
    if args.ontology:
        ontology = hierarchy.read(args.ontology)
        sets = families(ontology, model.labels)
        if args.level and not (some := families(ontology, model.labels, args.level)):
            raise ValueError(f"--level {args.level}: no class of the model is there or below.")
    chosen = list(model.labels) if args.classes == ["all"] else args.classes
    wanted = [model.of_classes(name, sets.get(name, [name])) for name in chosen]
    for example in args.query:
        sound = decode(example, model.rate)
        wanted.append(model.of_example(pathlib.Path(example).stem, sound, model.rate))
    if args.words:
        texts = load(args.text_model, trust=args.trust)
        kinds.check(texts, "words", f"--text-model {args.text_model}")
        vectors = texts.embed_text(args.words)
        wanted += [
            model.of_vector(text, vector) for text, vector in zip(args.words, vectors, strict=True)
        ]
    for number, one in enumerate(wanted):
        if same := _equal(one, wanted[:number]):
            raise ValueError(
                f"{one.name!r} and {same.name!r} ask for the same: two equal parts; leave one out."
            )
    found: list[Wanted] = []
    for name, inside in some.items() if args.level else ():
        one = model.of_classes(name, inside)
        if same := _equal(one, [*wanted, *found]):
            log.info("%s: of the same classes as %s: one part for both", name, same.name)
        else:
            found.append(one)
    return wanted, found


def _equal(one: Wanted, others: Sequence[Wanted]) -> Wanted | None:
    """Return the first part that is asked for in the same way."""
    for other in others:
        if other.by_tags == one.by_tags and np.array_equal(other.condition, one.condition):
            return other
    return None


def recording(path: str, rate: int, channels: int) -> Iterator[np.ndarray]:
    """Yield the channels of a file [n, S] piece by piece."""
    from ssl_audio.data.decode import blocks

    each = [blocks(path, rate, seconds=PIECE, channels=number) for number in range(channels)]
    for pieces in zip(*each, strict=True):
        yield np.stack(pieces)


def check_free(output: pathlib.Path, names: Sequence[str], heard: Sequence[str]) -> None:
    """See that the parts neither replace what is heard nor stand beside those of an earlier run.

    Raises:
      ValueError: they would.
    """
    for name in (*names, f"{REST}.wav"):
        for one in heard:
            if (output / name).exists() and (output / name).samefile(one):
                raise ValueError(
                    f"{one}: a part of that name would replace it; choose another --output."
                )
    if not (output / REPORT).is_file():
        return
    wrote = "a report of `ssl-audio separate`"
    with opened.reading(output / REPORT, wrote):
        files = [part["file"] for part in opened.json_file(output / REPORT, wrote)["parts"]]
    if others := [name for name in files if name not in names and (output / name).exists()]:
        raise ValueError(
            f"--output {output}: it has {', '.join(others)} of an earlier run, and all files of a folder "
            "together are one recording; choose another folder, or remove it."
        )


def file_names(names: Sequence[str]) -> list[str]:
    """Return names of .wav files, all different, and none that of the rest."""
    found: list[str] = []
    taken = {REST}
    for name in names:
        stem = plain = re.sub(r"[^\w\- ]+", "_", name).strip("_ ")[:100] or "part"
        number = 2
        while stem.lower() in taken:
            stem, number = f"{plain}_{number}", number + 1
        taken.add(stem.lower())
        found.append(f"{stem}.wav")
    return found


@contextlib.contextmanager
def _written(path: pathlib.Path, rate: int, channels: int, large: bool) -> Iterator[Any]:
    """Give a file to write float samples to, which takes its name when it is whole."""
    import soundfile

    form = "RF64" if large else "WAV"
    with (
        atomic.path(path) as partial,
        soundfile.SoundFile(partial, "w", rate, channels, "FLOAT", format=form) as file,
    ):
        yield file


def _decibels(power: float, whole: float) -> float | None:
    """Return a power relative to the whole, dB; None: there is none."""
    return None if power <= 0 or whole <= 0 else float(10 * np.log10(power / whole))


def _text(level: float | None) -> str:
    return "no" if level is None else f"{level:.1f}"
