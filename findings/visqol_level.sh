#!/usr/bin/env bash
# ViSQOL's score depends on how loud the reference is: noise that it calls bad at -20 dB it calls good at -30 dB.
#
# Expected: a full-reference metric of quality judges the difference; scaling both clips by the same factor, which is
#   what another recording level is, changes little, and more noise never makes the score better.
# Happens: noise 20 dB below speech is 1.4 of 5 at -10 and -20 dB, and 3.8 at -30 dB (root mean square, full scale 0).
#   Noise as loud as the speech itself is 1.5 at -10 dB, 3.2 at -20 and 3.8 at -30 dB: better than noise 20 dB below it
#   at -20 dB. A chord in noise does the same. Whole corpora lie at -20 or at -30 dB.
# Why: spectrograms are cut off below -45 dB, a constant that knows nothing of the reference's level. Noise is spread
#   over 32 bands and falls under it first; what is below the floor in both is alike. Only the degraded clip is scaled,
#   to the reference's power, so that its own level counts for nothing and the reference's for all.
# Matters: tables of codecs over corpora of different levels, a clip normalised to its peak against one that is not,
#   systems trained on quiet speech. Scale the references to one loudness, the same as of the work compared with.
# Versions: visqol-python 3.8.0 (its README: within 0.003 of google/visqol 3.3.3), in its default mode, audio; speech mode
#   with the polynomial does it later: noise 30 dB below goes from 2.7 at -20 dB to 4.9 at -50. Python 3.11.
# Source: google/visqol, src/misc_audio.cc, PrepareSpectrogramsForComparison and ScaleToMatchSoundPressureLevel (the
#   original has the same two steps); neither README speaks of levels.
# Output seen:
#   levels: (-10, -20, -30, -40)
#   speech, noise 20 dB below it: [1.44, 1.43, 3.79, 3.99]
#   speech, noise 10 dB below it: [1.47, 1.46, 3.79, 3.93]
#   speech, noise 0 dB below it: [1.51, 3.2, 3.78, 3.93]
#   chord, noise 20 dB below it: [1.6, 1.55, 3.57, 4.01]
#   chord, noise 10 dB below it: [1.57, 1.5, 3.56, 4.0]
#   chord, noise 0 dB below it: [1.51, 2.31, 3.56, 3.99]
#   speech, nothing above 2 kHz: [4.47, 4.54, 4.65, 4.68]
#   noise 20 dB below at -20 dB, as loud as the speech at -30 dB: (1.43, 3.78)
#   the level of the degraded clip alone: (1.43, 1.43)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  visqol-python==3.8.0 libsvm-official==3.37.0 numba==0.68.1 numpy==2.4.6 scipy==1.17.1 soundfile==0.14.0 || exit 2
venv/bin/pip download -qq --disable-pip-version-check --no-deps --only-binary :all: pyannote.audio==4.0.7 || exit 2
cat > look.py <<'PY'
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import butter, resample_poly, sosfiltfilt
from visqol import VisqolApi

RATE = 48_000  # of ViSQOL's audio mode, its default
LEVELS = (-10, -20, -30, -40)  # dB of the root mean square, full scale 0
changed = []
meter = VisqolApi()
meter.create(mode="audio")
rng = np.random.default_rng(0)


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def unit(x):
    return x / np.sqrt(np.mean(x**2))


def scores(clean, heard, levels=LEVELS):
    """Return the score of a pair at each level; both are scaled by the same factor."""
    gains = [10 ** (level / 20) for level in levels]
    return [round(meter.measure_from_arrays(g * clean, g * heard, RATE).moslqo, 2) for g in gains]


# Three seconds of a telephone call, the sample that pyannote.audio's wheel carries.
(wheel,) = Path().glob("pyannote*.whl")
sample = zipfile.ZipFile(wheel).read("pyannote/audio/sample/sample.wav")
sound, rate = sf.read(io.BytesIO(sample))
speech = unit(resample_poly(sound[6 * rate : 9 * rate], RATE, rate))
noise = unit(rng.normal(size=len(speech)))
t = np.arange(3 * RATE) / RATE
tones = sum(np.sin(2 * np.pi * f * t) / (1 + i) for i, f in enumerate((220, 277, 330, 440, 660, 880)))
chord = unit(tones * (1 + 0.8 * np.sign(np.sin(4 * np.pi * t))))  # a chord that beats twice a second

print("levels:", LEVELS)
for name, clean in (("speech", speech), ("chord", chord)):
    for ratio in (20, 10, 0):
        found = scores(clean, clean + noise * 10 ** (-ratio / 20))
        expect(f"{name}, noise {ratio} dB below it", found, max(found) - min(found) > 1.5)
lowpass = sosfiltfilt(butter(6, 2_000, fs=RATE, output="sos"), speech)
found = scores(speech, lowpass)
expect("speech, nothing above 2 kHz", found, min(found) > 4.4 and found == sorted(found))

loud = scores(speech, speech + 0.1 * noise, (-20,))[0]
quiet = scores(speech, speech + noise, (-30,))[0]
expect("noise 20 dB below at -20 dB, as loud as the speech at -30 dB", (loud, quiet), loud < 2 < 3.5 < quiet)
alone = scores(speech, 0.1 * (speech + 0.1 * noise), (-20,))[0]
expect("the level of the degraded clip alone", (loud, alone), loud == alone)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
