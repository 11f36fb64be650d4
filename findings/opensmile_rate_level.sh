#!/usr/bin/env bash
# openSMILE: loudness grows with the sampling rate, quiet speech has no pitch, and samples of +1 become -1.
#
# Expected: the same speech at 16 and at 44.1 kHz has the same loudness; at -20 dB it has the same pitch, jitter and
#   MFCCs (all but the zeroth); an array of floating point numbers between -1 and 1 is taken as it is.
# Happens: 16 kHz speech, resampled to 44.1 kHz, has 1.75 times the loudness, as if it were 7 dB louder, and 2.8 times
#   the spectral flux and, in ComParE, energy in a band of the spectrum; what is taken from samples (equivalent level)
#   agrees. Speech with an RMS of -32 dBFS is voiced in 77 % of its frames, 20 dB lower in 47 %, 30 dB lower in 6 %, 40
#   dB lower nowhere: pitch, jitter and HNR are then 0, and on the way there jitter falls and HNR rises. MFCCs 1 to 4
#   are a seventh to two fifths smaller at -20 dB. In sound clipped at -1 and 1 each sample of +1 becomes -1: 0.8 % of
#   the samples give 17 % more loudness.
# Why: magnitudes of the FFT are not divided by the window's length, and bands are sums over bins, whose number grows
#   as well: with a power of two behind each window, loudness goes with (window x FFT length) ^ 0.33. Frames with an RMS
#   of at most 0.001 (-60 dBFS) are made unvoiced by a selector in the configuration. The Python package multiplies by
#   32768 and casts to 16-bit integers: that cuts towards 0, so what is below one step is gone from quiet sound whatever
#   precision it came in, and 32768 wraps around.
# Matters: tables of eGeMAPS or ComParE over corpora of different rates or levels tell the corpora apart; the rate of
#   the file is used unless `sampling_rate=16000, resample=True` is given. Bring levels to one RMS, and peaks below 1.
# Versions: opensmile 2.6.0 (the newest), Python 3.11; on x86-64 (the cast of 32768 to 16 bits is the processor's).
# Source: opensmile/core/smile.py (_extract), core/config/compare/ComParE_2016_core.lld.conf.inc and
#   core/config/gemaps/v01b (cValbasedSelector, threshold 0.001). github.com/audeering/opensmile issue 46 (open) says of
#   the rate that jitter and shimmer change; neither it nor the documentation says so of loudness.
# Output seen:
#   16000 Hz: {loudness: 0.337, flux: 0.0824, band 250-650: 0.05, level: -31.8}
#     loudness, of that at 16 kHz: 1.00; told 1.00
#   22050 Hz: {loudness: 0.374, flux: 0.116, band 250-650: 0.069, level: -31.8}
#     loudness, of that at 16 kHz: 1.11; told 1.11
#   44100 Hz: {loudness: 0.59, flux: 0.226, band 250-650: 0.138, level: -31.8}
#     loudness, of that at 16 kHz: 1.75; told 1.76
#   48000 Hz: {loudness: 0.609, flux: 0.247, band 250-650: 0.151, level: -31.8}
#     loudness, of that at 16 kHz: 1.81; told 1.81
#   0 dB: {voiced: 0.774, semitones: 35.0, jitter: 0.0173, HNR: 8.9, mfcc1: 42.4, mfcc2: -24.0, mfcc3: 12.7, mfcc4: -5.22}
#   -10 dB: {voiced: 0.73, semitones: 35.1, jitter: 0.0167, HNR: 9.14, mfcc1: 40.4, mfcc2: -21.7, mfcc3: 10.8, mfcc4: -4.55}
#   -20 dB: {voiced: 0.47, semitones: 35.4, jitter: 0.012, HNR: 9.7, mfcc1: 36.4, mfcc2: -17.0, mfcc3: 7.35, mfcc4: -3.39}
#   -30 dB: {voiced: 0.0572, semitones: 38.9, jitter: 0.0155, HNR: 11.1, mfcc1: 29.3, mfcc2: -9.82, mfcc3: 2.52, mfcc4: -2.34}
#   -40 dB: {voiced: 0.0, semitones: 0.0, jitter: 0.0, HNR: 0.0, mfcc1: 20.8, mfcc2: -2.79, mfcc3: -1.75, mfcc4: -2.67}
#     voiced frames: [0.77, 0.73, 0.47, 0.06, 0.0]
#     at 0 dB, cut towards 0 at the step that 16 bits have at -20 dB: {voiced: 0.775, mfcc1: 36.4, mfcc2: -17.0, mfcc3: 7.35, mfcc4: -3.39}
#   clipped at 1.00000: {loudness: 2.03, flux: 1.13, mfcc1: 35.6}
#   clipped at 0.99997: {loudness: 1.73, flux: 0.954, mfcc1: 39.3}
#     samples of +1, loudness gained: 0.81%, 17%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  opensmile==2.6.0 numpy==2.4.6 soundfile==0.14.0 soxr==1.1.0 || exit 2
venv/bin/pip download -qq --disable-pip-version-check --no-deps --only-binary :all: pyannote.audio==4.0.7 || exit 2
cat > look.py <<'PY'
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import opensmile
import soundfile as sf
import soxr

changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def smile(kind, level):
    return opensmile.Smile(
        feature_set=getattr(opensmile.FeatureSet, kind),
        feature_level=getattr(opensmile.FeatureLevel, level),
    )


EGEMAPS = smile("eGeMAPSv02", "Functionals")
COMPARE = smile("ComParE_2016", "LowLevelDescriptors")
MEANS = {
    "loudness": "loudness_sma3_amean",
    "flux": "spectralFlux_sma3_amean",
    "level": "equivalentSoundLevel_dBp",
    "semitones": "F0semitoneFrom27.5Hz_sma3nz_amean",
    "jitter": "jitterLocal_sma3nz_amean",
    "HNR": "HNRdBACF_sma3nz_amean",
} | {f"mfcc{i}": f"mfcc{i}_sma3_amean" for i in range(1, 5)}


def features(sound, rate):
    sound = sound.astype(np.float32)
    means, frames = EGEMAPS.process_signal(sound, rate).iloc[0], COMPARE.process_signal(sound, rate)
    seen = {name: float(means[long]) for name, long in MEANS.items()}
    seen["voiced"] = float((frames["F0final_sma"] > 0).mean())
    seen["band 250-650"] = float(frames["pcm_fftMag_fband250-650_sma"].mean())
    return seen


def shown(seen, *names):
    return {name: float(f"{seen[name]:.3g}") for name in names}


# Ten seconds of a telephone call at 16 kHz, the sample that pyannote.audio's wheel carries.
(wheel,) = Path().glob("pyannote*.whl")
sample = zipfile.ZipFile(wheel).read("pyannote/audio/sample/sample.wav")
sound, base = sf.read(io.BytesIO(sample))
speech = sound[8 * base : 18 * base]
usual = features(speech, base)

# 1. The same sound at other rates.
RATES = {16_000: 512, 22_050: 512, 44_100: 1024, 48_000: 1024}  # and the length of the FFT of 20 ms
for rate, size in RATES.items():
    seen = features(soxr.resample(speech, base, rate, "VHQ"), rate) if rate > base else usual
    expect(f"{rate} Hz", shown(seen, "loudness", "flux", "band 250-650", "level"), True)
    ratio = seen["loudness"] / usual["loudness"]
    told = (size * rate / 512 / base) ** 0.33
    same = abs(seen["level"] - usual["level"]) < 0.05
    expect("  loudness, of that at 16 kHz", f"{ratio:.2f}; told {told:.2f}", abs(ratio / told - 1) < 0.03 and same)

# 2. The same sound, quieter.
levels = {}
for level in (0, -10, -20, -30, -40):
    levels[level] = features(speech * 10 ** (level / 20), base)
    expect(f"{level} dB", shown(levels[level], "voiced", "semitones", "jitter", "HNR", *list(MEANS)[-4:]), True)
voiced = [seen["voiced"] for seen in levels.values()]
expect("  voiced frames", [round(x, 2) for x in voiced], voiced[0] > 0.7 and voiced[2] < 0.6 and voiced[4] == 0)
cut = np.trunc(speech * 3276.8) / 3276.8
same = features(cut, base)
close = all(abs(same[f"mfcc{i}"] - levels[-20][f"mfcc{i}"]) < 0.02 for i in range(1, 5))
moved = levels[-20]["mfcc1"] < 0.9 * usual["mfcc1"]
label = "  at 0 dB, cut towards 0 at the step that 16 bits have at -20 dB"
expect(label, shown(same, "voiced", *list(MEANS)[-4:]), close and moved and same["voiced"] > 0.7)

# 3. Sound clipped at 1, and one step of 16 bits below.
loud = speech * 3 / np.abs(speech).max()
ends = {}
for top in (1, 32767 / 32768):
    ends[top] = features(np.clip(loud, -1, top), base)
    expect(f"clipped at {top:.5f}", shown(ends[top], "loudness", "flux", "mfcc1"), True)
first, second = (seen["loudness"] for seen in ends.values())
share = np.mean(loud >= 1)
expect("  samples of +1, loudness gained", f"{share:.2%}, {first / second - 1:.0%}", first > 1.05 * second)

print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
