#!/usr/bin/env bash
# torchaudio: the first sample decides how loud the whole of a slowed or raised sound is: 0 or 9 dB below.
#
# Expected: TimeStretch and pitch_shift keep the level of a steady sound; what is faster and what is slower come out
#   alike.
# Happens: a sawtooth of 200 Hz made slower by anything, 0.1 % too, is 0.5 to 9.4 dB quieter by the sample of its
#   period that the clip begins with; made faster it keeps its level to 0.1 dB. pitch_shift slows what it raises: an
#   octave up is 10.7 dB quieter, an octave down 0.2 dB. Speech loses 2 to 4 dB each way. After half a second of noise
#   at -60 dB a tone loses 0.3 to 9 dB each way, as the noise is drawn, and 0.2 to 15 dB in librosa.
# Why: each bin's phase begins with that of the first frame and then adds differences of neighbouring frames; nothing
#   keeps the bins of one partial in step. The first frame holds the clip's mirrored start, whose phases fit no other
#   frame. Made faster, the first difference is added once and takes the error back; made slower, frames 0 and 0.9 both
#   lie between the first two, it is added twice, and the bins of each partial cancel each other to the end of the clip.
#   With zeros instead of the mirrored start (librosa's way) a steady sound loses 1 dB or less.
# Matters: as augmentation it makes raised or slowed clips quieter, others not: level tells a model which they are;
#   cuts that begin with a pause differ by 10 dB at random. Bring the level back afterwards, or take another algorithm.
# Versions: torchaudio 2.11.1, torch 2.13.0, librosa 0.11.0 (1.0.0 gave levels like these), numpy 2.4.6; Python 3.11.
# Source: torchaudio/functional/functional.py (phase_vocoder: time_steps, phase_0; pitch_shift), whose documentation
#   does not speak of levels; github.com/librosa/librosa issue 1388 asks why time_stretch changes the amplitude of
#   speech.
# Output seen:
#   sawtooth at rate 0.8: -9.4 to -0.5 dB
#   sawtooth at rate 0.95: -9.4 to -0.5 dB
#   sawtooth at rate 0.999: -9.4 to -0.5 dB
#   sawtooth at rate 1.001: 0.0 to 0.0 dB
#   sawtooth at rate 1.05: 0.0 to 0.0 dB
#   sawtooth at rate 1.25: -0.1 to 0.0 dB
#     rate 0.8, zeros before: -1.0 to -0.7 dB
#     rate 0.8, librosa: -0.9 to -0.8 dB
#   pitch_shift by 12 and -12: [-10.7, -0.2]
#   tone after noise at -60 dB, rate 0.8, torchaudio: -6.9 to -0.3 dB
#   tone after noise at -60 dB, rate 0.8, librosa: -14.6 to -0.8 dB
#   tone after noise at -60 dB, rate 1.25, torchaudio: -8.8 to -0.5 dB
#   tone after noise at -60 dB, rate 1.25, librosa: -13.8 to -0.2 dB
#   speech, rate 0.8: -3.4 to -2.5 dB
#   speech, rate 1.25: -3.8 to -1.9 dB
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  torch==2.13.0 torchaudio==2.11.1 librosa==0.11.0 numpy==2.4.6 soundfile==0.14.0 || exit 2
venv/bin/pip download -qq --disable-pip-version-check --no-deps --only-binary :all: pyannote.audio==4.0.7 || exit 2
# torchaudio's compiled part wants the libraries of CUDA, which a build of torch for CPUs lacks. Nothing here uses it.
rm -f venv/lib/python*/site-packages/torchaudio/lib/*.so
cat > look.py <<'PY'
import io
import sys
import zipfile
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf
import torch
import torchaudio.functional as F
import torchaudio.transforms as T

SR, SIZE, HOP = 16_000, 512, 128
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def by_torchaudio(sound, rate, pad="reflect"):
    there = T.Spectrogram(SIZE, hop_length=HOP, power=None, pad_mode=pad)
    stretch = T.TimeStretch(HOP, SIZE // 2 + 1, rate)
    return T.InverseSpectrogram(SIZE, hop_length=HOP)(stretch(there(torch.tensor(sound)))).numpy()


def by_librosa(sound, rate):
    return librosa.effects.time_stretch(sound, rate=rate)


def lost(after, before):
    """Return how much louder the first is, in dB."""
    return float(20 * np.log10(after.std() / before.std()))


def span(values):
    return f"{min(values):.1f} to {max(values):.1f} dB".replace("-0.0", "0.0")


def sawtooth(first):
    n = np.arange(3 * SR) + first
    return sum(np.sin(2 * np.pi * 200 * k * n / SR) / k for k in range(1, 20)).astype(np.float32)


# 1. A steady sound, cut at each fifth sample of its period.
cuts = [sawtooth(first) for first in range(0, 80, 5)]
for rate in (0.8, 0.95, 0.999, 1.001, 1.05, 1.25):
    found = [lost(by_torchaudio(sound, rate), sound) for sound in cuts]
    wanted = min(found) < -8 and max(found) > -1 if rate < 1 else min(found) > -0.2
    expect(f"sawtooth at rate {rate}", span(found), wanted)
found = [lost(by_torchaudio(sound, 0.8, "constant"), sound) for sound in cuts]
expect("  rate 0.8, zeros before", span(found), min(found) > -1.5)
found = [lost(by_librosa(sound, 0.8), sound) for sound in cuts]
expect("  rate 0.8, librosa", span(found), min(found) > -1.5)
found = [lost(F.pitch_shift(torch.tensor(cuts[0]), SR, steps).numpy(), cuts[0]) for steps in (12, -12)]
expect("pitch_shift by 12 and -12", [round(x, 1) for x in found], found[0] < -8 and found[1] > -0.5)

# 2. A tone after half a second of faint noise, ten times.
tone = np.concatenate([np.zeros(SR // 2), np.sin(2 * np.pi * 440 * np.arange(3 * SR) / SR)])
noisy = [
    (tone + 1e-3 * np.random.default_rng(seed).normal(size=len(tone))).astype(np.float32) for seed in range(10)
]
for rate in (0.8, 1.25):
    for name, change in (("torchaudio", by_torchaudio), ("librosa", by_librosa)):
        found = [lost(change(sound, rate), sound) for sound in noisy]
        wide = max(found) - min(found) > 5
        expect(f"tone after noise at -60 dB, rate {rate}, {name}", span(found), wide)

# 3. Speech: a telephone call at 16 kHz, the sample that pyannote.audio's wheel carries, in pieces of 2 s.
(wheel,) = Path().glob("pyannote*.whl")
sample = zipfile.ZipFile(wheel).read("pyannote/audio/sample/sample.wav")
sound, _ = sf.read(io.BytesIO(sample), dtype="float32")
pieces = sound[7 * SR : 29 * SR].reshape(11, -1)
for rate in (0.8, 1.25):
    found = [lost(by_torchaudio(piece, rate), piece) for piece in pieces]
    expect(f"speech, rate {rate}", span(found), max(found) < -1)

print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
