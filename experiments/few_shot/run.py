"""Labels asked for by the learner against labels at random: accuracy on a held-out fold of ESC-10.

python experiments/few_shot/run.py --checkpoint RUN --root ESC10 --output experiments/few_shot
Also `--set digits --root FSDD`: spoken digits, the set that the rule was chosen on.
"""

import argparse
import json
import pathlib

import numpy as np

import ssl_audio
from ssl_audio import config
from ssl_audio.eval import features
from ssl_audio.eval.learner import START, Learner
from ssl_audio.storage import atomic

LABELS, BATCH, SEEDS = 50, 5, 5
DIGITS = 1200  # clips drawn from the 3000


def doubtful(learner, count):
    """Return the rows whose two best classes are nearest, whatever else they are like."""
    free = np.setdiff1d(np.arange(len(learner)), list(learner.labels))
    best = np.partition(learner.scores()[free], -2, axis=1)
    return [int(i) for i in free[np.argsort(best[:, -1] - best[:, -2], kind="stable")[:count]]]


def entropy(learner, count):
    """Return the rows with the greatest entropy."""
    free = np.setdiff1d(np.arange(len(learner)), list(learner.labels))
    p = learner.scores()[free]
    return [
        int(i) for i in free[np.argsort(np.sum(p * np.log(p + 1e-12), 1), kind="stable")[:count]]
    ]


def after(labels, first, then):
    """Return the rule `first` until there are so many labels of two classes, `then` from there on."""

    def rule(learner, count):
        early = len(learner.labels) < labels or len(learner.classes) < 2
        return (first if early else then)(learner, count)

    return rule


def uncertain(learner, count):
    """Return what the learner asks for."""
    return learner.next(count)


def half(learner, count):
    """Return what the learner asks for and rows at random, half and half."""
    asked = learner.next(count - count // 2)
    free = np.setdiff1d(learner.next(len(learner), "random"), asked)
    return [
        *asked,
        *map(int, np.random.default_rng(len(learner.labels)).permutation(free)[: count // 2]),
    ]


def anything(learner, count):
    """Return rows at random."""
    return learner.next(count, "random")


# Name → (how many labels begin in typical places, rule). The first is what all are compared with.
RULES = {
    "random": (0, anything),
    "uncertain": (START, uncertain),
    "typical only": (LABELS, uncertain),
    "10 typical, then uncertain": (10, uncertain),
    "20 half typical, half random, then uncertain": (START, after(START, half, uncertain)),
    "20 random, then uncertain": (0, after(START, anything, uncertain)),
    "5 random, then smallest margin": (0, after(5, anything, doubtful)),
    "5 random, then highest entropy": (0, after(5, anything, entropy)),
}


def curve(x, names, test, rule, seed):
    """Return the accuracy on the test clips after every batch of labels."""
    start, ask = RULES[rule]
    rows, found = np.flatnonzero(~test), []
    learner = Learner(x[~test], seed=seed, start=start)
    while len(learner.labels) < LABELS:
        for i in ask(learner, BATCH):
            learner.set(i, names[rows[i]])
        found.append(accuracy(learner, x[test], names[test]))
    return found


def ceiling(x, names, test):
    """Return the accuracy on the test clips when all others have labels."""
    learner = Learner(x[~test])
    for i, name in enumerate(names[~test]):
        learner.set(i, name)
    return accuracy(learner, x[test], names[test])


def accuracy(learner, x, names):
    """Return the share of clips whose best class is right; of one class: of those that are of it."""
    if len(learner.classes) < 2:
        return float(np.mean(names == learner.classes[0]))
    head = learner.head()
    dense = head.params["head"]["linear"]["dense"]
    logits = (x - head.params["centre"]) * head.params["gain"] @ dense["kernel"] + dense["bias"]
    return float(np.mean(np.array(learner.classes)[logits.argmax(1)] == names))


def data(args, encoder):
    """Return features by name, class names and folds of the clips."""
    kind = dict(kind="sets.esc", subset="esc10")
    if args.set == "digits":
        kind = dict(kind="sets.spoken_digit", target="digit")
    source = config.build({**kind, "root": args.root, "rate": encoder.rate}, "data")
    rng, numbers = np.random.default_rng(0), np.arange(len(source))
    if args.set == "digits":
        numbers = np.sort(rng.choice(len(source), DIGITS, replace=False))
    metas = [source.meta(int(i)) for i in numbers]
    names = np.array([source.info.labels[m["label"]] for m in metas])
    folds = np.array([m["fold"] for m in metas])
    if args.set == "digits":  # speakers are known, takes are not
        folds = 1 + rng.integers(5, size=len(numbers))
    clips = [source[int(i)]["audio"] for i in numbers]
    heard = {
        "encoder, mean": features.encoded(encoder, [-1], "mean"),
        "encoder, stats": features.encoded(encoder, [-1], "stats"),
        "log-mel statistics": features.log_mel(encoder.rate),
    }
    if args.set == "digits":  # another set than the encoder's
        heard = {"log-mel statistics": heard["log-mel statistics"]}
    found = {}
    for name, extract in heard.items():
        made = dict(extract(iter(clips)))
        found[name] = np.stack([made[i][0] for i in range(len(clips))])
    return found, names, folds


def table(results):
    """Return Markdown: accuracy at 10 to 50 labels, spread, and the gain over random choice."""
    lines = []
    for name, found in results.items():
        rules = found["rules"]
        lines += [f"**{name}** (all labels: {found['all']:.3f})", ""]
        lines += ["| rule | 10 | 20 | 30 | 40 | 50 | over random at 50 |", "|" + "---|" * 7]
        first = np.mean(rules["random"], axis=1)[:, -1]
        for rule, curves in rules.items():
            seeds = np.mean(curves, axis=1)  # [seeds, batches], mean of folds
            cells = [f"{seeds[:, 2 * k + 1].mean():.3f}" for k in range(5)]
            cells[-1] += f" ± {seeds[:, -1].std(ddof=1):.3f}"
            gain = seeds[:, -1] - first
            more = "" if rule == "random" else f"{gain.mean():+.3f} ± {gain.std(ddof=1):.3f}"
            lines.append(f"| {rule} | {' | '.join(cells)} | {more} |")
        lines.append("")
    return "\n".join(lines)


def figure(results, path):
    """Draw accuracy against labels for the learner's rule and random choice."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(1, len(results), figsize=(9, 3.4), sharey=True)
    for ax, (name, found) in zip(np.atleast_1d(axes), results.items(), strict=True):
        for rule, colour in (("random", "0.5"), ("uncertain", "C0"), ("typical only", "C1")):
            seeds = np.mean(found["rules"][rule], axis=1)
            at, mean = BATCH * (1 + np.arange(seeds.shape[1])), seeds.mean(0)
            ax.plot(at, mean, color=colour, label=rule)
            spread = seeds.std(0, ddof=1)
            ax.fill_between(at, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)
        ax.axhline(found["all"], color="k", lw=0.8, ls=":", label="all labels")
        ax.set(title=name, xlabel="labels given")
    np.atleast_1d(axes)[0].set(ylabel="accuracy on the held-out fold")
    np.atleast_1d(axes)[0].legend(frameon=False)
    drawn.tight_layout()
    with atomic.file(path) as file:
        drawn.savefig(file, dpi=110)


def main():
    """Run all rules on all features, and write table, numbers and figure."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--checkpoint", required=True)
    made.add_argument("--set", choices=("esc10", "digits"), default="esc10")
    made.add_argument("--root", required=True)
    made.add_argument("--rules", help="some of them, with ';' between; default: all")
    made.add_argument("--output", default="experiments/few_shot", type=pathlib.Path)
    args = made.parse_args()
    from threadpoolctl import threadpool_limits

    found, names, folds = data(args, ssl_audio.load(args.checkpoint).encoder)
    results = {}
    for feature, x in found.items():
        tests = [folds == fold for fold in np.unique(folds)]
        with threadpool_limits(1):
            every = float(np.mean([ceiling(x, names, test) for test in tests]))
            results[feature] = dict(all=every, rules={})
            for rule in args.rules.split(";") if args.rules else RULES:
                curves = [[curve(x, names, t, rule, seed) for t in tests] for seed in range(SEEDS)]
                results[feature]["rules"][rule] = curves  # [seeds, folds, batches]
                print(feature, rule, np.mean(curves, axis=(0, 1)).round(3)[1::2], flush=True)
    atomic.write(args.output / f"{args.set}.json", json.dumps(results))
    print(table(results))
    figure(results, args.output / f"{args.set}.png")


if __name__ == "__main__":
    main()
