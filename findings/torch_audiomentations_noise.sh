#!/usr/bin/env bash
# torch-audiomentations: coloured noise is one second that repeats; its colours are nearly twice as steep as named.
#
# Expected: AddColoredNoise adds noise as long as the clip, by chance from sample to sample. Its power falls as 1/f to
#   the f_decay: pink noise (1) by 3 dB an octave, brown noise (2) by 6 dB.
# Happens: sample for sample the noise is the same in each second of the clip, at any rate. Of a steady sound it goes
#   wholly when the clip of one second earlier is subtracted. Pink falls by 5.3 dB an octave, nearly as brown noise
#   should, and brown by 10.5 dB; blue (-1) rises by 5.4 dB and violet (-2) by 10.8 dB.
# Why: as many samples as there are in a second are drawn, coloured, and put one behind the other. The colour divides
#   the amplitudes, not the powers, by a power of what is a straight line over frequency.
# Matters: in clips of 5 or 10 s the noise is lines 1 Hz apart. A model that hears more than a second can learn the
#   period and subtract it, in enhancement and in self-supervised learning alike. From 250 Hz to 8 kHz "pink" noise
#   falls by 11 dB more than pink noise. Clips of a second or less are only coloured wrongly. For white noise use
#   torch.randn.
# Versions: torch-audiomentations 0.12.0 (the newest), torch 2.13.0, numpy 2.4.6; Python 3.11.
# Source: _gen_noise in torch_audiomentations/augmentations/colored_noise.py. Its text gives the colours by power. Pull
#   request 80 of github.com/iver56/torch-audiomentations, which brought it, says that a second is repeated; the
#   README and the class do not.
# Output seen:
#   white noise at 16000 Hz, less that of a second before: -145 dB of it (independent: 3)
#   white noise at 44100 Hz, less that of a second before: -145 dB of it (independent: 3)
#   dB an octave by the names: {'violet': 6.0, 'blue': 3.0, 'white': 0.0, 'pink': -3.0, 'brown': -6.0}
#   dB an octave, 250 Hz to 8 kHz: {'violet': 10.8, 'blue': 5.4, 'white': 0.0, 'pink': -5.3, 'brown': -10.5}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 packaging || exit 2
# torchaudio is needed for reading and resampling files, which is not done here.
venv/bin/pip install -qq --disable-pip-version-check --no-deps \
  torch-audiomentations==0.12.0 torch-pitch-shift==1.2.5 primePy==1.3 julius==0.2.8 || exit 2
cat > look.py <<'PY'
import sys
import types

import numpy as np
import torch

for name in ("torchaudio", "torchaudio.transforms"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torchaudio"].transforms = sys.modules["torchaudio.transforms"]
from torch_audiomentations import AddColoredNoise

CLIPS, SECONDS = 8, 5
torch.set_num_threads(1)
torch.manual_seed(0)
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def noise(decay, rate):
    """Return a steady tone [C, T] and what is added to it at an SNR of 0 dB."""
    tone = 0.1 * torch.sin(0.3 * torch.arange(SECONDS * rate, dtype=torch.float64)).float()
    clips = tone.expand(CLIPS, 1, -1)
    add = AddColoredNoise(
        min_snr_in_db=0.0, max_snr_in_db=0.0, min_f_decay=decay, max_f_decay=decay, p=1.0,
        output_type="dict",
    )  # fmt: skip
    heard = add(clips, sample_rate=rate).samples
    return clips[:, 0].double().numpy(), (heard - clips)[:, 0].double().numpy()


def slope(added, rate):
    """Return how the power of noise [C, T] changes from 250 Hz to 8 kHz, dB an octave."""
    power = np.mean(np.abs(np.fft.rfft(added)) ** 2, axis=0)
    hertz = np.fft.rfftfreq(added.shape[1], 1 / rate)
    edges = 250 * 2.0 ** np.arange(6)
    # Of each octave, so that a mean is over its lines and the zeros between them.
    levels = [
        10 * np.log10(power[(hertz >= low) & (hertz < high)].mean())
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    return float(np.polyfit(np.arange(len(levels)), levels, 1)[0])


for rate in (16_000, 44_100):
    _, added = noise(0.0, rate)
    later = added[:, rate:] - added[:, :-rate]
    left = 10 * np.log10(np.mean(later**2) / np.mean(added**2))
    label = f"white noise at {rate} Hz, less that of a second before"
    expect(label, f"{left:.0f} dB of it (independent: 3)", left < -60)

NAMES = {"violet": -2.0, "blue": -1.0, "white": 0.0, "pink": 1.0, "brown": 2.0}
steep = {name: slope(noise(decay, 44_100)[1], 44_100) for name, decay in NAMES.items()}
wanted = {name: round(-3.01 * decay + 0.0, 1) for name, decay in NAMES.items()}
print(f"dB an octave by the names: {wanted}")
expect(
    "dB an octave, 250 Hz to 8 kHz",
    {name: round(value, 1) + 0.0 for name, value in steep.items()},
    steep["pink"] < -5 and steep["brown"] < -10 and steep["blue"] > 5 and abs(steep["white"]) < 0.5,
)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
