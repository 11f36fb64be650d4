"""Scores of one run on a recording with its truth, under several rules: the table of docs/events.md.

    python experiments/events/settings.py RUN FOLDER

FOLDER: what recording.py made. Scores are computed once by frames, and once by windows of each length.
"""

import argparse
import pathlib
from collections.abc import Iterator

import numpy as np

import ssl_audio
from ssl_audio.data import annotations
from ssl_audio.data.decode import decode
from ssl_audio.eval.event_metrics import measure
from ssl_audio.inference.event_scores import FRAMES, hear
from ssl_audio.inference.events import JOINS, TICKS, Rule, Rules, Timeline, segments

RULES = {
    "threshold 0.5 alone": Rule(0.5, 0.5),
    "low 0.25": Rule(0.5, 0.25),
    "low 0.25, gap 0.5 s": Rule(0.5, 0.25, 0.0, 0.5),
    "low 0.25, gap 0.5 s, length 0.25 s": Rule(0.5, 0.25, 0.25, 0.5),
    "low 0.25, gap 1 s, length 0.25 s": Rule(0.5, 0.25, 0.25, 1.0),
    "low 0.1, gap 1 s, length 0.25 s": Rule(0.5, 0.1, 0.25, 1.0),
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run")
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--window", type=float, nargs="*", default=(2.0,), help="s; hop half of it")
args = parser.parse_args()

ssl_audio.tune_cpu()
model = ssl_audio.load(args.run)
truth = list(annotations.read(args.folder / "truth.csv").values())[0]
audio = decode(args.folder / "long.wav", model.rate)
duration = len(audio) / model.rate


def timelines() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (how, edges in ticks, scores) of the recording."""
    if FRAMES in model.offers:
        for smooth in (0.0, 0.5, 1.0, 1.5):
            found = hear(model, [audio], [Rule()] * model.classes, smooth=smooth, keep=True)
            ((_, heard),) = found
            edges = np.rint(heard.edges * TICKS).astype(np.int64)
            yield f"frames, median of {smooth:g} s", edges, heard.values
    for window in args.window:
        scores = model.scores(audio, model.rate, window=window, hop=window / 2)
        for join in JOINS:
            line = Timeline(join)
            first, second = line.add(*scores), line.finish()
            edges = np.concatenate([first[0], second[0][1:]])
            yield f"windows of {window:g} s, {join}", edges, np.concatenate([first[1], second[1]])


print(
    "| scores | rule | F1, all events | F1, mean of classes | right | false | missed | PSDS1 | PSDS2 |"
)
print("|---|---|---|---|---|---|---|---|---|", flush=True)
for way, edges, values in timelines():
    psds = None
    for name, rule in RULES.items():
        some = segments((edges, values), Rules.of([rule] * model.classes))
        events = [annotations.Event(e.start, e.end, model.labels[e.label], e.score) for e in some]
        scores = {"": (edges / TICKS, values)} if psds is None else None
        found = measure({"": events}, {"": truth}, {"": duration}, model.labels, scores)
        psds = psds or found.psds
        total = found.total
        cells = [way, name, f"{total.f1:.3f}", f"{found.macro_f1:.3f}", total.right, total.wrong]
        cells += [total.missed, f"{psds['psds1']:.3f}", f"{psds['psds2']:.3f}"]
        print("|", " | ".join(map(str, cells)), "|", flush=True)
