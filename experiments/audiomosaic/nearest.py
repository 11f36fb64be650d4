"""How often a clip's two views find each other among clips that pretraining has not heard.

    python experiments/audiomosaic/nearest.py --run runs/audiomosaic --esc10 DIR [--fold 5] [--clips 64]

The loss of the run's objective on that many clips of one fold of ESC-10, with fresh masks, with and without
its changes of the waveform; means over some draws. Chance is 1 / (2 clips - 1).
"""

import argparse
import csv
import pathlib

import jax
import numpy as np
import soundfile

import ssl_audio
from ssl_audio.data.resampling import resample


def main() -> None:
    """Print loss and accuracy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True)
    parser.add_argument("--esc10", required=True, type=pathlib.Path, help="folder of ESC-10")
    parser.add_argument("--fold", default="5", help="that the run has not heard")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--draws", type=int, default=8)
    args = parser.parse_args()
    model = ssl_audio.load(args.run)
    samples = model.config["data"]["entries"]["audio"]["samples"]
    batch = heard(args.esc10, args.fold, args.clips, samples, model.rate)

    def numbers(params, batch, key, train):
        found = model.objective.loss(params, {}, batch, key, train=train)
        total, weight = found.metrics["accuracy"]
        return found.total, total / weight

    compiled = jax.jit(numbers, static_argnums=3)
    for train, words in ((False, "masks alone"), (True, "masks and changed waves")):
        keys = jax.random.split(jax.random.key(0), args.draws)
        loss, accuracy = np.mean(
            [compiled(model.params, batch, key, train) for key in keys], axis=0
        )
        count = len(batch["audio"])
        print(f"{words}: loss {loss:.3f}, partner nearest of {2 * count - 1}: {accuracy:.3f}")


def heard(root: pathlib.Path, fold: str, clips: int, samples: int, rate: int) -> dict:
    """Return a batch of the first clips of a fold, from their beginnings."""
    with open(root / "meta.csv", newline="") as file:
        names = [row["filename"] for row in csv.DictReader(file) if row["fold"] == fold]
    audio = np.zeros((min(clips, len(names)), samples), np.float32)
    length = np.zeros(len(audio), np.int32)
    for number, name in enumerate(names[: len(audio)]):
        sound, given = soundfile.read(root / "audio" / name, dtype="float32")
        sound = resample(sound, given, rate)[:samples]
        audio[number, : len(sound)], length[number] = sound, len(sound)
    return {"audio": audio, "length": length}


if __name__ == "__main__":
    main()
