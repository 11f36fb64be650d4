#!/usr/bin/env bash
# prepare, embed or search index on N nodes of Slurm and the merge of what they made, from the folder of this project:
#   launch/slurm/parts.sh 8 prepare --source sets.audioset --root AUDIOSET --output SHARDS
# Options of sbatch come first, as for a GPU and one processor each: --gpus-per-node=1 --cpus-per-task=1
# All that is named must lie where all nodes see it. The same command again does what is left, and merges.
set -euo pipefail
options=()
while [[ ${1:-} == -* ]]; do
  options+=("$1")
  shift
done
if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || [ $# -lt 2 ]; then
  echo "usage: $0 [--OPTION=VALUE of sbatch]… N VERB OPTIONS…" >&2
  exit 2
fi
script=$(dirname "$0")/parts.sbatch

job=$(sbatch --parsable "${options[@]}" --array="1-$1" "$script" "$@")
job=${job%%;*} # behind it stands the cluster's name, where there are several
merge=$(sbatch --parsable "${options[@]}" --dependency="afterok:$job" --kill-on-invalid-dep=yes \
  --output=slurm-%j.out "$script" "$@")
echo "parts: job $job; merge: job ${merge%%;*}, when all of them have ended well"
