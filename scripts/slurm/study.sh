#!/usr/bin/env bash
# Run a study on a Slurm cluster: one job array per wave, one array task per task of the study.
#
#   scripts/slurm/study.sh CONFIG OUT [sbatch options ...]
#
# Run it from the repository's root, on a file system that all nodes share, with target/release/jigsaw built (or JIGSAW set). Options are
# passed on to sbatch:
#
#   scripts/slurm/study.sh configs/study-tiny.toml runs/tiny --cpus-per-task=2 --mem=4G --time=02:00:00 --partition=cpu
#   DEVICE=cuda scripts/slurm/study.sh configs/paper-3b.toml runs/paper-3b --gres=gpu:1 --cpus-per-task=16 --mem=200G --time=48:00:00
#
# A wave starts when the one before it has ended (afterany). A task that depends on a failed one says so and fails; the others run. Before
# the time limit, Slurm's SIGTERM makes a task save: submit the same command again to resume. Slurm's own messages are in OUT/slurm, the logs
# of the tasks in OUT/logs. SETS="--set a=b --set c=d" changes settings.
set -euo pipefail
usage="usage: scripts/slurm/study.sh CONFIG OUT [sbatch options ...]"
config=${1:?$usage}
out=${2:?$usage}
shift 2
export CONFIG=$config OUT=$out JIGSAW=${JIGSAW:-target/release/jigsaw} DEVICE=${DEVICE:-cpu} SETS=${SETS:-}
# shellcheck disable=SC2086
tasks=$("$JIGSAW" study --config "$CONFIG" --out "$OUT" $SETS --list)
mkdir -p "$OUT/slurm"
before=()
for wave in $(cut -f 1 <<<"$tasks" | sort -nu); do
    list=$OUT/slurm/wave-$wave.txt
    awk -F '\t' -v wave="$wave" '$1 == wave { print $2 }' <<<"$tasks" >"$list"
    job=$(LIST=$list sbatch --parsable --export=ALL --job-name="jigsaw-$wave" --array="1-$(wc -l <"$list")" --signal=B:TERM@120 \
        --output="$OUT/slurm/%x-%a.log" "${before[@]}" "$@" scripts/slurm/task.sh)
    echo "wave $wave: job ${job%%;*}, $(wc -l <"$list") tasks"
    before=(--dependency="afterany:${job%%;*}")
done
echo "the last job writes $OUT/report.html"
