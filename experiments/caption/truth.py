"""Write the captions of clips that `caption` did not learn: a fold of ESC-10, or takes 0 to 4 of digits.

python experiments/caption/truth.py --esc10 DIR --fold 5 --output truth.csv
python experiments/caption/truth.py --digits DIR --output truth.csv
"""

import argparse
import csv
import io
import pathlib

from ssl_audio.data.sets.esc import Esc
from ssl_audio.data.sets.spoken_digit import SpokenDigit
from ssl_audio.storage import atomic


def main():
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--esc10", metavar="DIR")
    place.add_argument("--digits", metavar="DIR")
    parser.add_argument("--fold", type=int, default=5, help="of ESC-10")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "text"))
    if args.digits:
        source = SpokenDigit(args.digits, split="test")
    else:
        source = Esc(args.esc10, subset="esc10", folds=(args.fold,))
    for i, clip in enumerate(source.clips):
        meta = source.meta(i)
        name = source.info.labels[meta["label"]].replace("_", " ")
        table.writerow((clip.path, meta.get("text") or f"a sound of {name}"))
    atomic.write(args.output, text.getvalue())


if __name__ == "__main__":
    main()
