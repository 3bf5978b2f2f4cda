#!/usr/bin/env bash
# Make data/base-tiny again: suites, random weights, supervised training, 16-bit weights, held-out scores.
#
#   scripts/pretrain_base.sh [OUT]      everything goes under OUT (default runs/base-tiny)
#
# COUNT   questions of each family, 80 % to train on, in both styles      default 40000
# EPOCHS  passes over them                                                 default 2
# Killed at any time, the same command goes on. Hours on two cores; the log is OUT/train/metrics.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/base-tiny}
count=${COUNT:-40000}
epochs=${EPOCHS:-2}
jigsaw=${JIGSAW:-target/release/jigsaw}
[ -x "$jigsaw" ] || cargo build --release

[ -f "$out/data/manifest.json" ] || "$jigsaw" gen --suite all --count "$count" --split 0.8,0,0.2 --held-out 600 --seed 1 --overwrite --out "$out/data"
[ -f "$out/init/config.json" ] || "$jigsaw" model init --preset tiny --seed 1 --out "$out/init"
"$jigsaw" train --method sft --config configs/pretrain-tiny.toml --set "train.epochs=$epochs" \
    --model "$out/init" --data "$out/data" --out "$out/train"
[ -f "$out/base/config.json" ] || "$jigsaw" model convert "$out/train/model" --precision f16 --out "$out/base"

benches=()
for family in grounding ocr doc vqa pope knowledge describe; do
    for style in direct think; do
        benches+=(--bench "$family-$style=$out/data/bench/$family-$style.tsv")
    done
done
"$jigsaw" eval --model "$out/base" "${benches[@]}" --max-new-tokens 64 --batch 64 --out "$out/eval"
for style in direct think; do
    [ -f "$out/puzzles-$style/manifest.json" ] ||
        "$jigsaw" gen --grid 3x3 --style "$style" --count 1000 --split 0,0,1 --seed 2 --overwrite --out "$out/puzzles-$style"
    "$jigsaw" eval --model "$out/base" --data "$out/puzzles-$style" --max-new-tokens 64 --batch 64 --out "$out/eval-jigsaw-$style"
done
