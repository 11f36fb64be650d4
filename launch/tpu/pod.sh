#!/usr/bin/env bash
# A training run on all machines of a TPU VM or pod, from the folder of this project:
#   gcloud compute tpus tpu-vm create NAME --zone=ZONE --accelerator-type=v5litepod-32 --version=v2-alpha-tpuv5-lite
#   launch/tpu/pod.sh NAME ZONE --config configs/ssamba.py:data=/mnt/shards --workdir /mnt/runs/ssamba
# /mnt must be one file system on all machines (Filestore, or a bucket mounted with gcsfuse).
# A preempted pod: create it again, same command; the run goes on.
# launch/tpu/pod.sh NAME ZONE stop   saves and ends a run.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:?usage: NAME ZONE --config …} zone=${2:?usage: NAME ZONE --config …}
shift 2

everywhere() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

if [ "${1:-}" = stop ]; then
  everywhere "kill -TERM \$(cat ssl_audio.pid)"
  exit
fi
archive=$(mktemp -d)/ssl_audio.tar.gz
git archive --format=tar.gz --prefix=ssl_audio/ -o "$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name": --zone="$zone" --worker=all
everywhere 'tar xzf ssl_audio.tar.gz && (test -d venv || python3.11 -m venv venv) &&
  venv/bin/pip install --quiet --editable "ssl_audio[tpu]"'
# SSL_AUDIO_CLUSTER: ask the machine's metadata who the others are.
everywhere "cd ssl_audio && echo \$\$ >../ssl_audio.pid &&
  SSL_AUDIO_CLUSTER=tpu exec ../venv/bin/python -m ssl_audio.train$(printf ' %q' "$@")"
