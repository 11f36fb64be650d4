#!/usr/bin/env bash
# librosa.display.specshow(y_axis="mel") draws mel bands at other frequencies than those librosa.filters.mel
# gives them, in 0.11.0 and 1.0.0 alike.
#
# Expected: with the same n_mels, fmin, fmax and htk, the row of a band is drawn around the peak of its filter.
# Seen: filters.mel takes its peaks from the inner n of mel_frequencies(n + 2); specshow places n rows at
#   mel_frequencies(n), from fmin to fmax inclusive. The lowest bands are drawn too low, the highest too high,
#   by up to one band. Coordinates given as y_coords are drawn as given: what we do.
# Beside it: filters.mel gives the same bits in both versions; in float32 it rounds twice (triangles, then
#   times the area norm), so rounding float64 once gives other bits.
# Needs: Python 3.12 or newer (librosa 1.0 does), as PYTHON; pip with a registry.
set -euo pipefail
python=${PYTHON:-python3.12}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'P'
import hashlib
import warnings

import librosa
import librosa.display
import numpy as np
from matplotlib.figure import Figure

rate, size, bins = 16_000, 4096, 40
for low, high, htk in ((0.0, 8000.0, False), (50.0, 7800.0, True)):
    options = dict(fmin=low, fmax=high, htk=htk)
    bank = librosa.filters.mel(sr=rate, n_fft=size, n_mels=bins, dtype=np.float64, **options)
    peaks = bank.argmax(axis=1) * rate / size
    inner = librosa.mel_frequencies(bins + 2, **options)[1:-1]
    assert np.abs(peaks - inner).max() <= rate / size, "filters.mel: its peaks moved"
    mesh = librosa.display.specshow(
        np.zeros((bins, 3)), y_axis="mel", sr=rate, ax=Figure().subplots(), **options
    )
    edges = mesh.get_coordinates()[:, 0, 1]  # bounds of the rows
    drawn = (edges[1:] + edges[:-1]) / 2
    mel = lambda hz: librosa.hz_to_mel(hz, htk=htk)
    off = (mel(np.maximum(drawn, 0)) - mel(inner)) / (mel(inner[1]) - mel(inner[0]))
    print(f"librosa {librosa.__version__}, htk={htk}: rows are drawn {off[1]:+.2f} bands off at the lower end,")
    print(f"  {off[-2]:+.2f} at the upper; second band {inner[1]:.0f} Hz drawn at {drawn[1]:.0f}, last but one {inner[-2]:.0f} at {drawn[-2]:.0f}")
    assert -1.2 < off[1] < -0.6 and 0.6 < off[-2] < 1.2, "CHANGED: specshow places mel bands elsewhere"
twice = librosa.filters.mel(sr=48_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000)
exact = librosa.filters.mel(sr=48_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, dtype=np.float64)
once = exact.astype(np.float32)
digests = [hashlib.sha256((b + np.float32(0)).tobytes()).hexdigest()[:16] for b in (twice, once)]
print(f"filters.mel: {(twice != once).sum()} of {(once > 0).sum()} weights differ when rounded once; bits {digests}")
assert digests == ["a60e6662c007a397", "f921577c1b62b21f"], "CHANGED: bits of filters.mel"
P
for version in 0.11.0 1.0.0; do
  "$python" -m venv "$work/$version"
  "$work/$version/bin/pip" install -q "librosa==$version" "matplotlib==3.11.2" "numpy==2.4.6" setuptools
  MPLCONFIGDIR=$work "$work/$version/bin/python" -W ignore "$work/look.py"
done
echo "as found"
