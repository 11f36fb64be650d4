"""Find clips by what lies beside them: ssl-audio gallery --checkpoint RUN --manifest FILE --ask video+text

Recall, median rank and precision of each query, of the model's modalities one by one or merged; a Markdown
table, and JSON lines in RUN/evals/.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from ssl_audio import config, startup
from ssl_audio.inference import kinds
from ssl_audio.storage import atomic, hub

# Options of entries that leave something to chance, and what they are without it.
STILL = {"crop": "first", "pick": "middle", "speed": 0.0, "gain": 0.0, "changes": ()}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio gallery`."""
    made = startup.parser("gallery", __doc__)
    made.add_argument("--checkpoint", required=True, metavar="RUN")
    made.add_argument(
        "--manifest", required=True, metavar="FILE", help="clips, with the columns of training"
    )
    made.add_argument("--root", metavar="DIR", help="what its paths are relative to")
    made.add_argument("--split", help="of the manifest; default: all")
    made.add_argument(
        "--ask",
        action="append",
        required=True,
        metavar="QUERY",
        help="modalities, merged by +, as video+text; may be repeated",
    )
    made.add_argument("--key", default="audio", help="modality that is found; default: audio")
    made.add_argument(
        "--relevant",
        default="label",
        metavar="COLUMN",
        help="what clips that fit have in common; default: label; '': only pairs are scored",
    )
    made.add_argument(
        "--alpha", action="append", type=float, default=[], metavar="SHARE", help="see search query"
    )
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parse the command line, evaluate, print and write; return the records."""
    args = parser().parse_args(argv)
    from ssl_audio.eval.audio_text import table
    from ssl_audio.inference.load import load

    model = load(args.checkpoint, trust=args.trust)
    kinds.check(model, "towers", f"--checkpoint {args.checkpoint}")
    source = dict(kind="source:Manifest", path=args.manifest, rate=model.rate)
    source |= {k: getattr(args, k) for k in ("root", "split") if getattr(args, k)}
    wanted = {args.key, *(part for name in args.ask for part in name.split("+"))}
    entries = {
        name: {key: STILL.get(key, value) for key, value in options.items()}
        for name, options in model.config.get("data", {}).get("entries", {}).items()
        if name in wanted
    }
    options = dict(
        kind="gallery",
        source=source,
        entries=entries,
        asked=tuple(args.ask),
        key=args.key,
        relevant=args.relevant,
        alphas=tuple(args.alpha),
    )
    asked = config.build(options, "eval", path="gallery")
    asked.check(model.objective, None)
    path = hub.beside(args.checkpoint) / f"evals/gallery_{pathlib.Path(args.manifest).stem}.jsonl"
    atomic.check(path)
    found: dict[str, dict[str, Any]] = {}
    for name, value in asked.scores(model.objective, model.params).items():
        query, _, score = name.rpartition("/")
        about = dict(set=asked.source.info.name, clips=len(asked.source), query=query)
        found.setdefault(query, about)[score] = value
    records = list(found.values())
    atomic.write(path, "".join(json.dumps(record) + "\n" for record in records))
    print(table(records))
    print(path)
    return records
