#!/usr/bin/env bash
# The table of README.md: the training step of SSAMBA-base compiled for 64 devices that are not there.
set -euo pipefail
cd "$(dirname "$0")/../.."
for mesh in data=64 data=1,fsdp=64 data=16,fsdp=4 data=16,fsdp=2,tensor=2; do
  "${PYTHON:-python}" -m ssl_audio preview --config configs/ssamba.py --mesh "$mesh"
  echo
done
