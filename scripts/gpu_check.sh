#!/usr/bin/env bash
# What a GPU says of jigsaw, in one command of under nine minutes, on a machine with a driver and Python alone: the model tests, steps of SFT (full and
# LoRA) and of GRPO of `small` and of the random 3B, their peak memory beside the plan, decoded tokens a second, and the same by
# transformers, PEFT and TRL where Python has them. OUT/gpu_check.json holds all of it, with machine, versions, commands, seeds and exit codes;
# the raw output lies beside it. Exits with 1 if a step failed or the time ran out.
#
#   scripts/gpu_check.sh [--kit DIR] [--out DIR] [--device cuda] [--models small,qwen2.5-vl-3b] [--minutes 8.7] [--without peers,tests,...]
#   scripts/gpu_check.sh --device cpu --models tiny --kit DIR      a trial of this script on any machine
#
# --kit   the folder that `PROFILE=release scripts/check_cuda_build.sh --link` makes (target/cuda-compiler/kit): jigsaw and model-tests
#
# CUDA's libraries (cuBLAS, cuRAND) are looked for in LD_LIBRARY_PATH, in /usr/local/cuda, and in Python's nvidia-* packages, which torch brings along.
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu_check/run.py" "$@"
