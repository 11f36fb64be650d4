#!/usr/bin/env bash
# JAX: welch without nperseg averages nothing, coherence is 1 everywhere, and istft takes noverlap=0 for one half.
#
# Expected: `jax.scipy.signal.welch(x, rate)` is SciPy's averaged spectrum of segments of 256 samples (so says JAX's
#   page); `istft(..., noverlap=0)` undoes `stft(..., noverlap=0)`.
# Happens: without nperseg, welch and csd take the whole signal as one segment. Ten seconds at 16 kHz give 80,001 bins
#   for 129 and no average: the bins of white noise vary by as much as their mean however long the clip is (SciPy's
#   by 3 %), average="median" changes nothing, and the coherence of two independent noises, csd against both welch,
#   is 1 in every bin (SciPy: 0.001). With nperseg given the two libraries agree.
#   istft with noverlap=0 lays the segments over each other by half, as if it had not been given: half as many
#   samples, and an error larger than the signal. Any other overlap is right, and so is stft.
# Why: nperseg=None becomes the input's length for windows given by name, where SciPy writes 256; istft asks
#   `noverlap or nperseg // 2`, and 0 counts as nothing.
# Matters: noise floors, long-term spectra and coherences taken over from SciPy are wrong with nothing but the number
#   of bins to show it, and the mean over bins is right. Frames without overlap are those of codecs and block
#   transforms. Give nperseg always; for noverlap=0 use jnp.fft.irfft and reshape.
# Versions: jax 0.12.0.1, jaxlib 0.12.0.1, scipy 1.18.1, numpy 2.5.5; Python 3.12.
# Source: https://github.com/jax-ml/jax/issues/40012 (number of bins) and https://github.com/jax-ml/jax/issues/38315
#   (istft), both open; jax/_src/third_party/scipy/signal_helper.py (_triage_segments), jax/_src/scipy/signal.py.
# Output seen:
#   scipy: 129 bins, spread 0.034 of the mean (median 0.045), level 1.0, coherence 0.001
#   jax: 80001 bins, spread 0.999 of the mean (median 0.999), level 1.0, coherence 1.0
#   jax, nperseg=256: 129 bins, spread 0.034 of the mean (median 0.045), level 1.0, coherence 0.001
#   scipy, noverlap 0: 1792 samples of 1600, error 0.0; jax: 896, error 1.1
#   scipy, noverlap 1: 1785 samples of 1600, error 0.0; jax: 1785, error 0.0
#   scipy, noverlap 128: 1664 samples of 1600, error 0.0; jax: 1664, error 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH XLA_FLAGS JAX_ENABLE_X64
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 scipy==1.18.1 numpy==2.5.5 || exit 2
cat > look.py <<'PY'
import sys

import jax.scipy.signal
import numpy as np
import scipy.signal

RATE = 16_000
changed = []
one, other = np.random.default_rng(0).standard_normal((2, 10 * RATE)).astype(np.float32)


def spread(spectrum):
    return round(float(spectrum.std() / spectrum.mean()), 3)


def spectrum(library, **options):
    """Return bins, spreads of mean and median, level and mean coherence of two white noises."""
    of_one, of_other = (np.asarray(library.welch(sound, RATE, **options)[1]) for sound in (one, other))
    median = np.asarray(library.welch(one, RATE, average="median", **options)[1])
    cross = np.abs(np.asarray(library.csd(one, other, RATE, **options)[1])) ** 2
    level = round(float(of_one[1:-1].mean()) * RATE / 2, 1)
    coherence = round(float(np.mean(cross / of_one / of_other)), 3)
    return len(of_one), spread(of_one[1:-1]), spread(median[1:-1]), level, coherence


def returned(library, overlap):
    """Return samples and error (RMS, of a signal whose RMS is 1) of 1600 samples after stft and istft."""
    window = "hann" if overlap else "boxcar"
    options = {"nperseg": 256, "noverlap": overlap, "window": window}
    sound = np.asarray(library.istft(library.stft(one[:1600], **options)[2], **options)[1])
    count = min(len(sound), 1600)
    return len(sound), round(float(np.sqrt(np.mean((sound[:count] - one[:count]) ** 2))), 1)


theirs, ours = spectrum(scipy.signal), spectrum(jax.scipy.signal)
given = spectrum(jax.scipy.signal, nperseg=256)
for name, seen in (("scipy", theirs), ("jax", ours), ("jax, nperseg=256", given)):
    bins, mean, median, level, coherence = seen
    print(f"{name}: {bins} bins, spread {mean} of the mean (median {median}), level {level}, coherence {coherence}")
if theirs[0] != 129 or theirs[1] > 0.1 or theirs[4] > 0.01:
    changed.append("scipy's spectrum")
if ours[0] != 80_001 or min(ours[1:3]) < 0.9 or abs(ours[3] - 1) > 0.05 or ours[4] != 1:
    changed.append("jax's spectrum")
if not np.allclose(given, theirs, atol=0.002):
    changed.append("jax's spectrum with nperseg")
for overlap in (0, 1, 128):
    theirs, ours = returned(scipy.signal, overlap), returned(jax.scipy.signal, overlap)
    print(
        f"scipy, noverlap {overlap}: {theirs[0]} samples of 1600, error {theirs[1]}; "
        f"jax: {ours[0]}, error {ours[1]}"
    )
    wanted = (theirs[0] // 2, 1.1) if overlap == 0 else theirs
    if theirs[1] != 0 or ours != wanted:
        changed.append(f"noverlap {overlap}")
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
JAX_PLATFORMS=cpu venv/bin/python look.py
