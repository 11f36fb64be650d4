"""Make what the figures of docs/events.md are measured on, of ESC-10: clips to train with, a long recording.

    python experiments/events/recording.py ESC10 FOLDER

FOLDER/train/CLASS: links to the clips of folds 1 to 4. FOLDER/long.wav: every clip of fold 5 once, without
the silence at its ends, over noise, with gaps of 1 to 6 s between; FOLDER/truth.csv: where each lies.
"""

import argparse
import pathlib

import numpy as np
import soundfile

from ssl_audio.data import annotations, synthetic
from ssl_audio.data.scenes import sounding
from ssl_audio.data.sets.esc import Esc

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("root", help="ESC-10: meta.csv beside a folder audio")
parser.add_argument("folder")
parser.add_argument("--snr", type=float, nargs=2, default=(15.0, 30.0), help="dB over the noise")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
folder, rng = pathlib.Path(args.folder), np.random.default_rng(args.seed)

train = Esc(args.root, "esc10", folds=(1, 2, 3, 4))
for number, clip in enumerate(train.clips):
    place = folder / "train" / train.info.labels[train.meta(number)["label"]]
    place.mkdir(parents=True, exist_ok=True)
    link = place / pathlib.Path(clip.path).name
    link.unlink(missing_ok=True)
    link.symlink_to(pathlib.Path(clip.path).resolve())

test = Esc(args.root, "esc10", folds=(5,))
events, level = [], 0.01
pieces = [np.zeros(round(rng.uniform(1, 6) * test.rate), np.float32)]
for number in rng.permutation(len(test)).tolist():
    sound = sounding(test[number]["audio"], test.rate)
    if not len(sound):
        continue
    gain = level * 10 ** (rng.uniform(*args.snr) / 20) / np.sqrt(np.mean(sound**2))
    name = test.info.labels[test.meta(number)["label"]]
    at = sum(map(len, pieces))
    events.append(annotations.Event(at / test.rate, (at + len(sound)) / test.rate, name))
    pieces.append(sound * min(gain, 0.7 / np.abs(sound).max()))
    pieces.append(np.zeros(round(rng.uniform(1, 6) * test.rate), np.float32))
audio = np.concatenate(pieces)
audio = audio + level * synthetic.noise(rng, len(audio), test.rate, slope=0.5)
soundfile.write(folder / "long.wav", np.clip(audio, -1, 1), test.rate)
rows = [annotations.HEAD, *annotations.rows("long.wav", events)]
(folder / "truth.csv").write_text("".join(",".join(row) + "\n" for row in rows))
print(f"{folder}/long.wav: {len(audio) / test.rate:.1f} s, {len(events)} events of 10 classes")
