"""Embed folders of any files and account for each: python run.py --checkpoint RUN FOLDER… --reference OUT/wav

Prints the table of README.md: a row per folder. Takes ffprobe and ffmpeg, against which lengths are checked.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from ssl_audio.data.decode import DecodeError, blocks, printable
from ssl_audio.data.listing import audio_files

NEAR = 0.05  # s: two frames of AAC; what containers state in ms or as a guess is further off
COLUMNS = (
    "folder seen embedded reported left-out unaccounted NaN stated decoded cosine lowest".split()
)


def embed(checkpoint: str, folders: list[str], output: pathlib.Path) -> tuple[str, float, float]:
    """Run `ssl-audio embed` in a process of its own; return what it printed, its seconds and peak MB."""
    command = [sys.executable, "-m", "ssl_audio", "embed", "--checkpoint", checkpoint]
    command += ["--max-bad-share", "1", "--output", str(output), *folders]
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"embed failed with status {status}")
        out.seek(0)
        return out.read().decode(), time.monotonic() - began, usage.ru_maxrss / 1024


def probed(path: pathlib.Path) -> float | None:
    """Return the length that ffprobe states for the first sound track, s."""
    command = (
        "ffprobe -v error -select_streams a:0 -show_entries stream=duration:format=duration".split()
    )
    done = subprocess.run(
        [*command, "-of", "csv=p=0", f"file:{path}"], capture_output=True, text=True
    )
    found = [float(line) for line in done.stdout.split() if line != "N/A"]
    return found[0] if found else None


def decoded(path: pathlib.Path) -> float:
    """Return the length that ffmpeg decodes, s."""
    command = [
        "ffmpeg",
        "-v",
        "quiet",
        "-i",
        f"file:{path}",
        "-map",
        "0:a:0",
        "-ac",
        "1",
        "-ar",
        "16000",
    ]
    done = subprocess.run([*command, "-f", "s16le", "pipe:"], capture_output=True)
    return len(done.stdout) / 2 / 16_000


def length(path: pathlib.Path) -> float | None:
    """Return the length of what our decoder gives, s; None where it refuses the file."""
    try:
        return sum(map(len, blocks(path, 16_000, seconds=30.0))) / 16_000
    except DecodeError:
        return None


def row(
    folder: str, vectors: dict[str, np.ndarray], said: str, reference: dict[str, np.ndarray]
) -> dict:
    """Account for the files of one folder."""
    files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    listed = audio_files(pathlib.Path(folder))
    ids = {printable(path): path for path in listed}
    mine = {id: vectors[id] for id in ids if id in vectors}
    # A message begins with the file's name; one name may be the beginning of another.
    reported = sum(f"skipped {id}:" in said for id in ids)
    lengths = [(length(path), path) for path in listed]
    far = [(ours, path) for ours, path in lengths if ours is not None]
    far = [(o, p) for o, p in far if (stated := probed(p)) is None or abs(o - stated) > NEAR]
    # Nothing decoded: FFmpeg does not know the format, and there is nothing to compare with.
    wrong = [path for ours, path in far if (theirs := decoded(path)) and abs(ours - theirs) > NEAR]
    cosines = [
        float(v @ w / np.linalg.norm(v) / np.linalg.norm(w))
        for id, v in mine.items()
        if (w := reference.get(ids[id].stem)) is not None
    ]
    left_out = sum(listed.left_out.values())
    return {
        "folder": pathlib.Path(folder).name,
        "seen": len(files),
        "embedded": len(mine),
        "reported": reported,
        "left-out": listed.summary or 0,
        "unaccounted": len(files) - len(mine) - reported - left_out,
        "NaN": sum(not np.isfinite(v).all() for v in mine.values()),
        "stated": len(far),
        "decoded": len(wrong),
        "cosine": f"{np.mean(cosines):.5f}" if cosines else "",
        "lowest": f"{np.min(cosines):.5f}" if cosines else "",
    }


def main() -> None:
    """Embed, account, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument(
        "--reference", help="one of the folders; cosines to its files of equal stem"
    )
    parser.add_argument("folders", nargs="+")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        output = pathlib.Path(scratch, "out.npz")
        said, seconds, peak = embed(args.checkpoint, args.folders, output)
        found = np.load(output)
        vectors = dict(zip(found["ids"].tolist(), found["embedding"], strict=True))
    reference = {}
    if args.reference:
        folder = pathlib.Path(args.reference)
        reference = {
            p.stem: vectors[printable(p)] for p in audio_files(folder) if printable(p) in vectors
        }
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for name in args.folders:
        print(
            "| "
            + " | ".join(str(cell) for cell in row(name, vectors, said, reference).values())
            + " |"
        )
    rate = len(vectors) / seconds
    print(
        f"\n{len(vectors)} files embedded in {seconds:.0f} s: {rate:.1f} files/s, peak {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
