#!/usr/bin/env bash
# Make data/base-tiny again: suites, random weights, supervised training in three stages, 16-bit weights, held-out scores.
#
#   scripts/pretrain_base.sh [OUT]      everything goes under OUT (default runs/base-tiny)
#
# SEE ALL END   steps of the stages, 32 examples each
#   see    the dense families only (lists, describe, ocr, order), every token alike: a small model learns to see and to look up from them
#   all    all families, most of all lists, every token alike
#   end    all families, every example alike, the learning rate falling to zero
# FROM          a model to start stage `all` from, in place of stage `see`; data/base-tiny continues from where it is
# If it is killed, the same command continues. Hours on two cores; the logs are OUT/{see,all,end}/metrics.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/base-tiny}
see=${SEE:-6000} all=${ALL:-8000} end=${END:-7500}
jigsaw=${JIGSAW:-target/release/jigsaw}
[ -x "$jigsaw" ] || cargo build --release

suite() { # folder, families, count, seed, split, held out
    [ -f "$1/manifest.json" ] ||
        "$jigsaw" gen --suite "$2" --count "$3" --split "$5" --held-out "$6" --seed "$4" --overwrite --out "$1"
}
stage() { # name, model, data, steps, settings
    local name=$1 model=$2 data=$3 steps=$4
    shift 4
    local sets=()
    for setting in "$@"; do sets+=(--set "$setting"); done
    "$jigsaw" train --method sft --config configs/pretrain-tiny.toml --set "train.steps=$steps" "${sets[@]}" \
        --model "$model" --data "$data" --out "$out/$name"
}
suite "$out/data" grounding,ocr:2,doc:3,vqa:12,pope,knowledge:3,describe,order:3,lists:8 7000 7 0.8,0,0.2 10
suite "$out/end-data" grounding,ocr:2,doc:2,vqa:12,pope,knowledge:5,describe,order:3,lists:4 6000 63 0.8,0,0.2 600
from=${FROM:-}
if [ -z "$from" ]; then
    suite "$out/dense" lists:3,describe,ocr,order 24000 203 0.8,0,0.2 300
    [ -f "$out/init/config.json" ] || "$jigsaw" model init --preset tiny --seed 1 --out "$out/init"
    stage see "$out/init" "$out/dense" "$see" sft.loss_reduction=token train.warmup_steps=200
    from=$out/see/model
fi
stage all "$from" "$out/data" "$all" sft.loss_reduction=token
stage end "$out/all/model" "$out/end-data" "$end" train.lr_scheduler_type=linear train.seed=2
[ -f "$out/base/config.json" ] || "$jigsaw" model convert "$out/end/model" --dtype f16 --out "$out/base"

benches=()
for family in grounding ocr doc vqa pope knowledge describe order lists; do
    for style in direct think; do
        benches+=(--bench "$family-$style=$out/end-data/bench/$family-$style.tsv")
    done
done
"$jigsaw" eval --model "$out/base" "${benches[@]}" --max-new-tokens 128 --batch-size 64 --out "$out/eval"
for style in direct think; do
    [ -f "$out/puzzles-$style/manifest.json" ] ||
        "$jigsaw" gen --grid 3x3 --style "$style" --count 1000 --split 0,0,1 --seed 2 --overwrite --out "$out/puzzles-$style"
    "$jigsaw" eval --model "$out/base" --data "$out/puzzles-$style" --max-new-tokens 128 --batch-size 64 --out "$out/eval-jigsaw-$style"
done
