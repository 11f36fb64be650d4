#!/usr/bin/env bash
# N processes of one run on this machine: launch/local.sh N --config … --workdir …
# GPUs are shared out evenly. On a CPU each process has one device, or JAX_NUM_CPU_DEVICES of them.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || { echo "usage: $0 N --config FILE --workdir DIR …" >&2; exit 2; }
count=$1
shift
python="${PYTHON:-python}"

gpus=()
[ -z "${CUDA_VISIBLE_DEVICES:-}" ] || IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
if [ ${#gpus[@]} -eq 0 ] && command -v nvidia-smi >/dev/null; then
  mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
fi
share=$((${#gpus[@]} / count))

export SSL_AUDIO_COORDINATOR="${SSL_AUDIO_COORDINATOR:-127.0.0.1:$((20000 + RANDOM % 20000))}"
export SSL_AUDIO_PROCESSES=$count
ids=()
trap 'kill -TERM "${ids[@]}" 2>/dev/null || true' TERM INT # all save and end at the same step
for ((i = 0; i < count; i++)); do
  mine=()
  [ "$share" -eq 0 ] || mine=("CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${gpus[*]:i*share:share}")")
  env "${mine[@]}" SSL_AUDIO_PROCESS=$i "$python" -m ssl_audio.train "$@" &
  ids+=($!)
done
status=0
for id in "${ids[@]}"; do
  while kill -0 "$id" 2>/dev/null; do wait "$id" || true; done # a signal ends a wait early
  wait "$id" || { code=$?; [ "$status" -ne 0 ] || status=$code; }
done
exit "$status"
