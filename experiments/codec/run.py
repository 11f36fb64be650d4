"""What a trained codec keeps of spoken digits: spectra, codes in use, and what a classifier still hears.

python experiments/codec/run.py --checkpoint RUN --root FSDD --output DIR
Writes results.json, table.md, pairs.png and five pairs of WAV files: a clip, and what the codec makes of it.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

import ssl_audio
from ssl_audio import config
from ssl_audio.eval import features
from ssl_audio.storage import atomic

RATE, BINS, SIZE, HOP = 8000, 32, 256, 64


def main():
    """Measure a codec."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", required=True, help="workdir of `ssl-audio train --config codec`"
    )
    parser.add_argument("--root", required=True, help="the Free Spoken Digit Dataset")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    codec = ssl_audio.load(args.checkpoint)
    train, test = (digits(args.root, split) for split in ("train", "test"))
    # Silence up to whole tenths of a second, as when the figures on the pages were measured.
    whole = [np.pad(clip, (0, -len(clip) % (RATE // 10))) for clip, _ in test]
    sounds = [codec.encode(clip, RATE) for clip in whole]
    decoded = [
        codec.decode(codes, samples=len(clip))
        for codes, (clip, _) in zip(sounds, test, strict=True)
    ]
    found = spectra(train, test, decoded) | use(sounds, codec) | heard(train, test, decoded)
    found["kbps"] = codec.kbps[-1]
    atomic.write(args.output / "results.json", json.dumps(found, indent=1))
    rows = "\n".join(f"| {name} | {value} |" for name, value in found.items())
    atomic.write(args.output / "table.md", f"| measured | value |\n|---|---|\n{rows}\n")
    pairs(args.output, test, decoded)
    print(rows)


def digits(root: str, split: str) -> list[tuple[np.ndarray, int]]:
    """Return (clip, digit) of a part of the official split."""
    options = dict(kind="sets.spoken_digit", root=root, rate=RATE, split=split)
    source: Any = config.build(options, "data")
    clips = [source[i] for i in range(len(source))]
    return [(clip["audio"], int(clip["label"])) for clip in clips]


def log_mel(sound: np.ndarray) -> np.ndarray:
    """Return natural log magnitudes [T, F]."""
    import librosa

    short = max(0, SIZE - len(sound))
    power = librosa.feature.melspectrogram(
        y=np.pad(sound, (0, short)), sr=RATE, n_fft=SIZE, hop_length=HOP, n_mels=BINS
    )
    return 0.5 * np.log(np.maximum(power, 1e-10)).T


def spectra(train, test, decoded) -> dict[str, float]:
    """Return mean absolute differences of log-mels: of the codec, and of the training clips' mean."""
    mean = np.mean([log_mel(clip).mean(0) for clip, _ in train], axis=0)
    ours, theirs = [], []
    for (clip, _), sound in zip(test, decoded, strict=True):
        wanted = log_mel(clip)
        ours.append(np.mean(np.abs(log_mel(sound) - wanted)))
        theirs.append(np.mean(np.abs(mean[None] - wanted)))
    return {
        "log-mel L1": round(float(np.mean(ours)), 4),
        "log-mel L1 of the mean spectrum": round(float(np.mean(theirs)), 4),
    }


def use(sounds, codec) -> dict[str, list[float]]:
    """Return what share of each book's codes is used, and their perplexity."""
    codes = np.concatenate([chunk for coded in sounds for chunk in coded.chunks])
    most = codec.objective.quantizer.codes
    share, perplexity = [], []
    for book in codes.T:
        p = np.bincount(book, minlength=most) / len(book)
        share.append(round(float(np.mean(p > 0)), 3))
        perplexity.append(round(float(np.exp(-np.sum(p * np.log(p + 1e-12)))), 1))
    return {"share of codes in use": share, "perplexity": perplexity}


def heard(train, test, decoded) -> dict[str, float]:
    """Return the accuracy of a classifier of recorded digits, on recorded and on decoded ones."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def vectors(sounds):
        return np.concatenate([x for _, x in features.log_mel(RATE, 64)(iter(sounds))])

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(vectors([clip for clip, _ in train]), [digit for _, digit in train])
    truth = [digit for _, digit in test]
    return {
        "digits heard, recorded": round(model.score(vectors([c for c, _ in test]), truth), 4),
        "digits heard, decoded": round(model.score(vectors(decoded), truth), 4),
    }


def pairs(output: pathlib.Path, test, decoded) -> None:
    """Write five clips beside what was decoded, as sound and as pictures."""
    import matplotlib
    import soundfile

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = [next(i for i, (_, digit) in enumerate(test) if digit == d) for d in range(0, 10, 2)]
    drawn, axes = pyplot.subplots(2, len(chosen), figsize=(2.2 * len(chosen), 4), sharey=True)
    for column, i in enumerate(chosen):
        clip, digit = test[i]
        for row, (name, sound) in enumerate((("recorded", clip), ("decoded", decoded[i]))):
            soundfile.write(output / f"{digit}_{name}.wav", sound, RATE)
            spec = log_mel(sound).T
            axes[row, column].imshow(spec, origin="lower", aspect="auto", vmin=-8, vmax=2)
            axes[row, column].set(title=f"{digit}, {name}", xticks=[], yticks=[])
    drawn.tight_layout()
    with atomic.file(output / "pairs.png") as file:
        drawn.savefig(file, dpi=110, format="png")
    pyplot.close(drawn)


if __name__ == "__main__":
    main()
