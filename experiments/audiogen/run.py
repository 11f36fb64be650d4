"""Which digits a classifier of recordings hears in generated ones, with and without guidance.

python experiments/audiogen/run.py --checkpoint RUN --root FSDD --output DIR
Says each digit by each speaker --count times for every guidance. Writes results.json, table.md and a WAV file
of each digit. Sound ends where it stays QUIET dB below its loudest 20 ms, that of recordings, too.
"""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import soundfile
from captions import caption

import ssl_audio
from ssl_audio import config
from ssl_audio.eval import features
from ssl_audio.storage import atomic

RATE, QUIET, PIECE = 8000, 35.0, 160
SPEAKERS = "george jackson lucas nicolas theo yweweler".split()


def main():
    """Generate and classify."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="workdir of config audiogen")
    parser.add_argument("--root", required=True, help="the Free Spoken Digit Dataset")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--count", type=int, default=2, help="of each digit by each speaker")
    parser.add_argument("--seconds", type=float, default=0.8)
    parser.add_argument("--top-k", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    classifier, found = recorded(args.root)
    model = dataclasses.replace(ssl_audio.load(args.checkpoint), batch_size=60)
    asked = [(d, s) for d in range(10) for s in SPEAKERS for _ in range(args.count)]
    texts = [caption(*one) for one in asked]
    truth = [digit for digit, _ in asked]
    for guidance in args.guidance:
        sounds = model.generate(texts, args.seconds, seed=0, guidance=guidance, top_k=args.top_k)
        sounds = [trimmed(sound) for sound in sounds]
        right = classifier.predict(vectors(sounds)) == np.array(truth)
        found[f"digits heard, generated, guidance {guidance:g}"] = round(float(right.mean()), 4)
        found[f"  of n, guidance {guidance:g}"] = len(right)
        found[f"  mean seconds, guidance {guidance:g}"] = round(
            float(np.mean([len(sound) for sound in sounds])) / RATE, 3
        )
    for digit in range(10):
        soundfile.write(args.output / f"{digit}.wav", sounds[truth.index(digit)], RATE)
    atomic.write(args.output / "results.json", json.dumps(found, indent=1))
    rows = "\n".join(f"| {name} | {value} |" for name, value in found.items())
    atomic.write(args.output / "table.md", f"| measured | value |\n|---|---|\n{rows}\n")
    print(rows)


def recorded(root: str) -> tuple[Any, dict[str, Any]]:
    """Return a classifier of recorded digits, and what it hears in those of the official test."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = (digits(root, split) for split in ("train", "test"))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(vectors([clip for clip, _ in train]), [digit for _, digit in train])
    score = model.score(vectors([clip for clip, _ in test]), [digit for _, digit in test])
    return model, {"digits heard, recorded": round(score, 4)}


def digits(root: str, split: str) -> list[tuple[np.ndarray, int]]:
    """Return (clip, digit) of a part of the official split."""
    options = dict(kind="sets.spoken_digit", root=root, rate=RATE, split=split)
    source: Any = config.build(options, "data")
    clips = [source[i] for i in range(len(source))]
    return [(trimmed(clip["audio"]), int(clip["label"])) for clip in clips]


def trimmed(sound: np.ndarray) -> np.ndarray:
    """Return a sound without its quiet end; at least 0.1 s."""
    pieces = sound[: len(sound) // PIECE * PIECE].reshape(-1, PIECE)
    power = np.mean(pieces**2, axis=1)
    loud = np.nonzero(power > power.max(initial=0.0) * 10 ** (-QUIET / 10))[0]
    end = (loud[-1] + 1) * PIECE if len(loud) else 0
    return sound[: max(end, RATE // 10)]


def vectors(sounds: list[np.ndarray]) -> np.ndarray:
    """Return mean and standard deviation of log-mel bands of each sound."""
    return np.concatenate([x for _, x in features.log_mel(RATE, 64)(iter(sounds))])


if __name__ == "__main__":
    main()
