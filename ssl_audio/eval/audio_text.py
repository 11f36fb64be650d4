"""Evaluate an audio-text model: ssl-audio zero-shot --checkpoint RUN --set esc10 --root DIR

Labels in words by template and from a bank of descriptions, retrieval where clips have captions, the
modality gap, and with --order whether it distinguishes "u before v" from "v before u". A Markdown table, and
JSON lines in RUN/evals/.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import config, startup
from ssl_audio.data.captions import with_names
from ssl_audio.data.compose import RELATIONS, another, joined, named
from ssl_audio.data.source import Example, Source
from ssl_audio.eval import retrieval
from ssl_audio.eval.evaluate import SETS
from ssl_audio.inference import kinds
from ssl_audio.storage import atomic, hub, written

if TYPE_CHECKING:
    from ssl_audio.inference.audio_text import AudioTextModel

PAIRS = 200  # of the test of order


def evaluate(
    model: AudioTextModel,
    source: Source,
    *,
    templates: Sequence[str] = (),
    bank: str = "",
    order: bool = False,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return a record per protocol: "template", "bank", "retrieval", "order".

    Args:
      model: of audio and text.
      source: clips with labels, or with captions.
      templates: prompts; none: the usual ones.
      bank: of descriptions, see `data.banks`; "": none.
      order: also compose pairs of clips and test their order; needs labels.
      seed: of the pairs.
    """
    from ssl_audio.eval.zero_shot import ZeroShot
    from ssl_audio.inference.audio_text import TEMPLATES

    about = dict(set=source.info.name, clips=len(source))
    fill = written.entry(model.config, "audio").get("fill", "zeros")
    shared: Any = dict(source=source, samples=written.samples(model.config), fill=fill)
    records = []
    first = source.meta(0)
    if first.get("label") is not None:
        asked = ZeroShot(**shared, text=model.text, templates=tuple(templates or TEMPLATES))
        chance = 1 / len(source.info.labels)
        records.append(about | dict(protocol="template", chance=chance) | asked.scores(model))
        if bank:
            asked = ZeroShot(**shared, text=model.text, bank=bank)
            records.append(about | dict(protocol="bank", chance=chance) | asked.scores(model))
    if first.get("text"):
        records.append(about | dict(protocol="retrieval") | captioned(model, source))
    if order:
        records.append(about | dict(protocol="order", chance=0.5) | ordered(model, source, seed))
    if not records:
        raise ValueError(f"{source.info.name}: its clips have neither labels nor captions.")
    return records


def captioned(model: AudioTextModel, source: Source) -> dict[str, float]:
    """Return the retrieval scores of clips with the same number of captions each, in one row or in several.

    Raises:
      ValueError: the numbers differ.
    """
    from ssl_audio.eval.zero_shot import ZeroShot

    asked = ZeroShot(source, written.samples(model.config), model.text)
    numbers, audio = asked.vectors(model)
    texts = [source.meta(int(i)).get("text") or () for i in numbers]
    texts = [(said,) if isinstance(said, str) else tuple(said) for said in texts]
    clips, texts = retrieval.together(source, numbers, texts)
    counts = {len(said) for said in texts}
    if len(counts) > 1 or counts == {0}:
        raise ValueError(f"retrieval: wanted equally many captions per clip, got {sorted(counts)}.")
    vectors = model.embed_text([text for said in texts for text in said])
    return retrieval.retrieval(audio[clips], vectors, counts.pop())


def ordered(model: AudioTextModel, source: Source, seed: int) -> dict[str, float]:
    """Return for "before" and "after" how often pairs of clips fit their caption better than its reverse.

    Also how often the pair is found among the orders of all pairs that were tested ("pairs").
    """
    rng = np.random.default_rng((seed, 5))
    clips, names = [], []

    def draw() -> Example:
        return with_names(source[int(rng.integers(len(source)))], source.info.labels)

    for _ in range(PAIRS):
        first = draw()
        second = another(first, draw)
        silence = round(model.rate * rng.uniform(0, 0.1))
        clips.append(joined(first["audio"], second["audio"], silence))
        names.append((named(first), named(second)))
    audio = np.stack([vector for _, vector in sorted(model.vectors(clips))])
    found: dict[str, float] = {}
    for relation in RELATIONS[:2]:
        sides = [(u, v) if relation == RELATIONS[0] else (v, u) for u, v in names]
        right = model.embed_text([f"{u} {relation} {v}" for u, v in sides])
        wrong = model.embed_text([f"{v} {relation} {u}" for u, v in sides])
        found[relation] = retrieval.pair_accuracy(audio, right, wrong)
    every = sorted({pair for u, v in names for pair in ((u, v), (v, u))})
    texts = model.embed_text([f"{u} {RELATIONS[0]} {v}" for u, v in every])
    best = (audio @ texts.T).argmax(axis=1)
    found["pairs"] = float(np.mean([every[i] == pair for i, pair in zip(best, names, strict=True)]))
    return found


def table(records: Sequence[dict[str, Any]]) -> str:
    """Return the records as a Markdown table."""
    keys = list(dict.fromkeys(key for record in records for key in record))

    def cell(value: Any) -> str:
        return f"{value:z.3f}" if isinstance(value, float) else "" if value is None else str(value)

    rows = [keys, ["---"] * len(keys), *([cell(r.get(key)) for key in keys] for r in records)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio zero-shot`."""
    made = startup.parser("zero-shot", __doc__)
    made.add_argument("--checkpoint", required=True, metavar="RUN")
    data = made.add_mutually_exclusive_group(required=True)
    data.add_argument("--set", choices=SETS, dest="data")
    data.add_argument("--manifest", metavar="FILE", help="clips with captions or labels")
    made.add_argument("--root", help="where the data is (synthetic: nowhere)")
    made.add_argument("--folds", help="of the set to test on, as 5 or 1,2; default: all")
    made.add_argument("--split", default="", help="of the set, as test; default: all")
    made.add_argument(
        "--template", action="append", metavar="TEXT", help="with {}; may be repeated"
    )
    made.add_argument("--bank", default="", help="of descriptions: esc, or a file")
    made.add_argument("--order", action="store_true", help="also test the order of two events")
    made.add_argument("--seed", type=int, default=0, help="of the pairs of events")
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parse the command line, evaluate, print and write; return the records."""
    args = parser().parse_args(argv)
    from ssl_audio.inference.load import load

    model = load(args.checkpoint, trust=args.trust)
    kinds.check(model, "sound and words", f"--checkpoint {args.checkpoint}")
    model.check_offers("embed_audio", "embed_text")
    options: dict[str, Any] = dict(rate=model.rate)
    if args.manifest:
        options |= dict(kind="source:Manifest", path=args.manifest, root=args.root or "")
    else:
        options |= dict(SETS[args.data][0]) | (dict(root=args.root) if args.root else {})
    if args.folds:
        folds = args.folds.split(",")
        if not all(fold.strip().isdecimal() for fold in folds):
            parser().error(f"--folds: got {args.folds!r}, wanted numbers, as 5 or 1,2")
        options["folds"] = tuple(map(int, folds))
    if args.split:
        options["split"] = args.split
    source = config.build(options, "data", path="--set")
    name = args.data or pathlib.Path(args.manifest).stem
    path = hub.beside(args.checkpoint) / f"evals/zero_shot_{name}.jsonl"
    atomic.check(path)
    records = evaluate(
        model,
        source,
        templates=args.template or (),
        bank=args.bank,
        order=args.order,
        seed=args.seed,
    )
    atomic.write(path, "".join(json.dumps(record) + "\n" for record in records))
    print(table(records))
    print(path)
    return records
