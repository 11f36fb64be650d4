"""Scores of one run on a recording with its truth, under several rules: the table of docs/events.md.

    python experiments/events/settings.py RUN FOLDER

FOLDER: what recording.py made. Scores are computed once by frames, and once by windows of each length.
"""

import argparse
import pathlib

import ssl_audio
from ssl_audio.data import annotations
from ssl_audio.data.decode import decode
from ssl_audio.eval.event_metrics import measure
from ssl_audio.inference.event_scores import FRAMES, Windows, hear
from ssl_audio.inference.events import Rule, Rules, segments, ticks

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
parser.add_argument(
    "--window", type=float, nargs="*", default=(1.0,), help="s; hop a quarter of it"
)
args = parser.parse_args()

model = ssl_audio.load(args.run)
truth = list(annotations.read(args.folder / "truth.csv").values())[0]
audio = decode(args.folder / "long.wav", model.rate)
ways = {"frames": None} if FRAMES in model.offers else {}
for window in args.window:
    for join in ("mean", "nearest"):
        ways[f"windows {window:g} s, {join}"] = Windows(window, window / 4, join)
print(
    "| scores | rule | F1, all events | F1, mean of classes | right | false | missed | PSDS1 | PSDS2 |"
)
print("|---|---|---|---|---|---|---|---|---|")
for way, windows in ways.items():
    ((_, heard),) = hear(model, [audio], [Rule()] * model.classes, windows, keep=True)
    psds = None
    for name, rule in RULES.items():
        some = segments((ticks(heard.edges), heard.values), Rules.of([rule] * model.classes))
        events = [annotations.Event(e.start, e.end, model.labels[e.label], e.score) for e in some]
        scores = {"": (heard.edges, heard.values)} if psds is None else None
        found = measure({"": events}, {"": truth}, {"": heard.duration}, model.labels, scores)
        psds = psds or found.psds
        total = found.total
        cells = [way, name, f"{total.f1:.3f}", f"{found.macro_f1:.3f}", total.right, total.wrong]
        cells += [total.missed, f"{psds['psds1']:.3f}", f"{psds['psds2']:.3f}"]
        print("|", " | ".join(map(str, cells)), "|", flush=True)
