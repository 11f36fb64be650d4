#!/usr/bin/env bash
# libsndfile cannot read an MP3 beside which macOS has left its file "._NAME", nor one in memory where "._" lies around.
#
# Expected: what lies beside a file has no say in whether it can be read; other formats than MP3 are read.
# Happens: an MP3 that begins with its first frame, without an ID3 tag, is told by none of libsndfile's marks. Before
#   it asks mpg123, it looks for the resource fork of a Sound Designer II file: "._NAME" in the same folder. Any
#   such file, an empty one too, ends the search with "bad resource fork" or "bad data offset". For what is read
#   from memory the name is empty, so that "._" in the working directory makes every such MP3 unreadable; and writing
#   SD2 to memory puts that file there.
# Matters: macOS writes "._NAME" beside every file that is copied to a foreign disk (AppleDouble), and archives keep
#   them: of such a collection of MP3s nothing can be read by path, through soundfile and all that builds on it.
#   An empty ID3 tag in front of the stream, or an open file instead of its name, is a way around.
# Versions: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6; Python 3.11.
# Source: libsndfile's src/sndfile.c, whose guess_file_type ends with try_resource_fork, and src/file_io.c, where
#   psf_open_rsrc tries NAME/rsrc, ._NAME and .AppleDouble/NAME (as Netatalk's file servers keep them).
# Output seen:
#   alone: MP3 4800
#   beside ._a.mp3, by its name: refused, bad resource fork
#   beside ._a.mp3, as an open file: MP3 4800
#   beside .AppleDouble/a.mp3: refused, bad resource fork
#   beside ._a.wav: WAV 4800
#   memory, ._ in the working directory: refused, bad data offset
#   the same behind an empty ID3 tag: MP3 4800
#   SD2 written to memory leaves in the working directory: ._
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6 || exit 2
mkdir sound
cat > look.py <<'PY'
import io
import os
import sys

import numpy as np
import soundfile

changed = []


def look(label, wanted, source):
    try:
        with soundfile.SoundFile(source) as file:
            seen = f"{file.format} {file.frames}"
    except soundfile.LibsndfileError as error:
        seen = f"refused, {error.error_string.removeprefix('Error : ').rstrip('.')}"
    print(f"{label}: {seen}")
    if seen != wanted:
        changed.append(label)


os.chdir("sound")
tone = 0.3 * np.sin(np.arange(4800) * 0.1)
for name in ("a.mp3", "a.wav"):
    soundfile.write(name, tone, 16000)
with open("a.mp3", "rb") as file:
    content = file.read()
look("alone", "MP3 4800", "a.mp3")
for name in ("a.mp3", "a.wav"):
    open("._" + name, "wb").close()
look("beside ._a.mp3, by its name", "refused, bad resource fork", "a.mp3")
with open("a.mp3", "rb") as file:
    look("beside ._a.mp3, as an open file", "MP3 4800", file)
os.remove("._a.mp3")
os.mkdir(".AppleDouble")
open(".AppleDouble/a.mp3", "wb").close()
look("beside .AppleDouble/a.mp3", "refused, bad resource fork", "a.mp3")
look("beside ._a.wav", "WAV 4800", "a.wav")
open("._", "wb").close()
label = "memory, ._ in the working directory"
look(label, "refused, bad data offset", io.BytesIO(content))
tag = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
look("the same behind an empty ID3 tag", "MP3 4800", io.BytesIO(tag + content))
os.remove("._")
before = set(os.listdir())
soundfile.write(io.BytesIO(), tone, 16000, format="SD2")
left = ", ".join(set(os.listdir()) - before) or "nothing"
print("SD2 written to memory leaves in the working directory:", left)
if left != "._":
    changed.append("SD2")
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
