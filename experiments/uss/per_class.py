"""How well a separator gets each class of ESC-10 out of mixtures with others: a table and a picture.

python experiments/uss/per_class.py --checkpoint RUN --root ESC10 --output DIR
Writes results.json, table.md and classes.png; the fold that the run did not hear is tested.
"""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

import ssl_audio
from ssl_audio import config
from ssl_audio.eval.mixtures import by_class
from ssl_audio.storage import atomic

PAIRS = 300


def main():
    """Measure a separator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", required=True, help="workdir of `ssl-audio train --config uss`"
    )
    parser.add_argument("--root", required=True, help="ESC-10")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model = ssl_audio.load(args.checkpoint)
    test: Any = config.build(dict(model.config["evals"]["test"], pairs=args.pairs), "eval")
    test = dataclasses.replace(test, source=dataclasses.replace(test.source, root=args.root))
    gains = test.measure(model.objective, model.params, model.extra)
    classes = by_class(gains, model.labels)
    found = {"scores": gains.scores, "classes": classes, "mixtures": len(gains.label)}
    atomic.write(args.output / "results.json", json.dumps(found, indent=1))
    rows = "\n".join(
        f"| {name} | {row['mixtures']:.0f} | {row['right']:.2f} | {row['wrong']:.2f} | {row['half']:.2f} |"
        for name, row in classes.items()
    )
    head = "| class | mixtures | asked for it | asked for the other | half of the mixture |\n"
    atomic.write(args.output / "table.md", f"{head}|---|---|---|---|---|\n{rows}\n")
    picture(classes, args.output / "classes.png")
    print(rows)
    print(json.dumps(gains.scores))


def picture(classes, path: pathlib.Path) -> None:
    """Draw the gains of each class side by side."""
    from matplotlib.figure import Figure

    figure = Figure((8, 4), layout="constrained")
    axes = figure.subplots()
    series = {
        "asked for it": "right",
        "asked for the other": "wrong",
        "half of the mixture": "half",
    }
    for shift, (name, column) in enumerate(series.items()):
        places = [i + 0.27 * (shift - 1) for i in range(len(classes))]
        axes.bar(places, [row[column] for row in classes.values()], 0.27, label=name)
    axes.set_xticks(range(len(classes)), list(classes), rotation=30, ha="right")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("SDR improvement, dB")
    figure.legend(loc="outside upper center", ncols=len(series))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
