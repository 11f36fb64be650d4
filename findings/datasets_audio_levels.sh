#!/usr/bin/env bash
# datasets: int16 sound becomes a square wave, and mono by num_channels=1 is 3 dB too loud and leaves channels out.
#
# Expected: a column of {"array", "sampling_rate"} keeps what it was given, as it did with soundfile before datasets
#   4; int16 is scaled by 32768 or refused. Audio(num_channels=1) is the average of the channels, as ["array"] is.
# Happens: the array is cast to float32 as it is and written as a WAV of 16 bits, which ends at 1: of int16 sound each
#   sample but 0 becomes 1 or -1, in from_dict, from_generator, map and cast_column alike, without a warning. int16
#   is what scipy.io.wavfile, soundfile's dtype="int16" and many text-to-speech models give.
#   num_channels goes to FFmpeg's mixing as for loudspeakers: mono of stereo is (L + R) times 0.707, for equal
#   channels 3 dB more than the average, and beyond [-1, 1]. Of other numbers each channel has a loudspeaker's
#   place: of four in a WAV the third has twice the weight of the fourth, of six the fourth (a subwoofer's) has none.
#   Stereo of mono is 3 dB quieter. The same value's ["array"] averages what num_channels left, and writing arrays with
#   num_channels=1 averages too, so three ways of "mono" have two levels.
# Matters: sets stored so have lost all levels for good, and nothing stops; a set of mono and stereo files has two
#   levels after cast_column(Audio(num_channels=1)); microphone arrays lose a microphone. Give float32 in [-1, 1];
#   leave num_channels alone and average yourself.
# Versions: datasets 5.2.0, torchcodec 0.13.0, torch 2.13.0, av 18.1.0 (FFmpeg 8.1), soundfile 0.14.0, numpy 2.4.6;
#   Python 3.11, Linux. Mixing is the same with torchcodec 0.17.0 and torch 2.14.1 (TORCHCODEC=0.17.0 TORCH=2.14.1).
# Source: datasets/features/audio.py (encode_example: astype(np.float32) into AudioEncoder, up to 3.6.0
#   soundfile.write, which keeps int16; num_channels goes on to AudioDecoder), _torchcodec.py ("array": the mean);
#   torchcodec#1576 (clipping is meant) and pytorch/audio#4211 (torchaudio.save does the same to int16). FFmpeg's
#   mixing weighs so where samples are floating point, and scales down where they are whole numbers.
# Output seen:
#   float array: comes back as it was: True
#   int16 array: peak 1.0 and different samples: [-1.0, 0.0, 1.0]
#   stereo, both channels at 0.4: mono has peak 0.566 , ["array"] of it unmixed 0.4
#   stereo, both channels at 0.9: mono has peak 1.273 , ["array"] of it unmixed 0.9
#   mono at 0.4 as stereo: peak 0.283
#   an array of two channels at 0.4, written with num_channels=1: peak 0.4
#   WAV of 4 channels: weights in mono [0.71, 0.71, 1.0, 0.5]
#   WAV of 6 channels: weights in mono [0.71, 0.71, 1.0, 0.0, 0.5, 0.5]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check datasets==5.2.0 "torchcodec==${TORCHCODEC:-0.13.0}" \
  "torch==${TORCH:-2.13.0}" av==18.1.0 soundfile==0.14.0 numpy==2.4.6 || exit 2
# torchcodec wants FFmpeg's libraries by their usual names; PyAV's wheel has them under others.
own=$(venv/bin/python -c 'import av, pathlib; print(pathlib.Path(av.__file__).parent.with_name("av.libs"))')
mkdir ffmpeg
for file in "$own"/lib{av,sw}*.so.*; do
  name=$(basename "$file")
  major=${name#*.so.}
  ln -s "$file" "ffmpeg/${name%%-*}.so.${major%%.*}"
done
cat > look.py <<'PY'
import sys

import numpy as np
import soundfile
from datasets import Audio, Dataset, Features

RATE = 16_000
changed = []
time = np.arange(RATE) / RATE
tone = np.sin(2 * np.pi * 440 * time)


def expect(holds, *line):
    print(*line)
    if not holds:
        changed.append(" ".join(map(str, line)))


def stored(array, **options):
    """Return an array, [S] or [channels, S], as a data set gives it back."""
    rows = {"audio": [{"array": array, "sampling_rate": RATE}]}
    data = Dataset.from_dict(rows, features=Features({"audio": Audio(**options)}))
    return data[0]["audio"]


def opened(channels, **options):
    """Return a WAV of [S, channels] as a data set gives it."""
    soundfile.write("a.wav", channels, RATE, subtype="FLOAT")
    return Dataset.from_dict({"audio": ["a.wav"]}).cast_column("audio", Audio(**options))[0]["audio"]


def samples(audio):
    return audio.get_all_samples().data.numpy()


def peak(audio):
    return round(float(np.abs(audio).max()), 3)


found = samples(stored(0.4 * tone))
right = peak(found) == 0.4 and np.abs(found[0] - 0.4 * tone).max() < 1e-4
different = len(np.unique(found)) >= 100
expect(right and different, "float array: comes back as it was:", bool(right))
found = samples(stored((0.4 * 32767 * tone).astype(np.int16)))
values = sorted(set(np.unique(found).round(3).tolist()))
expect(
    values in ([-1, 0, 1], [-1, 1]),
    "int16 array: peak", peak(found), "and different samples:", values,
)
for level, loud in ((0.4, 0.566), (0.9, 1.273)):
    pair = np.stack([level * tone] * 2, 1)
    mono, average = peak(samples(opened(pair, num_channels=1))), peak(opened(pair)["array"])
    expect(
        abs(mono - loud) < 0.01 and abs(average - level) < 0.01,
        f"stereo, both channels at {level}: mono has peak", mono, ', ["array"] of it unmixed', average,
    )
mono = peak(samples(opened(0.4 * tone, num_channels=2)))
expect(abs(mono - 0.283) < 0.01, "mono at 0.4 as stereo: peak", mono)
written = peak(samples(stored(np.stack([0.4 * tone] * 2), num_channels=1)))
label = "an array of two channels at 0.4, written with num_channels=1: peak"
expect(abs(written - 0.4) < 0.01, label, written)
for count, wanted in ((4, [0.71, 0.71, 1, 0.5]), (6, [0.71, 0.71, 1, 0, 0.5, 0.5])):
    several = np.stack([0.1 * np.sin(2 * np.pi * (200 + 100 * k) * time) for k in range(count)], 1)
    mono = samples(opened(several, num_channels=1))[0]
    weights = np.linalg.lstsq(several, mono, rcond=None)[0].round(2) + 0.0
    expect(
        np.allclose(weights, wanted, atol=0.011),
        f"WAV of {count} channels: weights in mono", np.abs(weights).tolist(),
    )
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
export HF_HOME="$PWD/hf" HF_DATASETS_OFFLINE=1 HF_HUB_OFFLINE=1
LD_LIBRARY_PATH="$PWD/ffmpeg:$own${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" venv/bin/python look.py
