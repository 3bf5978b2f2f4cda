#!/bin/sh
# Tasks of a study, one for each element of the array. Written by `jigsaw study --executor slurm`.
set -- train.sft.lr-1e-4.seed-1 train.sft.lr-1e-4.seed-2 train.sft.lr-1e-4.seed-3
shift "$SLURM_ARRAY_TASK_ID"
export JIGSAW_STUDY_JOB="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
if [ -n "$SLURM_CPUS_PER_TASK" ]; then
    export RAYON_NUM_THREADS="$SLURM_CPUS_PER_TASK" SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi
exec /var/tmp/jigsaw-try study --config /var/tmp/jigsaw-slurm.ORw58J/locks/study.toml --out /var/tmp/jigsaw-slurm.ORw58J/locks --device cpu --retries 1 --only "$1"
