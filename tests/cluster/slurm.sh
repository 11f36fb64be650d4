#!/usr/bin/env bash
# launch/slurm/pretrain.sbatch on a real Slurm: two nodes that are both this machine. Needs root, and Debian's
# slurm-wlm and munge, which it installs where apt-get can. Called by `make test-cluster`.
# Shows: two runs as two steps of one job do not meet; two tasks on two nodes run to the end; `scancel --signal=TERM` and `scontrol requeue` stop and
# resume them; the losses are those of an undisturbed run. Stops the daemons that it started.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${PYTHON:-python}"
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  apt-get install -y -q slurm-wlm munge || { echo "SKIPPED: no Slurm here, and apt-get cannot install it"; exit 0; }
fi
[ "$(id -u)" -eq 0 ] || { echo "SKIPPED: the daemons need root"; exit 0; }

if [ -z "${SSL_AUDIO_TEST_HOSTS:-}" ]; then # both nodes are this machine: only here their names are known
  hosts=$(mktemp)
  { cat /etc/hosts; echo "127.0.0.1 n1 n2"; } >"$hosts"
  export SSL_AUDIO_TEST_HOSTS="$hosts"
  exec unshare --mount bash -c 'mount --bind "$SSL_AUDIO_TEST_HOSTS" /etc/hosts && exec bash "$0"' "$0"
fi

work=$(mktemp -d)
host=$(hostname -s)
chmod 755 "$work"
mkdir -p "$work/state" "$work/spool"
cpus=$(nproc)
base=$((20000 + RANDOM % 20000))
cat >"$work/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=60
MinJobAge=3600
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool/%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.%n.log
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((base + 1))-$((base + 2))] CPUs=$cpus RealMemory=1000
PartitionName=debug Nodes=n[1-2] Default=YES State=UP
CONF
export SLURM_CONF="$work/slurm.conf"

started=()
finish() {
  [ $? -eq 0 ] || tail -n 40 "$work"/*.log "$work"/slurm-*.out "$work"/step-*.out 2>/dev/null || true
  scancel --user=root 2>/dev/null || true
  [ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true
}
trap finish EXIT

# A munge of its own: key, socket and all.
dd if=/dev/urandom of="$work/munge.key" bs=128 count=1 status=none
chmod 400 "$work/munge.key"
munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" \
  --pid-file="$work/munged.pid" --log-file="$work/munged.log" --seed-file="$work/munge.seed" \
  &>/dev/null &
started+=($!)
sleep 2
slurmctld -D -f "$SLURM_CONF" &>/dev/null &
started+=($!)
for node in n1 n2; do
  mkdir -p "$work/spool/$node"
  slurmd -D -f "$SLURM_CONF" -N $node &>/dev/null &
  started+=($!)
done
for _ in $(seq 60); do
  [ "$(sinfo -h -t idle -o %D)" = 2 ] && break
  sleep 1
done
[ "$(sinfo -h -t idle -o %D)" = 2 ] || { echo "the nodes are not idle"; sinfo; exit 1; }

export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=4 PYTHON="$python" SSL_AUDIO_HEARTBEAT=30
export SSL_AUDIO_CACHE="${SSL_AUDIO_CACHE:-$work/xla}"
export XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
options=(--config configs/ssast.py:runlocal --config.steps=20 --config.checkpoint.every=5
  --config.record.progress=False --config.record.logger=none)
submit() { # NAME: a job of two nodes with one task each
  sbatch --parsable --nodes=2 --ntasks-per-node=1 --gpus-per-node=0 --cpus-per-task=1 --mem=0 \
    --output="$work/slurm-$1.out" launch/slurm/pretrain.sbatch "${options[@]}" --workdir "$work/$1"
}
steps() { grep -c . "$work/$1/metrics.jsonl" 2>/dev/null || true; }
state() { scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
until_steps() { # JOB NAME STEPS
  while [ "$(steps "$2")" -lt "$3" ] 2>/dev/null || [ ! -e "$work/$2/metrics.jsonl" ]; do
    [[ $(state "$1") =~ PENDING|CONFIGURING|RUNNING ]] || { echo "job $1: $(state "$1")"; exit 1; }
    sleep 0.2
  done
}
until_done() {
  while [[ $(state "$1") =~ PENDING|RUNNING|COMPLETING|REQUEUED ]]; do
    # A job waits two minutes after it was queued again; this test does not.
    [ "$(state "$1")" != PENDING ] || scontrol update JobId="$1" StartTime=now 2>/dev/null || true
    sleep 1
  done
  [ "$(state "$1")" = COMPLETED ] || { echo "job $1: $(state "$1")"; exit 1; }
}
losses() { # without what depends on the machine's speed
  sed -E 's/, "(clips_per_second|input_wait|flops_utilisation|elapsed|goodput\/[a-z]+)": [^,}]*//g' "$work/$1/metrics.jsonl"
}

# prepare as an array of three parts, one of which is put back into the queue while it runs, and the merge.
prepare=(prepare --source=synthetic --set=size=6000 --set=seconds=1.0 --shard-size=50 --workers=1)
"$python" -m ssl_audio "${prepare[@]}" --output "$work/one" &>/dev/null
said=$(launch/slurm/parts.sh --cpus-per-task=1 --mem=0 --chdir="$PWD" 3 "${prepare[@]}" \
  --output "$work/many")
parts=$(sed -n 's/parts: job \([0-9]*\);.*/\1/p' <<<"$said")
merge=$(sed -n 's/.*merge: job \([0-9]*\),.*/\1/p' <<<"$said")
for _ in $(seq 600); do
  [ "$(find "$work/many" -name '0*.json' 2>/dev/null | wc -l)" -ge 3 ] && break
  sleep 0.1
done
scontrol requeue "${parts}_1"
for _ in $(seq 60); do
  scontrol update JobId="${parts}_1" StartTime=now 2>/dev/null || true
  [[ $(state "$merge") =~ PENDING|RUNNING|COMPLETING ]] || break
  sleep 2
done
until_done "$merge"
diff -r "$work/one" "$work/many"
rm -f "slurm-${parts}_"*.out "slurm-$merge.out"
echo "PASSED: prepare in three parts, one of them started twice, has the bytes of one machine"

# Two runs as two steps of one job: each has a port of its own.
cat >"$work/steps.sh" <<'STEPS'
#!/usr/bin/env bash
ids=()
for name in one two; do
  srun --overlap --nodes=2 --ntasks=2 --ntasks-per-node=1 --mem=0 --output="$1/step-$name.out" \
    "$PYTHON" tests/cluster/member.py sum "$1/$name" 30 &
  ids+=($!)
done
for id in "${ids[@]}"; do wait "$id" || exit 1; done
STEPS
job=$(sbatch --parsable --nodes=2 --ntasks-per-node=1 --mem=0 --output="$work/slurm-steps.out" \
  "$work/steps.sh" "$work")
until_done "$job"
for name in one two; do
  [ "$(grep -c '^step 30 8.0' "$work/step-$name.out")" -eq 2 ]
done
ports=$(sed -n 's/.*coordinator n1:\([0-9]*\).*/\1/p' "$work"/step-*.out | sort -u | wc -l)
[ "$ports" -eq 2 ]
echo "PASSED: two steps of one job, two runs"

job=$(submit whole)
until_done "$job"
[ "$(steps whole)" -eq 20 ]
grep -q "process 1 of 2 (Slurm\|process 0 of 2 (Slurm" "$work/slurm-whole.out"
echo "PASSED: two nodes, two tasks, 20 steps"

job=$(submit stopped)
until_steps "$job" stopped 3
scancel --signal=TERM "$job" # as Slurm does before the time limit: the script queues the job again
until_done "$job"
[ "$(grep -c 'stopped at step' "$work/slurm-stopped.out")" -ge 1 ]
grep -q 'start 1 of job' "$work/slurm-stopped.out"
grep -q 'resumed at step' "$work/slurm-stopped.out"
diff <(losses whole) <(losses stopped)
echo "PASSED: stopped by a signal, queued again, resumed; the same losses"

job=$(submit requeued)
until_steps "$job" requeued 7
scontrol requeue "$job" # as preemption does
until_done "$job"
grep -q 'start 1 of job' "$work/slurm-requeued.out"
grep -q 'resumed at step' "$work/slurm-requeued.out"
diff <(losses whole) <(losses requeued)
echo "PASSED: preempted by requeue, resumed; the same losses"
rm -rf "$work"
