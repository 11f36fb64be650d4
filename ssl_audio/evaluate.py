"""Probe frozen features: python -m ssl_audio.evaluate --checkpoint RUN --set esc10 --root DIR

A linear probe and nearest neighbours on the trained encoder, on the same encoder at random
initialisation and on log-mel statistics; a table, and JSON lines in RUN/evals/.
"""

import argparse
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio import config, hosts
from ssl_audio.data.source import Source
from ssl_audio.encoder import FINAL, Encoder, load
from ssl_audio.eval import base, features
from ssl_audio.eval.knn import Knn
from ssl_audio.eval.probe import Probe
from ssl_audio.pooling import POOLS

# Name → (source, protocol when none is named)
SETS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "esc10": (dict(kind="sets.esc", subset="esc10"), "folds"),
    "esc50": (dict(kind="sets.esc", subset="esc50"), "folds"),
    "spoken_digit": (dict(kind="sets.spoken_digit", target="digit"), "speakers"),
    "speaker": (dict(kind="sets.spoken_digit", target="speaker"), "official"),
    "synthetic": (dict(kind="synthetic"), "folds"),
    "folder": (dict(kind="source:Folder"), "folds"),
}
FEATURES = ("encoder", "random", "logmel")
CLASSIFIERS = {"linear": Probe(), "knn": Knn()}


def evaluate(
    encoder: Encoder,
    source: Source,
    protocol: str,
    *,
    kinds: Sequence[str] = FEATURES,
    layer: int | str = FINAL,
    pool: str = "mean",
    seed: int = 0,
    max_bad_share: float = 0.01,
    classifiers: Mapping[str, base.Classifier] = CLASSIFIERS,
) -> list[dict[str, Any]]:
    """Probe each kind of features; return a record per kind, classifier and fold, and their means.

    Args:
      encoder: the trained encoder.
      source: labelled clips at the encoder's rate.
      protocol: see `eval.base.split`.
      kinds: of "encoder", "random" (fresh parameters), "logmel" (the baseline).
      layer: of the encoder; "best": chosen like the other options, in each fold's training clips.
      pool: see `Encoder.embed`.
      seed: of the random parameters, and of folds where they have to be made up.
      max_bad_share: of clips that cannot be read.
      classifiers: by name.

    Raises:
      ValueError: no such kind, layer, pool or protocol; data that does not fit.
    """
    from tqdm import tqdm

    for kind in kinds:
        if kind not in FEATURES:
            raise ValueError(f"features: got {kind!r}, wanted some of {', '.join(FEATURES)}.")
    layers = [*range(encoder.num_layers), FINAL] if layer == "best" else [int(layer)]
    base.split([source.meta(i) for i in range(len(source))], protocol, seed)  # before the long work
    records = []
    for kind in kinds:
        model = features.untrained(encoder, seed) if kind == "random" else encoder
        extract = (
            features.log_mel(encoder.rate)
            if kind == "logmel"
            else features.encoded(model, layers, pool)
        )
        numbers, x = features.matrix(source, extract, desc=kind, max_bad_share=max_bad_share)
        metas = [source.meta(int(i)) for i in numbers]
        split, y = base.split(metas, protocol, seed), np.array([m["label"] for m in metas])
        what = dict(set=source.info.name, protocol=protocol, features=kind)
        if kind != "logmel":
            what["pool"] = pool
        for name, classifier in classifiers.items():
            scores = list(
                tqdm(
                    base.nested(classifier, x, y, split),
                    total=len(split.tests),
                    unit="fold",
                    desc=f"{kind}, {name}",
                    dynamic_ncols=True,
                )
            )
            for score in scores:
                chosen = {} if kind == "logmel" else {"layer": layers[score.layer]}
                records.append(
                    what
                    | dict(classifier=name, fold=score.fold, accuracy=score.accuracy)
                    | dict(clips=score.clips, choice=score.choice, **chosen)
                )
            records.append(what | dict(classifier=name, fold="mean", accuracy=base.mean(scores)))
    return records


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the accuracies as text: a row per kind of features."""
    value = {(r["features"], r["classifier"], r["fold"]): r["accuracy"] for r in records}
    kinds = list(dict.fromkeys(r["features"] for r in records))
    folds = list(dict.fromkeys(r["fold"] for r in records if r["fold"] != "mean"))
    lines = [["features", "linear", *folds, "knn"]]
    for kind in kinds:
        keys = [("linear", "mean"), *(("linear", fold) for fold in folds), ("knn", "mean")]
        lines.append([kind, *(f"{value[kind, *key]:.3f}" for key in keys)])
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(row))
        for row in (list(zip(line, wide, strict=True)) for line in lines)
    )


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parse the command line, evaluate, print and write; return the records."""
    parser = argparse.ArgumentParser(
        prog="python -m ssl_audio.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="a workdir of train")
    parser.add_argument("--step", type=int, help="which checkpoint; default: the newest")
    parser.add_argument("--set", required=True, choices=SETS, dest="data")
    parser.add_argument("--root", help="where the data is (synthetic: nowhere)")
    parser.add_argument("--protocol", choices=base.PROTOCOLS, help="default: the usual one")
    parser.add_argument("--features", default=",".join(FEATURES), metavar="KIND,…")
    parser.add_argument(
        "--layer",
        default=str(FINAL),
        help="0, 1, …; -1: after the last norm; best: chosen in training",
    )
    parser.add_argument("--pool", choices=POOLS, default="mean")
    parser.add_argument("--seed", type=int, default=0, help="of the random initialisation")
    parser.add_argument("--max-bad-share", type=float, default=0.01, help="of unreadable files")
    parser.add_argument("--output", help="default: evals/SET_PROTOCOL.jsonl in RUN")
    args = parser.parse_args(argv)
    if args.layer != "best" and not args.layer.lstrip("-").isdigit():
        parser.error(f"--layer {args.layer}: wanted a number, or best")
    if (args.root is None) != (args.data == "synthetic"):
        parser.error(f"--root: {'not for synthetic' if args.root else 'where is the data?'}")
    logging.getLogger("absl").setLevel(logging.ERROR)
    hosts.use_compilation_cache()
    options, protocol = SETS[args.data]
    protocol = args.protocol or protocol
    encoder = load(args.checkpoint, args.step)
    root = {"root": args.root} if args.root else {}
    source = config.build({**options, **root, "rate": encoder.rate}, "sources", path="--set")
    records = evaluate(
        encoder,
        source,
        protocol,
        kinds=args.features.split(","),
        layer=args.layer,
        pool=args.pool,
        seed=args.seed,
        max_bad_share=args.max_bad_share,
    )
    default = f"evals/{args.data}_{protocol}.jsonl"
    path = pathlib.Path(args.checkpoint).expanduser() / (args.output or default)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"{source.info.name}, {protocol}: accuracy of a linear probe by fold, and of kNN")
    print(table(records))
    print(path)
    return records


if __name__ == "__main__":
    hosts.tune_malloc()
    config.run(main)
