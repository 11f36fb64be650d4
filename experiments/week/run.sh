#!/usr/bin/env bash
# A week with one's own sounds: bash experiments/week/run.sh ESC10 PRETRAINED OUT
# folder -> finetune -> predict -> events on a long recording -> index, search, label -> export -> load elsewhere
# ESC10: a folder with meta.csv and audio/. PRETRAINED: a run, as of `make demo`. Everything is written to OUT.
# PYTHON: of the environment with ssl_audio[explore,search,events,onnx,hub]; default: python.
set -euo pipefail
esc10=$(realpath "${1:?ESC10}") pretrained=$(realpath "${2:?PRETRAINED}") out="${3:?OUT}"
here=$(realpath "$(dirname "$0")")
python=${PYTHON:-python}
audio() { "$python" -m ssl_audio "$@"; }
day() { printf '\n== %s\n' "$*"; }
mkdir -p "$out" && cd "$out"

day "Sounds: labelled folders, a table of others, a long recording"
"$python" "$here/sounds.py" "$esc10" .

day "Monday: a classifier of my own labels"
audio finetune --data labelled --pretrained "$pretrained" --workdir mine

day "Tuesday: predictions for a table of files"
audio predict --checkpoint mine --csv unlabelled.csv --output scores.csv
head -n 3 scores.csv
"$python" "$here/right.py" scores.csv

day "Wednesday: events in a long recording"
audio train --config "events:clips=labelled/train,pretrained=$pretrained,steps=400" --workdir marked
audio events --checkpoint marked --truth truth.csv --output events.csv recording.wav
audio events --checkpoint marked --output recording.selections.txt recording.wav
audio events --checkpoint mine --window 1 --hop 0.1 --min-gap 1 --min-length 0.5 --truth truth.csv recording.wav

day "Thursday: an index; search by example; what to label next"
audio search index --checkpoint "$pretrained" --index index labelled
audio search query --index index --audio "$(find labelled/test -name '*.ogg' | sort | head -n 1)" --top 5
audio label index --labels labels.csv --suggest 5
PYTHON=$python bash "$here/page.sh" index page.png

day "Friday: sharing it"
audio export --checkpoint mine --out shared --to hub
head -n 30 shared/README.md
cd "$(mktemp -d)"  # elsewhere: nothing but the folder
"$python" - "$OLDPWD/shared" "$OLDPWD/recording.wav" <<'PYTHON'
import sys

import ssl_audio

classifier = ssl_audio.load(sys.argv[1])
print(classifier)
for row in classifier.predict(sys.argv[2], window=5.0, top=2)[:4].to_dict("records"):
    print(row)
PYTHON
