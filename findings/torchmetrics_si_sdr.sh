#!/usr/bin/env bash
# torchmetrics: the scale-invariant signal-to-distortion ratio is not: quiet clips, or quiet estimates, measure less.
#
# Expected: SI-SDR and SI-SNR are the same for a clip and for the clip at a thousandth of its level, and do not depend
#   on the level of the estimate; SNR is the same if both have that level.
# Happens: in float32, what measures 20.0 dB at an RMS of 0.05 measures 19.4 dB at 60 dB below that, 8.6 dB at 80 dB
#   below and 0.3 dB at 100 dB below. A quiet estimate of a loud reference does it too. In float64 all are 20.0 dB.
# Why: the smallest step of float32, 1.2e-7, is added to the energies, which are sums of squares of the samples as they
#   are; so the loss grows for shorter clips too.
# Matters: means over clips with quiet recordings or stems at rest, and models whose output has a free level, which
#   SI-SDR is there for. Scale both to an RMS of 1 first, or give float64.
# Versions: torchmetrics 1.9.0, torch 2.13.0, numpy 2.4.6; Python 3.11.
# Source: torchmetrics/functional/audio/sdr.py and snr.py (eps = torch.finfo(preds.dtype).eps).
# Output seen:
#   SI-SDR, both at a level (dB): {0: 20.0, -40: 20.0, -60: 19.4, -80: 8.6, -100: 0.3}
#   SI-SDR, the estimate at a level: {0: 20.0, -40: 20.0, -60: 19.4, -80: 8.6, -100: 0.3}
#   SI-SDR, both, float64: {0: 20.0, -40: 20.0, -60: 20.0, -80: 20.0, -100: 20.0}
#   SI-SNR, both: {0: 20.0, -40: 20.0, -60: 19.4, -80: 8.6, -100: 0.3}
#   SNR, both: {0: 20.0, -40: 20.0, -60: 19.4, -80: 8.6, -100: 0.3}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import numpy as np
import torch
from torchmetrics.functional.audio import (
    scale_invariant_signal_distortion_ratio as scale_invariant,
    scale_invariant_signal_noise_ratio as of_noise,
    signal_noise_ratio as plain,
)

SAMPLES = 32_000
rng = np.random.default_rng(0)
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def sound():
    """Return noise [T] of RMS 0.05 whose spectrum falls by 12 dB an octave above 100 Hz, at 16 kHz."""
    steps = np.fft.rfftfreq(SAMPLES, 1 / 16_000)
    made = np.fft.irfft(np.fft.rfft(rng.normal(size=SAMPLES)) / (1 + (steps / 100) ** 2))
    return 0.05 * made / np.sqrt(np.mean(made**2))


def measured(measure, estimate, reference, dtype=torch.float32):
    given = torch.tensor(estimate, dtype=dtype), torch.tensor(reference, dtype=dtype)
    return round(float(measure(*given)), 1)


reference, other = sound(), sound()
estimate = reference + 0.1 * other
levels = {level: 10 ** (level / 20) for level in (0, -40, -60, -80, -100)}
both = {n: measured(scale_invariant, g * estimate, g * reference) for n, g in levels.items()}
one = {n: measured(scale_invariant, g * estimate, reference) for n, g in levels.items()}
double = {
    n: measured(scale_invariant, g * estimate, g * reference, torch.float64)
    for n, g in levels.items()
}
expect("SI-SDR, both at a level (dB)", both, both[0] > 19 and both[-80] < both[0] - 3)
expect("SI-SDR, the estimate at a level", one, one[-80] < one[0] - 3)
expect("SI-SDR, both, float64", double, abs(double[-80] - double[0]) < 0.2)
noise = {n: measured(of_noise, g * estimate, g * reference) for n, g in levels.items()}
ratio = {n: measured(plain, g * estimate, g * reference) for n, g in levels.items()}
expect("SI-SNR, both", noise, noise[-80] < noise[0] - 3)
expect("SNR, both", ratio, ratio[-80] < ratio[0] - 3)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
