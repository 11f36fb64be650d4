"""Write the tables of the toy: spoken digits as music, drawn digits as video, words about the speaker.

    python experiments/viml/digits.py --fsdd RECORDINGS --out DIR

A clip's video is six pictures of its digit; words say who speaks: together they say both. train.csv and
test.csv (five takes of each speaker and digit). For `control_mvr`, turned_train.csv and turned_test.csv:
pictures turned, and at a contrast, as the speaker has it. For `htcl`: songs.csv, triplets.csv, taste.csv.
"""

import argparse
import csv
import pathlib
from typing import Any

import numpy as np
from scipy.ndimage import rotate

from ssl_audio.data import drawn_digits
from ssl_audio.data.sets.spoken_digit import WORDS

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
FRAMES = 6
TEST = 5  # takes of each speaker and digit that are tested
HELD_OUT = 400  # pictures that only test videos show
ANGLE, CONTRAST = 14.0, 0.12  # between speakers: degrees, share


def main() -> None:
    """Write videos and tables."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--fsdd", required=True, type=pathlib.Path, help="FSDD's recordings")
    made.add_argument("--out", required=True, type=pathlib.Path)
    made.add_argument("--seed", type=int, default=0)
    args = made.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    images, digits = drawn_digits.load()
    order = rng.permutation(len(digits))
    pools = {True: order[:HELD_OUT], False: order[HELD_OUT:]}
    rows: list[dict[str, Any]] = []
    videos: dict[str, list[np.ndarray]] = dict(videos=[], turned=[])
    for path in sorted(args.fsdd.absolute().glob("*.wav")):
        digit, speaker, take = path.stem.split("_")
        test = int(take) < TEST
        pool = [i for i in pools[test] if digits[i] == int(digit)]
        shown = images[rng.choice(pool, FRAMES, replace=False)]
        videos["videos"].append(shown.reshape(FRAMES, -1))
        videos["turned"].append(_turned(shown, SPEAKERS.index(speaker)))
        rows.append(
            dict(
                path=path, label=WORDS[int(digit)], taste=speaker, text=f"the voice of {speaker}",
                video=f"videos.npy#{len(rows)}", test=test,
            )
        )  # fmt: skip
    training = np.array([not row["test"] for row in rows])
    for name, some in videos.items():
        found = np.stack(some).astype(np.float32)
        seen = found[training]
        np.save(args.out / f"{name}.npy", (found - seen.mean((0, 1))) / (seen.std((0, 1)) + 0.1))
    for name, test in (("train", False), ("test", True)):
        some = [row for row in rows if row["test"] == test]
        for prefix, file in (("", "videos"), ("turned_", "turned")):
            shown = [row | dict(video=row["video"].replace("videos", file)) for row in some]
            _write(args.out / f"{prefix}{name}.csv", shown, ("path", "label", "text", "video"))
        songs = [row | dict(text=row["label"]) for row in some]
        _write(
            args.out / f"{'taste' if test else 'songs'}.csv",
            songs,
            ("path", "label", "taste", "text"),
        )
        if not test:
            _triplets(args.out / "triplets.csv", songs, rng)
    print(f"{args.out}: {len(rows)} clips, {sum(row['test'] for row in rows)} to test")


def _turned(shown: np.ndarray, speaker: int) -> np.ndarray:
    """Return pictures [n, 64] as a speaker shows them."""
    angle = ANGLE * (speaker - (len(SPEAKERS) - 1) / 2)
    turned = rotate(shown, angle, axes=(1, 2), reshape=False, order=1)
    return ((1 - CONTRAST * speaker) * turned).reshape(len(shown), -1)


def _triplets(path: pathlib.Path, songs: list[dict[str, Any]], rng: np.random.Generator) -> None:
    """Write six listeners' taste: each likes the clips of one speaker, and rejects those of the others."""
    by = {name: [row["path"] for row in songs if row["taste"] == name] for name in SPEAKERS}
    found = []
    for row in songs:
        own = row["taste"]
        others = [p for name in SPEAKERS if name != own for p in by[name]]
        liked = [
            p for p in rng.choice(np.array(by[own], object), 5, replace=False) if p != row["path"]
        ]
        rejected = rng.choice(np.array(others, object), 4, replace=False)
        joined = {"positive": liked[:4], "negative": rejected}
        found.append(row | dict(user=own) | {k: "; ".join(map(str, v)) for k, v in joined.items()})
    _write(path, found, ("path", "user", "text", "positive", "negative"))


def _write(path: pathlib.Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
