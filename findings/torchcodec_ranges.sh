#!/usr/bin/env bash
# torchcodec: a range of an MP3 begins 25 ms before its time in the whole, and AAC is another sound each time it is read.
#
# Expected: get_samples_played_in_range(1, 2) is that second of get_all_samples(), as of WAV, FLAC and Vorbis; and a
#   file read twice gives the same samples twice.
# Happens: with an MP3 the whole begins at the first sample of the sound (the encoder's 1,105 samples are cut off), but
#   ranges count from before them: every range comes 1,105 samples early, and [0, 1) is 1,105 samples short. The whole
#   says so in its pts_seconds (0.025), a range does not: asked for 1 s, it says 1 s.
#   With AAC (mp4, m4a, .aac), where the encoder left noise to the decoder, FFmpeg draws that noise from a generator
#   that a seek does not set back. So get_all_samples() called twice on one decoder gives two sounds, here 20 dB
#   apart; so do seconds read one after the other beside the whole, and PyAV after seek(0). A new decoder begins anew.
# Matters: events and segments annotated in seconds (by what librosa, soundfile or torchaudio.load read) are cut
#   25 ms early out of MP3s, 2.5 frames of 10 ms, and a first window of a fixed length is too short. Clips of AudioSet
#   and the like, cut out of AAC, are not those of the same file read whole, nor those of the next epoch where a
#   decoder is kept; caches, hashes and "the same crop" comparisons differ. Read the whole with a new
#   decoder and slice its samples.
# Versions: torchcodec 0.13.0, torch 2.13.0, av 18.1.0 (FFmpeg 8.1), soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6;
#   Python 3.11, Linux. torchcodec 0.17.0 with torch 2.14.1 does all of this too, and there a range of AAC or AC-3
#   differs from the whole with a new decoder as well, since 0.17.0 seeks to shortly before it
#   (TORCHCODEC=0.17.0 TORCH=2.14.1; its wheel on PyPI needs CUDA's libraries, 5 GB).
# Source: torchcodec's documentation shows that an MP3 may begin at 0.025 s and calls it a property of the file; for
#   AAC: torchcodec#1449 (ranges since then start a few frames before), bestsource#144 (decoded AAC depends on
#   where decoding began); in FFmpeg, perceptual noise substitution in the AAC decoder.
# Output seen:
#   wav: the second at 1 s comes early by 0 samples; [0, 1) has 44100; the whole twice: equal
#   ogg: the second at 1 s comes early by 0 samples; [0, 1) has 44100; the whole twice: equal
#   mp3: the second at 1 s comes early by 1105 samples; [0, 1) has 42995; the whole twice: equal
#   mp3: whole as soundfile reads it: True ; the range says it begins at 1.0
#   aac without noise substitution: the whole twice on one decoder: equal
#   aac: the whole twice on one decoder: 20 dB apart ; new decoders: equal
#   aac: five seconds one after the other, beside the whole: 22 dB
#   aac: PyAV, the whole again after seek(0): 20 dB
#   aac: one range with a new decoder, beside the whole: equal (0.17.0: 20 dB apart)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check "torchcodec==${TORCHCODEC:-0.13.0}" "torch==${TORCH:-2.13.0}" \
  av==18.1.0 soundfile==0.14.0 numpy==2.4.6 || exit 2
# torchcodec wants FFmpeg's libraries by their usual names; PyAV's wheel has them under others.
own=$(venv/bin/python -c 'import av, pathlib; print(pathlib.Path(av.__file__).parent.with_name("av.libs"))')
mkdir ffmpeg
for file in "$own"/lib{av,sw}*.so.*; do
  name=$(basename "$file")
  major=${name#*.so.}
  ln -s "$file" "ffmpeg/${name%%-*}.so.${major%%.*}"
done
cat > look.py <<'PY'
import io
import sys
from fractions import Fraction

import av
import numpy as np
import soundfile
from torchcodec.decoders import AudioDecoder

RATE = 44100
changed = []


def expect(holds, *line):
    print(*line)
    if not holds:
        changed.append(" ".join(map(str, line)))


def apart(a, b):
    """Return how far two sounds are apart: the power of b over that of the difference, dB."""
    error = np.mean((a - b) ** 2)
    return round(10 * np.log10(np.mean(b**2) / error)) if error else np.inf


def said(decibels):
    return "equal" if decibels > 120 else f"{decibels} dB apart"


def whole(decoder):
    return decoder.get_all_samples().data[0].numpy()


def part(decoder, start, stop):
    return decoder.get_samples_played_in_range(start, stop).data[0].numpy()


def encoded(**options):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        track = container.add_stream("aac", rate=RATE, options=options)
        track.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for some in (frame, None):
            for packet in track.encode(some):
                container.mux(packet)
    return file.getvalue()


time = np.arange(6 * RATE) / RATE
noise = np.random.default_rng(0).standard_normal(len(time))
noise = np.convolve(noise, np.ones(8) / 8, "same") * 0.2 * (1 + np.sin(2 * np.pi * 1.3 * time))
sound = (noise + 0.2 * np.sin(2 * np.pi * (300 + 200 * time) * time)).clip(-0.99, 0.99)

for kind, early in (("wav", 0), ("ogg", 0), ("mp3", 1105)):
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format=kind)
    content = file.getvalue()
    decoder = AudioDecoder(content)
    all_of_it = whole(decoder)
    twice = apart(whole(decoder), all_of_it)
    second = part(AudioDecoder(content), 1, 2)
    found = next(n for n in range(2000) if apart(second, all_of_it[RATE - n :][:RATE]) > 60)
    first = len(part(AudioDecoder(content), 0, 1))
    expect(
        (found, first) == (early, RATE - early) and twice > 120,
        f"{kind}: the second at 1 s comes early by {found} samples; [0, 1) has {first};",
        f"the whole twice: {said(twice)}",
    )
as_read = soundfile.read(io.BytesIO(content), dtype="float32")[0]
same = len(as_read) == len(all_of_it) and np.abs(as_read - all_of_it).max() < 1e-4
begins = AudioDecoder(content).get_samples_played_in_range(1, 2).pts_seconds
expect(
    same and begins == 1,
    "mp3: whole as soundfile reads it:", bool(same), "; the range says it begins at", begins,
)

decoder = AudioDecoder(encoded(aac_pns="0"))
all_of_it = whole(decoder)
without = apart(whole(decoder), all_of_it)
expect(without > 120, "aac without noise substitution: the whole twice on one decoder:", said(without))
content = encoded()
decoder = AudioDecoder(content)
all_of_it = whole(decoder)
again, new = apart(whole(decoder), all_of_it), apart(whole(AudioDecoder(content)), all_of_it)
expect(
    again < 30 and new > 120,
    f"aac: the whole twice on one decoder: {said(again)} ; new decoders: {said(new)}",
)
decoder = AudioDecoder(content)
joined = np.concatenate([part(decoder, k, k + 1) for k in range(5)])
beside = apart(joined, all_of_it[: len(joined)])
expect(beside < 30, "aac: five seconds one after the other, beside the whole:", beside, "dB")
with av.open(io.BytesIO(content)) as container:
    times = []
    for _ in range(2):
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        times.append(np.concatenate(frames))
        container.seek(0)
same = apart(times[1], times[0])
expect(same < 30, "aac: PyAV, the whole again after seek(0):", same, "dB")
one = part(AudioDecoder(content), 2.345, 3.345)
print("aac: one range with a new decoder, beside the whole:", said(apart(one, all_of_it[round(2.345 * RATE) :][:RATE])))
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
LD_LIBRARY_PATH="$PWD/ffmpeg:$own${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" venv/bin/python look.py
