"""Write the table of the toy: spoken digits beside pictures of the same digit as a video, and their names.

    python experiments/vatt/digits.py --fsdd RECORDINGS --out DIR

One clip in four has no text. Takes 0 to 4 of each speaker and digit are left for the test.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

from ssl_audio.data import drawn_digits
from ssl_audio.data.sets.spoken_digit import WORDS

TEMPLATES = ("{}", "the digit {}", "a {}", "the number {}")
FRAMES = 4  # pictures beside each sound
TEST = 5  # takes of each speaker and digit that are tested, as FSDD's authors do


def main() -> None:
    """Write pictures and the table."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--fsdd", required=True, type=pathlib.Path, help="FSDD's recordings")
    made.add_argument("--out", required=True, type=pathlib.Path)
    made.add_argument("--seed", type=int, default=0)
    args = made.parse_args()
    rng = np.random.default_rng(args.seed)
    images, digits = drawn_digits.load()
    paths = np.array(drawn_digits.write(images, args.out / "pictures"))
    rows = []
    for path in sorted(args.fsdd.absolute().glob("*.wav")):
        digit, _, take = path.stem.split("_")
        if int(take) < TEST:
            continue
        shown = rng.choice(paths[digits == int(digit)], FRAMES, replace=False).tolist()
        row: dict[str, Any] = dict(path=str(path), video=shown)
        if rng.random() >= 0.25:
            said = rng.choice(TEMPLATES, 2, replace=False).tolist()
            row["text"] = [text.replace("{}", WORDS[int(digit)]) for text in said]
        rows.append(json.dumps(row))
    (args.out / "sounds.jsonl").write_text("\n".join(rows) + "\n")
    print(f"{args.out}: {len(rows)} sounds beside pictures")


if __name__ == "__main__":
    main()
