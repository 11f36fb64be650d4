#!/usr/bin/env bash
# pedalboard: a convolution loses the level of its impulse response, and a dry reverb is 6 dB louder than its input.
#
# Expected: `Convolution(ir, mix=1)` is the convolution with `ir`: a unit impulse gives the input back, and a response
#   of half the size gives half the output. `Reverb(wet_level=0, dry_level=1)` gives the input back, since the levels
#   are described as amounts and `Delay(mix=0)`, `Chorus(mix=0)` and `Phaser(mix=0)` do give it back to the bit.
# Happens: a unit impulse comes out 18.06 dB down. Every response is scaled to the energy 1/64 of its loudest channel,
#   so that 1, 0.5 and -1 give the same level and a room's response is off by a number that depends on its own tail;
#   the shape is right (correlation 1), the differences between channels stay. With `mix=0.5` the dry part is
#   therefore 18 dB too strong against the wet one. `Reverb`'s dry level 1 is a factor of 2; 0.5 is the identity.
# Why: JUCE's convolution engine normalises by default and pedalboard does not turn it off; JUCE's reverb multiplies
#   the dry level by 2 and the wet one by 3. Neither is in pedalboard's documentation of the two classes.
# Matters: augmentation by measured rooms: near and far lose their level, and if speech and noise go through responses
#   of their own before they are mixed at a stated SNR, or mixed as they are, the SNR is another one. Convolve with
#   `scipy.signal.fftconvolve`, or multiply by 8 times the response's norm afterwards.
# Versions: pedalboard 0.9.26, numpy 2.4.6, scipy 1.17.1; Python 3.11.
# Source: JUCE's juce_Convolution (Normalise::yes, a factor of 0.125 over the root of the largest channel's energy) and
#   juce_Reverb.h (dryScaleFactor, wetScaleFactor); docstrings of pedalboard.Convolution and pedalboard.Reverb.
# Output seen:
#   Convolution with 1: -18.06 dB against the true convolution, correlation 1.0
#   Convolution with 0.5: -12.04 dB against the true convolution, correlation 1.0
#   Convolution with a room of 0.25 s: -24.77 dB against the true convolution, correlation 1.0
#   the same, times 8 and the norm of the response: 0.0 dB against the true convolution, correlation 1.0
#   Convolution with channels 1 and 0.1: -18.06 and -38.06 dB against the input
#   Reverb, wet 0, dry 1.0: 6.02 dB against the input
#   Reverb, wet 0, dry 0.5: 0.0 dB against the input
#   Delay, mix 0: 0.0 dB against the input
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check pedalboard==0.9.26 numpy==2.4.6 scipy==1.17.1 || exit 2
cat > look.py <<'PY'
import sys

import numpy as np
import pedalboard
import scipy.signal

RATE = 16_000
draw = np.random.default_rng(0)
sound = (0.05 * draw.standard_normal(RATE)).astype("float32")
tail = 0.1 * draw.standard_normal(4000) * np.exp(-np.arange(4000) / 800)
room = np.concatenate([[1.0], tail]).astype("float32")
changed = []


def level(heard, wanted):
    """Level of one signal against another, dB."""
    energy = [np.square(np.asarray(a, "float64")).sum() for a in (heard, wanted)]
    return round(float(10 * np.log10(energy[0] / energy[1])), 2) + 0.0


def expect(label, ok):
    print(label)
    if not ok:
        changed.append(label)


def convolve(response, gain=1.0):
    heard = gain * pedalboard.Convolution(response, mix=1.0, sample_rate=RATE)(sound, RATE)
    true = scipy.signal.fftconvolve(sound, response)[: len(sound)]
    return level(heard, true), round(float(np.corrcoef(heard, true)[0, 1]), 6)


def one(value):
    return np.array([value], "float32")


for what, response in (("1", one(1)), ("0.5", one(0.5)), ("a room of 0.25 s", room)):
    db, alike = convolve(response)
    wanted = round(float(-20 * np.log10(8 * np.linalg.norm(response))), 2)
    expect(
        f"Convolution with {what}: {db} dB against the true convolution, correlation {alike}",
        abs(db - wanted) < 0.05 and alike > 0.999,
    )
db, alike = convolve(room, 8 * np.linalg.norm(room))
expect(
    f"the same, times 8 and the norm of the response: {db} dB against the true convolution, correlation {alike}",
    abs(db) < 0.05,
)
stereo = np.zeros((2, 100), "float32")
stereo[:, 0] = 1.0, 0.1
both = pedalboard.Convolution(stereo, mix=1.0, sample_rate=RATE)(np.stack([sound, sound]), RATE)
near, far = (level(channel, sound) for channel in both)
expect(
    f"Convolution with channels 1 and 0.1: {near} and {far} dB against the input",
    abs(near + 18.06) < 0.05 and abs(far + 38.06) < 0.05,
)
for dry, wanted in ((1.0, 6.02), (0.5, 0.0)):
    db = level(pedalboard.Reverb(wet_level=0, dry_level=dry)(sound, RATE), sound)
    expect(f"Reverb, wet 0, dry {dry}: {db} dB against the input", abs(db - wanted) < 0.05)
db = level(pedalboard.Delay(0.1, mix=0)(sound, RATE), sound)
expect(f"Delay, mix 0: {db} dB against the input", abs(db) < 0.01)
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
venv/bin/python look.py
