"""Probe frozen features: ssl-audio evaluate --checkpoint RUN --set esc10 --root DIR

Linear probe, nearest neighbours and other classifiers on the trained encoder, on the same encoder at
random initialisation, on log-mel statistics, and with --features statistics on bags of spectral codes;
with --shots from a few clips of each class. Prints a table, writes RUN/evals/, --save keeps a probe.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import config, startup
from ssl_audio.data import places
from ssl_audio.data.names import natural
from ssl_audio.data.source import Source
from ssl_audio.eval import base, few_shot
from ssl_audio.eval.knn import Knn
from ssl_audio.eval.probe import Probe
from ssl_audio.inference.pooling import POOLS, SPECIAL
from ssl_audio.storage import atomic, hub

if TYPE_CHECKING:
    from ssl_audio.inference.encoder import Encoder
    from ssl_audio.inference.model import Model

log = logging.getLogger(__name__)

# Name → (source, protocol when none is named)
SETS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "esc10": (dict(kind="sets.esc", subset="esc10"), "folds"),
    "esc50": (dict(kind="sets.esc", subset="esc50"), "folds"),
    "spoken_digit": (dict(kind="sets.spoken_digit", target="digit"), "speakers"),
    "speaker": (dict(kind="sets.spoken_digit", target="speaker"), "official"),
    "fsd50k": (dict(kind="sets.fsd50k"), "split"),
    "synthetic": (dict(kind="synthetic"), "folds"),
    "folder": (dict(kind="source:Folder"), "folds"),
    "manifest": (dict(kind="source:Manifest"), "folds"),
    "shards": (dict(kind="shards"), "folds"),
    "arrow": (dict(kind="arrow"), "folds"),
    "webdataset": (dict(kind="webdataset"), "folds"),
}
OWN = ("folder", "manifest", "shards", "arrow", "webdataset")  # sets of a user's own
FEATURES = ("encoder", "random", "logmel")
CODED = "statistics"  # features that are fitted to each fold's training clips
CLASSIFIERS = ("linear", "knn", "attentive", "prototypical", "convex", "weighted", "mlp")
USUAL = ("linear", "knn")
POOLED = "pooled"  # the view of a classifier that does not name another: one vector per clip


def classifiers() -> dict[str, base.Classifier]:
    """Return CLASSIFIERS by name: two in numpy, and the trained heads, which bring JAX along."""
    from ssl_audio.eval import trained

    return {"linear": Probe(), "knn": Knn(), **trained.classifiers()}


def evaluate(
    model: Model,
    source: Source,
    protocol: str,
    *,
    kinds: Sequence[str] = FEATURES,
    layer: int | str = -1,
    pool: str = "mean",
    seed: int = 0,
    max_bad_share: float = 0.01,
    classifiers: Mapping[str, base.Classifier] | None = None,
    shots: int = 0,
    draws: int = 10,
    save: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """Probe each kind of features; return a record per kind, classifier and fold, and their means.

    Args:
      model: the trained encoder, or a model that has one.
      source: labelled clips at the encoder's rate.
      protocol: see `eval.base.split`.
      kinds: of "encoder", "random" (fresh parameters), "logmel" (the baseline), and "statistics": bags
        of spectral codes, which are fitted to each fold's training clips; see `eval.bag_of_codes`.
      layer: of the encoder; "best": chosen like the other options, in each fold's training clips.
      pool: see `Encoder.embed`.
      seed: of the random parameters, of folds where they have to be made up, and of draws.
      max_bad_share: of clips that cannot be read.
      classifiers: by name; None: the usual ones. Those that read tokens or all layers pass over
        the baseline, which has none.
      shots: clips of each class to learn from, see `eval.few_shot`; 0: all of the training clips.
      draws: of shots, if there are any.
      save: folder for the probe on the encoder's features, or on "statistics" where those are not
        asked for, which `ssl_audio.load` opens as a `Classifier`: the one classifier's, trained on all
        clips that are not kept for a test.

    Raises:
      ValueError: no such kind, layer, pool or protocol; data or classifiers that do not fit.
    """
    from tqdm import tqdm

    from ssl_audio.eval import bag_of_codes, features, save_probe
    from ssl_audio.inference.encoder import FINAL

    encoder: Encoder = model.encoder
    for kind in kinds:
        if kind not in (*FEATURES, CODED):
            known = ", ".join((*FEATURES, CODED))
            raise ValueError(f"features: got {kind!r}, wanted some of {known}.")
    if shots and layer == "best":
        raise ValueError("shots: a few clips do not tell which layer is best; name one.")
    if shots and CODED in kinds:
        raise ValueError(
            f"shots: {CODED!r} is fitted to all training clips of a fold; leave it out."
        )
    if save is not None:
        save_probe.check(save, kinds, classifiers or {}, shots)
    if classifiers is None:
        classifiers = few_shot.CLASSIFIERS if shots else {"linear": Probe(), "knn": Knn()}
        if source.info.multilabel:
            classifiers = {"linear": Probe()}
    views = {name: getattr(c, "view", POOLED) for name, c in classifiers.items()}
    if shots and set(views.values()) != {POOLED}:
        raise ValueError("shots: wanted classifiers of one vector per clip.")
    layers = [*range(encoder.num_layers), FINAL] if layer == "best" else [int(layer)]
    metas = [source.meta(i) for i in range(len(source))]
    several = source.info.multilabel
    if several and shots:
        raise ValueError("shots: wanted clips with one label each.")
    if several and (
        wrong := [n for n, c in classifiers.items() if not getattr(c, "several", False)]
    ):
        raise ValueError(
            f"classifier {wrong[0]!r} tells one label per clip; these have several: name linear or mlp."
        )
    split = base.split(metas, protocol, seed, several=several)  # before the long work
    for fold, missing in base.untaught(base.truth(source, metas), split).items():
        names = [source.info.labels[y] if source.info.labels else str(y) for y in missing]
        log.warning(
            "%s, %s: none of the training clips is of the class %s, so its test clips count as wrong",
            source.info.name, fold, ", ".join(names),
        )  # fmt: skip
    records = []
    for kind in kinds:
        heard = features.untrained(encoder, seed) if kind == "random" else encoder
        for view in dict.fromkeys(views.values()):
            plain = kind in ("logmel", CODED)  # there is no encoder
            if plain and view != POOLED:
                continue
            bags, x = None, np.zeros(0)
            if kind == CODED:
                bags = bag_of_codes.Bags(
                    source, fit=bag_of_codes.Fit(seed=seed), max_bad_share=max_bad_share
                )
                numbers = bags.numbers
            else:
                numbers, x = _features(source, heard, kind, view, layers, pool, max_bad_share)
            named = not plain and view not in ("layers", "all")
            metas = [source.meta(int(i)) for i in numbers]
            split = base.split(metas, protocol, seed, several=several)
            y = base.truth(source, metas)
            what = dict(set=source.info.name, protocol=protocol, features=kind)
            if not plain:
                what["pool"] = pool if view == POOLED else view
            chosen = {name: c for name, c in classifiers.items() if views[name] == view}
            if shots:
                found = few_shot.few_shot(
                    x[:, 0], y, split, shots=shots, draws=draws, seed=seed, classifiers=chosen
                )
                records += [what | record for record in found]
                continue
            for name, classifier in chosen.items():
                search = (
                    base.Nested(classifier, x, y, split)
                    if bags is None
                    else bags.nested(classifier, y, split)
                )
                bar: Any = dict(total=len(split.tests), unit="fold", dynamic_ncols=True)
                scores = list(tqdm(search.scores(), desc=f"{kind}, {name}", **bar))
                for score in scores:
                    which = {"layer": layers[score.layer]} if named else {}
                    records.append(
                        what
                        | dict(classifier=name, fold=score.fold, **score.scores)
                        | dict(clips=score.clips, choice=score.choice, **which)
                    )
                mean = what | dict(classifier=name, fold="mean", **base.means(scores))
                records.append(mean)
                if save is not None and kind == (FEATURES[0] if FEATURES[0] in kinds else CODED):
                    train = split.training
                    number, best = search.choose(train)
                    kept: Any = classifier
                    of, layer, way = model, layers[number] if named else FINAL, pool
                    if bags is not None:
                        of, layer, way = bags.encoder(train), FINAL, "mean"
                        x = bags.of(train)[:, None]
                    fitted = kept.fit(x[:, number], y, train, best)
                    how = save_probe.reading(of.encoder, view, layer, way, x)
                    about = dict(clips=int(train.sum()), choice=classifier.choices[best])
                    names = source.info.labels or tuple(map(str, range(int(y.max()) + 1)))
                    if several:
                        how["criterion"] = "sigmoid"
                    scale = save_probe.calibrated(
                        kept, x[:, number], y, train, split.groups, best, view
                    )
                    save_probe.write(save, of, fitted, names, how, mean | about, scale)
    return records


def _features(
    source: Source,
    encoder: Encoder,
    kind: str,
    view: str,
    layers: Sequence[int],
    pool: str,
    max_bad_share: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the clips, and what a view shows of them [n, layers to choose from, …]."""
    from ssl_audio.eval import features

    options: Any = dict(desc=f"{kind}, {view}", max_bad_share=max_bad_share)
    if view in ("tokens", "all"):
        return features.token_maps(source, encoder, layers, view=view, **options)
    if kind == "logmel":
        return features.matrix(source, features.log_mel(encoder.rate), **options)
    if view == POOLED:
        return features.matrix(source, features.encoded(encoder, layers, pool), **options)
    every = features.encoded(encoder, range(encoder.num_layers), "rows")
    numbers, x = features.matrix(source, every, **options)
    return numbers, x[:, None]


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the accuracies, or mAPs, as text: a row per kind of features.

    The first classifier's mean and folds, then the others' means; of draws, all means and half the
    widths of their 95 % confidence intervals.
    """
    value = {(r["features"], r["classifier"], r["fold"]): r for r in records}
    kinds, names, folds = (
        list(dict.fromkeys(r[key] for r in records)) for key in ("features", "classifier", "fold")
    )
    columns = [(name, "mean") for name in names]
    if "shots" not in records[0]:
        columns[1:1] = [(names[0], fold) for fold in folds if fold != "mean"]
    lines = [["features", *(name if fold == "mean" else fold for name, fold in columns)]]
    for kind in kinds:
        found = [value.get((kind, *column)) for column in columns]
        lines.append([kind, *map(_cell, found)])
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(row))
        for row in (list(zip(line, wide, strict=True)) for line in lines)
    )


def counts(labels: Sequence[str], metas: Sequence[Mapping[str, Any]]) -> str:
    """Return the number of clips, of each class and of each split, in words."""
    known = [m["label"] for m in metas if m.get("label") is not None]
    told: list[int] = [n for y in known for n in (y if isinstance(y, tuple) else (y,))]
    each = collections.Counter(labels[n] for n in told)
    parts = collections.Counter(m["split"] for m in metas if m.get("split"))
    shown = [f"{name} {each[name]}" for name in sorted(each, key=natural)]
    some = ", ".join(shown[:20]) + (f", and {len(shown) - 20} more" if len(shown) > 20 else "")
    text = f"{len(metas)} clips of {len(each)} classes" + (f": {some}" if some else "")
    return text + "".join(f"; {name} {count}" for name, count in sorted(parts.items()))


def _cell(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "-"
    interval = f" ± {record['interval']:.3f}" if "interval" in record else ""
    return f"{record['mAP' if 'mAP' in record else 'accuracy']:.3f}{interval}"


def _source(name: str, options: Mapping[str, Any], root: str | None, rate: int) -> Any:
    """Return the clips of a set at a rate, Hz."""
    given: dict[str, Any] = {"root": root} if root else {}
    if name == "manifest":
        given = {"path": root}
    if name != "shards":  # they have the rate that they were prepared at
        given["rate"] = rate
    source = {**options, **given}
    if name in OWN:
        source = dict(kind="labelled", source=source, share=0.0)
    made: Any = config.build(source, "data", path="--set")
    if (found := made.meta(0)["rate"]) != rate:
        raise ValueError(
            f"--root {root}: its clips are at {found} Hz, the encoder hears {rate} Hz: prepare them so."
        )
    return made


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio evaluate`."""
    made = startup.parser("evaluate", __doc__)
    made.add_argument("--checkpoint", required=True, metavar="RUN", help="a workdir of train")
    made.add_argument("--step", type=int, help="which checkpoint; default: the newest")
    made.add_argument("--set", required=True, choices=SETS, dest="data")
    made.add_argument(
        "--root",
        help="where the data is: a folder; of a manifest, the table itself (synthetic: nowhere)",
    )
    made.add_argument("--protocol", choices=base.PROTOCOLS, help="default: the usual one")
    made.add_argument(
        "--features",
        default=",".join(FEATURES),
        metavar="KIND,…",
        help=f"of {', '.join((*FEATURES, CODED))}; default: {','.join(FEATURES)}",
    )
    made.add_argument(
        "--layer",
        default="-1",
        help="0, 1, …; -1: after the last norm; best: chosen in training",
    )
    made.add_argument("--pool", choices=(*POOLS, SPECIAL), default="mean")
    made.add_argument("--seed", type=int, default=0, help="of the random initialisation")
    startup.add_bad_share(made)
    made.add_argument(
        "--classifier",
        metavar="NAME,…",
        help=f"of {', '.join(CLASSIFIERS)}; default: {','.join(USUAL)}; "
        f"with --shots of {', '.join(few_shot.CLASSIFIERS)}; default: all",
    )
    made.add_argument("--shots", type=int, default=0, help="clips of each class to learn from")
    made.add_argument("--draws", type=int, default=10, help="of shots; default: 10")
    made.add_argument(
        "--save",
        metavar="PROBE",
        help="folder for the probe, trained on all training clips: a classifier; default: linear",
    )
    startup.add_trust(made)
    made.add_argument("--output", help="default: evals/SET[_NAME]_PROTOCOL[_Kshot].jsonl in RUN")
    return made


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parse the command line, evaluate, print and write; return the records."""
    args = parser().parse_args(argv)
    if args.layer != "best" and not args.layer.lstrip("-").isdigit():
        parser().error(f"--layer {args.layer}: wanted a number, or best")
    if (args.root is None) != (args.data == "synthetic"):
        parser().error(f"--root: {'not for synthetic' if args.root else 'where is the data?'}")
    known = tuple(few_shot.CLASSIFIERS) if args.shots else CLASSIFIERS
    usual = "linear" if args.save else None
    names = args.classifier.split(",") if args.classifier else usual and [usual]
    if wrong := [name for name in names or () if name not in known]:
        parser().error(f"--classifier {wrong[0]}: wanted some of {', '.join(known)}")
    if args.shots < 0 or args.draws < 1:
        parser().error(f"--shots {args.shots} --draws {args.draws}: wanted 1 or more")
    if args.shots and args.layer == "best":
        parser().error("--shots: a few clips do not tell which layer is best; name one")
    few = f"_{args.shots}shot" if args.shots else ""
    named = f"{args.data}_{places.name(args.root)}" if args.data in OWN else args.data
    default = f"evals/{named}_{args.protocol or SETS[args.data][1]}{few}.jsonl"
    path = hub.beside(args.checkpoint) / (args.output or default)
    from ssl_audio.inference.load import load

    chosen = few_shot.CLASSIFIERS if args.shots else classifiers()
    options, protocol = SETS[args.data]
    protocol = args.protocol or protocol
    model = load(args.checkpoint, args.step, trust=args.trust)
    atomic.check(path)
    source = _source(args.data, options, args.root, model.encoder.rate)
    metas = [source.meta(i) for i in range(len(source))]
    for note in source.found.notes if args.data in OWN else ():
        log.warning("%s: %s", source.info.name, note)
    if args.data in OWN and not args.protocol and any(m.get("split") == "test" for m in metas):
        protocol = "split"
    print(f"{source.info.name}, protocol {protocol}: {counts(source.info.labels, metas)}")
    records = evaluate(
        model,
        source,
        protocol,
        kinds=args.features.split(","),
        layer=args.layer,
        pool=args.pool,
        seed=args.seed,
        max_bad_share=args.max_bad_share,
        classifiers={name: chosen[name] for name in names} if names else None,
        shots=args.shots,
        draws=args.draws,
        save=args.save,
    )
    atomic.write(path, "".join(json.dumps(record) + "\n" for record in records))
    how = "first classifier by fold"
    if args.shots:
        how = f"{args.shots} clips of each class, {args.draws} draws, 95 % confidence"
    score = "mAP" if source.info.multilabel else "accuracy"
    print(f"{source.info.name}, {protocol}: {score}, {how}")
    print(table(records))
    print(path)
    if args.save:
        print(f"{args.save}: the probe; ssl_audio.load opens it, ssl-audio predict uses it")
    return records
