#!/usr/bin/env bash
# pedalboard reads MP3s with the encoder's delay and padding in them, and resamples files with a shift of its own.
#
# Expected: an MP3 with LAME's tag has the length and the times of what was encoded; libsndfile and FFmpeg give that, to
#   the sample. `AudioFile(path).resampled_to(16000)` gives the sound at 16 kHz at the times it had.
# Happens: the MP3 comes with 1,105 samples before its first (25 ms at 44.1 kHz, 69 ms at 16 kHz) and its last frame
#   filled up, also if pedalboard wrote it itself; `frames` and `duration` count them. Its Ogg and FLAC files are exact.
#   `resampled_to` shifts by up to 0.44 of a sample, forwards or backwards, by the ratio alone (0.22 from 44.1 kHz,
#   0.33 from 48 kHz, -0.33 from 24 kHz, whose last sample is also missing; 0 from 8 and 32 kHz); soxr's shift is 0.
# Why: the decoder under pedalboard's reader hands out all frames of the stream; the delay and the padding that the tag
#   states are not taken off. The resampler's delay is made up for in whole samples.
# Matters: event labels, alignments and codec targets made with one library and read with the other are 69 ms apart for
#   16 kHz MP3s, more than a frame; differences between resampled channels or versions of a file do not cancel.
# Versions: pedalboard 0.9.26, soundfile 0.14.0, av 18.1.0, soxr 1.1.0, numpy 2.4.6; Python 3.11.
# Source: docstring of ReadableAudioFile.frames, which speaks of MP3s without the tag's header only; the LAME tag's
#   description (delay 576 samples at the encoder, 529 at the decoder); pedalboard/io/ResampledReadableAudioFile.h.
# Output seen:
#   MP3 of 16000 samples at 16000 Hz by libsndfile: pedalboard 17280, late by 1105; soundfile 16000, 0; av 16000
#   MP3 of 44100 samples at 44100 Hz by libsndfile: pedalboard 46080, late by 1105; soundfile 44100, 0; av 44100
#   MP3 of 16000 samples at 16000 Hz by pedalboard: pedalboard 17280, late by 1105; soundfile 16000, 0; av 16000
#   MP3 of 44100 samples at 44100 Hz by pedalboard: pedalboard 46080, late by 1105; soundfile 44100, 0; av 44100
#   from 8000 Hz to 16000: pedalboard 32000 samples, shift 0.00; soxr 32000, 0.00
#   from 22050 Hz to 16000: pedalboard 32000 samples, shift 0.44; soxr 32000, 0.00
#   from 24000 Hz to 16000: pedalboard 31999 samples, shift -0.33; soxr 32000, 0.00
#   from 32000 Hz to 16000: pedalboard 32000 samples, shift 0.00; soxr 32000, 0.00
#   from 44100 Hz to 16000: pedalboard 32000 samples, shift 0.22; soxr 32000, 0.00
#   from 48000 Hz to 16000: pedalboard 32000 samples, shift 0.33; soxr 32000, 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
  pedalboard==0.9.26 soundfile==0.14.0 av==18.1.0 soxr==1.1.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import av
import numpy as np
import soundfile
import soxr
from pedalboard.io import AudioFile

changed = []


def expect(label, ok):
    print(label)
    if not ok:
        changed.append(label)


def late(heard, sound):
    """Samples by which `sound`, white noise, is late in `heard`."""
    return int(np.argmax(np.correlate(heard[:10_000], sound[:8000], "full"))) - 7999


def write(writer, sound, rate):
    if writer == "libsndfile":
        soundfile.write("sound.mp3", sound, rate)
    else:
        with AudioFile("sound.mp3", "w", rate, 1) as file:
            file.write(sound)


def read_all(path, rate=None):
    with AudioFile(path) as file:
        file = file if rate is None else file.resampled_to(rate)
        return file.read(file.frames)[0]


draw = np.random.default_rng(0)
for writer in ("libsndfile", "pedalboard"):
    for rate in (16_000, 44_100):
        sound = (0.05 * draw.standard_normal(rate)).astype("float32")
        write(writer, sound, rate)
        ours = read_all("sound.mp3")
        other = soundfile.read("sound.mp3", dtype="float32")[0]
        with av.open("sound.mp3") as container:
            length = sum(frame.samples for frame in container.decode(audio=0))
        shift, other_shift = late(ours, sound), late(other, sound)
        expect(
            f"MP3 of {rate} samples at {rate} Hz by {writer}: pedalboard {len(ours)}, late by {shift}; "
            f"soundfile {len(other)}, {other_shift}; av {length}",
            shift == 1105
            and len(ours) >= rate + 1105
            and len(other) == length == rate
            and other_shift == 0,
        )


def shift_of(sound):
    """Samples at 16 kHz by which a 440 Hz sine that began at phase 0 is late."""
    turn = 2 * np.pi * 440 / 16_000
    times = np.arange(4000, 28_000)
    phase = np.angle((sound[times] * np.exp(-1j * turn * times)).sum())
    return round(float(-(phase + np.pi / 2) / turn), 2) + 0.0


WANTED = {8000: 0, 22_050: 0.44, 24_000: -0.33, 32_000: 0, 44_100: 0.22, 48_000: 0.33}
for rate, wanted in WANTED.items():
    sine = (0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype("float32")
    soundfile.write("sine.wav", sine, rate, "FLOAT")
    ours, other = read_all("sine.wav", 16_000), soxr.resample(sine, rate, 16_000)
    expect(
        f"from {rate} Hz to 16000: pedalboard {len(ours)} samples, shift {shift_of(ours):.2f}; "
        f"soxr {len(other)}, {shift_of(other):.2f}",
        abs(shift_of(ours) - wanted) < 0.02 and abs(shift_of(other)) < 0.01,
    )
if changed:
    sys.exit("changed: " + "; ".join(changed))
PY
venv/bin/python look.py
