"""A table of captions for the Free Spoken Digit Dataset: "digit seven by jackson".

python experiments/audiogen/captions.py --root FSDD --output captions.csv
Takes 5 to 49 only: 0 to 4 are the official test.
"""

import argparse
import csv
import io
import pathlib

from ssl_audio.data.sets.spoken_digit import WORDS
from ssl_audio.storage import atomic


def main():
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True, help="folder with `recordings`")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "text"))
    for file in sorted((args.root / "recordings").resolve().glob("*.wav")):
        digit, speaker, take = file.stem.split("_")
        if int(take) >= 5:
            table.writerow((file, caption(int(digit), speaker)))
    atomic.write(args.output, text.getvalue())


def caption(digit: int, speaker: str) -> str:
    """Return the words of a clip."""
    return f"digit {WORDS[digit]} by {speaker}"


if __name__ == "__main__":
    main()
