#!/usr/bin/env bash
# musicnn runs its MSD_vgg weights in a network other than the one they were trained in.
#
# Expected: `extractor(file, model="MSD_vgg")` gives what the published model was trained to give.
# Happens: the graph saved beside the checkpoint (`MSD_vgg/.meta`) takes maxima over 4 frames x 1 band at strides
#   (4, 1), then over 1 frame x 4 bands at strides (1, 4). `models.vgg`, which builds the network for all VGGs and then
#   restores the weights, takes (4, 1) at strides (2, 2), then (2, 2) at (2, 2), as MTT_vgg was trained.
# Why: the other three maxima are the same, and 4 x 4 = 4 x 4: all arrays, the dense layer's too, have equal shapes, so
#   restoring succeeds. On one noise input the 50 tags differ by up to 0.16 (TensorFlow 2.21, both graphs).
# Matters: tags and features of MSD_vgg by this package are not those of its reported AUC.
# Versions: musicnn 0.1.0; needs no TensorFlow: the graph is a protocol buffer, read here by hand.
# Source: musicnn/models.py (vgg), musicnn/extractor.py, musicnn/M*_vgg/.meta.
# Output seen:
#   MTT_vgg/.meta: (4, 1) by (2, 2), (2, 2) by (2, 2), (2, 2) by (2, 2), (2, 2) by (2, 2), (4, 4) by (4, 4)
#   MSD_vgg/.meta: (4, 1) by (4, 1), (1, 4) by (1, 4), (2, 2) by (2, 2), (2, 2) by (2, 2), (4, 4) by (4, 4)
#   models.py:     (4, 1) by (2, 2), (2, 2) by (2, 2), (2, 2) by (2, 2), (2, 2) by (2, 2), (4, 4) by (4, 4)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check --no-deps musicnn==0.1.0 || exit 2
cat > look.py <<'PY'
import importlib.util
import pathlib
import re
import sys

package = pathlib.Path(importlib.util.find_spec("musicnn").origin).parent


def number(data, at):
    found = shift = 0
    while True:
        byte, at = data[at], at + 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, at
        shift += 7


def fields(data):
    at = 0
    while at < len(data):
        key, at = number(data, at)
        kind = key % 8
        if kind == 0:
            value, at = number(data, at)
        elif kind == 2:
            size, at = number(data, at)
            value, at = data[at : at + size], at + size
        else:
            size = {1: 8, 5: 4}[kind]
            value, at = data[at : at + size], at + size
        yield key // 8, value


def sides(attribute):
    """A list of whole numbers, [batch, time, bands, channels] → (time, bands)."""
    packed = b"".join(v for key, v in fields(dict(fields(attribute))[1]) if key == 3)
    found, at = [], 0
    while at < len(packed):
        value, at = number(packed, at)
        found.append(value)
    return tuple(found[1:3])


def maxima(name):
    graph = dict(fields((package / name / ".meta").read_bytes()))[2]
    found = []
    for key, node in fields(graph):
        parts = list(fields(node)) if key == 1 else []
        if (2, b"MaxPool") not in parts:
            continue
        pairs = (dict(fields(value)) for k, value in parts if k == 5)
        options = {pair[1]: pair[2] for pair in pairs}
        found.append((sides(options[b"ksize"]), sides(options[b"strides"])))
    return found


text = (package / "models.py").read_text()
text = text[text.index("def vgg(") :]
pair = r"\[(\d), (\d)\]"
built = [
    (tuple(map(int, m[:2])), tuple(map(int, m[2:])))
    for m in re.findall(f"pool_size={pair}, strides={pair}", text)
]
seen = {"MTT_vgg/.meta": maxima("MTT_vgg"), "MSD_vgg/.meta": maxima("MSD_vgg"), "models.py": built}
for name, pools in seen.items():
    print(f"{name + ':':14}", ", ".join(f"{size} by {step}" for size, step in pools))
rest = [((2, 2), (2, 2))] * 2 + [((4, 4), (4, 4))]
mtt = [((4, 1), (2, 2)), ((2, 2), (2, 2)), *rest]
msd = [((4, 1), (4, 1)), ((1, 4), (1, 4)), *rest]
same = list(seen.values()) == [mtt, msd, mtt]
print("as described" if same else "changed")
sys.exit(not same)
PY
venv/bin/python look.py
