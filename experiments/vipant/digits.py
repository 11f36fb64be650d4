"""Write the tables of the toy: pictures of digits, their names, and spoken digits beside pictures.

    python experiments/vipant/digits.py --fsdd RECORDINGS --out DIR

No file pairs a sound with a word: sounds.csv has pictures of the same digit as "frames of a video".
"""

import argparse
import csv
import json
import pathlib

import numpy as np

from ssl_audio.data import drawn_digits
from ssl_audio.data.sets.spoken_digit import WORDS

TEMPLATES = (
    "{}", "the digit {}", "a {}", "the number {}", "a picture of {}", "{} written by hand",
)  # fmt: skip
HELD_OUT = 400  # pictures that neither the pivot nor the sounds see
FRAMES = 4  # pictures beside each sound
TEST = 5  # takes of each speaker and digit that are tested, as FSDD's authors do


def main() -> None:
    """Write pictures and tables."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--fsdd", required=True, type=pathlib.Path, help="FSDD's recordings")
    made.add_argument("--out", required=True, type=pathlib.Path)
    made.add_argument("--seed", type=int, default=0)
    args = made.parse_args()
    rng = np.random.default_rng(args.seed)
    images, digits = drawn_digits.load()
    paths = drawn_digits.write(images, args.out / "pictures")
    order = rng.permutation(len(digits))
    by_digit: dict[int, list[str]] = {n: [] for n in range(10)}
    pivot, test = [], []
    for place, i in enumerate(order):
        path, digit = paths[i], int(digits[i])
        if place < HELD_OUT:
            test.append((path, WORDS[digit]))
        else:
            by_digit[digit].append(path)
            said = [text.replace("{}", WORDS[digit]) for text in TEMPLATES]
            pivot.append(json.dumps(dict(path=path, text=said)))
    (args.out / "pictures.jsonl").write_text("\n".join(pivot) + "\n")
    _write(args.out / "pictures_test.csv", ("path", "label"), test)
    captions = [text.replace("{}", name) for name in WORDS for text in TEMPLATES]
    (args.out / "captions.txt").write_text("\n".join(captions) + "\n")

    sounds, shuffled, tested = [], [], []
    for path in sorted(args.fsdd.absolute().glob("*.wav")):
        digit, _, take = path.stem.split("_")
        if int(take) < TEST:
            tested.append((path, WORDS[int(digit)]))
            continue
        for rows, shown in ((sounds, int(digit)), (shuffled, int(rng.integers(10)))):
            rows.append((path, "; ".join(rng.choice(by_digit[shown], FRAMES, replace=False))))
    _write(args.out / "sounds.csv", ("path", "image"), sounds)
    _write(args.out / "sounds_shuffled.csv", ("path", "image"), shuffled)
    _write(args.out / "sounds_test.csv", ("path", "label"), tested)
    print(f"{args.out}: {len(pivot)} pictures, {len(sounds)} sounds, {len(tested)} to test")


def _write(path: pathlib.Path, columns: tuple[str, ...], rows: list) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


if __name__ == "__main__":
    main()
