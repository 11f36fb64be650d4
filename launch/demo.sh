#!/usr/bin/env bash
# Pretrain SSAMBA-tiny for a few minutes, probe it, show where everything is. Called by `make demo`.
# SSL_AUDIO_DATA=folder trains on the audio there instead of the synthetic sounds; $1 is the workdir.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${BIN:?set by make}/python"
work="${1:-runs/demo}"
data="${SSL_AUDIO_DATA:-synthetic}"

if ! "$python" -m ssl_audio.train --config "configs/ssamba.py:laptop,data=$data" --workdir "$work"; then
  echo "The demo goes on in $work, with the same sounds. To begin another: make demo DEMO=runs/other" >&2
  exit 1
fi
"$python" -m ssl_audio evaluate --checkpoint "$work" --set synthetic

cat <<EOF

Everything is in $work:
  figures/reconstructions.png   original, masked and reconstructed spectrograms
  figures/curves.png            losses, accuracy, learning rate (also: ${BIN}/tensorboard --logdir $work)
  metrics.jsonl  evals/         the numbers
  checkpoints/                  Orbax; the same command goes on from the last one

Use the encoder ($python):
  import ssl_audio
  encoder = ssl_audio.load("$work")
  clip = encoder.embed(waveform, sample_rate=44_100)
EOF
