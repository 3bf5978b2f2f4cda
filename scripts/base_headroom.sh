#!/usr/bin/env bash
# What the embedded base scores with and without noise over the pictures.
#
#   scripts/base_headroom.sh [OUT]      everything goes under OUT (default runs/base-headroom)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/base-headroom}
jigsaw=${JIGSAW:-target/release/jigsaw}
noise=grounding:215,ocr:80,doc:80,vqa:190,pope:180,describe:160
for kind in plain noisy; do
    flags=()
    [ $kind = plain ] || flags=(--noise "$noise")
    "$jigsaw" gen --suite grounding,ocr,doc,vqa,pope,knowledge,describe --count 3000 --split 0.8,0,0.2 --held-out 600 --seed 97 \
        "${flags[@]}" --overwrite --out "$out/$kind"
    benches=()
    for family in grounding ocr doc vqa pope knowledge describe; do
        for style in direct think; do
            benches+=(--bench "$family-$style=$out/$kind/bench/$family-$style.tsv")
        done
    done
    "$jigsaw" eval --model data/base-tiny "${benches[@]}" --max-new-tokens 128 --batch-size 64 --out "$out/eval-$kind"
done
