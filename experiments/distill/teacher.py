"""Measure a teacher before it teaches: each layer, each pooling, with and without silence after the clip.

    python experiments/distill/teacher.py FOLDER --esc10 DIR --fsdd DIR [--pads columns,silence]

A linear probe of frozen features: ESC-10, 5 folds; spoken digits, each of six speakers left out in turn.
"""

import argparse
import pathlib
import time

import numpy as np

import ssl_audio
from ssl_audio import startup
from ssl_audio.data.sets.esc import Esc
from ssl_audio.data.sets.spoken_digit import SpokenDigit
from ssl_audio.eval import base, features
from ssl_audio.eval.probe import Probe
from ssl_audio.inference.encoder import FINAL, Encoder
from ssl_audio.inference.pooling import Pooled


def main() -> None:
    """Parse the command line, embed, probe, print a row for each layer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="FOLDER", help="a converted or exported folder, or a run")
    parser.add_argument("--esc10", required=True, type=pathlib.Path)
    parser.add_argument("--fsdd", required=True, type=pathlib.Path)
    parser.add_argument("--pads", default="columns", help="some of columns,silence")
    args = parser.parse_args()
    encoder: Encoder = ssl_audio.load(args.model).encoder
    sets = {
        "esc10": (Esc(str(args.esc10), rate=encoder.rate, subset="esc10"), "folds"),
        "digits": (SpokenDigit(str(args.fsdd), rate=encoder.rate, target="digit"), "speakers"),
    }
    print("| set | clip's end | layer | mean | stats | s |\n|---|---|---|---|---|---|", flush=True)
    for pad in args.pads.split(","):
        for name, (source, protocol) in sets.items():
            begin = time.process_time()
            x = embedded(encoder, source, pad)
            metas = [source.meta(i) for i in range(len(source))]
            y, split = base.truth(source, metas), base.split(metas, protocol, 0)
            spent = time.process_time() - begin
            layers = [*map(str, range(encoder.num_layers)), "final"]
            width = x.shape[-1] // 2
            for layer, one in enumerate(layers):
                pooled = (x[:, layer, :width], x[:, layer])
                scores = [f"{probed(found, y, split):.3f}" for found in pooled]
                print(
                    f"| {name} | {pad} | {one} | {' | '.join(scores)} | {spent:.0f} |", flush=True
                )
            score = probed(x.reshape(len(x), -1), y, split)
            print(f"| {name} | {pad} | all, joined | | {score:.3f} | {spent:.0f} |", flush=True)


def embedded(encoder: Encoder, source, pad: str) -> np.ndarray:
    """Return mean and deviation over time of all layers of all clips [n, layers, 2 D]."""
    layers = [*range(encoder.num_layers), FINAL]

    def extract(clips):
        return encoder.stream(clips, layers, lambda _: Pooled(encoder.rows, "stats"), pad=pad)

    return features.matrix(source, extract, desc=f"{source.info.name}, {pad}")[1]


def probed(x: np.ndarray, y: np.ndarray, split) -> float:
    """Return the accuracy of a linear probe, its penalty chosen on training clips."""
    return base.means(list(base.Nested(Probe(), x[:, None], y, split).scores()))["accuracy"]


if __name__ == "__main__":
    startup.tune_cpu()
    startup.run(main)
