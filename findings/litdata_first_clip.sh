#!/usr/bin/env bash
# litdata: the first clip decides how all later ones are read: other types come back as noise, stereo as a longer mono.
#
# Expected: `optimize` stores every array with its type and shape, or refuses a clip that differs from the first.
# Happens: the format of each field is noted once, of the first clip that a worker stores, and arrays of one axis are
#   stored as bare bytes. After a float32 clip, a float64 one comes back as float32 of twice the length whose values
#   are halves of doubles, int16 as half the length (NaN among it), stereo [S, 2] as [2 S] mono in which
#   left and right take turns. A field that a later clip has beside is dropped; a number that it lacks is read as 0
#   where all else it holds are numbers and sounds. Nothing warns, in writing or in reading; only a float in a field
#   that began with a whole number raises. The same happens to torch tensors.
# Matters: `soundfile.read` gives float64 and [S, channels] while resampled or generated clips are float32, so a
#   collection in which some files were resampled, or some are stereo, trains on noise; and which ones depends on the
#   order of the files. Convert in the function given to `optimize`:
#   np.asarray(sound, np.float32), always with two axes (then the shape is stored), and always the same fields.
# Versions: litdata 0.2.76, torch 2.13.0, numpy 2.4.6; Python 3.11.
# Source: litdata/streaming/writer.py (BinaryWriter.serialize keeps _data_format of the first item),
#   litdata/streaming/serializers.py (NoHeaderNumpySerializer: the type that `serialize` returns is dropped later).
# Output seen:
#   float32 first: float32 (16000,), same: True
#   float64 after it: float32 (32000,), same: False
#   int16 after it: float32 (8000,), same: False
#   stereo after it: float32 (32000,), same: False
#   stereo is left and right by turns: True
#   float64 stored alone: float64 (16000,), same: True
#   two axes, float64 after float32: float64 (16000, 1), same: True
#   fields of the second clip, with one more: {'start': 10, 'end': 15}
#   fields of the second clip, without end: {'start': 10, 'end': 0}
#   fields of the second clip, without start: {'start': 0, 'end': 15}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check litdata==0.2.76 torch==2.13.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import contextlib
import os
import shutil
import sys

import numpy as np
from litdata import StreamingDataset, optimize

changed = []
SOUND = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
STEREO = np.stack([SOUND, -SOUND], 1)
WHOLE = (SOUND * 32_768).astype(np.int16)


def given(clip):
    return clip


def stored(clips):
    """Return `clips` as litdata gives them back."""
    shutil.rmtree("set", ignore_errors=True)
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        optimize(given, clips, output_dir="set", chunk_bytes="8MB", num_workers=1, verbose=False)
    data = StreamingDataset("set")
    return [data[k] for k in range(len(data))]


def expect(label, seen, wanted):
    print(f"{label}: {seen}", flush=True)
    if seen != wanted:
        changed.append(label)


def about(sound, read):
    same = read.dtype == sound.dtype and np.array_equal(sound, read)
    return f"{read.dtype} {read.shape}, same: {same}"


if __name__ == "__main__":
    sounds = [SOUND, SOUND.astype(np.float64), WHOLE, STEREO]
    read = [clip["sound"] for clip in stored([{"sound": sound} for sound in sounds])]
    wanted = [
        "float32 (16000,), same: True", "float32 (32000,), same: False",
        "float32 (8000,), same: False", "float32 (32000,), same: False",
    ]
    names = ("float32 first", "float64 after it", "int16 after it", "stereo after it")
    for name, sound, back, want in zip(names, sounds, read, wanted, strict=True):
        expect(name, about(sound, back), want)
    expect("stereo is left and right by turns", np.array_equal(read[3], STEREO.reshape(-1)), True)
    alone = stored([{"sound": sounds[1]}])[0]["sound"]
    expect("float64 stored alone", about(sounds[1], alone), "float64 (16000,), same: True")
    wide = stored([{"sound": sound[:, None]} for sound in sounds[:2]])[1]["sound"]
    expect("two axes, float64 after float32", about(sounds[1][:, None], wide), "float64 (16000, 1), same: True")
    first = {"sound": SOUND, "start": 0, "end": 5}
    for name, second, want in (
        ("with one more", {"start": 10, "end": 15, "label": 7}, {"start": 10, "end": 15}),
        ("without end", {"start": 10}, {"start": 10, "end": 0}),
        ("without start", {"end": 15}, {"start": 0, "end": 15}),
    ):
        back = stored([first, {"sound": SOUND} | second])[1]
        back.pop("sound")
        expect(f"fields of the second clip, {name}", back, want)
    print("changed: " + "; ".join(changed) if changed else "as described")
    sys.exit(bool(changed))
PY
venv/bin/python look.py
