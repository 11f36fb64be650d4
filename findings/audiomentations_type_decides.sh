#!/usr/bin/env bash
# audiomentations: for int16 audio each transform decides for itself what type and scale come out; two seeds.
#
# Expected: transforms are annotated float32 to float32, and float64 is converted with a warning. So int16 is
#   converted or refused too, in the same way by all; and one seed makes a pipeline repeatable.
# Happens: int16 passes without a word. Of the same sound, Gain returns float64 at the scale of int16, Normalize
#   float64 in [-1, 1], PolarityInversion int16, in which -32768 stays -32768; filters stop with an empty
#   AssertionError, but only for those clips that they would have changed (p), so a run may fail late.
#   A chain of transforms therefore has the type and the scale that those which happened to act leave it with.
#   Parameters are drawn from `random`, noise and cut-offs from `numpy.random`, both global: seeding one of them
#   repeats nothing, and in threads seeding both does not either.
# Matters: pipelines that decode to int16 (soundfile, torchaudio, wave), where some clips of a batch are
#   33 000 times louder than others, and runs that must go on exactly where they stopped. Convert to float32 in
#   [-1, 1] first, look at the type of what comes out, and seed both generators for each clip under a lock.
# Versions: audiomentations 0.43.1, numpy 2.4.6; Python 3.11.
# Source: audiomentations/core/transforms_interface.py (float64 alone is looked at), augmentations/gain.py,
#   normalize.py, base_butterword_filter.py (assert samples.dtype == np.float32), add_gaussian_snr.py.
# Output seen:
#   float64: ['Gain float32', 'Normalize float32', 'PolarityInversion float32', 'HighPassFilter float32']
#   int16: ['Gain float64, peak -16422.9', 'Normalize float64, peak -1.0', 'PolarityInversion int16, peak -32768.0',
#           'HighPassFilter AssertionError()']
#   int16, HighPassFilter at p=0.5, outcomes of 20 clips: ['AssertionError()', 'int16']
#   int16, Gain then Normalize at p=0.5, types of 20 clips: ['float32', 'float64', 'int16']
#   AddGaussianSNR twice, seeded and equal: {'numpy': False, 'random': False, 'both': True}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check audiomentations==0.43.1 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import random
import sys
import warnings

import numpy as np
from audiomentations import (
    AddGaussianSNR, Compose, Gain, HighPassFilter, Normalize, PolarityInversion,
)

RATE = 16_000
warnings.simplefilter("ignore")
sound = (0.5 * np.sin(np.arange(RATE) / 7)).astype(np.float32)
whole = (sound * 65_535).astype(np.int16)
whole[0] = -32_768
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def seeded(number):
    random.seed(number)
    np.random.seed(number)


def outcome(transform, audio):
    try:
        return transform(audio.copy(), sample_rate=RATE)
    except AssertionError as error:
        return error


transforms = [
    Gain(min_gain_db=-6, max_gain_db=-6, p=1), Normalize(p=1), PolarityInversion(p=1),
    HighPassFilter(p=1),
]
names = [type(t).__name__ for t in transforms]
seeded(0)
made = [outcome(t, sound.astype(np.float64)) for t in transforms]
types = [f"{n} {m.dtype}" for n, m in zip(names, made, strict=True)]
expect("float64", types, all(m.dtype == np.float32 for m in made))
made = [outcome(t, whole) for t in transforms]
seen = [
    f"{n} {m!r}" if isinstance(m, Exception)
    else f"{n} {m.dtype}, peak {float(m[np.argmax(np.abs(m.astype(float)))]):.1f}"
    for n, m in zip(names, made, strict=True)
]
right = made[0].dtype == np.float64 and np.abs(made[0]).max() > 10_000
right &= made[1].dtype == np.float64 and np.abs(made[1]).max() < 1.001
right &= made[2].dtype == np.int16 and made[2][0] == -32_768
expect("int16", seen, right and isinstance(made[3], AssertionError) and not str(made[3]))


def kinds(transform):
    found = [outcome(transform, whole) for _ in range(20)]
    return sorted({repr(m) if isinstance(m, Exception) else str(m.dtype) for m in found})


late = kinds(HighPassFilter(p=0.5))
expect("int16, HighPassFilter at p=0.5, outcomes of 20 clips", late, len(late) == 2)
chain = kinds(Compose([Gain(p=0.5), Normalize(p=0.5)]))
expect("int16, Gain then Normalize at p=0.5, types of 20 clips", chain, chain == ["float32", "float64", "int16"])

same = {}
for name, seeds in (
    ("numpy", (np.random.seed,)), ("random", (random.seed,)), ("both", (np.random.seed, random.seed)),
):
    twice = []
    for _ in range(2):
        for seed in seeds:
            seed(1)
        twice.append(AddGaussianSNR(p=1)(sound.copy(), sample_rate=RATE))
    same[name] = bool(np.array_equal(*twice))
expect(
    "AddGaussianSNR twice, seeded and equal", same,
    same == {"numpy": False, "random": False, "both": True},
)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
