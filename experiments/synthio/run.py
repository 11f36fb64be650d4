"""Synthio on spoken digits: tables of clips; what preference, filter and synthetic clips are good for.

python experiments/synthio/run.py tables --root FSDD --output DIR
python experiments/synthio/run.py measure --root FSDD --model RUN --work RUNS --output DIR
Writes captions.csv (takes from 20 on, with words), aligned.csv (takes 5 to 19, 20 of each digit) and
few_SEED.csv (3 of each digit, of those takes); then results.json.
"""

import argparse
import csv
import json
import pathlib
import re
from typing import Any

import numpy as np

import ssl_audio
from ssl_audio.data.sets.spoken_digit import WORDS as NAMES
from ssl_audio.eval import features, generated
from ssl_audio.inference import augment
from ssl_audio.storage import atomic

RATE = 8000
TEMPLATE = "digit {}"
SHOTS, SEEDS, DRAWS = 3, 5, 16  # real clips a class; draws of time and noise for each pair


def main():
    """Write the tables, or measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("tables", "measure"))
    parser.add_argument("--root", required=True, help="the Free Spoken Digit Dataset")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--model", help="of `ssl-audio train --config diffusion`")
    parser.add_argument("--work", type=pathlib.Path, help="of `ssl-audio stages --config synthio`")
    parser.add_argument("--each", type=int, default=10, help="generated clips of a digit")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    clips = digits(args.root)
    if args.what == "tables":
        tables(clips, args.output)
    else:
        measure(clips, args)


def digits(root: str) -> list[dict[str, Any]]:
    """Return path, label, speaker and take of each clip."""
    found = []
    for path in sorted((pathlib.Path(root) / "recordings").glob("*.wav")):
        match = re.fullmatch(r"(\d)_([a-z]+)_(\d+)", path.stem)
        assert match, path
        digit, speaker, take = match.groups()
        label = NAMES[int(digit)]
        found.append({
            "path": str(path.resolve()), "label": label, "text": f"digit {label} by {speaker}",
            "take": int(take),
        })  # fmt: skip
    return found


def tables(clips, output):
    """Write which clips are for what; no clip is in two of captions.csv, the others, and the test."""
    rng = np.random.default_rng(0)
    write(output / "captions.csv", [c for c in clips if c["take"] >= 20])
    pool = [c for c in clips if 5 <= c["take"] < 20]
    write(output / "aligned.csv", drawn(pool, 20, rng))
    for seed in range(SEEDS):
        write(output / f"few_{seed}.csv", drawn(pool, SHOTS, np.random.default_rng((1, seed))))


def drawn(clips, count, rng):
    """Return so many clips of each digit."""
    found = []
    for name in NAMES:
        own = [c for c in clips if c["label"] == name]
        found += [own[i] for i in rng.permutation(len(own))[:count]]
    return found


def write(path, clips):
    """Write a table of clips."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ("path", "text", "label"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(clips)


def measure(clips, args):
    """Compare the model before and after preference, and classifiers with and without its clips."""
    test = [c for c in clips if c["take"] < 5]
    learned = [c for c in clips if c["take"] >= 5]
    classifier = fitted(vectors(read(learned)), [c["label"] for c in learned])
    real = vectors(read(test))
    found: dict[str, Any] = {
        "digits heard, recorded": accuracy(classifier, real, [c["label"] for c in test]),
        # What two equally large halves of recorded clips are apart: no generator does better.
        "frechet, recorded": generated.frechet(real[::2], real[1::2]),
    }
    before = ssl_audio.load(args.model)
    labels = [name for name in NAMES for _ in range(args.each)]
    texts = [f"digit {name} by jackson" for name in labels]
    for guidance in (1.0, 3.0):
        sounds = before.generate(texts, seed=10_000, guidance=guidance)
        found[f"digits heard, guidance {guidance:g}"] = accuracy(
            classifier, vectors(sounds), labels
        )
    after = ssl_audio.load(str(next(args.work.glob("*_preferred"))))
    made = {}
    for name, model in (("before", before), ("after", after)):
        sounds = model.generate([f"digit {label}" for label in labels], seed=20_000)
        made[name] = sounds
        found[f"frechet, {name}"] = generated.frechet(vectors(sounds), real)
        found[f"digits heard, {name}"] = accuracy(classifier, vectors(sounds), labels)
    texts = [f"digit {c['label']}" for c in test[::3]]
    rejected = before.generate(texts, seed=30_000)
    found["implicit preference, held-out pairs"] = preference(
        before, after, read(test[::3]), rejected, texts
    )
    rows = augment.rows(str(next(args.work.glob("*_sounds.csv"))))
    right = accuracies(classifier, vectors(read(rows)), [row["label"] for row in rows])
    kept = np.array([row["accepted"] == "1" for row in rows])
    found |= {
        "sounds, accepted": [len(rows), int(kept.sum())],
        "precision before the filter": float(right.mean()),
        "precision after the filter": float(right[kept].mean()) if kept.any() else None,
    }
    found["augmentation"] = gain(test, rows, kept, args)
    atomic.write(args.output / "results.json", json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def read(clips) -> list[np.ndarray]:
    """Return the sound of clips."""
    from ssl_audio.data.decode import decode

    return [decode(clip["path"], RATE) for clip in clips]


def vectors(sounds) -> np.ndarray:
    """Return log-mel means and deviations of what is not silence at the end."""
    cut = [x[: max(800, int(np.flatnonzero(np.abs(x) > 1e-3)[-1]) + 1)] if np.abs(x).max() > 1e-3
           else x for x in sounds]  # fmt: skip
    return np.concatenate([x for _, x in features.log_mel(RATE, 64)(iter(cut))])


def fitted(x, labels):
    """Return a classifier."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return made.fit(x, labels)


def accuracies(classifier, x, labels) -> np.ndarray:
    """Return which clips are heard as their label."""
    return np.asarray(classifier.predict(x)) == np.asarray(labels)


def accuracy(classifier, x, labels) -> float:
    """Return the share of clips that are heard as their label."""
    return float(accuracies(classifier, x, labels).mean())


def preference(before, after, real, rejected, texts) -> float:
    """Return the share of pairs whose real clip the aligned model has come nearer to than to the other.

    Over equal times and noises for all, as in training, without guidance.
    """
    import jax
    import jax.numpy as jnp

    made = before.objective
    size = before.blank()["audio"].shape[1]
    ids, lengths = before.text.encode(texts)
    batch = {"text": ids, "text_length": lengths}
    gains = 0.0

    @jax.jit
    def errors(params, x, noise, time):
        return made.errors(params, x, noise, time, made.condition(params, batch), None)

    def latents(sounds):
        audio = np.stack([np.pad(s[:size], (0, max(0, size - len(s)))) for s in sounds])
        given = {"audio": jnp.asarray(audio), "length": np.minimum([len(s) for s in sounds], size)}
        return made.latents(before.params, before.extra, given, None)[0]

    pair = latents(real), latents(rejected)
    for draw in range(DRAWS):
        key = jax.random.key(draw)
        time = jax.random.uniform(key, (len(texts),))
        noise = jax.random.normal(jax.random.fold_in(key, 1), pair[0].shape)
        new, old = (
            [errors(model.params, x, noise, time) for x in pair] for model in (after, before)
        )
        gains = gains + (old[0] - old[1]) - (new[0] - new[1])
    return float(np.mean(np.asarray(gains) > 0))


def gain(test, rows, kept, args) -> dict[str, Any]:
    """Return accuracies with 3 real clips a class, of 5 seeds: alone, with accepted and with all clips."""
    truth, x = [c["label"] for c in test], vectors(read(test))
    synthetic = vectors(read(rows))
    labels = np.array([row["label"] for row in rows])
    found: dict[str, list[float]] = {"real": [], "real + accepted": [], "real + all": []}
    for seed in range(SEEDS):
        few = augment.rows(str(args.output / f"few_{seed}.csv"))
        own, names = vectors(read(few)), np.array([row["label"] for row in few])
        for name, more in (
            ("real", np.zeros(len(rows), bool)), ("real + accepted", kept),
            ("real + all", np.ones(len(rows), bool)),
        ):  # fmt: skip
            both = np.concatenate([own, synthetic[more]])
            model = fitted(both, np.concatenate([names, labels[more]]))
            found[name].append(round(accuracy(model, x, truth), 4))
    return {
        name: {"accuracy": values, "mean": round(float(np.mean(values)), 4)}
        for name, values in found.items()
    }


if __name__ == "__main__":
    main()
