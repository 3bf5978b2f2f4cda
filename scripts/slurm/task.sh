#!/usr/bin/env bash
# One array task of scripts/slurm/study.sh: the SLURM_ARRAY_TASK_ID-th line of LIST.
set -euo pipefail
task=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$LIST")
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export RAYON_NUM_THREADS=$SLURM_CPUS_PER_TASK
# shellcheck disable=SC2086
exec "$JIGSAW" study --config "$CONFIG" --out "$OUT" $SETS --device "$DEVICE" --only "$task"
