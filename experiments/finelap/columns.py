"""How well a run of finelap tells when a phrase is heard: scenes made of the fold that it was not trained on.

    python experiments/finelap/columns.py RUN ESC10

Area under the ROC curve over all time columns of 200 scenes, mean of the classes; of the clips' similarity
to the class names, accuracy on the fold (zero-shot).
"""

import argparse
from typing import Any

import numpy as np

import ssl_audio
from ssl_audio.data.scenes import Scenes
from ssl_audio.data.sets.esc import Esc
from ssl_audio.eval.metrics import roc_auc
from ssl_audio.inference.event_scores import hear
from ssl_audio.inference.events import Rule

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run")
parser.add_argument("root", help="ESC-10: meta.csv beside a folder audio")
parser.add_argument("--fold", type=int, default=5)
parser.add_argument("--scenes", type=int, default=200)
args = parser.parse_args()

ssl_audio.tune_cpu()
model = ssl_audio.load(args.run)
esc = Esc(args.root, "esc10", folds=(args.fold,))
options: dict[str, Any] = dict(seconds=5.06, gaps=(0.1, 1.0), longest=2.0, snr=(12.0, 20.0), seed=1)
scenes = Scenes(esc, size=args.scenes, **options)
labels = esc.info.labels
tagger = model.listening(labels)
scores, truth = [], []
clips = [scenes[i] for i in range(args.scenes)]
rules = [Rule()] * len(labels)
for number, heard in hear(tagger, (clip["audio"] for clip in clips), rules, smooth=0, keep=True):
    middle = (heard.edges[1:] + heard.edges[:-1]) / 2
    there = np.zeros((len(middle), len(labels)), int)
    for start, end, label in clips[number]["events"]:
        there[(middle >= start) & (middle < end), label] = 1
    scores.append(heard.values)
    truth.append(there)
found = roc_auc(np.concatenate(scores), np.concatenate(truth))
vectors = dict(model.vectors(esc[i]["audio"] for i in range(len(esc))))
similarity = np.stack([vectors[i] for i in range(len(esc))]) @ model.embed_labels(labels).T
right = np.mean(similarity.argmax(1) == [esc.meta(i)["label"] for i in range(len(esc))])
columns = sum(map(len, scores))
print(f"{args.run}: {args.scenes} scenes, {columns} columns; AUROC {np.nanmean(found):.3f}")
print("  " + ", ".join(f"{name} {value:.3f}" for name, value in zip(labels, found, strict=True)))
print(f"  zero-shot accuracy of {len(esc)} clips from class names: {right:.3f}")
