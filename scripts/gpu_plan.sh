#!/usr/bin/env bash
# What a GPU would hold in training the published architecture, planned on any machine: the numbers of docs/real-checkpoints.md.
#
#   scripts/gpu_plan.sh [PRESET] [OUT]    qwen2.5-vl-3b, runs/gpu-plan; writes OUT/plan.txt
#
# Plans read no weight, but a checkpoint must be there: its random weights take 7.5 GB of disk for 3B.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-qwen2.5-vl-3b}
out=${2:-runs/gpu-plan}
jigsaw=${JIGSAW:-target/release/jigsaw}
mkdir -p "$out"
[ -e "$out/puzzles/manifest.json" ] || "$jigsaw" gen --images data/photos --grid 3x3 --tile 112 --count 40 --out "$out/puzzles"
[ -e "$out/model/config.json" ] || "$jigsaw" model init --preset "$preset" --random --out "$out/model"
plan() {
    echo "\$ jigsaw train $* --device cuda --dry-run"
    "$jigsaw" train "$@" --model "$out/model" --data "$out/puzzles" --device cuda --dry-run
    echo
}
{
    echo "$preset, 3x3 puzzles of 336 x 336 pixels, commit $(git rev-parse --short HEAD)"
    plan --config configs/sft-paper.toml
    plan --config configs/rft-paper.toml
    plan --method sft --set train.dtype=bf16 --set train.gradient_checkpointing=true --set lora.rank=16
} | tee "$out/plan.txt.partial"
mv "$out/plan.txt.partial" "$out/plan.txt"
