#!/usr/bin/env bash
# libsndfile drops the end of an MP3 that has no Xing header, and reads the second block of a VOC file as noise.
#
# Expected: all frames of the stream are decoded, as FFmpeg and mpg123 itself do; a length is not known before.
# Happens: `frames` is a guess, the file's bytes over the size of its first frames, and reading stops there. Where
#   the first frames are larger than the rest (variable bit rate), the end is missing, without an error:
#   44 % of the clip below. Where they are smaller, `frames` is too large, and fewer samples come. A recording of
#   a radio stream, or the output of `ffmpeg -write_xing 0`, is such a file.
#   Likewise a Creative Voice file in several blocks, as FFmpeg writes all of them: the 4 bytes that head
#   each block come out as 2 samples, and what follows is later by as many.
# Matters: silent loss in every data set of such files; `frames` beside what was read tells of too long a guess
#   only. Silent frames of the lowest bit rate put in front make the guess too long, and all of it is read.
# Versions: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6; Python 3.11.
# Source: mpg123's documentation of mpg123_length, by which it is an estimate unless the file was scanned or has
#   a header with its length; libsndfile takes that for the length of the file. Creative's description of VOC
#   blocks: type 2 goes on with the sound of the block before.
# Output seen:
#   with its header: stated 4800 read 4800
#   without: frames in the stream 6336 stated 3528 read 3528
#   without, behind 3 silent frames: read 6336 behind them
#   VOC of two blocks: first wrong sample 500 , the true ones come later by 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import io
import sys

import numpy as np
import soundfile

changed = []


def read(content):
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        stated = file.frames
        return stated, file.read(dtype="int16")


def expect(holds, label, *seen):
    print(label + ":", *seen)
    if not holds:
        changed.append(label)


RATE = 16000
noise = np.random.default_rng(0).uniform(-0.3, 0.3, 4800).cumsum() / 20
clip = (noise - noise.mean()).clip(-0.9, 0.9)
file = io.BytesIO()
soundfile.write(file, clip, RATE, format="MP3")
whole = file.getvalue()
stated, audio = read(whole)
expect(stated == len(audio) == 4800, "with its header", "stated", stated, "read", len(audio))

RATES = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]  # MPEG 2, layer III, kbit/s


def frames(content):
    at = content.index(b"\xff\xf3")
    while at + 4 <= len(content) and content[at : at + 2] == b"\xff\xf3":
        size = 72 * 1000 * RATES[content[at + 2] >> 4] // RATE + (content[at + 2] >> 1 & 1)
        yield content[at : at + size]
        at += size


header, *rest = frames(whole)
assert b"Xing" in header or b"Info" in header
bare, samples = b"".join(rest), 576 * len(rest)
stated, audio = read(bare)
label = "without", "frames in the stream", samples, "stated", stated, "read", len(audio)
expect(len(audio) < 0.6 * samples, *label)
silent = rest[0][:2] + bytes([0x18]) + rest[0][3:4]  # 8 kbit/s
led = 3 * silent.ljust(72 * 8000 // RATE, b"\0") + bare
read_all = len(read(led)[1]) - 3 * 576
expect(read_all == samples, "without, behind 3 silent frames", "read", read_all, "behind them")

ramp = np.arange(1, 1001, dtype="<i2")


def block(kind, content):
    return bytes([kind]) + len(content).to_bytes(3, "little") + content


file = io.BytesIO()
soundfile.write(file, ramp, RATE, format="VOC", subtype="PCM_16")
voc = file.getvalue()
head = voc[30:42]  # of block type 9: rate, bits, channels, codec
half = ramp[:500].tobytes(), ramp[500:].tobytes()
two = voc[:26] + block(9, head + half[0]) + block(2, half[1]) + b"\0"
found = read(two)[1]
wrong = int(np.argmax(found[:1000] != ramp[: len(found)]))
later = int(np.flatnonzero(found == 501)[0]) - 500
expect(
    (wrong, later) == (500, 2),
    "VOC of two blocks",
    "first wrong sample", wrong, ", the true ones come later by", later,
)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
