"""What a week's work begins with, made of ESC-10: python experiments/week/sounds.py ESC10 OUT

OUT/labelled/{train,test}/CLASS/*.ogg (test: fold 5), OUT/unlabelled.csv (paths alone, of fold 5) and
OUT/recording.wav: a few minutes with clips of fold 5 at known places over faint noise, those places in
OUT/truth.csv.
"""

import argparse
import csv
import pathlib
import shutil

import numpy as np
import soundfile

RATE = 44_100
NOISE = 1e-3  # of full scale: -60 dB


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("esc10", type=pathlib.Path, help="with meta.csv and audio/")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--events", type=int, default=40, help="in the recording")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with (args.esc10 / "meta.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    test = [clip for clip in clips if clip["fold"] == "5"]
    for clip in clips:
        part = "test" if clip["fold"] == "5" else "train"
        folder = args.out / "labelled" / part / clip["category"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(args.esc10 / "audio" / clip["filename"], folder / clip["filename"])
    with (args.out / "unlabelled.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "recorder"])
        for i, clip in enumerate(test):
            place = pathlib.Path("labelled/test") / clip["category"] / clip["filename"]
            rows.writerow([place, f"box {i % 3}"])
    recording(test, args)


def recording(test: list[dict[str, str]], args: argparse.Namespace) -> None:
    """Write the long recording and where its events are."""
    rng = np.random.default_rng(args.seed)
    pieces, events, now = [], [], 0
    for i in rng.permutation(len(test))[: args.events]:
        audio, rate = soundfile.read(args.esc10 / "audio" / test[i]["filename"], dtype="float32")
        if rate != RATE:
            raise ValueError(f"{test[i]['filename']}: {rate} Hz, wanted {RATE}.")
        audio = trimmed(audio)
        gap = int(rng.uniform(1, 4) * RATE)
        pieces += [np.zeros(gap, np.float32), audio]
        events.append(((now + gap) / RATE, (now + gap + len(audio)) / RATE, test[i]["category"]))
        now += gap + len(audio)
    sound = np.concatenate([*pieces, np.zeros(RATE, np.float32)])
    sound += NOISE * rng.standard_normal(len(sound)).astype(np.float32)
    soundfile.write(args.out / "recording.wav", np.clip(sound, -1, 1), RATE)
    with (args.out / "truth.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "onset", "offset", "event_label"])
        for start, end, label in events:
            rows.writerow(["recording.wav", f"{start:.3f}", f"{end:.3f}", label])


def trimmed(audio: np.ndarray) -> np.ndarray:
    """Return a clip without the digital silence that ESC-50 fills short sounds up with."""
    heard = np.flatnonzero(np.abs(audio) > NOISE)
    return audio[heard[0] : heard[-1] + 1] if len(heard) else audio


if __name__ == "__main__":
    main()
