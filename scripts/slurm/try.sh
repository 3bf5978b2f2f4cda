#!/usr/bin/env bash
# Try `jigsaw study --executor slurm` on a real Slurm: a controller and two node daemons on this machine, in namespaces with host names of their
# own. A small study runs on them while a job is preempted and a node dies; then once more without locks on files, while a job is cancelled and
# others reach their time limit. Its models must be those of a local run, byte for byte.
#
#   apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
#   JIGSAW=target/release/jigsaw scripts/slurm/try.sh [OUT]
#
# Run it as root from the repository's root. OUT (default: a temporary directory) gets the logs of the jobs. STEPS sets the length of the
# training runs. The daemons are stopped at the end.
set -euo pipefail
jigsaw=$(realpath "${JIGSAW:-target/release/jigsaw}")
for program in slurmctld slurmd sbatch munged "$jigsaw"; do
    command -v "$program" >/dev/null || { echo "$program is missing; see the head of this script" >&2; exit 2; }
done
logs=${1:-$(mktemp -d)}
mkdir -p "$logs"
work=$(mktemp -d /var/tmp/jigsaw-slurm.XXXXXX)
chmod 755 "$work"
length=${STEPS:-600}
daemons=()
stop() {
    scancel --user=root 2>/dev/null || true
    sleep 2
    kill "${daemons[@]}" 2>/dev/null || true
    sleep 2
    kill -KILL "${daemons[@]}" 2>/dev/null || true
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap stop EXIT
step() { echo "==> $(date -u +%H:%M:%S) $*"; }

# The cluster. Node daemons without control groups; a job that is queued again may start at once (cred_expire).
export SLURM_CONF=$work/slurm.conf
cat >"$SLURM_CONF" <<END
ClusterName=try
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=16817
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.%n.pid
SlurmdSpoolDir=$work/spool.%n
StateSaveLocation=$work/state
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=10
SlurmdTimeout=300
ReturnToService=2
JobRequeue=1
NodeName=node1 NodeHostname=node1 NodeAddr=127.0.0.1 Port=16818 CPUs=1 State=UNKNOWN
NodeName=node2 NodeHostname=node2 NodeAddr=127.0.0.1 Port=16819 CPUs=1 State=UNKNOWN
PartitionName=low Nodes=node1,node2 Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=high Nodes=node1,node2 PriorityTier=10 MaxTime=INFINITE State=UP
END
mkdir -p "$work/state" "$work/spool.node1" "$work/spool.node2"
dd if=/dev/urandom of="$work/munge.key" bs=1024 count=1 status=none
chmod 600 "$work/munge.key"
munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munge.pid" \
    --log-file="$work/munge.log" --seed-file="$work/munge.seed" >"$work/munged.out" 2>&1 &
daemons+=($!)
sleep 1
slurmctld -D >"$work/slurmctld.out" 2>&1 &
daemons+=($!)
declare -A process_of
node() {
    unshare --uts sh -c "hostname $1; exec slurmd -D -N $1" >"$work/$1.out" 2>&1 &
    daemons+=($!)
    process_of[$1]=$!
}
idle() { [ "$(sinfo --noheader --Node --partition=low --states=idle 2>/dev/null | wc -l)" = 2 ]; }
wait_for() {
    for _ in $(seq 1200); do
        if "$@"; then return; fi
        sleep 0.5
    done
    echo "never: $*" >&2
    squeue
    tail -n 30 "$work"/*.log "$work"/*.out >&2
    return 1
}
node node1
node node2
wait_for idle
step "$(slurmctld -V)"
sinfo

cat >"$work/study.toml" <<END
[study]
title = "A study on a real Slurm"
base = "data/base-tiny"
seeds = [1, 2, 3]

[puzzles.bare]
images = "scenes"
grid = "1x2"
count = 40
split = "0.5,0,0.5"

[prior]
suite = "pope"
count = 8
split = "0.5,0,0.5"

[regimes.sft]
method = "sft"
data = "bare"
learning_rate = 1e-4
train = { steps = $length, batch_size = 4, save_steps = $((length / 12)) }

[eval]
limit = 4
kl_prompts = 2
max_new_tokens = 8
END
study() { "$jigsaw" study --config "$work/study.toml" "$@"; }
submit() {
    local out=$1
    shift
    study --out "$out" --executor slurm --retries 1 -- --cpus-per-task=1 "$@"
}
# Steps that a run of a study has made; whether they are so many.
steps() { cat "$1/runs/sft.lr-1e-4.seed-$2/metrics.jsonl" 2>/dev/null | wc -l; }
begun() { [ "$(steps "$1" "$2")" -ge "$3" ]; }
over() { [ -z "$(squeue --noheader)" ]; }
# The node on which a run was last begun.
where() { sed -n 's/.*"host": "\(.*\)".*/\1/p' "$1/attempts/train.sft.lr-1e-4.seed-$2.json"; }

step "with locks: submit"
out=$work/locks
submit "$out"
wait_for begun "$out" 1 $((length / 10))
step "status while it runs"
study --status --out "$out"

step "a job of higher priority takes the node of seed 1"
victim=$(where "$out" 1)
before=$(steps "$out" 1)
sbatch --partition=high --nodelist="$victim" --cpus-per-task=1 --output=/dev/null --wrap 'sleep 5'
preempted() { [ "$(squeue --noheader --array --states=PENDING --format='%K %j' | grep -c '^0 jigsaw.train')" = 1 ]; }
wait_for preempted
echo "seed 1 had made about $before steps on $victim, and its job is queued again:"
study --status --out "$out"

wait_for begun "$out" 2 $((length / 10))
step "a node dies: its daemon and all processes of its jobs are killed"
victim=$(where "$out" 2)
echo "seed 2 had made about $(steps "$out" 2) steps on $victim"
# The processes of a node share its namespace.
namespace=$(readlink "/proc/${process_of[$victim]}/ns/uts")
dying=()
for process in /proc/[0-9]*; do
    [ "$(readlink "$process/ns/uts" 2>/dev/null)" != "$namespace" ] || dying+=("${process#/proc/}")
done
kill -STOP "${dying[@]}" && kill -KILL "${dying[@]}"
scontrol update nodename="$victim" state=down reason=died
sleep 3
study --status --out "$out"
node "$victim"
sleep 2
scontrol update nodename="$victim" state=resume 2>/dev/null || true

wait_for over
step "the jobs are over"
study --status --out "$out"
tail -n 100 "$out"/attempts/train.*.json "$out"/logs/train.*.log | grep -v '^step' || true

step "the same as a local run?"
# shellcheck disable=SC2046
study --out "$work/local" --only puzzles.bare $(for seed in 1 2 3; do echo --only train.sft.lr-1e-4.seed-$seed; done)
same() {
    local seed model
    for seed in 1 2 3; do
        model=runs/sft.lr-1e-4.seed-$seed/model/model.safetensors
        cmp "$1/$model" "$work/local/$model"
        sha256sum "$1/$model" | sed "s#$work/##"
    done
    echo "the models of $(basename "$1") are those of the local run, byte for byte"
}
same "$out"
mkdir -p "$logs/locks"
cp "$out"/slurm/* "$logs/locks"

step "without locks: flock fails as on a file system that has none"
cat >"$work/noflock.c" <<'END'
#include <errno.h>
int flock(int fd, int operation) { (void)fd; (void)operation; errno = ENOLCK; return -1; }
END
cc -shared -fPIC -o "$work/noflock.so" "$work/noflock.c"
out=$work/nolocks
(export LD_PRELOAD=$work/noflock.so && submit "$out")
wait_for begun "$out" 1 $((length / 10))
study --status --out "$out"
step "a job is cancelled"
scancel "$(squeue --noheader --array --states=RUNNING --format='%i %j' | awk '$2 ~ /train/ { print $1; exit }')"
wait_for over
study --status --out "$out"
step "the same command goes on, now with a time limit that is too short"
(export LD_PRELOAD=$work/noflock.so && submit "$out" --time=00:01:00 --signal=B:USR1@50)
wait_for over
study --status --out "$out"
grep -h "queued again" "$out"/slurm/*.log || echo "no job reached its limit"
same "$out"
mkdir -p "$logs/nolocks"
cp "$out"/slurm/* "$logs/nolocks"

step "sbatch refuses"
study --out "$work/refused" --executor slurm -- --partition=nowhere && exit 1 || echo "exit code $?"
step "jobs that Slurm has forgotten"
study --out "$work/forgotten" --executor slurm -- --hold
scancel --user=root
sed -i 's/"job": 1*/"job": 9999/' "$work"/forgotten/slurm/*.json
study --status --out "$work/forgotten"
step "done"
