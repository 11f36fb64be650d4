#!/usr/bin/env bash
# python -m ssl_audio.train with these arguments; exit status 75 when it was asked to stop and has saved.
# A run that stops ends with 0, which Kubernetes would take for done. Called by the manifests beside it.
set -uo pipefail
workdir=
for ((i = 1; i <= $#; i++)); do
  [[ ${!i} != --workdir=* ]] || workdir=${!i#*=}
done
[ -n "$workdir" ] || { echo "usage: $0 --config=FILE --workdir=DIR …" >&2; exit 2; }
python -m ssl_audio.train "$@" &
child=$!
trap 'kill -TERM "$child"' TERM # the first process of a container has to pass signals on
while kill -0 "$child" 2>/dev/null; do wait "$child"; done # a signal ends a wait early
wait "$child"
status=$?
[ "$status" -ne 0 ] || [ ! -e "$workdir/stopped" ] || status=75
exit "$status"
