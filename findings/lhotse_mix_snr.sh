#!/usr/bin/env bash
# lhotse: the noise of a mixture changes its level when the mixture is cut, and one part sets it when parts are joined.
#
# Expected: `cut.mix(noise, snr=10)` fixes the noise's level; a window of the mixture is that stretch of its sound, and
#   windows joined again are the mixture. Over cuts joined by `append` the 10 dB hold for the joined cut: mix's
#   description says that the SNR is that of the mixed-in cut with respect to the reference cut.
# Happens: the level is worked out whenever sound is loaded, from what is left of the two tracks. Each window has its
#   own 10 dB, so in speech of changing loudness the noise is 27 dB too low in one window and 3 dB too high in the next,
#   and windows joined again are another sound. In a joined cut the first part alone is the reference: a quiet part
#   and a loud one at "10 dB" have 37 dB together, and the order of the parts changes the noise. Mixing into a
#   mixture goes the same way: the first track counts, what was mixed in before does not. Nothing warns.
# Matters: noise made before windows of training or evaluation (cut_into_windows, truncate), sessions put together of
#   utterances, and tables of results by SNR: the level noted in the manifest is not that of the sound. Cut first and
#   mix after it, or store the mixture as audio (save_audio) before it is cut.
# Versions: lhotse 1.33.0, torch 2.13.0, numpy 2.4.6; urllib3 2.8.0, which lhotse imports and does not ask for; Python
#   3.11.
# Source: lhotse/cut/mixed.py (MixedCut.load_audio, _get_snr_reference_track, truncate keeps the tracks' snr),
#   lhotse/audio/mixer.py (AudioMixer.reference_energy), the description of `mix` in lhotse/cut/set.py.
# Output seen:
#   noise in the whole mixture, dB against it: 0.0
#   noise in its windows of 1 s, dB against the whole: [-26.5, 3.0, -17.1, 3.0]
#   stored first, then the same windows: [-0.0, 0.0, 0.0, 0.0]
#   windows joined again, noise against the whole: [-26.5, -26.5, -26.6, -26.5]
#   SNR of noise mixed at 10 dB: one cut 10.0, the same joined from two 36.5, the loud part first 7.0
#   SNR of a tone mixed at 0 dB into speech with noise: 20.0, against the speech alone 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check lhotse==1.33.0 torch==2.13.0 numpy==2.4.6 \
  urllib3==2.8.0 || exit 2
cat > look.py <<'PY'
import sys
import warnings

import numpy as np
import soundfile
from lhotse import CutSet, Recording

RATE = 16_000
warnings.simplefilter("error")
changed = []


def expect(label, seen, wanted, within=0.5):
    print(f"{label}: {seen}")
    if not np.allclose(seen, wanted, atol=within):
        changed.append(label)


def stored(name, sound):
    soundfile.write(f"{name}.wav", sound, RATE, subtype="FLOAT")
    return Recording.from_file(f"{name}.wav").to_cut()


def parts(sound, *tracks):
    """Return each of the known `tracks` [S] at the level that it has in `sound` [S]."""
    columns = np.stack(tracks, 1).astype(np.float64)
    gains, *_ = np.linalg.lstsq(columns, sound.astype(np.float64), rcond=None)
    return list((columns * gains).T)


def decibels(one, other):
    return round(float(10 * np.log10((one**2).mean() / (other**2).mean())), 1)


time = np.arange(4 * RATE) / RATE
loudness = np.repeat([0.01, 0.3, 0.03, 0.3], RATE)
voice = (loudness * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
hiss = (0.1 * np.random.default_rng(0).standard_normal(4 * RATE)).clip(-1, 1).astype(np.float32)
tone = (0.2 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
speech, noise, beep = stored("voice", voice), stored("hiss", hiss), stored("tone", tone)
seconds = [slice(k * RATE, (k + 1) * RATE) for k in range(4)]


def levels(sounds, tracks):
    """Return the level of the noise in each second, in dB against that of the whole mixture."""
    return [
        decibels(parts(sound, voice[at], hiss[at])[1], tracks[1][at])
        for sound, at in zip(sounds, seconds, strict=True)
    ]


mixture = speech.mix(noise, snr=10)
whole = mixture.load_audio()[0]
tracks = parts(whole, voice, hiss)
expect("noise in the whole mixture, dB against it", decibels(tracks[1], parts(whole, voice, hiss)[1]), 0)
windows = list(CutSet.from_cuts([mixture]).cut_into_windows(1.0))
cut = [window.load_audio()[0] for window in windows]
wanted = [-26.5, 3.0, -17.1, 3.0]
expect("noise in its windows of 1 s, dB against the whole", levels(cut, tracks), wanted)
fixed = CutSet.from_cuts([mixture.save_audio("mixture.flac")]).cut_into_windows(1.0)
sound = [window.load_audio()[0] for window in fixed]
expect("stored first, then the same windows", levels(sound, tracks), [0] * 4)
joined = windows[0]
for window in windows[1:]:
    joined = joined.append(window)
sound = joined.load_audio()[0]
again = levels([sound[at] for at in seconds], tracks)
expect("windows joined again, noise against the whole", again, [-26.5] * 4)


def ratio(cut, spoken):
    signal, other = parts(cut.mix(noise.truncate(duration=2.0), snr=10).load_audio()[0], spoken, hiss[: 2 * RATE])
    return decibels(signal, other)


quiet, loud = speech.truncate(duration=1.0), speech.truncate(offset=1.0, duration=1.0)
first, second = voice[seconds[0]], voice[seconds[1]]
ratios = (
    ratio(speech.truncate(duration=2.0), voice[: 2 * RATE]),
    ratio(quiet.append(loud), voice[: 2 * RATE]),
    ratio(loud.append(quiet), np.concatenate([second, first])),
)
print("SNR of noise mixed at 10 dB: one cut {}, the same joined from two {}, the loud part first {}".format(*ratios))
if not np.allclose(ratios, (10, 36.5, 7.0), atol=0.5):
    changed.append("joined cuts")
sound = speech.mix(noise, snr=-20).mix(beep, snr=0).load_audio()[0]
spoken, hissed, beeped = parts(sound, voice, hiss, tone)
both = decibels(spoken + hissed, beeped), decibels(spoken, beeped)
print("SNR of a tone mixed at 0 dB into speech with noise: {}, against the speech alone {}".format(*both))
if not np.allclose(both, (20, 0), atol=0.5):
    changed.append("mixture")
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
