#!/usr/bin/env bash
# PESQ moves by a point when zeros are padded, and by nearly one when the last bit of the reference's pauses is noise.
#
# Expected: PESQ judges speech: zeros behind both signals, as in a batch of clips of different lengths, change nothing,
#   nor does what nobody can hear in the reference: rounding to 16 bits, dither, noise 80 dB below full scale.
# Happens: zeros behind ten seconds of speech first lower the score (by 0.13 at as much silence as speech), then raise
#   it: in a minute it is 1.2 higher, and noise at 30 dB then counts as better than noise at 40 dB without zeros. Where
#   the reference went through a noise gate, so that its pauses are silent, dither of one step of 16 bits in the
#   reference, not in what is judged, gives 0.4 to 0.6 more, noise at -80 dB more than 1. STOI does not move.
# Why: the level of both signals is set by the mean power of the whole file, silence too, so that zeros make the speech
#   louder to the model. Silent ends are left out of the mean, but never more than half of the file at either end: what
#   is beyond counts as perfect frames, and above 16 s later frames weigh more. What is added to the reference costs by
#   the ratio of both powers in each band, to the power 1.2 and at most 12-fold: in a pause of zeros it is at the limit.
# Matters: scores of padded batches (`pesq_batch` and torchmetrics take no lengths), of clips cut to one length, of
#   references that were gated or synthesised (silent pauses) against recorded ones. sox dithers by itself when it
#   writes 16 bits, others do not: two copies of one corpus give two tables. Cut silence off, keep a reference's noise.
# Versions: pesq 0.0.4 (the newest), pystoi 0.4.1, Python 3.11. It is compiled when it is installed.
# Source: github.com/ludlows/PESQ pull request 46 (open) says that padding changes results; fix_power_level in
#   pesqmain.h; in pesqmod.c the loops that count samples to skip, the time weights and the asymmetry factor.
# Output seen:
#   seconds of zeros behind both: (0, 2, 5, 10, 20, 50)
#     noise 30 dB below, PESQ: [2.44, 2.41, 2.37, 2.31, 2.76, 3.64]
#     noise 30 dB below, STOI: [0.99, 0.99, 0.99, 0.99, 0.99, 0.99]
#     noise 40 dB below, PESQ: [3.33, 3.27, 3.19, 3.09, 3.38, 3.95]
#     the noisier clip wins where it is padded to a minute: (3.64, 3.33)
#   noise 30 dB below, the reference ...
#     as it is: PESQ 1.94, STOI 0.99
#     rounded to 16 bits: PESQ 1.97, STOI 0.99
#     with dither of a triangular shape, then rounded: PESQ 2.37, STOI 0.99
#     with noise at -80 dB: PESQ 3.08, STOI 0.99
#   noise 40 dB below, the same four: PESQ 2.83, 2.86, 3.41, 4.15
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  pesq==0.0.4 pystoi==0.4.1 numpy==2.4.6 scipy==1.17.1 soundfile==0.14.0 || exit 2
venv/bin/pip download -qq --disable-pip-version-check --no-deps --only-binary :all: pyannote.audio==4.0.7 || exit 2
cat > look.py <<'PY'
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import soundfile as sf
from pesq import pesq
from pystoi import stoi

STEP = 2**-15  # of 16-bit samples
changed = []
rng = np.random.default_rng(0)


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def score(reference, heard, mode="wb"):
    return round(pesq(16_000, reference, heard, mode), 2)


def understood(reference, heard):
    return round(float(stoi(reference, heard, 16_000)), 2)


# Ten seconds of a telephone call at 16 kHz, the sample that pyannote.audio's wheel carries.
(wheel,) = Path().glob("pyannote*.whl")
sample = zipfile.ZipFile(wheel).read("pyannote/audio/sample/sample.wav")
sound, rate = sf.read(io.BytesIO(sample))
speech = sound[6 * rate : 16 * rate]
noise = rng.normal(size=len(speech)) * speech.std()

# 1. The same number of zeros behind both signals, as in a batch of clips of different lengths.
PADS = (0, 2, 5, 10, 20, 50)
print("seconds of zeros behind both:", PADS)
padded = {}
for ratio in (30, 40):
    heard = speech + noise * 10 ** (-ratio / 20)
    pairs = [[np.pad(x, (0, s * rate)) for x in (speech, heard)] for s in PADS]
    padded[ratio] = [score(*pair) for pair in pairs]
    right = padded[ratio][3] < padded[ratio][0] - 0.1 and padded[ratio][5] > padded[ratio][0] + 0.5
    expect(f"  noise {ratio} dB below, PESQ", padded[ratio], right)
    words = [understood(*pair) for pair in pairs]
    expect(f"  noise {ratio} dB below, STOI", words, max(words) - min(words) < 0.015)
turned = padded[30][5] > padded[40][0]
expect("  the noisier clip wins where it is padded to a minute", (padded[30][5], padded[40][0]), turned)

# 2. A noise gate has made the pauses of the reference silent. The degraded signal stays as it is.
power = np.convolve(speech**2, np.ones(800) / 800, "same")
window = np.hanning(160) / np.hanning(160).sum()
gate = np.convolve(power > np.percentile(power, 35), window, "same")
clean = speech * gate
for ratio in (30, 40):
    heard = clean + noise * 10 ** (-ratio / 20)
    references = {
        "as it is": clean,
        "rounded to 16 bits": np.rint(clean / STEP) * STEP,
        "with dither of a triangular shape, then rounded": np.rint(
            clean / STEP + rng.random(len(clean)) - rng.random(len(clean))
        ) * STEP,
        "with noise at -80 dB": clean + 1e-4 * rng.normal(size=len(clean)),
    }  # fmt: skip
    print(f"noise {ratio} dB below, the reference ...")
    found = {name: score(x, heard) for name, x in references.items()}
    words = {name: understood(x, heard) for name, x in references.items()}
    for name, value in found.items():
        print(f"  {name}: PESQ {value}, STOI {words[name]}")
    first, _, dithered, faint = found.values()
    right = dithered > first + 0.4 and faint > first + 0.8 and len(set(words.values())) == 1
    expect("  PESQ gained by dither, by noise at -80 dB", (round(dithered - first, 2), round(faint - first, 2)), right)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
