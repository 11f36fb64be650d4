"""Bags of spectral codes beside log-mel statistics: each view alone, all together, two classifiers.

python experiments/statistics/run.py --set esc10 --root DIR --output experiments/statistics/esc10.json
A fold that is in OUTPUT already is not made again; at the end the table is printed.
"""

import argparse
import json
import pathlib
import time

import numpy as np

from ssl_audio import config
from ssl_audio.eval import bag_of_codes, base, features, trained
from ssl_audio.eval.evaluate import SETS
from ssl_audio.eval.probe import Probe
from ssl_audio.objectives.bag_of_codes import BagOfCodes
from ssl_audio.storage import atomic

RATE, BUCKETS = 16_000, 1024


def accuracy(classifier, x, y, split, name):
    """Return the accuracy of a classifier on one fold, options chosen within its training clips."""
    alone = base.Split({name: split.tests[name]}, split.groups)
    return next(iter(base.nested(classifier, x[:, None], y, alone))).accuracy


def columns(model):
    """Return where each view, all of them and all with bigrams are in a bag."""
    found, start = {}, 0
    for name, size in model.sizes.items():
        found[name] = slice(start, start + size)
        start += size
    return found | {"all": slice(0, start - model.bigrams), "all and bigrams": slice(0, start)}


def measured(bags, logmel, y, split, name, perceptron=True):
    """Return the accuracies of a fold, "features, classifier" by name, and the seconds of the fit."""
    linear, mlp = Probe(), trained.classifiers()["mlp"]
    begun = time.process_time()
    x = bags.of(~split.tests[name])
    result = {"seconds of the fit": time.process_time() - begun}
    shown = {"log-mel statistics": logmel} | {n: x[:, c] for n, c in columns(bags.model).items()}
    for what, some in shown.items():
        result[f"{what}, linear"] = accuracy(linear, some, y, split, name)
        if what == "all" and perceptron:
            result[f"{what}, mlp"] = accuracy(mlp, some, y, split, name)
    return result


def table(results):
    """Return the rows of a table: features, classifier, each fold, mean."""
    folds = list(results)
    head = ["features", "classifier", *folds, "mean"]
    lines = [head, ["---"] * len(head)]
    for key in results[folds[0]]:
        values = [results[fold][key] for fold in folds]
        what, _, classifier = key.partition(", ")
        digits = 0 if key.startswith("seconds") else 3
        lines.append([what, classifier, *(f"{v:.{digits}f}" for v in [*values, np.mean(values)])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    """Measure the folds that are missing, write them, print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=SETS, default="esc10", dest="data")
    parser.add_argument("--root", required=True)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--protocol", choices=base.PROTOCOLS, help="default: the set's usual one")
    parser.add_argument("--parts", type=int, default=bag_of_codes.Fit.parts)
    parser.add_argument("--epochs", type=int, default=bag_of_codes.Fit.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-mlp", action="store_true", help="logistic regression only")
    args = parser.parse_args()
    options, protocol = SETS[args.data]
    source = config.build({**options, "root": args.root, "rate": RATE}, "data", path="--set")
    model = BagOfCodes(rate=RATE, bigrams=BUCKETS)
    fit = bag_of_codes.Fit(parts=args.parts, epochs=args.epochs, seed=args.seed)
    bags = bag_of_codes.Bags(source, model, fit)
    numbers, logmel = features.matrix(source, features.log_mel(RATE), desc="log-mel")
    assert np.array_equal(numbers, bags.numbers)
    metas = [source.meta(int(i)) for i in numbers]
    split, y = base.split(metas, args.protocol or protocol), np.array([m["label"] for m in metas])
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for name in split.tests:
        if name not in results:
            results[name] = measured(bags, logmel[:, 0], y, split, name, not args.no_mlp)
            atomic.write(args.output, json.dumps(results, indent=1) + "\n")
            print(f"fold {name}: {results[name]}", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
