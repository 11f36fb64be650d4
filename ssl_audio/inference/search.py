"""Search sounds by words or by sound: ssl-audio search index --checkpoint RUN --index DIR FOLDER…

Again: only what is new or changed. Then ssl-audio search query --index DIR "rain on a roof" (--audio FILE:
what sounds like it; --image, --features; several are one query), search remove --index DIR PATH… (--gone:
files that are no more), search export --index DIR --to perch-hoplite OUT; search mine: captions by pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ssl_audio import startup
from ssl_audio.data.decode import decode, printable
from ssl_audio.data.features import read
from ssl_audio.inference import approximate, kinds, search_export
from ssl_audio.inference.index import Hit, Index
from ssl_audio.inference.pooling import POOLS, SPECIAL
from ssl_audio.inference.search_export import FORMATS
from ssl_audio.storage import atomic, division, hub, opened
from ssl_audio.storage.remote import place

if TYPE_CHECKING:
    from ssl_audio.inference.segments import Segments

log = logging.getLogger(__name__)


def table(hits: Sequence[Hit]) -> str:
    """Return hits as text: rank, score, span, file."""
    lines = [f"{'':>4} {'score':>7} {'from':>8} {'to':>8}  file"]
    for rank, hit in enumerate(hits, 1):
        lines.append(
            f"{rank:>4} {hit.score:7.3f} {hit.start:7.1f}s {hit.end:7.1f}s  {printable(hit.path)}"
        )
    return "\n".join(lines)


def write_csv(hits: Sequence[Hit], path: str) -> None:
    """Write hits as a table: rank, path, start and end in s, score."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("rank", "path", "start", "end", "score"))
    for rank, hit in enumerate(hits, 1):
        times = (f"{value:.3f}" for value in (hit.start, hit.end))
        rows.writerow((rank, hit.path, *times, f"{hit.score:.6f}"))
    atomic.write(place(path), text.getvalue().encode("utf-8", "surrogateescape"))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio search`."""
    made = startup.parser("search", __doc__)
    verbs = made.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("index", help="embed files; only what is new or changed")
    make.add_argument("--checkpoint", metavar="RUN", help="a run or folder; default: the index's")
    make.add_argument("places", nargs="+", metavar="FOLDER", help="folders or files")
    make.add_argument(
        "--pool",
        choices=(*POOLS, SPECIAL),
        help="of the encoder's features (no words then); default: the space shared with words, or mean",
    )
    make.add_argument("--layer", type=int, help="of the encoder: 0, 1, …; -1: after the last norm")
    make.add_argument(
        "--window", type=float, metavar="S", help="seconds; default: as long as training clips"
    )
    division.add_options(make)
    ask = verbs.add_parser("query", help="find sounds")
    ask.add_argument("text", nargs="?", help="in words")
    ask.add_argument("--audio", metavar="FILE", help="find sounds like this file")
    ask.add_argument("--start", type=float, metavar="S", help="of the file, from this second")
    ask.add_argument("--end", type=float, metavar="S", help="to this second")
    ask.add_argument("--image", metavar="FILE", help="find what sounds as this picture looks")
    ask.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="NAME=FILE.npy[#ROW]",
        help="of another modality of the model, as video=clip.npy; may be repeated",
    )
    ask.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="how much text, audio, image … count in a query of several; default: 1 each",
    )
    ask.add_argument(
        "--alpha",
        type=float,
        metavar="SHARE",
        help="of models trained with classes beside pairs (control_mvr): 0, the very clip, to 1, its class",
    )
    ask.add_argument("--top", type=int, default=10, help="files to show")
    ask.add_argument(
        "--exact", action="store_true", help="compare with all, however many there are"
    )
    ask.add_argument("--csv", metavar="OUT", help="also write them as a table")
    ask.add_argument("--checkpoint", metavar="RUN", help="where the index's model lies now")
    less = verbs.add_parser("remove", help="take files out of an index")
    less.add_argument("places", nargs="*", metavar="PATH", help="files, or folders of them")
    less.add_argument("--gone", action="store_true", help="those that are no more")
    give = verbs.add_parser("export", help="write an index for another program")
    give.add_argument("--to", required=True, choices=FORMATS, help="whose format")
    give.add_argument("out", metavar="OUT", help="a new folder; for embedding-atlas a .parquet")
    for verb in (make, ask, less, give):
        verb.add_argument("--index", required=True, metavar="DIR", help="the index's folder")
    mine = verbs.add_parser("mine", help="find captions of sounds by the pictures beside them")
    mine.add_argument(
        "--checkpoint", required=True, metavar="RUN", help="a model of pictures and words"
    )
    mine.add_argument(
        "--manifest", required=True, metavar="FILE", help="sounds, with a column of pictures"
    )
    mine.add_argument("--root", default="", metavar="DIR", help="what its paths are relative to")
    mine.add_argument("--column", default="image", help="of the pictures; default: image")
    mine.add_argument("--captions", required=True, metavar="FILE", help="texts, one a line")
    mine.add_argument("--output", required=True, metavar="FILE.jsonl", help="the manifest to write")
    mine.add_argument("--top", type=int, default=10, help="captions of each picture; default: 10")
    mine.add_argument(
        "--random", type=int, metavar="SEED", help="as many, drawn at random: the control"
    )
    for verb in (make, ask, mine):
        startup.add_trust(verb)
    return made


def main(argv: Sequence[str] | None = None) -> Any:
    """Parse the command line; index, or answer."""
    args = parser().parse_args(argv)
    if args.verb == "index":
        division.check(parser(), args)
        return run(args)
    if args.verb == "export":
        said = search_export.export(Index(args.index), args.to, args.out)
        print(f"{args.out}: open it with  {said}")
        return None
    if args.verb == "mine":
        return mine(args)
    if args.verb == "remove":
        if not args.places and not args.gone:
            parser().error("remove: give paths, or --gone")
        from ssl_audio.inference.indexing import remove

        index, files = remove(args.index, args.places, args.gone)
        print(f"{args.index}: {files} files removed, {len(index)} segments left")
        return index
    if args.text is None and args.audio is None and args.image is None and not args.features:
        parser().error("query: give words, --audio FILE, --image FILE or --features NAME=FILE")
    if args.audio is None and (args.start, args.end) != (None, None):
        parser().error("--start and --end are of --audio FILE")
    if args.top < 1:
        parser().error(f"--top {args.top}: wanted at least 1")
    return query(args)


def mine(args: argparse.Namespace) -> list[list[int]]:
    """Write a manifest with the captions that the pictures of clips find; return their numbers."""
    from ssl_audio.data.source import Manifest
    from ssl_audio.inference import mining

    atomic.check(place(args.output), args.manifest, args.captions)
    captions = [text for text in opened.texts(args.captions) if text.strip()]
    model = _load(args.checkpoint, args.trust)
    kinds.check(model, "pictures and words", f"--checkpoint {args.checkpoint}")
    source = Manifest(args.manifest, args.root)
    how = dict(top=args.top, column=args.column, random=args.random)
    found = mining.write(model, source, captions, args.output, **how)
    print(
        f"{args.output}: {len(found)} sounds, {sum(map(len, found)) / len(found):.1f} captions each"
    )
    return found


def query(args: argparse.Namespace) -> list[Hit]:
    """Print, and return, what is most like what the command line asks for."""
    from ssl_audio.inference.segments import no_words

    index = Index(args.index)
    if args.text is not None and not index.words:
        raise ValueError(no_words(f"{args.index}, of {index.checkpoint}", index.settings["pool"]))
    if args.csv:
        atomic.check(place(args.csv), args.audio)
    model = open_model(index, args.trust, args.checkpoint)
    asked: dict[str, Any] = dict(text=args.text, image=args.image, alpha=args.alpha)
    if args.audio is not None:
        audio = part_of(args.audio, model.rate, args.start or 0.0, args.end)
        asked |= dict(audio=audio, sample_rate=model.rate)
    asked["features"] = {name: read(file) for name, file in _named(args.features, "--features")}
    asked["weights"] = {name: _number(n) for name, n in _named(args.weight, "--weight")}
    vector = model.query(**asked)
    hits = index.query(vector, args.top, exact=args.exact)
    print(table(hits))
    if args.csv:
        write_csv(hits, args.csv)
    return hits


def _named(given: Sequence[str], option: str) -> list[tuple[str, str]]:
    """Return NAME=VALUE arguments as pairs."""
    pairs = [one.partition("=") for one in given]
    if wrong := [
        one
        for one, (name, sign, value) in zip(given, pairs, strict=True)
        if not (name and sign and value)
    ]:
        raise ValueError(f"{option}: got {wrong[0]!r}, wanted NAME=VALUE, as video=clip.npy.")
    return [(name, value) for name, _, value in pairs]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--weight: got {text!r}, wanted a number, as text=0.5.") from None


def part_of(path: str, rate: int, start: float, end: float | None) -> Any:
    """Return a file's samples from one second to another.

    Raises:
      ValueError: there is nothing between them.
      DecodeError: the file cannot be read.
    """
    audio = decode(path, rate)
    seconds = len(audio) / rate
    last = seconds if end is None else min(end, seconds)
    if not 0 <= start < last:
        asked = f"{start:g} to {'its end' if end is None else f'{end:g}'} s"
        raise ValueError(
            f"{printable(path)}: got {asked}, wanted a part of its {seconds:.2f} s: --start below --end."
        )
    return audio[round(start * rate) : max(round(last * rate), round(start * rate) + 1)]


def run(args: argparse.Namespace) -> Any:
    """Make an index as the command line asks, or the part of it that `args.part` names."""
    from ssl_audio.inference.indexing import PARTS, build, build_part, join

    if args.engine:
        return division.spread(__name__, args, place(args.index) / PARTS, gpu=True)
    if args.checkpoint is None:
        path = Index(args.index).checkpoint
        with hub.from_cache():
            model = _load(path, args.trust)
    else:
        path = hub.absolute(args.checkpoint)
        model = _load(path, args.trust)
    how = {"pool": args.pool, "layer": args.layer, "window": args.window}
    if args.part:
        found = build_part(model, path, args.index, args.places, args.part, **how)
        said = "{} files embedded, {} skipped".format(*found) if found else "done before"
        print(f"part {args.part}: {said}")
        return None
    make = join if args.merge else build
    index = make(model, path, args.index, args.places, **how)
    words = "words or sound" if index.words else "sound"
    print(
        f"{args.index}: {len(index)} segments of {len(index.rows.versions)} files; ask by {words}"
    )
    if index.approximate:
        print(approximate.said(index.approximate))
    return index


def open_model(index: Index, trust: Sequence[str] = (), checkpoint: str | None = None) -> Segments:
    """Load the model of an index, which makes vectors of sounds (and words) to ask with.

    Args:
      index: whose.
      trust: see `load`.
      checkpoint: where the model lies now; default: where it was.

    Raises:
      ValueError: it is another model by now.
      FileNotFoundError: it is gone.
    """
    from ssl_audio.inference.resumable import digest
    from ssl_audio.inference.segments import of

    where = checkpoint or index.checkpoint
    try:
        with contextlib.nullcontext() if checkpoint else hub.from_cache():
            model = _load(where, trust)
    except FileNotFoundError as error:
        if checkpoint:
            raise
        raise FileNotFoundError(
            f"{error} {index.folder} was made with it; if it lies elsewhere now: --checkpoint."
        ) from None
    if index.digest and digest(model) != index.digest:
        raise ValueError(
            f"{index.folder}: its vectors are of another model than {where} is now (it was trained on, or is "
            "another): give --checkpoint with the one it was made with, or make the index anew."
        )
    with opened.naming(f"{index.folder}: settings"):
        return of(model, **index.settings)


def _load(path: str, trust: Sequence[str]) -> Any:
    from ssl_audio.inference.load import load

    return load(path, trust=trust)
