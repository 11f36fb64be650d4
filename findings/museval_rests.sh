#!/usr/bin/env bash
# museval: where one stem rests, no stem is judged: the drums' SDR covers only the seconds in which the vocals sing.
#
# Expected: in a second without vocals the SDR of the vocals is undefined and left out; drums and bass, which play, are
#   judged there as anywhere. What a model writes for the vocals does not change the SDR of the same drums.
# Happens: one stem that is all zeros in a window makes all scores of all stems NaN there, and the median passes over
#   them. Drums that are at 20 dB while the vocals sing and at 0 dB in the rest of the song have an SDR of 20 dB; judged
#   without the vocals, with the same files, it is 0 dB. The zeros may be the model's as well: where the reference only
#   has faint noise, a gate that cuts the estimated vocals to zero there lifts drums and bass from 0 dB to 20 dB, and
#   the vocals from -60 dB to 40 dB.
# Why: a window is judged if no reference and no estimate is silent in it, which is one test for all stems.
# Matters: stems that end in digital silence (most of a song for vocals) against stems bounced with noise, dither or a
#   lossy format give other numbers for the other stems; a model that gates is not judged where it is in doubt; adding
#   or leaving out a stem changes the table of the others. The totals are medians of fewer windows, and nothing warns.
#   Judge each stem against the sum of the others (two stems), or count the windows that are NaN.
# Versions: museval 0.4.1 (the newest), numpy 2.4.6, scipy 1.17.1, pandas 2.3.3; Python 3.11.
# Source: museval/metrics.py (_any_source_silent in bss_eval); github.com/sigsep/sigsep-mus-eval issue 94 (open) is
#   about stems that rest all song long, which is an error; it takes the NaN to be of the silent stem alone.
# Output seen:
#   three stems, median SDR: {'vocals': 40.0, 'drums': 20.0, 'bass': 20.0}, windows without one: {'vocals': 7, 'drums': 7, 'bass': 7}
#   without the vocals: {'drums': 0.0, 'bass': 0.0}, windows without one: {'drums': 0, 'bass': 0}
#   the vocals rest at -120 dB: {'vocals': -60.0, 'drums': 0.0, 'bass': 0.0}, windows without one: {'vocals': 0, 'drums': 0, 'bass': 0}
#   and the model's vocals are cut to zero there: {'vocals': 40.0, 'drums': 20.0, 'bass': 20.0}, windows without one: {'vocals': 7, 'drums': 7, 'bass': 7}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  numpy==2.4.6 scipy==1.17.1 pandas==2.3.3 soundfile==0.14.0 simplejson jsonschema || exit 2
# Its other dependency, musdb, asks for FFmpeg on import; it reads a data set that is not used here.
venv/bin/pip install -qq --disable-pip-version-check --no-deps museval==0.4.1 || exit 2
cat > look.py <<'PY'
import sys
import types

import numpy as np

sys.modules["musdb"] = types.ModuleType("musdb")
import museval

WINDOW, WINDOWS, SUNG = 4000, 10, 3  # samples, windows of the song, windows with vocals
STEMS = ("vocals", "drums", "bass")
rng = np.random.default_rng(0)
changed = []


def noise(level):
    return level * rng.normal(size=(WINDOW * WINDOWS, 2))


def judged(references, estimates):
    """Return for each stem the median SDR in dB, and the number of windows that have none."""
    names = STEMS[-len(references) :]
    sdr, *_ = museval.evaluate(references, estimates, win=WINDOW, hop=WINDOW, padding=False)
    medians = {n: round(float(np.nanmedian(row)), 0) + 0.0 for n, row in zip(names, sdr, strict=True)}
    missing = {n: int(np.isnan(row).sum()) for n, row in zip(names, sdr, strict=True)}
    return medians, missing


def expect(label, found, wanted, windows):
    medians, missing = found
    print(f"{label}: {medians}, windows without one: {missing}")
    near = all(abs(medians[name] - wanted[name]) < 3 for name in medians)
    if not near or set(missing.values()) != {windows}:
        changed.append(label)


sings = (np.arange(WINDOW * WINDOWS) < SUNG * WINDOW)[:, None]
vocals, drums, bass = noise(0.1) * sings, noise(0.1), noise(0.1)
leak = np.where(sings, 0.1, 1.0)  # drums and bass are told apart while someone sings, and not else
estimates = np.stack([vocals + noise(0.001), drums + leak * bass, bass + leak * drums])
references = np.stack([vocals, drums, bass])
good, bad = dict(vocals=40, drums=20, bass=20), dict(vocals=-60, drums=0, bass=0)
rests = WINDOWS - SUNG

expect("three stems, median SDR", judged(references, estimates), good, rests)
expect("without the vocals", judged(references[1:], estimates[1:]), bad, 0)
faint = references + np.stack([noise(1e-6), noise(0), noise(0)])
expect("the vocals rest at -120 dB", judged(faint, estimates), bad, 0)
gated = estimates * np.stack([sings, np.ones_like(sings), np.ones_like(sings)])
label = "and the model's vocals are cut to zero there"
expect(label, judged(faint, gated), good, rests)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python -W ignore look.py
