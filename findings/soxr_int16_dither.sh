#!/usr/bin/env bash
# soxr adds noise to int16 audio: silence comes out noisy, and blocks give other samples than one call.
#
# Expected: int16 audio takes the same path as float32 and is rounded at the end. So digital silence stays
#   zero, equal rates give the input back, equal channels stay equal, and a stream fed in blocks gives the
#   samples of one call (it does so to the bit for float32).
# Happens: the int16 output is dithered by up to 1 step, at every quality setting. A fifth to a quarter of the
#   samples of silence are not zero; 16 to 16 kHz changes a quarter of the samples; two equal channels come out
#   different; and since the noise is seeded anew for every block, by its length and its middle sample, 45 % of
#   the samples depend on the block size. One call on a whole clip repeats exactly, so a test that runs it twice
#   sees nothing; streams in blocks so small that some calls give no samples do not repeat at all (printed below,
#   not checked, since it depends on what lies in memory). int32 and float32 are free of all this.
# Matters: data sets prepared as int16, silence and duplicate detection, hashes of clips, mid/side of mono
#   files, and any comparison of streamed with whole-file features. Resample float32 and round yourself.
# Versions: soxr 1.1.0, numpy 2.4.6; Python 3.11.
# Source: libsoxr's public header, where int16 output is dithered unless a flag of the output specification forbids
#   it; the rounding header of the fork that the Python package builds, for the seed; the package's documentation,
#   which lists int16 as a supported type and does not mention noise.
# Output seen:
#   int16: share of silence that is not zero: 0.233
#   float32: share of silence that is not zero: 0.0
#   int16, equal rates: share of samples changed: 0.25
#   int16, two equal channels: share of samples that differ: 0.45
#   int16, blocks of 1000 against one call: share that differs: 0.446
#   float32, blocks of 1000 against one call: share that differs: 0.0
#   int16, 10 streams of the same audio in blocks of 500, different results: 8 (5 to 10 from run to run)
#   float32, 10 streams of the same audio in blocks of 500, different results: 1
#   int16 error (steps, root mean square), and of rounding alone: [0.5, 0.29]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check soxr==1.1.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import numpy as np
import soxr

IN, OUT = 44100, 16000
rng = np.random.default_rng(0)
noise = (rng.standard_normal(IN) * 3000).astype(np.int16)  # 1 s
changed = []


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if not wanted:
        changed.append(label)


def stream(audio, block):
    resampler = soxr.ResampleStream(IN, OUT, 1, dtype=audio.dtype)
    starts = range(0, len(audio), block)
    return np.concatenate(
        [
            resampler.resample_chunk(audio[s : s + block], last=s + block >= len(audio))
            for s in starts
        ]
    )


def share(mask):
    return round(float(np.mean(mask)), 3)


for kind in (np.int16, np.int32, np.float32):
    silence = soxr.resample(np.zeros(IN, kind), IN, OUT)
    loud = share(silence != 0)
    expect(
        f"{kind.__name__}: share of silence that is not zero",
        loud,
        loud > 0.2 if kind is np.int16 else loud == 0,
    )
for quality in ("QQ", "LQ", "MQ", "HQ", "VHQ"):
    values = np.unique(soxr.resample(np.zeros(IN, np.int16), IN, OUT, quality=quality)).tolist()
    expect(f"int16 silence at {quality}", values, values == [-1, 0, 1])

same = share(soxr.resample(noise, OUT, OUT) != noise)
expect("int16, equal rates: share of samples changed", same, 0.2 < same < 0.3)
same = share(soxr.resample(noise.astype(np.float32), OUT, OUT) != noise)
expect("float32, equal rates: share of samples changed", same, same == 0)

pair = soxr.resample(np.stack([noise, noise], axis=1), IN, OUT)
pair = share(pair[:, 0] != pair[:, 1])
expect("int16, two equal channels: share of samples that differ", pair, pair > 0.3)

whole = soxr.resample(noise, IN, OUT)
again = soxr.resample(noise, IN, OUT)
expect("int16, the same call twice is equal", bool((whole == again).all()), (whole == again).all())
for block, low, high in ((1000, 0.3, 0.6), (4000, 0.3, 0.6), (IN, 0, 0)):
    other = share(stream(noise, block) != whole)
    expect(
        f"int16, blocks of {block} against one call: share that differs",
        other,
        low <= other <= high,
    )
exact = noise.astype(np.float32)
other = share(stream(exact, 1000) != soxr.resample(exact, IN, OUT))
expect("float32, blocks of 1000 against one call: share that differs", other, other == 0)
repeats = {}
for kind in (np.int16, np.float32):
    clutter, results = [], set()
    for size in rng.integers(1, 2000, 10):
        clutter.append(bytearray(int(size) * 100))  # what a real program does between two clips
        results.add(stream(noise.astype(kind), 500).tobytes())
    repeats[kind] = len(results) == 1
    print(
        f"{kind.__name__}, 10 streams of the same audio in blocks of 500, different results: {len(results)}"
    )
expect("float32, streams repeat", repeats[np.float32], repeats[np.float32])
error = whole - soxr.resample(exact, IN, OUT)
rounding = np.rint(soxr.resample(exact, IN, OUT)) - soxr.resample(exact, IN, OUT)
expect(
    "int16 error (steps, root mean square), and of rounding alone",
    [round(float(np.std(e)), 2) for e in (error, rounding)],
    np.std(error) > 1.5 * np.std(rounding),
)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
