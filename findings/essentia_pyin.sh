#!/usr/bin/env bash
# Essentia: PitchYinProbabilistic knows whole semitones only, and takes most sounds at 16 kHz for octaves lower.
#
# Expected: Essentia's pYIN finds the pitch of a clean voice-like sound, whatever the rate it is told, as librosa's
#   and Essentia's own PitchYin do.
# Happens: 15 harmonics that glide from 220 to 440 Hz with a vibrato of 0.3 semitones: librosa and PitchYin are within
#   half a semitone in all frames at all rates; Essentia's pYIN in 76 % at 44.1 kHz, and in none at 16 or 22.05 kHz,
#   where it says 65 Hz. All that it ever says are notes of a piano, 13 in the octave: vibrato and intonation are gone,
#   and errors of up to 50 cents are its resolution. In telephone speech at 16 kHz not one percent of the voiced frames
#   is within half a semitone of librosa; its median is its lowest note, 62 Hz, where librosa's is 194 Hz.
# Why: the pitches of a frame are rounded to MIDI numbers (69 is 440 Hz) before the most likely path is sought. In a
#   frame all multiples of the period are as deep dips of the difference function as the period, and each gets the same
#   probability (0.036 for 28 dips of 220 Hz at 16 kHz): the path is free to take any. The lower the rate, the more
#   periods lie in the default frame of 2,048 samples.
# Matters: pitch contours, intonation, vibrato, F0 statistics and targets of singing synthesis. Its voiced
#   probability does not tell (0.4 to 0.95 on steady tones that it has wrong). Take PitchYin, PitchMelodia or
#   librosa.pyin; a shorter frameSize mends octaves at 16 kHz, not semitones.
# Versions: essentia 2.1b6.dev1389 (the newest), librosa 0.11.0, numpy 2.4.6; Python 3.11.
# Source: src/algorithms/tonal/pitchyinprobabilities.cpp (compute) in github.com/MTG/essentia, whose issue 1473 (open)
#   asks why the results differ so much from PitchYin's and librosa's. The documentation has neither.
# Output seen:
#   16000 Hz, within half a semitone: {Essentia pYIN: 0.0, Essentia PitchYin: 1.0, librosa pYIN: 1.0}
#     Essentia pYIN, median 65.4 Hz: 5 values, at most 0.000 from a note
#     none right: 0.0
#   22050 Hz, within half a semitone: {Essentia pYIN: 0.0, Essentia PitchYin: 1.0, librosa pYIN: 1.0}
#     Essentia pYIN, median 65.4 Hz: 4 values, at most 0.000 from a note
#   44100 Hz, within half a semitone: {Essentia pYIN: 0.76, Essentia PitchYin: 1.0, librosa pYIN: 1.0}
#     Essentia pYIN, median 311.1 Hz: 13 values, at most 0.000 from a note
#   first 5 of 28 pitches of a frame of 220 Hz (note, probability): [(70.0, 0.036), (57.0, 0.036), (50.0, 0.036), (45.0, 0.036), ...]
#   speech at 16 kHz, frames voiced by librosa: 0% within half a semitone; medians 62, librosa 194 Hz
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  essentia==2.1b6.dev1389 librosa==0.11.0 numpy==2.4.6 soundfile==0.14.0 || exit 2
venv/bin/pip download -qq --disable-pip-version-check --no-deps --only-binary :all: pyannote.audio==4.0.7 || exit 2
cat > look.py <<'PY'
import io
import sys
import zipfile
from pathlib import Path

import essentia
import librosa
import numpy as np
import soundfile as sf

essentia.log.infoActive = False
import essentia.standard as es  # noqa: E402

SIZE, HOP, LOWEST = 2048, 256, 61.735
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def pyin(sound, rate, size=SIZE):
    """Essentia's: unvoiced frames are negative."""
    return np.array(es.PitchYinProbabilistic(sampleRate=rate, frameSize=size, lowRMSThreshold=0.001)(sound)[0])


def yin(sound, rate):
    made = es.PitchYin(sampleRate=rate, frameSize=SIZE)
    return np.array([made(frame)[0] for frame in es.FrameGenerator(sound, SIZE, HOP)])


def by_librosa(sound, rate):
    return librosa.pyin(sound, sr=rate, fmin=LOWEST, fmax=1000, frame_length=SIZE, hop_length=HOP)[0]


def glide(rate, seconds=3):
    """A voice of 15 harmonics that glides an octave up from 220 Hz, with vibrato; and its pitch."""
    t = np.arange(seconds * rate) / rate
    pitch = 220 * 2 ** (t / seconds + 0.3 * np.sin(2 * np.pi * 5.5 * t) / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(np.sin(k * phase) / k for k in range(1, 16))
    sound = sound + 0.01 * np.random.default_rng(0).normal(size=len(t))
    return (0.4 * sound / np.abs(sound).max()).astype(np.float32), pitch


for rate in (16_000, 22_050, 44_100):
    sound, pitch = glide(rate)
    right = {}
    for name, find in (("Essentia pYIN", pyin), ("Essentia PitchYin", yin), ("librosa pYIN", by_librosa)):
        found = find(sound, rate)
        centres = np.arange(len(found)) * HOP
        inside = (centres > SIZE) & (centres < len(sound) - SIZE)
        off = 12 * np.log2(np.abs(found[inside]) / pitch[centres[inside]])
        right[name] = round(float(np.mean(np.abs(off) < 0.5)), 2)
        if find is pyin:
            seen = np.abs(found[inside])
    worse, *others = right.values()
    expect(f"{rate} Hz, within half a semitone", right, min(others) > 0.95 and worse < 0.9)
    notes = 12 * np.log2(seen / 440) + 69
    values = f"{len(np.unique(seen.round(1)))} values, at most {np.abs(notes - notes.round()).max():.3f} from a note"
    expect(f"  Essentia pYIN, median {np.median(seen):.1f} Hz", values, np.abs(notes - notes.round()).max() < 0.01)
    if rate == 16_000:
        expect("  none right", worse, worse < 0.1)

# One frame of a steady 220 Hz at 16 kHz: what its pitches are, and how likely.
t = np.arange(SIZE) / 16_000
frame = sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 16)).astype(np.float32)
notes, likely, _ = es.PitchYinProbabilities(sampleRate=16_000)(frame)
shown = [(round(float(n), 2), round(float(p), 3)) for n, p in zip(notes[:5], likely[:5], strict=True)]
wanted = bool(np.ptp(likely[:5]) < 0.01 and (notes == notes.round()).all())
expect(f"first 5 of {len(notes)} pitches of a frame of 220 Hz (note, probability)", shown, wanted)

# Speech: ten seconds of a telephone call, the sample that pyannote.audio's wheel carries.
(wheel,) = Path().glob("pyannote*.whl")
sample = zipfile.ZipFile(wheel).read("pyannote/audio/sample/sample.wav")
sound, rate = sf.read(io.BytesIO(sample), dtype="float32")
speech = sound[8 * rate : 18 * rate] / np.abs(sound).max()
one, other = pyin(speech, rate), by_librosa(speech, rate)
count = min(len(one), len(other))
one, other = np.abs(one[:count]), other[:count]
voiced = np.isfinite(other)
agree = float(np.mean(np.abs(12 * np.log2(one[voiced] / other[voiced])) < 0.5))
expect(
    "speech at 16 kHz, frames voiced by librosa",
    f"{agree:.0%} within half a semitone; medians {np.median(one[voiced]):.0f}, librosa {np.median(other[voiced]):.0f} Hz",
    agree < 0.7,
)

print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
